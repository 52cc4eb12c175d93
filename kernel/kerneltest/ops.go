package kerneltest

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

func matMul(s *suite) {
	try := func(name string, o kernel.MatMul, bias, res bool) {
		s.try(name, s.product(o.K).after(o.Act, float64(o.K)), func(t *trial) []kernel.Op {
			d := o.Dense()
			o.A = t.in((d.M-1)*d.LDA + d.K)
			if o.LDB == 0 {
				o.B = t.packed(o.K, o.N)
			} else {
				o.B = t.in((o.K-1)*o.LDB + o.N)
			}
			if bias {
				o.Bias = t.in(o.N)
			}
			if res {
				o.Res = t.in((d.M-1)*d.LDR + d.N)
			}
			o.Dst = t.out((d.M-1)*d.LDD + d.N)
			return one(o)
		})
	}
	for _, m := range []int{1, 2, 3, 4, 5, 6, 7, 8, 13} {
		for _, n := range []int{8, 16, 40} {
			for _, k := range []int{1, 3, 4, 5, 8, 33} {
				o := kernel.MatMul{M: m, N: n, K: k}
				try(shape("packed ", m, n, k), o, true, false)
				o.LDB = n + 4
				try(shape("rows ", m, n, k), o, false, true)
			}
		}
	}
	for _, act := range acts {
		o := kernel.MatMul{M: 7, N: 24, K: 9, Act: act}
		for i := range 4 {
			try(shape("act ", act, " operands ", i), o, i&1 != 0, i&2 != 0)
		}
		o.LDA, o.LDD, o.LDR = 12, 31, 25
		try(shape("strided act ", act), o, true, true)
		o.M = 1500 // more rows than a device takes at a time
		try(shape("strided and tall, act ", act), o, true, true)
		o.LDB = 29
		try(shape("strided rows, tall, act ", act), o, true, true)
	}
	for _, l := range [][3]int{
		{65536, 96, 16}, {16384, 24, 144}, {4096, 40, 240}, {1024, 112, 672}, {256, 192, 1152}, {256, 1280, 320},
		{48, 512, 128}, {48, 4096, 64},
	} {
		try(shape("layer ", l), kernel.MatMul{M: l[0], N: l[1], K: l[2], Act: kernel.ActReLU6}, true, l[0] == 1024)
	}
}

func conv(s *suite) {
	try := func(name string, o kernel.Conv, bias bool) {
		k := o.Size * o.Size * o.C
		s.try(name, exact.after(o.Act, float64(k)), func(t *trial) []kernel.Op {
			o.A = t.in(((o.H-1)*o.Stride + o.Size) * o.WP * o.C)
			o.B = t.packed(k, o.N)
			if bias {
				o.Bias = t.in(o.N)
			}
			o.Dst = t.out(o.H * o.W * o.N)
			return one(o)
		})
	}
	for _, size := range []int{1, 2, 3, 5} {
		for _, stride := range []int{1, 2} {
			for _, w := range []int{1, 3, 4, 5, 9} {
				o := kernel.Conv{H: 3, W: w, N: 16, Size: size, Stride: stride, C: 3, WP: (w-1)*stride + size + w%2}
				try(shape("size ", size, " stride ", stride, " width ", w), o, w != 5)
			}
		}
	}
	for _, act := range acts {
		try(shape("act ", act), kernel.Conv{H: 2, W: 5, N: 8, Size: 3, Stride: 1, C: 4, WP: 7, Act: act}, true)
	}
	try("stem", kernel.Conv{H: 256, W: 256, N: 32, Size: 3, Stride: 2, C: 4, WP: 514, Act: kernel.ActReLU6}, true)
}

func depthwise(s *suite) {
	try := func(name string, o kernel.Depthwise, bias bool) {
		k := o.Size * o.Size
		s.try(name, sumOf(k).after(o.Act, float64(k)), func(t *trial) []kernel.Op {
			o.A, o.B = t.in(o.HI*o.WI*o.C), t.in(k*o.C)
			if bias {
				o.Bias = t.in(o.C)
			}
			o.Dst = t.out(o.H * o.W * o.C)
			return one(o)
		})
	}
	for _, size := range []int{3, 5, 7} {
		for _, stride := range []int{1, 2} {
			if size == 7 && stride == 2 {
				continue // no network has it
			}
			for _, side := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13} {
				// As TensorFlow pads: what is missing is shared, the odd one at the end.
				out := (side + stride - 1) / stride
				pad := max((out-1)*stride+size-side, 0) / 2
				o := kernel.Depthwise{H: out, W: out, HI: side, WI: side, C: 8, Size: size, Stride: stride, Pad: pad}
				try(shape("size ", size, " stride ", stride, " side ", side), o, side != 5)
				o.HI, o.H, o.C = 2, (2+stride-1)/stride, 40
				try(shape("flat, size ", size, " stride ", stride, " width ", side), o, true)
			}
		}
	}
	for _, act := range acts {
		o := kernel.Depthwise{H: 6, W: 7, HI: 6, WI: 7, C: 16, Size: 3, Stride: 1, Pad: 1, Act: act}
		try(shape("act ", act), o, true)
	}
	for _, l := range []struct{ side, c, size, stride int }{
		{128, 96, 3, 2}, {64, 144, 5, 2}, {32, 672, 5, 1}, {16, 1152, 3, 1}, {16, 192, 7, 1},
	} {
		out := l.side / l.stride
		o := kernel.Depthwise{H: out, W: out, HI: l.side, WI: l.side, C: l.c, Size: l.size, Stride: l.stride,
			Pad: ((out-1)*l.stride + l.size - l.side) / 2, Act: kernel.ActReLU6}
		try(shape("layer ", l.side, l.c, l.size, l.stride), o, true)
	}
}

func upsampleAdd(s *suite) {
	for _, l := range [][3]int{{1, 1, 4}, {2, 3, 8}, {3, 1, 12}, {5, 4, 4}, {16, 16, 64}} {
		h, w, c := l[0], l[1], l[2]
		s.try(shape(l), sumOf(4), func(t *trial) []kernel.Op {
			return one(kernel.UpsampleAdd{Dst: t.out(4 * h * w * c), A: t.in(h * w * c), Res: t.in(4 * h * w * c), H: h, W: w, C: c})
		})
	}
}

// rowShapes are numbers of rows and their lengths.
var rowShapes = [][2]int{{1, 4}, {1, 8}, {2, 12}, {3, 128}, {5, 100}, {48, 1280}}

func layerNorm(s *suite) {
	for _, l := range rowShapes {
		m, n := l[0], l[1]
		// The division by the deviation, about 0.6 and for four numbers
		// now and then a tenth, magnifies errors of the mean.
		tol := tolerance{abs: 60 * epsilon, rel: 60 * epsilon}
		o := kernel.LayerNorm{M: m, N: n, Eps: 1e-5}
		params := func(t *trial) { o.Gamma, o.Beta = t.in(n), t.in(n) }
		s.try(shape("plain ", l), tol, func(t *trial) []kernel.Op {
			params(t)
			o.Dst, o.A, o.Res = t.out(m*n), t.in(m*n), kernel.View{}
			return one(o)
		})
		s.try(shape("with res ", l), tol, func(t *trial) []kernel.Op {
			params(t)
			o.Dst, o.A, o.Res = t.out(m*n), t.in(m*n), t.in(m*n)
			return one(o)
		})
		s.try(shape("in place ", l), tol, func(t *trial) []kernel.Op {
			params(t)
			o.A, o.Res = t.inOut(m*n), t.in(m*n)
			o.Dst = o.A
			return one(o)
		})
		s.try(shape("in place of res ", l), tol, func(t *trial) []kernel.Op {
			params(t)
			o.A, o.Res = t.in(m*n), t.inOut(m*n)
			o.Dst = o.Res
			return one(o)
		})
	}
	s.try("constant rows", tolerance{abs: epsilon, rel: epsilon}, func(t *trial) []kernel.Op {
		return one(kernel.LayerNorm{Dst: t.out(8), A: t.floats([]float32{3, 3, 3, 3, 0, 0, 0, 0}), Gamma: t.in(4), Beta: t.in(4), M: 2, N: 4, Eps: 1e-5})
	})
}

func l2Norm(s *suite) {
	for _, l := range rowShapes {
		m, n := l[0], l[1]
		tol := tolerance{abs: 20 * epsilon, rel: 20 * epsilon}
		s.try(shape("plain ", l), tol, func(t *trial) []kernel.Op {
			return one(kernel.L2Norm{Dst: t.out(m * n), A: t.in(m * n), M: m, N: n, Scale: 1})
		})
		s.try(shape("centred, in place ", l), tol, func(t *trial) []kernel.Op {
			a := t.inOut(m * n)
			return one(kernel.L2Norm{Dst: a, A: a, Center: t.in(n), M: m, N: n, Scale: 2.5})
		})
	}
	s.try("zeros", exact, func(t *trial) []kernel.Op {
		return one(kernel.L2Norm{Dst: t.out(4), A: t.floats(make([]float32, 4)), M: 1, N: 4, Scale: 1})
	})
}

func l1Norm(s *suite) {
	for _, l := range rowShapes {
		m, n := l[0], l[1]
		for _, inPlace := range []bool{false, true} {
			s.try(shape("in place ", inPlace, l), tolerance{rel: 20 * epsilon}, func(t *trial) []kernel.Op {
				f := t.numbers(m * n)
				for i, x := range f {
					f[i] = max(x, -x)
				}
				o := kernel.L1Norm{M: m, N: n}
				if inPlace {
					o.A = t.operand(output, encode(f))
					o.Dst = o.A
				} else {
					o.A, o.Dst = t.floats(f), t.out(m*n)
				}
				return one(o)
			})
		}
	}
	s.try("zeros", exact, func(t *trial) []kernel.Op {
		return one(kernel.L1Norm{Dst: t.out(4), A: t.floats(make([]float32, 4)), M: 1, N: 4})
	})
}

func add(s *suite) {
	for _, l := range rowShapes {
		m, n := l[0], l[1]
		for _, mb := range []int{1, 2, m, m + 3} {
			s.try(shape("every ", mb, l), exact, func(t *trial) []kernel.Op {
				return one(kernel.Add{Dst: t.out(m * n), A: t.in(m * n), B: t.in(mb * n), M: m, N: n, MB: mb})
			})
		}
		s.try(shape("in place ", l), exact, func(t *trial) []kernel.Op {
			a := t.inOut(m * n)
			return one(kernel.Add{Dst: a, A: a, B: t.in(m * n), M: m, N: n, MB: m})
		})
	}
}

func addPosition(s *suite) {
	for _, l := range [][3]int{{1, 1, 8}, {2, 3, 16}, {5, 1, 24}, {16, 12, 128}} {
		h, w, c := l[0], l[1], l[2]
		s.try(shape(l), exact, func(t *trial) []kernel.Op {
			return one(kernel.AddPosition{Dst: t.out(h * w * c), A: t.in(h * w * c), PY: t.in(h * c / 2), PX: t.in(w * c / 2), H: h, W: w, C: c})
		})
		s.try(shape("in place ", l), exact, func(t *trial) []kernel.Op {
			a := t.inOut(h * w * c)
			return one(kernel.AddPosition{Dst: a, A: a, PY: t.in(h * c / 2), PX: t.in(w * c / 2), H: h, W: w, C: c})
		})
	}
}

func attention(s *suite) {
	// Scores are of the order of 1 and their errors few epsilons, so weights
	// are off by little more than exp is; the products with V are a mean.
	tol := tolerance{abs: 4*expError + 64*epsilon}
	try := func(name string, o kernel.Attention, count int, mask func(t *trial) []float32) {
		s.try(name, tol, func(t *trial) []kernel.Op {
			ldq := max(o.LDQ, o.D)
			o.Dst = t.out(o.NQ * o.D)
			o.Q = t.in((o.NQ-1)*ldq + o.D)
			o.K, o.V = t.packed(o.NK, o.D), t.packed(o.NK, o.D)
			if count > 0 {
				o.Count = t.ints(count)
			}
			if mask != nil {
				o.Mask = t.floats(mask(t))
			}
			return one(o)
		})
	}
	for _, nq := range []int{1, 7, 8, 9, 17} {
		for _, nk := range []int{1, 3, 7, 8, 9, 255, 256, 257, 515} {
			try(shape("queries ", nq, " keys ", nk), kernel.Attention{NQ: nq, NK: nk, D: 32, Heads: 2, Scale: 0.25}, 0, nil)
		}
	}
	for _, count := range []int{1, 2, 3, 4, 5, 8, 11, 12} {
		o := kernel.Attention{NQ: 3, NK: 12, D: 16, Heads: 1, Scale: 2, LDQ: 20}
		try(shape("count ", count), o, count, nil)
		// Row 0 blocks all keys, row 1 all keys that count, row 2 some.
		try(shape("masked, count ", count), o, count, func(t *trial) []float32 {
			mask := t.numbers(3 * 12)
			for j := range 12 {
				mask[j] = -1
				if mask[12+j] = 1; j < count {
					mask[12+j] = -1
				}
			}
			return mask
		})
	}
	for _, nk := range []int{4, 8, 12, 20, 256, 1024} {
		try(shape("masked, keys ", nk), kernel.Attention{NQ: 9, NK: nk, D: 24, Heads: 3, Scale: 1}, 0, func(t *trial) []float32 {
			mask := t.numbers(9 * nk)
			for j := range nk {
				mask[2*nk+j] = -float32(math.Inf(1)) // nothing left
				mask[3*nk+j] = 0                     // everything left
				mask[4*nk+j] = -1                    // the last key left
			}
			mask[5*nk-1] = 1
			return mask
		})
	}
	// More queries and keys than a device takes at a time.
	for _, nk := range []int{4096, 4100, 9004} {
		try(shape("masked, many keys ", nk), kernel.Attention{NQ: 50, NK: nk, D: 16, Heads: 2, Scale: 4}, 0, func(t *trial) []float32 {
			mask := t.numbers(50 * nk)
			for j := range nk {
				mask[j] = -1                         // nothing left
				mask[nk+j] = float32(100 - j)        // the first ones left
				mask[2*nk+j] = float32(j - nk + 100) // the last ones left
				mask[49*nk+j] = 0
			}
			return mask
		})
		try(shape("many keys ", nk), kernel.Attention{NQ: 2, NK: nk, D: 16, Heads: 1, Scale: 4}, nk-3, nil)
	}
	try("large scores", kernel.Attention{NQ: 8, NK: 40, D: 16, Heads: 2, Scale: 30}, 0, nil)
	try("image", kernel.Attention{NQ: 48, NK: 4096, D: 128, Heads: 8, Scale: 0.25}, 0, func(t *trial) []float32 { return t.numbers(48 * 4096) })
	try("self", kernel.Attention{NQ: 256, NK: 256, D: 128, Heads: 8, Scale: 0.25, LDQ: 384}, 0, nil)
}

func pack(s *suite) {
	for _, k := range []int{1, 3, 4, 5, 8, 130} {
		for _, n := range []int{1, 7, 8, 9, 12, 16, 67} {
			s.try(shape("rows ", k, n), exact, func(t *trial) []kernel.Op {
				return one(kernel.Pack{Dst: t.out(kernel.PackedLen(k, n)), A: t.in((k-1)*(n+3) + n), K: k, N: n, LDA: n + 3})
			})
			s.try(shape("transposed ", k, n), exact, func(t *trial) []kernel.Op {
				return one(kernel.Pack{Dst: t.out(kernel.PackedLen(k, n)), A: t.in((n-1)*(k+1) + k), K: k, N: n, LDA: k + 1, Transposed: true})
			})
		}
	}
	s.try("dense", exact, func(t *trial) []kernel.Op {
		a := t.in(12 * 20)
		return []kernel.Op{
			kernel.Pack{Dst: t.out(kernel.PackedLen(12, 20)), A: a, K: 12, N: 20},
			kernel.Pack{Dst: t.out(kernel.PackedLen(20, 12)), A: a, K: 20, N: 12, Transposed: true},
		}
	})
}

func activate(s *suite) {
	// From far below to far above where anything happens, in small steps.
	var x []float32
	for v := float32(-20); v < 20; v += 1.0 / 128 {
		x = append(x, v)
	}
	x = append(x, -1e4, -300, -100, -88, 80, 88, float32(math.Copysign(0, -1)), 1e-30)
	for _, act := range acts {
		in := x
		if act != kernel.ActExp {
			in = append(in[:len(in):len(in)], 100, 1e4, float32(math.Inf(1)), float32(math.Inf(-1)))
			if act == kernel.ActGelu || act == kernel.ActQuickGelu {
				in = in[:len(in)-4] // Inf·0 is NaN in the definition
			}
		}
		// The definition of exp gives denormals below -87, a device 0.
		tol := tolerance{abs: 2e-38, rel: epsilon}
		switch act {
		case kernel.ActSigmoid, kernel.ActExp:
			tol.rel += expError
		case kernel.ActQuickGelu: // the exponential of a rounded product
			tol = tolerance{abs: 1e-30, rel: expError + 64*epsilon}
		case kernel.ActGelu:
			tol = tolerance{abs: 5 * erfError, rel: 2 * epsilon} // erf is 1 beyond 5
		}
		s.try(shape("act ", act), tol, func(t *trial) []kernel.Op {
			return one(kernel.Activate{Dst: t.out(len(in)), A: t.floats(in), N: len(in), Act: act})
		})
		s.try(shape("in place act ", act), tol, func(t *trial) []kernel.Op {
			a := t.operand(output, encode(in))
			return one(kernel.Activate{Dst: a, A: a, N: len(in), Act: act})
		})
	}
}

func classify(s *suite) {
	for _, l := range [][3]int{{1, 1, 1}, {3, 5, 2}, {7, 4, 6}, {48, 80, 21}} {
		q, phrases, prompts := l[0], l[1], l[2]
		s.try(shape(l), tolerance{abs: 2 * expError, rel: 4 * expError}, func(t *trial) []kernel.Op {
			var owner []int
			for i := range phrases {
				owner = append(owner, i%(prompts+1)-1) // some phrases have no prompt, some prompts no phrase
			}
			return one(kernel.Classify{Dst: t.out((prompts + 1) * q), A: t.in(q * phrases), B: t.in(q * phrases),
				Coef: t.in(3 * phrases), Owner: t.ints(owner...), Void: t.in((q-1)*3 + 1), Q: q, S: phrases, T: prompts, LDVoid: 3})
		})
	}
}

func picture(s *suite) {
	for _, l := range [][4]int{{1, 1, 1, 1}, {3, 5, 7, 4}, {40, 30, 12, 16}, {16, 16, 16, 16}, {9, 300, 9, 64}, {2, 3, 5, 101}, {5, 16000, 1, 4}, {3, 9000, 2, 3000}} {
		hi, wi, h, w := l[0], l[1], l[2], l[3]
		y, x := kernel.Taps(hi, h), kernel.Taps(wi, w)
		s.try(shape(l), exact, func(t *trial) []kernel.Op {
			pixels := make([]byte, 4*hi*wi)
			for i := range pixels {
				pixels[i] = byte(t.random.Uint32())
			}
			return one(kernel.Picture{Dst: t.out((h + 2) * (w + 3) * 4), Src: t.operand(input, pixels),
				TapsY: t.operand(input, y.Encode()), TapsX: t.operand(input, x.Encode()),
				H: h, W: w, HP: h + 2, WP: w + 3, HI: hi, WI: wi, SizeY: y.Size, SizeX: x.Size})
		})
	}
}

func paint(s *suite) {
	for _, l := range [][4]int{{1, 1, 1, 1}, {1, 5, 3, 9}, {4, 1, 7, 6}, {2, 2, 5, 8}, {16, 12, 61, 47}, {128, 128, 300, 401}} {
		hi, wi, h, w := l[0], l[1], l[2], l[3]
		taps := func(t *trial, in, out int) kernel.View {
			return t.operand(input, kernel.PaintTaps(in, out, 4*float64(in)/float64(out), 4).Encode())
		}
		s.try(shape(l), tolerance{abs: 4 * epsilon}, func(t *trial) []kernel.Op {
			y, x := taps(t, hi, h), taps(t, wi, w)
			var ops []kernel.Op
			for range 2 {
				ops = append(ops, kernel.Paint{Mask: t.outBytes(h * w), A: t.in(hi * wi), TapsY: y, TapsX: x, H: h, W: w, HI: hi, WI: wi, T: 1})
			}
			return ops
		})
		s.try(shape("labels ", l), tolerance{abs: 4 * epsilon}, func(t *trial) []kernel.Op {
			o := kernel.Paint{Label: t.outBytes(h * w), Best: t.out(h * w), TapsY: taps(t, hi, h), TapsX: taps(t, wi, w), H: h, W: w, HI: hi, WI: wi}
			var ops []kernel.Op
			for i, count := range []int{2, 0, 1} {
				o.T = 3
				o.A, o.Index, o.Count = t.in(o.T*hi*wi), t.ints(i*100), kernel.View{}
				if count > 0 {
					o.Count = t.ints(count)
				}
				ops = append(ops, o)
			}
			return ops
		})
	}
	s.try("labels of maps with long rows", tolerance{abs: 4 * epsilon}, func(t *trial) []kernel.Op {
		const wi, h, w, maps = 1 << 14, 3, 6, 14
		return one(kernel.Paint{Label: t.outBytes(h * w), Best: t.out(h * w), A: t.in(maps * wi), Index: t.ints(0), H: h, W: w, HI: 1, WI: wi, T: maps,
			TapsY: t.operand(input, kernel.PaintTaps(1, h, 4/float64(h), 4).Encode()), TapsX: t.operand(input, kernel.PaintTaps(wi, w, 4*wi/float64(w), 4).Encode())})
	})
}
