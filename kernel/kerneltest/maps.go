package kerneltest

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

func columns8(s *suite) {
	for _, l := range [][2]int{{8, 8}, {16, 24}, {24, 8}, {64, 1024}, {256, 1280}} {
		k, n := l[0], l[1]
		for _, transposed := range []bool{false, true} {
			s.try(shape(l, transposed), exact, func(t *trial) []kernel.Op {
				a := t.numbers(k * n)
				for i := range k {
					a[i*n+3] = 0 // a column of zeros, or some in many
				}
				for i := range k {
					a[5*k+i] = 0
				}
				return one(kernel.Columns8{Dst: t.outBytes(4 * kernel.MatMul8Len(k, n)), A: t.floats(a), K: k, N: n, Transposed: transposed})
			})
		}
	}
	s.try("ties", exact, func(t *trial) []kernel.Op {
		a := make([]float32, 256*8)
		for i := range a {
			a[i] = float32(i/8%255)/2 - 63.5
		}
		a[0] = 127
		return one(kernel.Columns8{Dst: t.outBytes(4 * kernel.MatMul8Len(256, 8)), A: t.floats(a), K: 256, N: 8})
	})
}

func maps(s *suite) {
	try := func(name string, o kernel.Maps, count int, bytes bool) {
		// Each proposal may be off by 1e-5, besides the product's own error.
		tol := tolerance{abs: float64(o.Q) * (1e-5 + sumOf(o.K).abs/4 + epsilon)}
		s.try(name, tol, func(t *trial) []kernel.Op {
			if bytes {
				o.A, o.Rows = t.operand(input, t.sevenBits(o.Q*o.K, random8)), t.rows8(o.Q)
				block := make([]byte, 4*kernel.MatMul8Len(o.K, o.N))
				for i := range block[12*o.N:] {
					block[12*o.N+i] = byte(t.random.Uint32())
				}
				scales, others := kernel.Floats(block[:4*o.N]), kernel.Floats(block[4*o.N:12*o.N])
				for i := range scales {
					scales[i] = 1e-4 * t.random.Float32() // logits are of the order of 1
				}
				copy(others, t.numbers(2*o.N))
				for i := range o.N {
					others[o.N+i] *= 0.1
				}
				o.B = t.operand(input, block)
			} else {
				o.A, o.B = t.in(o.Q*o.K), t.packed(o.K, o.N)
			}
			o.P = t.in((o.T + 1) * o.Q)
			used := o.T
			if count > 0 {
				o.Count, used = t.ints(count), count
			}
			o.Dst = t.out(used * o.N)
			return one(o)
		})
	}
	for _, bytes := range []bool{false, true} {
		for _, q := range []int{1, 5, 8, 24, 48} {
			for _, n := range []int{8, 16, 64, 72, 200} {
				try(shape("bytes ", bytes, " proposals ", q, " cells ", n), kernel.Maps{Q: q, K: 16, N: n, T: 7}, 0, bytes)
			}
		}
		for _, count := range []int{1, 2, 6, 20} {
			try(shape("bytes ", bytes, " prompts ", count), kernel.Maps{Q: 48, K: 64, N: 1024, T: 32}, count, bytes)
		}
		try(shape("bytes ", bytes, " largest"), kernel.Maps{Q: 256, K: 1024, N: 72, T: 3}, 0, bytes)
	}
}

func peaks(s *suite) {
	for _, l := range [][3]int{{1, 1, 8}, {1, 2, 8}, {3, 5, 16}, {20, 96, 128}} {
		maps, h, w := l[0], l[1], l[2]
		s.try(shape(l), exact, func(t *trial) []kernel.Op {
			return one(kernel.Peaks{Dst: t.out(maps), A: t.in(maps * h * w), T: maps, H: h, W: w})
		})
		s.try(shape("count ", l), exact, func(t *trial) []kernel.Op {
			return one(kernel.Peaks{Dst: t.out((maps + 1) / 2), A: t.in(maps * h * w), Count: t.ints((maps + 1) / 2), T: maps, H: h, W: w})
		})
	}
	s.try("below zero", exact, func(t *trial) []kernel.Op {
		a := make([]float32, 64)
		for i := range a {
			a[i] = -1
		}
		return one(kernel.Peaks{Dst: t.out(1), A: t.floats(a), T: 1, H: 8, W: 8})
	})
}

// tidy has maps of many shapes: noise, whose regions are small and tangled,
// waves with specks and pinholes, a spiral and a comb, whose one region takes a
// long way to find, a chessboard, and maps that are all above or all below.
func tidy(s *suite) {
	drawings := []func(t *trial, y, x, h, w int) float64{
		func(t *trial, y, x, h, w int) float64 { return t.random.Float64() },
		func(t *trial, y, x, h, w int) float64 {
			v := 0.5 + 0.4*math.Sin(float64(x)/7)*math.Cos(float64(y)/9)
			if t.random.IntN(40) == 0 {
				v = 1 - v
			}
			return v
		},
		func(t *trial, y, x, h, w int) float64 { // a spiral: rings that are open at one place each
			ring := min(x, y, w-1-x, h-1-y)
			if ring%2 == 0 || y == ring && x == ring+1 {
				return 0.9
			}
			return 0.1
		},
		func(t *trial, y, x, h, w int) float64 { // combs from both sides
			if x%2 == 0 || x%4 == 1 && y == 0 || x%4 == 3 && y == h-1 {
				return 0.8
			}
			return 0.2
		},
		func(t *trial, y, x, h, w int) float64 { return float64((x + y) % 2) },
		func(t *trial, y, x, h, w int) float64 { return 0.99 },
		func(t *trial, y, x, h, w int) float64 { return 0.01 },
	}
	for _, l := range [][2]int{{1, 1}, {1, 8}, {5, 1}, {3, 8}, {16, 24}, {33, 43}, {96, 128}} {
		h, w := l[0], l[1]
		for _, removal := range [][2]int{{0, 0}, {1000, 20}, {50, 3}, {2, 1}} {
			for _, inPlace := range []bool{false, true} {
				s.try(shape(l, removal, inPlace), exact, func(t *trial) []kernel.Op {
					n := len(drawings) + 2 // and one that nobody wants, and one that is left alone
					maps, theta := t.numbers(n*h*w), make([]float32, n)
					for i, draw := range drawings {
						theta[i] = 0.3 + 0.05*float32(i)
						for y := range h {
							for x := range w {
								maps[(i*h+y)*w+x] = float32(draw(t, y, x, h, w))
							}
						}
					}
					theta[n-2] = kernel.Nowhere
					theta[n-1] = float32(math.NaN()) // would spoil what it is subtracted from
					o := kernel.Tidy{Theta: t.floats(theta), Count: t.ints(n - 1), T: n, H: h, W: w, Speck: removal[0], Island: removal[1],
						Scratch: t.program.Temp(2 * n * h * w)}
					if inPlace {
						o.Dst = t.operand(output, encode(maps))
						o.A = o.Dst
					} else {
						o.A, o.Dst = t.floats(maps), t.out((n-1)*h*w)
					}
					return one(o)
				})
			}
		}
	}
}

func colour(s *suite) {
	for _, n := range []int{1, 3, 4, 7, 64, 1001} {
		s.try(shape(n), exact, func(t *trial) []kernel.Op {
			label, palette := make([]byte, n), make([]byte, 4*256)
			for i := range label {
				label[i] = byte(t.random.Uint32())
			}
			for i := range palette {
				palette[i] = byte(t.random.Uint32())
			}
			return one(kernel.Colour{Dst: t.outBytes(4 * n), Label: t.operand(input, label), Palette: t.operand(input, palette), N: n})
		})
	}
}
