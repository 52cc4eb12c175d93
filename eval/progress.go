package eval

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// reporter writes progress. It may be used from many goroutines.
type reporter struct {
	w        io.Writer
	terminal bool
	mutex    sync.Mutex
	// These are guarded by the mutex.
	done, of int
	before   int // of these, counted by an earlier run
	seconds  float64
	started  time.Time
	written  time.Time
}

func newReporter(w io.Writer, of, before int) *reporter {
	r := &reporter{w: w, of: of, done: before, before: before, started: time.Now(), written: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		r.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return r
}

func (r *reporter) line(text string) {
	if r.w != nil {
		fmt.Fprintln(r.w, text)
	}
}

func (r *reporter) step(seconds float64) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.done++
	r.seconds += seconds
	// Seldom enough that the writing costs nothing.
	pause := 10 * time.Second
	if r.terminal {
		pause = 100 * time.Millisecond
	}
	if r.w == nil || r.done < r.of && time.Since(r.written) < pause {
		return
	}
	r.written = time.Now()
	now := r.done - r.before
	text := fmt.Sprintf("%d of %d pictures, %.2f s a picture", r.done, r.of, r.seconds/float64(now))
	if r.done < r.of {
		left := time.Since(r.started) / time.Duration(now) * time.Duration(r.of-r.done)
		text += ", " + left.Round(time.Second).String() + " left"
	}
	if !r.terminal {
		fmt.Fprintln(r.w, text)
		return
	}
	const width = 24
	bar := make([]rune, width)
	for i := range bar {
		bar[i] = '·'
		if i < width*r.done/r.of {
			bar[i] = '█'
		}
	}
	fmt.Fprintf(r.w, "\r%s %s\x1b[K", string(bar), text)
}

func (r *reporter) end() {
	if r.terminal && r.done > 0 {
		fmt.Fprintln(r.w)
	}
}
