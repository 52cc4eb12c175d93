// Package kernel knows programs and the devices that run them. A program is
// a flat list of fixed-size op records whose buffers all lie in one arena,
// placed by liveness before anything runs. Nothing here knows what a picture
// of a dog or a prompt is.
package kernel

import (
	"math"
	"slices"
)

// View names a place in a program's memory: a buffer and an offset into it.
// The zero View is absent.
type View struct {
	buffer uint32 // index + 1
	offset uint32 // bytes
}

// Valid tells whether v names a place.
func (v View) Valid() bool { return v.buffer != 0 }

// At returns the place n float32s further.
func (v View) At(n int) View { return View{v.buffer, v.offset + 4*uint32(n)} }

type space uint8

const (
	spaceArena space = iota
	spaceConst
)

// A buffer is live from the first op that touches it to the last; what is
// kept is live to the end, and what the host writes from its stage's start.
type buffer struct {
	space       space
	size        int // bytes
	offset      int // bytes from the start of its space
	first, last int // op indices
	keep        bool
	input       bool
	stage       int
	data        []byte
}

const (
	never = -1
	// bufferAlign keeps every buffer on its own cache line.
	bufferAlign = 64
)

// Program is a list of ops in stages over one arena. Build it with Stage,
// the buffer makers and Do, then Plan it once; after that it is read-only
// and may be opened on any number of devices.
type Program struct {
	ops     []Op
	stages  []int // index of each stage's first op
	buffers []buffer
	arena   int
	planned bool
}

// Stage starts a new stage and returns its number. Stages run in order the
// first time; a later stage may be run again with new inputs, since what it
// needs of earlier ones is kept.
func (p *Program) Stage() int {
	p.stages = append(p.stages, len(p.ops))
	return len(p.stages) - 1
}

// Stages returns the number of stages.
func (p *Program) Stages() int { return len(p.stages) }

// Do appends an op to the current stage.
func (p *Program) Do(op Op) {
	if len(p.stages) == 0 {
		panic("kernel: Do before the first Stage")
	}
	if p.planned {
		panic("kernel: Do after Plan")
	}
	op.record() // panics on an impossible shape here, where the caller is on the stack
	p.ops = append(p.ops, op)
}

// Ops returns the ops of a stage.
func (p *Program) Ops(stage int) []Op {
	end := len(p.ops)
	if stage+1 < len(p.stages) {
		end = p.stages[stage+1]
	}
	return p.ops[p.stages[stage]:end]
}

// add is called from more than a hundred places, each of which would otherwise have
// a copy of it in the engine that a browser downloads.
//
//go:noinline
func (p *Program) add(b buffer) View {
	if p.planned {
		panic("kernel: buffer made after Plan")
	}
	if b.size <= 0 {
		panic("kernel: empty buffer")
	}
	b.first, b.last = never, never
	p.buffers = append(p.buffers, b)
	return View{buffer: uint32(len(p.buffers))}
}

// Temp makes a buffer of n float32s that lives between the ops that touch it.
func (p *Program) Temp(n int) View { return p.add(buffer{size: 4 * n}) }

// TempBytes is Temp for n bytes.
func (p *Program) TempBytes(n int) View { return p.add(buffer{size: n}) }

// Keep makes a buffer of n float32s that lives from the first op that
// touches it to the end of the program, so that later stages and the host
// can read it.
func (p *Program) Keep(n int) View { return p.add(buffer{size: 4 * n, keep: true}) }

// KeepBytes is Keep for n bytes.
func (p *Program) KeepBytes(n int) View { return p.add(buffer{size: n, keep: true}) }

// Input makes a buffer of n bytes that the host writes before it runs the
// current stage; it keeps its content until the host writes it again.
func (p *Program) Input(n int) View {
	return p.add(buffer{size: n, input: true, keep: true, stage: len(p.stages) - 1})
}

// Hold is KeepBytes for what later stages go on with while the current one is run
// again in between: it lives from the current stage's start.
func (p *Program) Hold(n int) View { return p.Input(n) }

// ScratchInput makes a buffer of n bytes that the host writes before each
// run of the current stage and that is lost after its last use.
func (p *Program) ScratchInput(n int) View {
	return p.add(buffer{size: n, input: true, stage: len(p.stages) - 1})
}

// Data makes a buffer that holds b whenever the program is opened.
func (p *Program) Data(b []byte) View {
	return p.add(buffer{size: len(b), data: b, input: true, keep: true})
}

// Floats is Data for float32s.
func (p *Program) Floats(f []float32) View {
	b := make([]byte, 0, 4*len(f))
	for _, x := range f {
		b = appendWord(b, math.Float32bits(x))
	}
	return p.Data(b)
}

// Const makes c known to the program.
func (p *Program) Const(c Const) View {
	return p.add(buffer{space: spaceConst, size: 4 * c.length, offset: c.offset})
}

// Plan places every buffer of the arena and freezes the program.
func (p *Program) Plan() {
	if p.planned {
		return
	}
	p.planned = true
	for i, op := range p.ops {
		for _, v := range op.record().views {
			if !v.Valid() {
				continue
			}
			b := &p.buffers[v.buffer-1]
			if b.first == never {
				b.first = i
			}
			b.last = i
		}
	}
	var order []*buffer
	for i := range p.buffers {
		b := &p.buffers[i]
		if b.space != spaceArena {
			continue
		}
		if b.input {
			b.first = 0
			if b.data == nil && b.stage >= 0 {
				b.first = p.stages[b.stage]
			}
		}
		if b.keep {
			b.last = len(p.ops)
		}
		if b.first == never { // made but never touched
			b.first, b.last = 0, len(p.ops)
		}
		order = append(order, b)
	}
	// Large buffers first, each at the lowest place where nothing that lives
	// at the same time lies: simple, and within a few percent of the best.
	slices.SortStableFunc(order, func(a, b *buffer) int { return b.size - a.size })
	var placed []*buffer // from the lowest place to the highest
	for _, b := range order {
		b.offset = place(b, placed)
		p.arena = max(p.arena, b.offset+align(b.size))
		at, _ := slices.BinarySearchFunc(placed, b.offset, func(o *buffer, offset int) int { return o.offset - offset })
		placed = slices.Insert(placed, at, b)
	}
}

// place finds room for b among the buffers that are placed already, of which
// only those matter that live at the same time.
func place(b *buffer, placed []*buffer) int {
	at, size := 0, align(b.size)
	for _, o := range placed {
		if o.first > b.last || b.first > o.last {
			continue
		}
		if o.offset-at >= size {
			break
		}
		at = max(at, o.offset+align(o.size))
	}
	return at
}

func align(n int) int { return (n + bufferAlign - 1) &^ (bufferAlign - 1) }

// ArenaSize is the number of bytes that the program's buffers need together.
func (p *Program) ArenaSize() int {
	p.mustBePlanned()
	return p.arena
}

// Address is where v lies, in bytes, when constants start at constants and
// the arena at arena. An absent view lies at 0.
func (p *Program) Address(v View, constants, arena int) int {
	if !v.Valid() {
		return 0
	}
	b := &p.buffers[v.buffer-1]
	if b.space == spaceConst {
		return constants + b.offset + int(v.offset)
	}
	return arena + b.offset + int(v.offset)
}

// Size is the number of bytes from v to the end of its buffer.
func (p *Program) Size(v View) int { return p.buffers[v.buffer-1].size - int(v.offset) }

// Initial calls f for each buffer made by Data, with its address in an arena
// that starts at 0.
func (p *Program) Initial(f func(address int, data []byte)) {
	p.mustBePlanned()
	for i := range p.buffers {
		if b := &p.buffers[i]; b.data != nil {
			f(b.offset, b.data)
		}
	}
}

func (p *Program) mustBePlanned() {
	if !p.planned {
		panic("kernel: program used before Plan")
	}
}

// RecordSize is the length of an encoded op in bytes: 32 little-endian words.
//
//	word  0      kind
//	word  1      activation
//	word  2..9   addresses of the views, in the order of the op's record; 0 is absent
//	word 10..25  integers, in the order of the op's record
//	word 26..31  float32s
const RecordSize = 128

// Where the parts of a record start, in words.
const (
	RecordViews  = 2
	RecordInts   = 10
	RecordFloats = 26
)

type (
	views  [RecordInts - RecordViews]View
	ints   [RecordFloats - RecordInts]int
	floats [RecordSize/4 - RecordFloats]float32
)

type record struct {
	kind   Kind
	act    Act
	views  views
	ints   ints
	floats floats
}

// Records encodes the ops of a stage for constants and an arena that start
// at the given addresses.
func (p *Program) Records(stage, constants, arena int) []byte {
	p.mustBePlanned()
	var out []byte
	word := func(w uint32) { out = appendWord(out, w) }
	for _, op := range p.Ops(stage) {
		r := op.record()
		word(uint32(r.kind))
		word(uint32(r.act))
		for _, v := range r.views {
			word(uint32(p.Address(v, constants, arena)))
		}
		for _, n := range r.ints {
			word(uint32(int32(n)))
		}
		for _, f := range r.floats {
			word(math.Float32bits(f))
		}
	}
	return out
}

// appendWord appends a little-endian word. encoding/binary has it too, but
// brings reflection into the engine that a browser downloads.
func appendWord(b []byte, w uint32) []byte {
	return append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
}
