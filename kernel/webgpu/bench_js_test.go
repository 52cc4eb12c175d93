package webgpu

import (
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// Benchmark runs the ops that take most of the time, in the shapes of a
// picture's program, and tells billions of operations a second; a product and
// a sum are two. Many runs are sent before one is waited for, as a stage sends
// many ops.
func Benchmark(b *testing.B) {
	if !variant("webgpu") {
		b.Skip("there is no WebGPU")
	}
	product := func(m, n, k int) func(p *kernel.Program) (kernel.Op, float64) {
		return func(p *kernel.Program) (kernel.Op, float64) {
			return kernel.MatMul{Dst: p.Keep(m * n), A: p.Keep(m * k), B: p.Keep(kernel.PackedLen(k, n)), M: m, N: n, K: k}, 2 * float64(m) * float64(n) * float64(k)
		}
	}
	product8 := func(m, n, k int) func(p *kernel.Program) (kernel.Op, float64) {
		return func(p *kernel.Program) (kernel.Op, float64) {
			return kernel.MatMul8{Dst: p.Keep(m * n), A: p.KeepBytes(m * k), B: p.Keep(kernel.MatMul8Len(k, n)), M: m, N: n, K: k}, 2 * float64(m) * float64(n) * float64(k)
		}
	}
	attention := func(nq, nk int) func(p *kernel.Program) (kernel.Op, float64) {
		return func(p *kernel.Program) (kernel.Op, float64) {
			const d, heads = 128, 8
			return kernel.Attention{Dst: p.Keep(nq * d), Q: p.Keep(nq * d), K: p.Keep(nk * d), V: p.Keep(nk * d),
				NQ: nq, NK: nk, D: d, Heads: heads, Scale: 0.25}, 4 * float64(nq) * float64(nk) * d
		}
	}
	for _, c := range []struct {
		name string
		make func(p *kernel.Program) (kernel.Op, float64)
	}{
		{"f32 1024x1024x1024", product(1024, 1024, 1024)}, {"f32 16384x96x16", product(16384, 96, 16)},
		{"f32 1024x672x112", product(1024, 672, 112)}, {"f32 256x1280x320", product(256, 1280, 320)},
		{"f32 48x128x128", product(48, 128, 128)}, {"f32 48x16384x64", product(48, 16384, 64)},
		{"int8 1024x1024x1024", product8(1024, 1024, 1024)}, {"int8 16384x144x24", product8(16384, 144, 24)},
		{"int8 1024x112x672", product8(1024, 112, 672)}, {"int8 256x192x1152", product8(256, 192, 1152)},
		{"int8 48x128x128", product8(48, 128, 128)}, {"int8 48x16384x64", product8(48, 16384, 64)},
		{"attention 48x4096", attention(48, 4096)}, {"attention 48x9", attention(48, 9)}, {"attention 256x256", attention(256, 256)},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, err := New(asked(Options{}))
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			var p kernel.Program
			p.Stage()
			op, work := c.make(&p)
			p.Do(op)
			end := p.Keep(4)
			p.Plan()
			s, err := d.Open(&p)
			if err != nil {
				b.Fatal(err)
			}
			run := func(n int) {
				for range n {
					if err := s.Run(0); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Read(end, make([]byte, 16)); err != nil {
					b.Fatal(err)
				}
			}
			run(1)
			b.ResetTimer()
			run(b.N)
			b.ReportMetric(work*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gop/s")
		})
	}
}
