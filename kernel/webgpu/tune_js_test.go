package webgpu

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// TestDeviceTune gives so little time that a card of software measures next to nothing.
func TestDeviceTune(t *testing.T) {
	needWebGPU(t)
	d := open(t, Options{})
	defer d.Close()
	start := time.Now()
	budget := 100 * time.Millisecond
	if variant("tune") {
		budget = 100 * time.Second
	}
	found, err := d.Tune(budget)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %v after %v", d.Name(), found, time.Since(start))
	if !found.fits(d.limits()) || d.card.tuning != found {
		t.Errorf("got %v, keeps to %v", found, d.card.tuning)
	}
	for text, want := range map[string]Tuning{found.String(): found, "8x8 4x16 16x4 12": {Shape{8, 8}, Shape{4, 16}, Shape{16, 4}, 12}, "8x16 8x16 32x32 1": {}, "fast": {}} {
		other := open(t, Options{Tuning: text})
		if other.card.tuning != want {
			t.Errorf("%q becomes %v", text, other.card.tuning)
		}
		other.Close()
	}
	d.Close()
	if _, err := d.Tune(time.Second); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
}

// TestCandidates computes the same with all that Tune may choose.
func TestCandidates(t *testing.T) {
	needWebGPU(t)
	if variant("aligned") {
		t.Skip("once is enough, it takes a minute")
	}
	const m, n, k, nq, nk = 70, 136, 24, 9, 300 // no multiples of tiles
	random := rand.New(rand.NewPCG(5, 5))
	numbers := func(n int) []float32 {
		f := make([]float32, n)
		for i := range f {
			f[i] = 2*random.Float32() - 1
		}
		return f
	}
	bytes := make([]byte, m*k)
	for i := range bytes {
		bytes[i] = byte(random.IntN(128))
	}
	block := make([]byte, 4*kernel.MatMul8Len(k, n))
	for i := range block {
		block[i] = byte(random.Uint32())
	}
	copy(block, kernel.Bytes(numbers(3*n)))
	p := new(kernel.Program)
	p.Stage()
	float, int8, attention := p.Keep(m*n), p.Keep(m*n), p.Keep(nq*k)
	p.Do(kernel.MatMul{Dst: float, A: p.Floats(numbers(m * k)), B: p.Floats(numbers(k * n)), Bias: p.Floats(numbers(n)), M: m, N: n, K: k})
	p.Do(kernel.MatMul8{Dst: int8, A: p.Data(bytes), B: p.Data(block), M: m, N: n, K: k})
	p.Do(kernel.Attention{Dst: attention, Q: p.Floats(numbers(nq * k)), K: p.Floats(numbers(nk * k)), V: p.Floats(numbers(nk * k)),
		Mask: p.Floats(numbers(nq * nk)), NQ: nq, NK: nk, D: k, Heads: 3, Scale: 1})
	p.Plan()
	results := func(d kernel.Device) (all [3][]float32) {
		s, err := d.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i, v := range []kernel.View{float, int8, attention} {
			all[i] = make([]float32, p.Size(v)/4)
			if i == 0 {
				err = s.Run(0)
			}
			if err = errors.Join(err, s.Read(v, kernel.Bytes(all[i]))); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	want := results(scalar.New())
	d := open(t, Options{})
	defer d.Close()
	products := 1e-5
	if d.card.half {
		products = 1e-2
	}
	for part := range tuneParts {
		for _, c := range untuned.candidates(part) {
			if c.Tiles == untuned.Tiles {
				c.Tiles = 1
			}
			d.card.tuning = c
			for i, got := range results(d) {
				tolerance := []float64{products, 0, 1e-5}[i]
				for j, x := range got {
					if w := want[i][j]; !(math.Abs(float64(x-w)) <= tolerance) {
						t.Errorf("%v: result %d [%d]: got %v, want %v", c, i, j, x, w)
						break
					}
				}
			}
		}
	}
}
