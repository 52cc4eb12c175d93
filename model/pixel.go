package model

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

// pixelDecoder is a light feature pyramid: one attention layer over the
// coarsest cells, a top-down path, depthwise-separable convolutions, and mask
// features at stride 4.
type pixelDecoder struct {
	lateral map[int]linear // by stride: 32, 16, 8, 4
	encoder struct {
		attention    attention
		norm1, norm2 layerNorm
		ffn          feedForward
	}
	out          map[int]separable // by stride: 32, 16, 8
	reduce4      linear
	mask1, mask2 separable
	binomial     depthwise // the fixed filter that halves mask features
	size         int       // the picture's long side, which scales positions
}

// separable is pointwise(relu6(depthwise 3×3(x))). What is between the two is
// bytes if the second one multiplies integers.
type separable struct {
	depthwise depthwise
	pointwise linear
}

func (l *loader) separable(name string, c int) separable {
	if l.precision == Float32 {
		return separable{l.depthwise(name+".depthwise", c, 3), l.pointwise(name+".pointwise", c, c)}
	}
	l.check(name+".pointwise.weight", c, c, 1, 1)
	return separable{l.scaledDepthwise(name+".depthwise", c, 3, 1/reluScale), l.dense(name+".pointwise", c, c, fromBytes)}
}

func (g graph) separable(f separable, x grid, res kernel.View) grid {
	if f.pointwise.int8 {
		deep, y := g.bytes(x.h, x.w, x.c), g.grid(x.h, x.w, f.pointwise.out)
		g.Do(kernel.Depthwise{Dst: deep.View, A: x.View, B: g.Const(f.depthwise.weight), Bias: g.Const(f.depthwise.bias),
			H: x.h, W: x.w, HI: x.h, WI: x.w, C: x.c, Size: f.depthwise.size, Stride: 1, Pad: f.depthwise.size / 2, Bytes: true})
		g.Do(kernel.MatMul8{Dst: y.View, A: deep.View, B: g.Const(f.pointwise.block), Res: res, M: x.cells(), N: y.c, K: x.c})
		return y
	}
	return g.pointwise(g.depthwise(x, f.depthwise, 1, kernel.ActReLU6), f.pointwise, kernel.ActNone, res)
}

func (l *loader) pixelDecoder(c Config) pixelDecoder {
	p := pixelDecoder{lateral: map[int]linear{}, out: map[int]separable{}, size: c.Size}
	p.lateral[32] = l.pointwise("pixel.lateral32", 320, c.D)
	p.lateral[16] = l.pointwise("pixel.lateral16", 112, c.D)
	p.lateral[8] = l.pointwise("pixel.lateral8", 40, c.D)
	p.lateral[4] = l.pointwise("pixel.lateral4", 24, c.DM)
	p.encoder.attention = l.attention("pixel.encoder.attention", c.D, c.Heads)
	p.encoder.norm1 = l.layerNorm("pixel.encoder.norm1", c.D, layerNormEps)
	p.encoder.ffn = l.feedForward("pixel.encoder", c.D, 4*c.D, kernel.ActReLU)
	p.encoder.norm2 = l.layerNorm("pixel.encoder.norm2", c.D, layerNormEps)
	for _, s := range levels {
		p.out[s] = l.separable("pixel.out"+itoa(s), c.D)
	}
	p.reduce4 = l.pointwise("pixel.reduce4", c.D, c.DM)
	p.mask1 = l.separable("pixel.mask1", c.DM)
	p.mask2 = l.separable("pixel.mask2", c.DM)
	p.binomial = depthwise{channels: c.DM, size: 3,
		weight: l.constants.Add(9*c.DM, func(dst []float32) {
			for k, w := range [9]float32{1, 2, 1, 2, 4, 2, 1, 2, 1} {
				for i := range c.DM {
					dst[k*c.DM+i] = w / 16
				}
			}
		}),
		bias: l.constants.Add(c.DM, func([]float32) {}),
	}
	return p
}

// pyramid is what the mask decoder looks at: per stride 32, 16 and 8 the
// features, and with their positions; mask features at strides 4 to 32. The
// coarser mask features are resized ones, which is exact for the masks that
// steer attention, since resizing and the product with a query commute.
type pyramid struct {
	features   map[int]grid
	positioned map[int]grid
	mask       map[int]grid
}

func (p pixelDecoder) run(g graph, f features) pyramid {
	none := kernel.View{}
	y := pyramid{map[int]grid{}, map[int]grid{}, map[int]grid{}}

	x32 := p.encode(g, g.pointwise(f.f32, p.lateral[32], kernel.ActNone, none))
	x16 := g.merge(x32, g.pointwise(f.f16, p.lateral[16], kernel.ActNone, none))
	x8 := g.merge(x16, g.pointwise(f.f8, p.lateral[8], kernel.ActNone, none))
	for _, x := range []struct {
		stride int
		grid
	}{{32, x32}, {16, x16}, {8, x8}} {
		out := g.separable(p.out[x.stride], x.grid, none)
		y.features[x.stride] = out
		y.positioned[x.stride] = p.position(g, out, x.stride)
	}

	x4 := g.merge(g.pointwise(x8, p.reduce4, kernel.ActNone, none), g.pointwise(f.f4, p.lateral[4], kernel.ActNone, none))
	m := g.separable(p.mask2, g.separable(p.mask1, x4, x4.View), none)
	for stride := 4; ; stride *= 2 {
		y.mask[stride] = m
		if stride == cellSize {
			return y
		}
		m = g.depthwise(m, p.binomial, 2, kernel.ActNone)
	}
}

// encode is one post-norm transformer layer over all cells.
func (p pixelDecoder) encode(g graph, x grid) grid {
	n := x.cells()
	at := p.position(g, x, cellSize).View
	mem := g.remember(p.encoder.attention, at, x.View, n, g.Temp)
	y := g.attend(p.encoder.attention, at, n, mem, kernel.View{}, x.View)
	y = g.norm(y, kernel.View{}, n, p.encoder.norm1)
	y = g.norm(g.feed(p.encoder.ffn, y, n), kernel.View{}, n, p.encoder.norm2)
	return grid{y, x.h, x.w, x.c}
}

// merge returns fine + up(coarse).
func (g graph) merge(coarse, fine grid) grid {
	y := g.grid(fine.h, fine.w, fine.c)
	g.Do(kernel.UpsampleAdd{Dst: y.View, A: coarse.View, Res: fine.View, H: coarse.h, W: coarse.w, C: coarse.c})
	return y
}

// position returns x plus a sine code of each cell's centre. One turn of the
// slowest sine is the picture's long side.
func (p pixelDecoder) position(g graph, x grid, stride int) grid {
	y := g.grid(x.h, x.w, x.c)
	size := float64(p.size)
	g.Do(kernel.AddPosition{Dst: y.View, A: x.View, PY: g.Floats(sines(x.h, stride, size, x.c/2)),
		PX: g.Floats(sines(x.w, stride, size, x.c/2)), H: x.h, W: x.w, C: x.c})
	return y
}

// sines codes n cells, whose far edges lie at multiples of stride, in c
// interleaved sines and cosines; one turn of the slowest is size.
func sines(n, stride int, size float64, c int) []float32 {
	code := make([]float32, 0, n*c)
	for i := range n {
		v := float64(stride*i+stride) / size * 2 * math.Pi
		for j := range c / 2 {
			a := v / math.Pow(10000, 2*float64(j)/float64(c))
			code = append(code, float32(math.Sin(a)), float32(math.Cos(a)))
		}
	}
	return code
}

const layerNormEps = 1e-5
