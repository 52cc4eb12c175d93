package model

import "github.com/pmp-seg/pmp/kernel"

// trunk is EfficientNet-Lite0 without its classifier: inverted residuals,
// ReLU6 (whose bounded range suits integers), no squeeze-and-excite, and
// TensorFlow's "SAME" padding, which puts a cell's centre at its right and
// bottom edge.
type trunk struct {
	stem struct {
		weight, bias kernel.Const
	}
	blocks []block
	head   linear // 320 → 1280, what ImageNet's classifier looks at
}

// block is an inverted residual: expand, depthwise, project.
type block struct {
	expand    linear
	depthwise depthwise
	project   linear
	stride    int
	expands   bool
	residual  bool
	int8      bool
}

// rgbx is the number of channels of a picture in the arena: three and a zero
// that fills the vector.
const rgbx = 4

func (l *loader) trunk() trunk {
	var t trunk
	// The stem's input has eight bits, so its products stay float32; only
	// what it leaves is bytes.
	factor := float32(1)
	if l.precision == Int8 {
		factor = 1 / reluScale
	}
	t.stem.weight = l.pixelWeight("trunk.stem.weight", stemChannels, 3, [3]float32{factor, factor, factor})
	t.stem.bias = l.scaled(factor, "trunk.stem.bias", stemChannels)
	in := stemChannels
	for _, s := range trunkStages {
		for i := range s.blocks {
			name := "trunk.blocks." + itoa(len(t.blocks))
			b := block{stride: 1, expands: s.expand > 1, int8: l.precision == Int8}
			if i == 0 {
				b.stride = s.stride
			}
			hidden := in * s.expand
			if b.expands {
				l.check(name+".expand.weight", hidden, in, 1, 1)
				b.expand = l.dense(name+".expand", in, hidden, rowsToBytes)
			}
			if b.int8 {
				b.depthwise = l.bytesDepthwise(name+".depthwise", hidden, s.size)
			} else {
				b.depthwise = l.depthwise(name+".depthwise", hidden, s.size)
			}
			l.check(name+".project.weight", s.out, hidden, 1, 1)
			b.project = l.dense(name+".project", hidden, s.out, fromBytes)
			b.residual = b.stride == 1 && in == s.out
			t.blocks = append(t.blocks, b)
			in = s.out
		}
	}
	t.head = l.pointwise("trunk.head", in, trunkFeatures)
	return t
}

// pixelWeight registers a convolution of a picture, which has a fourth channel
// that counts for nothing; what it makes of each colour is multiplied by factor.
func (l *loader) pixelWeight(name string, out, size int, factor [3]float32) kernel.Const {
	l.check(name, out, 3, size, size)
	k, taps := size*size*rgbx, size*size
	return l.constants.Add(kernel.PackedLen(k, out), func(dst []float32) {
		w := l.floats(out * 3 * taps)
		l.source.Read(name, w)
		kernel.PackInto(dst, k, out, func(k, n int) float32 {
			tap, c := k/rgbx, k%rgbx
			if c == 3 {
				return 0
			}
			return factor[c] * w[(n*3+c)*taps+tap]
		})
	})
}

// features are the trunk's maps at strides 4, 8, 16 and 32, and its head's
// features at stride 32, which the second stage recognises things by.
type features struct {
	f4, f8, f16, f32, head grid
}

// run encodes a picture of h rows and w columns (multiples of 32) that lies
// in x with one row and one column of zeros more, as the stem's padding
// wants it.
func (t trunk) run(g graph, x kernel.View, h, w int) features {
	stem := kernel.Conv{A: x, B: g.Const(t.stem.weight), Bias: g.Const(t.stem.bias),
		H: h / 2, W: w / 2, N: stemChannels, Size: 3, Stride: 2, C: rgbx, WP: w + 1}
	var y grid
	if t.blocks[0].int8 {
		y, stem.Bytes = g.bytes(h/2, w/2, stemChannels), true
	} else {
		y, stem.Act = g.grid(h/2, w/2, stemChannels), kernel.ActReLU6
	}
	stem.Dst = y.View
	g.Do(stem)
	var f features
	for i, b := range t.blocks {
		y = b.run(g, y)
		switch i {
		case 2:
			f.f4 = y
		case 4:
			f.f8 = y
		case 10:
			f.f16 = y
		case 15:
			f.f32 = y
		}
	}
	f.head = g.pointwise(f.f32, t.head, kernel.ActReLU6, kernel.View{})
	return f
}

func (b block) run(g graph, x grid) grid {
	if b.int8 {
		return b.runBytes(g, x)
	}
	y := x
	if b.expands {
		y = g.pointwise(y, b.expand, kernel.ActReLU6, kernel.View{})
	}
	y = g.depthwise(y, b.depthwise, b.stride, kernel.ActReLU6)
	var skip kernel.View
	if b.residual {
		skip = x.View
	}
	return g.pointwise(y, b.project, kernel.ActNone, skip)
}

// fuseFrom is the size in bytes of a block's wide map from which its three
// ops run as one, strip by strip: a smaller map stays in a second-level cache
// anyway, and its few rows would be shared out badly among threads.
const fuseFrom = 768 << 10

// runBytes is run where only what the block leaves is float32s.
func (b block) runBytes(g graph, x grid) grid {
	c := b.depthwise.channels
	o := kernel.Residual8{A: x.View, Depthwise: g.Const(b.depthwise.block), Project: g.Const(b.project.block),
		H: (x.h + b.stride - 1) / b.stride, W: (x.w + b.stride - 1) / b.stride, HI: x.h, WI: x.w, C: c,
		Size: b.depthwise.size, Stride: b.stride, Pad: (b.depthwise.size - b.stride) / 2,
		In: x.c, Out: b.project.out}
	if b.expands {
		o.Expand = g.Const(b.expand.block)
	}
	if b.residual {
		o.Res = x.View
	}
	y := g.grid(o.H, o.W, o.Out)
	o.Dst = y.View
	if x.cells()*c >= fuseFrom {
		g.Do(o)
		return y
	}
	if b.expands {
		o.A = g.TempBytes(x.cells() * c)
		q := g.quantize(x.View, x.cells(), x.c)
		g.Do(kernel.MatMul8{Dst: o.A, A: q.bytes, Rows: q.rows, B: o.Expand, M: x.cells(), N: c, K: x.c, Bytes: true})
		o.Expand, o.In = kernel.View{}, 0
	}
	g.Do(o)
	return y
}
