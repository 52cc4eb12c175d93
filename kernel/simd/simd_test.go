package simd

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/kerneltest"
)

// TestDevice runs natively through wazero, and in V8 with
//
//	GOOS=js GOARCH=wasm go test -exec "$(go env GOROOT)/lib/wasm/go_js_wasm_exec" ./kernel/simd
//
// In browsers internal/browsertest runs it, for all variants and with threads.
func TestDevice(t *testing.T) {
	kerneltest.Run(t, func() kernel.Device { return open(t) })
}

// TestSoak runs a small network a thousand times. Each time the answer must
// be the same bits, and the device must take no more memory.
func TestSoak(t *testing.T) {
	const (
		side, c, wide, heads = 16, 32, 96, 2
		cells                = side * side
		out                  = 37
	)
	random := rand.New(rand.NewPCG(4, 4))
	var p kernel.Program
	numbers := func(n int) kernel.View {
		f := make([]float32, n)
		for i := range f {
			f[i] = (2*random.Float32() - 1) / 4
		}
		return p.Floats(f)
	}
	p.Stage()
	y, x := kernel.Taps(50, 2*side), kernel.Taps(70, 2*side)
	pixels := make([]byte, 4*50*70)
	for i := range pixels {
		pixels[i] = byte(random.Uint32())
	}
	const padded = 2*side + 2
	input, stem := p.Temp(4*padded*padded), p.Temp(cells*c)
	p.Do(kernel.Picture{Dst: input, Src: p.Data(pixels), TapsY: p.Data(y.Encode()), TapsX: p.Data(x.Encode()),
		H: 2 * side, W: 2 * side, HP: padded, WP: padded, HI: 50, WI: 70, SizeY: y.Size, SizeX: x.Size})
	p.Do(kernel.Conv{Dst: stem, A: input, B: numbers(36 * c), Bias: numbers(c), H: side, W: side, N: c, Size: 3, Stride: 2, C: 4, WP: padded, Act: kernel.ActReLU6})
	expanded, filtered, block := p.Temp(cells*wide), p.Temp(cells*wide), p.Temp(cells*c)
	p.Do(kernel.MatMul{Dst: expanded, A: stem, B: numbers(c * wide), M: cells, N: wide, K: c, Act: kernel.ActReLU6})
	p.Do(kernel.Depthwise{Dst: filtered, A: expanded, B: numbers(9 * wide), H: side, W: side, HI: side, WI: side, C: wide, Size: 3, Stride: 1, Pad: 1, Act: kernel.ActReLU6})
	p.Do(kernel.MatMul{Dst: block, A: filtered, B: numbers(wide * c), Res: stem, M: cells, N: c, K: wide})
	p.Do(kernel.AddPosition{Dst: block, A: block, PY: numbers(side * c / 2), PX: numbers(side * c / 2), H: side, W: side, C: c})
	p.Do(kernel.LayerNorm{Dst: block, A: block, Gamma: numbers(c), Beta: numbers(c), M: cells, N: c, Eps: 1e-5})
	keys, seen := p.Temp(kernel.PackedLen(c, cells)), p.Temp(cells*c)
	p.Do(kernel.Pack{Dst: keys, A: block, K: c, N: cells, LDA: c, Transposed: true})
	p.Do(kernel.Attention{Dst: seen, Q: block, K: keys, V: block, NQ: cells, NK: cells, D: c, Heads: heads, Scale: 0.5})
	p.Do(kernel.Add{Dst: seen, A: seen, B: block, M: cells, N: c, MB: cells})
	p.Do(kernel.L2Norm{Dst: seen, A: seen, M: cells, N: c, Scale: 1})
	maps := p.Temp(8 * cells)
	p.Do(kernel.MatMul{Dst: maps, A: numbers(8 * c), B: keys, M: 8, N: cells, K: c, Act: kernel.ActSigmoid})
	labels, best := p.KeepBytes(out*out), p.Keep(out*out)
	taps := p.Data(kernel.PaintTaps(side, out, 4*side/float64(out), 4).Encode())
	theta := make([]float32, 8)
	for i := range theta {
		theta[i] = 0.3
	}
	p.Do(kernel.Tidy{Dst: maps, A: maps, Theta: p.Floats(theta), Scratch: p.Temp(2 * 8 * cells), T: 8, H: side, W: side, Speck: 50, Island: 20})
	p.Do(kernel.Paint{Mask: p.KeepBytes(out * out), A: maps, TapsY: taps, TapsX: taps, H: out, W: out, HI: side, WI: side, T: 1})
	p.Do(kernel.Paint{Label: labels, Best: best, A: maps, TapsY: taps, TapsX: taps, Index: p.Data([]byte{0, 0, 0, 0}), H: out, W: out, HI: side, WI: side, T: 3})
	colours, fits := p.Temp(kernel.GuideLen(cells)), p.Temp(4*3*cells)
	p.Do(kernel.Guide{Dst: colours, A: numbers(4 * 16 * cells), H: side, W: side, HI: 4 * side, WI: 4 * side, WP: 4 * side, Epsilon: 0.01})
	p.Do(kernel.Guided{Dst: fits, A: maps, Guide: colours, T: 3, H: side, W: side})
	p.Do(kernel.Paint{Mask: p.KeepBytes(out * out), A: fits, Pixels: p.Data(make([]byte, 4*out*out)), TapsY: taps, TapsX: taps, H: out, W: out, HI: side, WI: side, T: 1})
	p.Do(kernel.Colour{Dst: p.KeepBytes(4 * out * out), Label: labels, Palette: numbers(256), N: out * out})
	p.Plan()

	d := open(t)
	defer d.Close()
	var first []byte
	var size int
	for i := range 1000 {
		s, err := d.Open(&p)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(0); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4*out*out)
		if err := s.Read(best, got); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if i == 0 {
			first, size = got, memory(d)
			for _, x := range kernel.Floats(got) {
				if !(x > 0 && x < 1) || math.IsNaN(float64(x)) {
					t.Fatalf("a probability of %v", x)
				}
			}
		}
		if !bytes.Equal(got, first) {
			t.Fatalf("run %d gave another answer than the first", i)
		}
		if memory(d) != size {
			t.Fatalf("after run %d the device takes %d bytes, after the first %d", i, memory(d), size)
		}
	}
}
