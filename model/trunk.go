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
}

// rgbx is the number of channels of a picture in the arena: three and a zero
// that fills the vector.
const rgbx = 4

func (l *loader) trunk() trunk {
	var t trunk
	l.check("trunk.stem.weight", stemChannels, 3, 3, 3)
	t.stem.weight = l.constants.Add(kernel.PackedLen(3*3*rgbx, stemChannels), func(dst []float32) {
		w := make([]float32, stemChannels*3*3*3)
		l.source.Read("trunk.stem.weight", w)
		kernel.PackInto(dst, 3*3*rgbx, stemChannels, func(k, n int) float32 {
			tap, c := k/rgbx, k%rgbx
			if c == 3 {
				return 0
			}
			return w[(n*3+c)*9+tap]
		})
	})
	t.stem.bias = l.vector("trunk.stem.bias", stemChannels)
	in := stemChannels
	for _, s := range trunkStages {
		for i := range s.blocks {
			name := "trunk.blocks." + itoa(len(t.blocks))
			b := block{stride: 1, expands: s.expand > 1}
			if i == 0 {
				b.stride = s.stride
			}
			hidden := in * s.expand
			if b.expands {
				b.expand = l.pointwise(name+".expand", in, hidden)
			}
			b.depthwise = l.depthwise(name+".depthwise", hidden, s.size)
			b.project = l.pointwise(name+".project", hidden, s.out)
			b.residual = b.stride == 1 && in == s.out
			t.blocks = append(t.blocks, b)
			in = s.out
		}
	}
	t.head = l.pointwise("trunk.head", in, trunkFeatures)
	return t
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
	y := g.grid(h/2, w/2, stemChannels)
	g.Do(kernel.Conv{Dst: y.View, A: x, B: g.Const(t.stem.weight), Bias: g.Const(t.stem.bias),
		H: y.h, W: y.w, N: y.c, Size: 3, Stride: 2, C: rgbx, WP: w + 1, Act: kernel.ActReLU6})
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
