package simd

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// The planner's figure is the truth: a session takes so much memory and no
// more, running it takes none, and nothing beside the arena is touched.
func TestArena(t *testing.T) {
	d, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := &kernel.Program{}
	p.Stage()
	const side, c, wide = 24, 16, 96
	numbers := func(n int) kernel.View {
		f := make([]float32, n)
		for i := range f {
			f[i] = rand.Float32()
		}
		return p.Floats(f)
	}
	x := numbers(side * side * c)
	q, rows := p.TempBytes(side*side*c), p.Temp(2*side*side)
	p.Do(kernel.Quantize{Dst: q, Rows: rows, A: x, M: side * side, K: c})
	h := p.Temp(side * side * wide)
	p.Do(kernel.MatMul8{Dst: h, A: q, Rows: rows, B: numbers(kernel.MatMul8Len(c, wide)), M: side * side, N: wide, K: c, Act: kernel.ActReLU6})
	y := p.Temp(side * side * wide)
	p.Do(kernel.Depthwise{Dst: y, A: h, B: numbers(9 * wide), Bias: numbers(wide), H: side, W: side, HI: side, WI: side, C: wide, Size: 3, Stride: 1, Pad: 1})
	p.Do(kernel.LayerNorm{Dst: p.Keep(side * side * wide), A: y, Gamma: numbers(wide), Beta: numbers(wide), M: side * side, N: wide, Eps: 1e-5})
	p.Plan()

	const guard = 4096
	lay := func() int {
		at, ok := d.memory.reserve(guard)
		if !ok {
			t.Fatal("no memory for a guard")
		}
		d.host.write(at, bytes.Repeat([]byte{0xA5}, guard))
		return at
	}
	before := lay()
	opened, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*Session)
	after := lay()
	if s.arenaSize != p.ArenaSize() || s.arena != before+guard {
		t.Fatalf("the arena of %d bytes lies at %d, want %d bytes at %d", s.arenaSize, s.arena, p.ArenaSize(), before+guard)
	}
	if want := s.arena + roundUp(p.ArenaSize(), blockAlign) + s.recordsSize; after != want {
		t.Fatalf("what follows the session lies at %d, want %d", after, want)
	}
	size := d.host.size()
	for range 3 {
		if err := s.Run(0); err != nil {
			t.Fatal(err)
		}
	}
	if d.host.size() != size {
		t.Errorf("running took %d bytes", d.host.size()-size)
	}
	got := make([]byte, guard)
	for _, at := range []int{before, after} {
		d.host.read(at, got)
		if !bytes.Equal(got, bytes.Repeat([]byte{0xA5}, guard)) {
			t.Errorf("something beside the arena was written, at %d", at)
		}
	}
}
