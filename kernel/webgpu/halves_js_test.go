package webgpu

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// TestHalves runs attention on keys and values that lie as halves, which needs
// nothing of the card.
func TestHalves(t *testing.T) {
	needWebGPU(t)
	const d, nk, nq = 32, 100, 9
	random := rand.New(rand.NewPCG(3, 3))
	numbers := func(n int) []float32 {
		f := make([]float32, n)
		for i := range f {
			f[i] = 2*random.Float32() - 1
		}
		return f
	}
	bytes := make([]byte, nk*d)
	for i := range bytes {
		bytes[i] = byte(random.IntN(128))
	}
	block := make([]byte, 4*kernel.MatMul8Len(d, 2*d))
	for i := range block {
		block[i] = byte(random.Uint32())
	}
	for i := range 6 * d { // scale, bias and sums: keys are of the order of 1
		copy(block[4*i:], kernel.Bytes([]float32{(2*random.Float32() - 1) / (1 << 14)}))
	}
	p := new(kernel.Program)
	p.Stage()
	k, v, out := p.Keep(2*nk*d), p.Keep(nk*d), p.Keep(nq*d)
	p.Do(kernel.MatMul8{Dst: k, A: p.Data(bytes), B: p.Data(block), M: nk, N: 2 * d, K: d, Packed: true})
	p.Do(kernel.Pack{Dst: v, A: p.Floats(numbers(nk * d)), K: nk, N: d, Transposed: true})
	p.Stage()
	p.Do(kernel.Attention{Dst: out, Q: p.Floats(numbers(nq * d)), K: k.At(nk * d), V: v, NQ: nq, NK: nk, D: d, Heads: 2, Scale: 1})
	p.Plan()
	result := func(d kernel.Device) []float32 {
		defer d.Close()
		s, err := d.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, nq*32)
		if err := errors.Join(s.Run(0), s.Run(1), s.Read(out, kernel.Bytes(got))); err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := result(scalar.New())
	for _, halves := range []bool{false, true} {
		card := open(t, Options{})
		card.card.halves = halves
		worst := float32(0)
		for i, x := range result(card) {
			worst = max(worst, x-want[i], want[i]-x)
		}
		// Values are off by up to 2^-12, of which a mean leaves less, and scores,
		// of 16 products, by a few times as much.
		if low, high := map[bool]float32{true: 1e-6}[halves], map[bool]float32{true: 2e-3, false: 2e-5}[halves]; !(worst >= low && worst <= high) {
			t.Errorf("halves %v: off by %v", halves, worst)
		}
	}
}
