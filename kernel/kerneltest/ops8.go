package kerneltest

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

// Ops on bytes are exact: every device gives the same bits.

func quantize(s *suite) {
	try := func(name string, m, k int, change func(a []float32)) {
		s.try(name, exact, func(t *trial) []kernel.Op {
			a := t.numbers(m * k)
			if change != nil {
				change(a)
			}
			return one(kernel.Quantize{Dst: t.outBytes(m * k), Rows: t.out(2 * m), A: t.floats(a), M: m, K: k})
		})
	}
	for _, m := range []int{1, 2, 3, 8, 17} {
		for _, k := range []int{8, 16, 24, 40, 128, 1280} {
			try(shape(m, k), m, k, nil)
		}
	}
	try("equal numbers", 3, 16, func(a []float32) {
		for i := range a {
			a[i] = float32(i/16) - 1 // a row of -1, one of 0, one of 1
		}
	})
	try("ties", 1, 256, func(a []float32) {
		for i := range a {
			a[i] = float32(i%255) / 2 // 0, ½, 1, … 127
		}
	})
	try("far from zero", 4, 64, func(a []float32) {
		for i := range a {
			a[i] = a[i]*1e-3 + 4000
		}
	})
}

// content8 says how the numbers of an op on bytes are chosen.
type content8 int

const (
	random8   content8 = iota
	positive8          // the largest sums
	negative8          // the smallest sums
)

// sevenBits are n bytes from 0 to 127.
func (t *trial) sevenBits(n int, content content8) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 127
		if content == random8 {
			b[i] = byte(t.random.Uint32N(128))
		}
	}
	return b
}

func (t *trial) int8(content content8) byte {
	switch content {
	case positive8:
		return 127
	case negative8:
		return 0x80
	}
	return byte(t.random.Uint32())
}

// constants8 fills a block's floats: sums of terms products, scaled by Scale,
// are mostly within 0 and 127 after Bias.
func (t *trial) scaleAndBias(floats []float32, n, terms int) {
	for i := range n {
		floats[i] = (0.5 + t.random.Float32()) / (100 * float32(math.Sqrt(float64(terms))))
		floats[n+i] = 100*t.random.Float32() - 10
	}
}

// block8 is an operand with the constants of a MatMul8.
func (t *trial) block8(k, n int, content content8) kernel.View {
	b := make([]byte, 4*kernel.MatMul8Len(k, n))
	floats := kernel.Floats(b)
	t.scaleAndBias(floats, n, k)
	for i := range n {
		sum := 0
		for j := range k {
			w := t.int8(content)
			b[12*n+kernel.Pack8(k, j, i)] = w
			sum += int(int8(w))
		}
		floats[2*n+i] = floats[i] * float32(sum)
	}
	return t.operand(input, b)
}

// rows8 is an operand with what Quantize writes beside m rows.
func (t *trial) rows8(m int) kernel.View {
	f := make([]float32, 2*m)
	for i := range m {
		f[2*i], f[2*i+1] = 0.5+t.random.Float32(), 100*t.random.Float32()-50
	}
	return t.floats(f)
}

func matMul8(s *suite) {
	try := func(name string, o kernel.MatMul8, rows, res bool, content content8) {
		tol := exact
		if o.Act > kernel.ActReLU6 {
			tol = tolerance{abs: 1e-6, rel: 1e-6}.after(o.Act, 100)
		}
		s.try(name, tol, func(t *trial) []kernel.Op {
			ldd, ldr := max(o.LDD, o.N), max(o.LDR, o.N)
			o.A = t.operand(input, t.sevenBits(o.M*o.K, content))
			o.B = t.block8(o.K, o.N, content)
			if rows {
				o.Rows = t.rows8(o.M)
			}
			if res {
				o.Res = t.in((o.M-1)*ldr + o.N)
			}
			if n := (o.M-1)*ldd + o.N; o.Bytes {
				o.Dst = t.outBytes(n)
			} else {
				o.Dst = t.out(n)
			}
			return one(o)
		})
	}
	for _, m := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 24, 29} {
		for _, n := range []int{8, 16, 40} {
			for _, k := range []int{8, 16, 24, 72} {
				o := kernel.MatMul8{M: m, N: n, K: k}
				try(shape("floats ", m, n, k), o, m%2 == 0, m%3 == 0, random8)
				o.Bytes = true
				try(shape("bytes ", m, n, k), o, m%2 == 0, false, random8)
			}
		}
	}
	for _, m := range []int{1, 6, 13, 1500} {
		try(shape("packed ", m), kernel.MatMul8{M: m, N: 40, K: 24, Packed: true}, m%2 == 0, false, random8)
	}
	for _, act := range acts {
		o := kernel.MatMul8{M: 7, N: 24, K: 16, Act: act}
		if act == kernel.ActExp {
			continue // such sums are beyond what exp can take
		}
		try(shape("act ", act), o, false, true, random8)
		o.LDD, o.LDR, o.M = 31, 25, 1500 // more rows than a device takes at a time
		try(shape("strided and tall, act ", act), o, true, true, random8)
	}
	try("strided bytes", kernel.MatMul8{M: 1500, N: 24, K: 40, LDD: 32, Bytes: true}, true, false, random8)
	for _, content := range []content8{positive8, negative8} {
		for _, k := range []int{8, 1280, kernel.MaxK8} {
			o := kernel.MatMul8{M: 13, N: 16, K: k}
			try(shape("extreme ", content, k), o, true, false, content)
			o.Bytes = true
			try(shape("extreme bytes ", content, k), o, false, false, content)
		}
	}
	for _, l := range [][3]int{
		{16384, 16, 96}, {65536, 96, 16}, {16384, 144, 24}, {4096, 40, 240}, {1024, 112, 672}, {256, 192, 1152}, {256, 1152, 192},
		{256, 1280, 320}, {48, 512, 128}, {48, 128, 512}, {8, 128, 128}, {1, 128, 128},
	} {
		o := kernel.MatMul8{M: l[0], N: l[1], K: l[2]}
		try(shape("layer ", l), o, true, l[0] == 1024, random8)
		o.Bytes = true
		try(shape("layer to bytes ", l), o, true, false, random8)
	}
}

func convBytes(s *suite) {
	try := func(name string, o kernel.Conv) {
		o.Bytes = true
		k := o.Size * o.Size * o.C
		s.try(name, exact, func(t *trial) []kernel.Op {
			weights, bias := t.numbers(k*o.N), t.numbers(o.N)
			packed := make([]float32, kernel.PackedLen(k, o.N))
			kernel.PackInto(packed, k, o.N, func(k, n int) float32 { return 30 * weights[k*o.N+n] })
			for i := range bias {
				bias[i] = 50 + 50*bias[i]
			}
			o.A, o.B, o.Bias = t.in(((o.H-1)*o.Stride+o.Size)*o.WP*o.C), t.floats(packed), t.floats(bias)
			o.Dst = t.outBytes(o.H * o.W * o.N)
			return one(o)
		})
	}
	for _, size := range []int{1, 3} {
		for _, w := range []int{1, 3, 4, 9} {
			try(shape("size ", size, " width ", w), kernel.Conv{H: 3, W: w, N: 16, Size: size, Stride: 2, C: 4, WP: (w-1)*2 + size})
		}
	}
	try("wide", kernel.Conv{H: 2, W: 3000, N: 104, Size: 1, Stride: 1, C: 2, WP: 3000})
	try("stem", kernel.Conv{H: 256, W: 256, N: 32, Size: 3, Stride: 2, C: 4, WP: 514})
}

func depthwiseBytes(s *suite) {
	try := func(side, width, c, size, stride int) {
		s.try(shape("map ", side, width, c, " size ", size, " stride ", stride), tolerance{abs: 1}, func(t *trial) []kernel.Op {
			w, bias := t.numbers(size*size*c), t.numbers(c)
			for i := range w {
				w[i] *= 30
			}
			for i := range bias {
				bias[i] = 50 + 50*bias[i]
			}
			o := same8(side, width, 16, size, stride)
			return one(kernel.Depthwise{Dst: t.outBytes(o.H * o.W * c), A: t.in(side * width * c), B: t.floats(w), Bias: t.floats(bias),
				H: o.H, W: o.W, HI: side, WI: width, C: c, Size: size, Stride: stride, Pad: o.Pad, Bytes: true})
		})
	}
	for _, stride := range []int{1, 2} {
		for _, side := range []int{1, 3, 4, 9, 64} {
			try(side, side, 40, 3, stride)
		}
		try(2, 61, kernel.MaxK8, 3, stride) // rows too long for a device to take whole
		try(2, 61, kernel.MaxK8, 5, stride)
	}
}

// deep8 is an operand with the constants of a Depthwise8.
func (t *trial) deep8(size, c int, content content8) kernel.View {
	b := make([]byte, 4*kernel.Depthwise8Len(size, c))
	t.scaleAndBias(kernel.Floats(b), c, size*size)
	for ky := range size {
		for kx := range size {
			for i := range c {
				b[8*c+kernel.PackDepthwise8(size, c, ky, kx, i)] = t.int8(content)
			}
		}
	}
	return t.operand(input, b)
}

func depthwise8(s *suite) {
	try := func(name string, o kernel.Depthwise8, content content8) {
		s.try(name, exact, func(t *trial) []kernel.Op {
			o.A = t.operand(input, t.sevenBits(o.HI*o.WI*o.C, content))
			o.B = t.deep8(o.Size, o.C, content)
			o.Dst = t.outBytes(o.H * o.W * o.C)
			return one(o)
		})
	}
	for _, size := range []int{3, 5} {
		for _, stride := range []int{1, 2} {
			for _, side := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13} {
				o := same8(side, side, 16, size, stride)
				try(shape("size ", size, " stride ", stride, " side ", side), o, random8)
				try(shape("flat, size ", size, " stride ", stride, " width ", side), same8(2, side, 48, size, stride), random8)
				try(shape("tall, size ", size, " stride ", stride, " height ", side), same8(side, 3, 16, size, stride), random8)
				if side >= size { // without any padding
					o.Pad, o.H, o.W = 0, (side-size)/stride+1, (side-size)/stride+1
					try(shape("inner, size ", size, " stride ", stride, " side ", side), o, random8)
				}
			}
			for _, content := range []content8{positive8, negative8} {
				try(shape("extreme ", content, size, stride), same8(9, 9, 16, size, stride), content)
			}
			// Rows too long for a device to take whole.
			try(shape("wide, size ", size, " stride ", stride), same8(4, 801, 320, size, stride), random8)
		}
	}
	for _, l := range []struct{ side, c, size, stride int }{
		{256, 32, 3, 1}, {128, 96, 3, 2}, {64, 144, 5, 2}, {32, 672, 5, 1}, {16, 1152, 3, 1},
	} {
		try(shape("layer ", l.side, l.c, l.size, l.stride), same8(l.side, l.side, l.c, l.size, l.stride), random8)
	}
}

// same8 is a depthwise convolution that pads as TensorFlow does: what is
// missing is shared, the odd one at the end.
func same8(h, w, c, size, stride int) kernel.Depthwise8 {
	o := kernel.Depthwise8{HI: h, WI: w, H: (h + stride - 1) / stride, W: (w + stride - 1) / stride, C: c, Size: size, Stride: stride}
	o.Pad = max((o.H-1)*stride+size-h, (o.W-1)*stride+size-w, 0) / 2
	return o
}

func residual8(s *suite) {
	try := func(name string, in, c, out int, d kernel.Depthwise8, res string) {
		s.try(name, exact, func(t *trial) []kernel.Op {
			o := kernel.Residual8{H: d.H, W: d.W, HI: d.HI, WI: d.WI, C: c, Size: d.Size, Stride: d.Stride, Pad: d.Pad, In: in, Out: out}
			if in > 0 {
				o.A = t.in(d.HI * d.WI * in)
				o.Expand = t.block8(in, c, random8)
			} else {
				o.A = t.operand(input, t.sevenBits(d.HI*d.WI*c, random8))
			}
			o.Depthwise = t.deep8(d.Size, c, random8)
			o.Project = t.block8(c, out, random8)
			switch res {
			case "A":
				o.Res = o.A
			case "other":
				o.Res = t.in(d.H * d.W * out)
			}
			o.Dst = t.out(d.H * d.W * out)
			return one(o)
		})
	}
	for _, size := range []int{3, 5} {
		for _, stride := range []int{1, 2} {
			for _, side := range []int{1, 2, 3, 5, 6, 8, 11} {
				d := same8(side, side, 16, size, stride)
				name := shape(" size ", size, " stride ", stride, " side ", side)
				try("expand"+name, 8, 16, 8, d, "")
				try("wide input"+name, 0, 16, 16, d, "other")
				try("flat"+name, 24, 48, 8, same8(2, side, 48, size, stride), "other")
				if stride == 1 {
					try("residual"+name, 16, 32, 16, same8(side, side, 32, size, stride), "A")
				}
			}
			try(shape("odd rows, size ", size, " stride ", stride), 8, 16, 8, same8(5, 8, 16, size, stride), "other")
			try(shape("most channels, size ", size, " stride ", stride), kernel.MaxK8/4, kernel.MaxK8/2, 8, same8(3, 7, kernel.MaxK8/2, size, stride), "")
			try(shape("most channels in wide rows, size ", size, " stride ", stride), 8, kernel.MaxK8/2, 8, same8(2, 41, kernel.MaxK8/2, size, stride), "")
			try(shape("too wide, size ", size, " stride ", stride), 8, 320, 8, same8(3, 801, 320, size, stride), "other")
		}
	}
	// The trunk's.
	for _, l := range []struct{ side, in, c, out, size, stride int }{
		{64, 0, 32, 16, 3, 1}, {64, 16, 96, 24, 3, 2}, {32, 24, 144, 24, 3, 1}, {32, 24, 144, 40, 5, 2}, {32, 40, 240, 40, 5, 1},
		{24, 80, 480, 112, 5, 1}, {16, 112, 672, 192, 5, 2}, {16, 192, 1152, 192, 5, 1}, {12, 192, 1152, 320, 3, 1},
	} {
		res := ""
		if l.in == l.out && l.stride == 1 {
			res = "A"
		}
		try(shape("layer ", l), l.in, l.c, l.out, same8(l.side, l.side, l.c, l.size, l.stride), res)
	}
}
