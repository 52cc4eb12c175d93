package browsertest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// workerThread is one thread of a browser that runs a worker.
type workerThread struct {
	ID     string  `json:"id"`
	Millis float64 `json:"millis"` // of a processor, since it started
}

// threadsOf lists the worker threads of all processes of a group. It knows them by the names that
// the browsers give them, and is nil where the system does not tell, which is everywhere but on
// Linux.
func threadsOf(group int) []workerThread {
	var all []workerThread
	stats, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended in between
		}
		// "pid (name) state parent group …", where the name may hold anything.
		open, close := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[close+1:]))
		if len(fields) < 3 || fields[2] != strconv.Itoa(group) {
			continue
		}
		switch string(stat[open+1 : close]) {
		case "DedicatedWorker", "DOM Worker": // Chromium's and Firefox's
		default:
			continue
		}
		schedule, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "schedstat"))
		used, _, _ := strings.Cut(string(schedule), " ")
		nanos, _ := strconv.ParseFloat(used, 64)
		all = append(all, workerThread{name, nanos / 1e6})
	}
	return all
}
