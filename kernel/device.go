package kernel

import (
	"errors"
	"unsafe"
)

// ErrMemory says that a device could not get the memory that constants or an
// arena need. What was there before is untouched.
var ErrMemory = errors.New("not enough memory on this device for the picture or the weights; close other pictures or use a smaller one")

// ErrClosed says that a session or a device was used after Close.
var ErrClosed = errors.New("already closed")

// Device runs programs. Load comes first, once; then any number of programs
// may be open at the same time. A device is not safe for concurrent use.
type Device interface {
	Name() string
	// Load reserves room for the constants and writes them.
	Load(c *Constants) error
	// Open reserves the arena of a planned program and writes its data.
	Open(p *Program) (Session, error)
	Close() error
}

// Session is a program on a device, with an arena of its own.
type Session interface {
	// Write copies data to v, an input of the program.
	Write(v View, data []byte) error
	// Run runs one stage. A device may return before the stage has ended, and
	// tell what went wrong in Wait or Read.
	Run(stage int) error
	// Fetch asks for what v, something that the program keeps, holds once all
	// that was run has ended. It is in data after the next Wait or Read.
	Fetch(v View, data []byte) error
	// Wait waits until all that was run has ended and all that was fetched is there.
	Wait() error
	// Read is Fetch and Wait.
	Read(v View, data []byte) error
	Close() error
}

// Const is a place in Constants.
type Const struct {
	offset int // bytes
	length int // float32s
}

// Constants is what all programs of a model share: its weights in the
// layout that ops read. The numbers themselves are made only when a device
// loads them, one tensor at a time, so that no second copy stays behind.
type Constants struct {
	size  int
	items []constant
}

type constant struct {
	Const
	fill func(dst []byte)
}

// Add reserves room for n float32s; fill, which gets a zeroed slice, makes
// them when a device loads. Fill may be called more than once.
func (c *Constants) Add(n int, fill func(dst []float32)) Const {
	return c.AddBytes(n, func(dst []byte) { fill(Floats(dst)) })
}

// AddBytes is Add for a block of n float32s that also holds other things.
func (c *Constants) AddBytes(n int, fill func(dst []byte)) Const {
	if n <= 0 {
		panic("kernel: empty constant")
	}
	k := Const{offset: c.size, length: n}
	c.size += align(4 * n)
	c.items = append(c.items, constant{k, fill})
	return k
}

// Size is the number of bytes of all constants.
func (c *Constants) Size() int { return c.size }

// Each makes the constants one after the other and calls f with each one's
// offset in bytes; f must not keep the slice.
func (c *Constants) Each(f func(offset int, data []byte) error) error {
	var scratch []float32
	for _, it := range c.items {
		if cap(scratch) < it.length {
			scratch = make([]float32, it.length)
		}
		s := scratch[:it.length]
		clear(s)
		b := Bytes(s)
		it.fill(b)
		if err := f(it.offset, b); err != nil {
			return err
		}
	}
	return nil
}

// Floats is the memory of b as float32s. Programs run on little-endian
// machines, as WebAssembly is.
func Floats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// Bytes is the memory of f.
func Bytes(f []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
}
