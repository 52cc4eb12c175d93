package kerneltest

import "github.com/pmp-seg/pmp/kernel"

func smooth(s *suite) {
	for _, l := range [][2]int{{1, 1}, {1, 2}, {2, 1}, {3, 4}, {2, 5}, {5, 6}, {7, 9}, {4, 21}, {30, 64}, {33, 67}} {
		s.try(shape(l), exact, func(t *trial) []kernel.Op {
			pixels := make([]byte, 4*l[0]*l[1])
			for i := range pixels {
				pixels[i] = byte(t.random.Uint32())
			}
			return one(kernel.Smooth{Dst: t.outBytes(len(pixels)), A: t.operand(input, pixels), H: l[0], W: l[1]})
		})
	}
}

func guide(s *suite) {
	for _, l := range [][2]int{{1, 1}, {3, 9}, {4, 4}, {17, 30}, {61, 50}, {128, 96}} {
		hi, wi := l[0], l[1]
		h, w := (hi+7)/8*2, (wi+7)/8*2
		for _, epsilon := range []float32{0.004, 1} {
			// What is inverted may be off by 2e-6, being the difference of two sums, and
			// is at least Epsilon.
			s.try(shape(l, epsilon), tolerance{abs: float64(2e-6 / (epsilon * epsilon)), rel: 1e-5}, func(t *trial) []kernel.Op {
				return one(kernel.Guide{Dst: t.out(kernel.GuideLen(h * w)), A: t.floats(t.greyish(hi, wi+2)), H: h, W: w, HI: hi, WI: wi, WP: wi + 2, Epsilon: epsilon})
			})
		}
	}
}

// greyish is a picture as Picture leaves it, whose colours hardly differ, as
// those of photos do.
func (t *trial) greyish(h, w int) []float32 {
	f := t.numbers(4 * h * w)
	for i := range f {
		switch i % 4 {
		case 1, 2:
			f[i] = 0.95*f[i-i%4] + 0.05*f[i]
		case 3:
			f[i] = 0
		}
	}
	return f
}

func guided(s *suite) {
	for _, l := range [][3]int{{1, 1, 1}, {1, 2, 8}, {3, 5, 16}, {20, 24, 33}, {2, 3, 1 << 11}} {
		maps, h, w := l[0], l[1], l[2]
		for count := range 3 {
			s.try(shape(l, count), sumOf(100), func(t *trial) []kernel.Op {
				a := t.numbers(maps * h * w)
				for i := range a {
					// Some rows and columns are all above 0, and some all below.
					if y, x := i/w%h, i%w; y/4%2 == 0 || x/4%2 == 0 {
						a[i] += float32(4*(y/8%2) - 2)
					}
				}
				o := kernel.Guided{Guide: t.in(kernel.GuideLen(h * w)), A: t.floats(a), T: maps, H: h, W: w, Everywhere: count == 2}
				if count == 1 {
					maps = (maps + 1) / 2
					o.Count = t.ints(maps)
				}
				o.Dst = t.out(4 * maps * h * w)
				return one(o)
			})
		}
	}
}

func paintGuided(s *suite) {
	for _, l := range [][4]int{{1, 1, 1, 1}, {1, 5, 3, 9}, {4, 1, 7, 6}, {2, 2, 5, 8}, {16, 12, 61, 47}, {16, 12, 14, 10}, {128, 128, 300, 401}, {6, 8, 40, 514}} {
		hi, wi, h, w := l[0], l[1], l[2], l[3]
		build := func(t *trial, o kernel.Paint) kernel.Paint {
			taps := func(in, out int) kernel.View {
				return t.operand(input, kernel.PaintTaps(in, out, 4*float64(in)/float64(out), 4).Encode())
			}
			pixels := make([]byte, 4*h*w)
			for i := range pixels {
				pixels[i] = byte(t.random.Uint32())
			}
			o.Pixels, o.TapsY, o.TapsX = t.operand(input, pixels), taps(hi, h), taps(wi, w)
			o.H, o.W, o.HI, o.WI = h, w, hi, wi
			return o
		}
		// Half of the rows of cells, and some more cells, are far below 0.
		maps := func(t *trial, n int) kernel.View {
			f := t.numbers(4 * n * hi * wi)
			for i := range f {
				switch {
				case i%4 < 3:
					f[i] /= 255
				case i/4/wi/2%2 == 0 || t.random.IntN(4) == 0:
					f[i] -= 4
				}
			}
			return t.floats(f)
		}
		s.try(shape(l), tolerance{abs: 16 * epsilon}, func(t *trial) []kernel.Op {
			return one(build(t, kernel.Paint{Mask: t.outBytes(h * w), A: maps(t, 1), T: 1}))
		})
		s.try(shape("labels ", l), tolerance{abs: 16 * epsilon}, func(t *trial) []kernel.Op {
			o := build(t, kernel.Paint{Label: t.outBytes(h * w), Best: t.out(h * w), T: 3})
			var ops []kernel.Op
			for i, count := range []int{2, 0, 1} {
				o.A, o.Index, o.Count = maps(t, o.T), t.ints(i*100), kernel.View{}
				if count > 0 {
					o.Count = t.ints(count)
				}
				ops = append(ops, o)
			}
			return ops
		})
	}
}
