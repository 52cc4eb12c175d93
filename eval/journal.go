package eval

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// journalName is the file in a report's folder that has a line for each
// picture. Lines that several machines wrote may be put together with cat.
const journalName = "pictures.jsonl"

// entry is a line of it.
type entry struct {
	Fingerprint string `json:"fingerprint"`
	Picture     string `json:"picture"`
	*Counted
}

// journal keeps what pictures counted. A nil one keeps nothing. It may be
// used from many goroutines.
type journal struct {
	fingerprint string
	mutex       sync.Mutex
	file        *os.File
}

// fingerprint is of everything that a picture's counts depend on, but for the
// picture itself. The number of pictures and workers is not in it.
func (o Options) fingerprint() string {
	data, err := json.Marshal(struct {
		Prompts    string
		Classes    []Class
		Background bool
		Labels     map[int]uint16
		Maps       string
		Settings   []Setting
	}{o.Prompts, o.Data.Classes, o.Data.Background, o.Data.labels, o.Data.maps, o.Settings})
	if err != nil {
		panic("eval: settings cannot be written as JSON")
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// openJournal fills in what pictures counted in earlier runs and gets ready
// for the others. Lines with other settings are dropped, and so is a last line
// that a run which was cut off had half written.
func openJournal(o Options, counted []*Counted) (*journal, []string, error) {
	if err := os.MkdirAll(o.Report, 0o777); err != nil {
		return nil, nil, fmt.Errorf("the report's folder cannot be made: %w", err)
	}
	path := filepath.Join(o.Report, journalName)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	j := &journal{fingerprint: o.fingerprint()}
	index := map[string]int{}
	for i, item := range o.Data.Items {
		index[item.Name] = i
	}
	var kept bytes.Buffer
	found, others, damaged := 0, 0, 0
	r := bufio.NewReader(bytes.NewReader(data))
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			e := entry{}
			switch {
			case err != nil || json.Unmarshal(line, &e) != nil || e.Counted == nil || !e.Counted.fits(o.Data):
				damaged++
			case e.Fingerprint != j.fingerprint:
				others++
			default:
				kept.Write(line)
				if i, ok := index[e.Picture]; ok && counted[i] == nil {
					counted[i] = e.Counted
					found++
				}
			}
		}
		if err == io.EOF {
			break
		}
	}
	var notes []string
	if others > 0 {
		notes = append(notes, fmt.Sprintf("%d pictures in %s were counted with other settings or weights; they are counted anew", others, path))
	}
	if damaged > 0 {
		notes = append(notes, fmt.Sprintf("%d lines of %s are cut off or damaged; their pictures are counted anew", damaged, path))
	}
	if found > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d pictures were counted before", found, len(o.Data.Items)))
	}
	// Written beside it first, so that being cut off here loses nothing.
	if kept.Len() != len(data) {
		if err := os.WriteFile(path+".new", kept.Bytes(), 0o666); err != nil {
			return nil, nil, err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return nil, nil, err
		}
	}
	j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	return j, notes, err
}

// fits tells whether counts can be of a picture of the data set, so that a
// damaged line does no harm.
func (c *Counted) fits(d *Dataset) bool {
	classes, labels := int64(len(d.Classes)), int64(d.labelCount())
	within := func(rows Rows, first, second int64) bool {
		for i, r := range rows {
			if r[0] < 0 || r[0] >= first || r[1] < 0 || second > 0 && r[1] >= second || r[2] < 0 ||
				i > 0 && (r[0] < rows[i-1][0] || r[0] == rows[i-1][0] && r[1] <= rows[i-1][1]) {
				return false
			}
		}
		return true
	}
	return c.Pictures == 1 && within(c.Seen, classes, 0) && within(c.Confusion, labels, labels+1) && within(c.Oracle, labels, labels+1) &&
		(c.Single == nil || within(c.Single.Overlaps, classes, 0))
}

func (j *journal) add(picture string, c *Counted) error {
	if j == nil {
		return nil
	}
	line, err := json.Marshal(entry{j.fingerprint, picture, c})
	if err != nil {
		return err
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	_, err = j.file.Write(append(line, '\n'))
	return err
}

func (j *journal) close() { j.file.Close() }
