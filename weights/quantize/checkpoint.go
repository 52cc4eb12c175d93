package quantize

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/torch"
)

// checkpointFiles are the names that a checkpoint may have in its folder.
// What it is its content says.
var checkpointFiles = []string{"model.safetensors", "model.pth", "model.pt", "model.pkl"}

// checkpointIn finds the one checkpoint in a folder.
func checkpointIn(dir string) (path string, err error) {
	for _, name := range checkpointFiles {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err != nil {
			continue
		}
		if path != "" {
			return "", fmt.Errorf("there are both %s and %s; keep the one that is meant", path, name)
		}
		path = p
	}
	if path == "" {
		return "", fmt.Errorf("%s has no checkpoint; it must be one of %s", dir, strings.Join(checkpointFiles, ", "))
	}
	return path, nil
}

// Checkpoint is an open checkpoint: a safetensors file, or one that package
// torch reads. Its tensors' numbers stay in the file until they are asked for.
type Checkpoint struct {
	file    *os.File
	tensors []stored
}

// stored is a tensor in a checkpoint.
type stored struct {
	name  string
	dtype weights.DType
	shape []int
	read  func() (weights.Entry, error)
}

// OpenCheckpoint reads what is in a checkpoint.
func OpenCheckpoint(path string) (*Checkpoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{file: f}
	if err := c.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *Checkpoint) Close() error { return c.file.Close() }

func (c *Checkpoint) open() error {
	about, err := c.file.Stat()
	if err != nil {
		return err
	}
	if !isSafetensors(c.file) {
		tensors, err := torch.Open(c.file, about.Size())
		for _, t := range tensors {
			c.tensors = append(c.tensors, stored{t.Name, t.DType, t.Shape, t.Entry})
		}
		return err
	}
	data, err := io.ReadAll(c.file)
	if err != nil {
		return err
	}
	entries, err := weights.ReadSafetensors(data)
	for _, e := range entries {
		c.tensors = append(c.tensors, stored{e.Name, e.DType, e.Shape, func() (weights.Entry, error) { return e, nil }})
	}
	return err
}

// isSafetensors tells whether a file begins as safetensors files do: with the
// length of a header, which is an object. Neither zip files nor pickles have a
// "{" there behind a number of 32 bits.
func isSafetensors(file io.ReaderAt) bool {
	var begin [9]byte
	n, _ := file.ReadAt(begin[:], 0)
	return n == len(begin) && begin[8] == '{' && binary.LittleEndian.Uint64(begin[:]) <= math.MaxUint32
}

// Floats reads the tensors of floating point numbers, and returns the names of
// the others.
func (c *Checkpoint) Floats() (tensors []Tensor, others []string, err error) {
	for _, t := range c.tensors {
		if !slices.Contains([]weights.DType{weights.F32, weights.F16, weights.BF16, "F64"}, t.dtype) {
			others = append(others, t.name)
			continue
		}
		e, err := t.read()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.file.Name(), err)
		}
		tensors = append(tensors, Tensor{e.Name, e.Shape, float32s(e)})
	}
	return tensors, others, nil
}
