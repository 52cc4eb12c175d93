package model

import "github.com/pmp-seg/pmp/kernel"

// Source is where weights come from. Names and shapes are those of the
// training checkpoint: linear weights [out,in], convolutions [out,in,kh,kw].
type Source interface {
	// Check returns an error unless the tensor is there and has this shape.
	Check(name string, shape ...int) error
	// Read fills dst with a tensor that Check has approved.
	Read(name string, dst []float32)
	// ReadRow fills dst with row i of a matrix that Check has approved.
	ReadRow(name string, i int, dst []float32)
}

// loader turns a source's tensors into constants. Its first error sticks, so
// that the parts of a network can be listed without looking at each.
type loader struct {
	source    Source
	constants *kernel.Constants
	precision Precision
	err       error
	scratch   []float32
}

// floats lends room for n numbers while one constant is made, so that loading
// leaves little garbage behind: a browser never gets Go's memory back.
func (l *loader) floats(n int) []float32 {
	if cap(l.scratch) < n {
		l.scratch = make([]float32, n)
	}
	return l.scratch[:n]
}

func (l *loader) check(name string, shape ...int) {
	if l.err == nil {
		l.err = l.source.Check(name, shape...)
	}
}

// vector registers a tensor as it is.
func (l *loader) vector(name string, shape ...int) kernel.Const { return l.scaled(1, name, shape...) }

// scaled registers a tensor times factor.
func (l *loader) scaled(factor float32, name string, shape ...int) kernel.Const {
	n := 1
	for _, s := range shape {
		n *= s
	}
	l.check(name, shape...)
	return l.constants.Add(n, func(dst []float32) {
		l.source.Read(name, dst)
		for i := range dst {
			dst[i] *= factor
		}
	})
}

// linear is a fully connected layer, or a 1×1 convolution over rows.
type linear struct {
	weight, bias kernel.Const // for MatMul
	block        kernel.Const // for MatMul8, if int8 is set
	int8         bool
	in, out      int
}

func (l *loader) linear(name string, in, out int) linear {
	l.check(name+".weight", out, in)
	return l.dense(name, in, out, fromRows)
}

// pointwise is linear for a checkpoint that keeps a 1×1 convolution.
func (l *loader) pointwise(name string, in, out int) linear {
	l.check(name+".weight", out, in, 1, 1)
	return l.dense(name, in, out, fromRows)
}

// dense is what layers of all shapes share once the weight's shape is checked.
func (l *loader) dense(name string, in, out int, f format) linear {
	if l.precision == Int8 {
		l.check(name+".bias", out)
		return linear{block: l.block(name, in, out, f), int8: true, in: in, out: out}
	}
	return linear{weight: l.matrix(name+".weight", in, out), bias: l.vector(name+".bias", out), in: in, out: out}
}

// matrix packs a tensor of out rows of in numbers, to be multiplied from the right.
func (l *loader) matrix(name string, in, out int) kernel.Const {
	return l.constants.Add(kernel.PackedLen(in, out), func(dst []float32) {
		w := l.floats(in * out)
		l.source.Read(name, w)
		kernel.PackInto(dst, in, out, func(k, n int) float32 { return w[n*in+k] })
	})
}

// plainMatrix packs a tensor of in rows of out numbers.
func (l *loader) plainMatrix(name string, in, out int) kernel.Const {
	l.check(name, in, out)
	return l.constants.Add(kernel.PackedLen(in, out), func(dst []float32) {
		w := l.floats(in * out)
		l.source.Read(name, w)
		kernel.PackInto(dst, in, out, func(k, n int) float32 { return w[k*out+n] })
	})
}

// depthwise is a depthwise convolution with square kernel.
type depthwise struct {
	weight, bias kernel.Const // for Depthwise
	block        kernel.Const // for Depthwise8
	channels     int
	size         int
}

func (l *loader) depthwise(name string, channels, size int) depthwise {
	return l.scaledDepthwise(name, channels, size, 1)
}

// scaledDepthwise multiplies weights and biases by factor.
func (l *loader) scaledDepthwise(name string, channels, size int, factor float32) depthwise {
	f := depthwise{channels: channels, size: size}
	l.check(name+".weight", channels, 1, size, size)
	f.weight = l.constants.Add(size*size*channels, func(dst []float32) {
		w := l.floats(len(dst))
		l.source.Read(name+".weight", w)
		for c := range channels {
			for k := range size * size {
				dst[k*channels+c] = factor * w[c*size*size+k]
			}
		}
	})
	f.bias = l.scaled(factor, name+".bias", channels)
	return f
}

type layerNorm struct {
	gamma, beta kernel.Const
	n           int
	eps         float32
}

func (l *loader) layerNorm(name string, n int, eps float32) layerNorm {
	return layerNorm{l.vector(name+".weight", n), l.vector(name+".bias", n), n, eps}
}

// graph is a program under construction, with one short method for each
// thing that the network's parts do.
type graph struct {
	*kernel.Program
	*made
}

// made is what a program has already, so that nothing is made twice.
type made struct {
	quantized map[float]rows8
	tables    map[table]gathered
}

// float is a tensor of float32s in a stage: rows of in numbers.
type float struct {
	kernel.View
	stage, in int
}

func newGraph(p *kernel.Program) graph { return graph{p, &made{quantized: map[float]rows8{}}} }

// grid is a channels-last map, H·W rows of C numbers, with room for as many
// rows more as fill a panel.
type grid struct {
	kernel.View
	h, w, c int
}

func (m grid) cells() int { return m.h * m.w }

func (g graph) grid(h, w, c int) grid { return grid{g.Temp(roundUp(h*w, kernel.Panel) * c), h, w, c} }

// bytes is a map of bytes, which stand for what a ReLU6 leaves.
func (g graph) bytes(h, w, c int) grid { return grid{g.TempBytes(h * w * c), h, w, c} }

// linearTo computes dst = act(x·Wᵀ + b) + res for m rows.
func (g graph) linearTo(dst, x kernel.View, m int, f linear, act kernel.Act, res kernel.View) {
	if f.int8 {
		q := g.quantize(x, m, f.in)
		g.Do(kernel.MatMul8{Dst: dst, A: q.bytes, Rows: q.rows, B: g.Const(f.block), Res: res, M: m, N: f.out, K: f.in, Act: act})
		return
	}
	g.Do(kernel.MatMul{Dst: dst, A: x, B: g.Const(f.weight), Bias: g.Const(f.bias), Res: res, M: m, N: f.out, K: f.in, Act: act})
}

// packedLinear computes dst = x·Wᵀ + b for m rows and packs it.
func (g graph) packedLinear(dst, x kernel.View, m int, f linear) {
	if f.int8 {
		q := g.quantize(x, m, f.in)
		g.Do(kernel.MatMul8{Dst: dst, A: q.bytes, Rows: q.rows, B: g.Const(f.block), M: m, N: f.out, K: f.in, Packed: true})
		return
	}
	g.Do(kernel.Pack{Dst: dst, A: g.linear(x, m, f, kernel.ActNone), K: m, N: f.out})
}

// linear returns act(x·Wᵀ + b) for m rows.
func (g graph) linear(x kernel.View, m int, f linear, act kernel.Act) kernel.View {
	dst := g.Temp(m * f.out)
	g.linearTo(dst, x, m, f, act, kernel.View{})
	return dst
}

// pointwise is linear over the cells of a map; res may be absent.
func (g graph) pointwise(x grid, f linear, act kernel.Act, res kernel.View) grid {
	y := g.grid(x.h, x.w, f.out)
	g.linearTo(y.View, x.View, x.cells(), f, act, res)
	return y
}

// depthwise convolves with TensorFlow's "SAME" padding: what is missing is
// shared between the sides, and the right and the bottom get the odd one.
func (g graph) depthwise(x grid, f depthwise, stride int, act kernel.Act) grid {
	y := g.grid((x.h+stride-1)/stride, (x.w+stride-1)/stride, f.channels)
	g.Do(kernel.Depthwise{Dst: y.View, A: x.View, B: g.Const(f.weight), Bias: g.Const(f.bias),
		H: y.h, W: y.w, HI: x.h, WI: x.w, C: x.c,
		Size: f.size, Stride: stride, Pad: (f.size - stride) / 2, Act: act})
	return y
}

// norm returns LN(x + res); res may be absent.
func (g graph) norm(x, res kernel.View, m int, f layerNorm) kernel.View {
	dst := g.Temp(m * f.n)
	g.Do(kernel.LayerNorm{Dst: dst, A: x, Res: res, Gamma: g.Const(f.gamma), Beta: g.Const(f.beta),
		M: m, N: f.n, Eps: f.eps})
	return dst
}

// add returns a + b.
func (g graph) add(a, b kernel.View, m, n int) kernel.View {
	dst := g.Temp(m * n)
	g.Do(kernel.Add{Dst: dst, A: a, B: b, M: m, N: n, MB: m})
	return dst
}

// packTransposed packs m rows of k numbers, so that something can be
// multiplied with the rows: the keys of an attention, the mask features.
func (g graph) packTransposed(dst, x kernel.View, m, k int) {
	g.Do(kernel.Pack{Dst: dst, A: x, K: k, N: m, Transposed: true})
}

// attention is multi-head attention with its four projections.
type attention struct {
	q, k, v, out linear
	heads        int
}

func (l *loader) attention(name string, d, heads int) attention {
	return attention{
		q: l.linear(name+".q", d, d), k: l.linear(name+".k", d, d),
		v: l.linear(name+".v", d, d), out: l.linear(name+".out", d, d), heads: heads,
	}
}

// memory is what an attention looks at: packed keys and values. If count is
// there, it says how many of the n count.
type memory struct {
	k, v  kernel.View
	n     int
	count kernel.View
}

// remember projects n rows to keys and values. The buffers come from make,
// so that the caller decides how long they live.
func (g graph) remember(f attention, keys, values kernel.View, n int, make func(n int) kernel.View) memory {
	m := memory{k: make(n * f.k.out), v: make(n * f.v.out), n: n}
	g.packedLinear(m.k, keys, n, f.k)
	g.packedLinear(m.v, values, n, f.v)
	return m
}

// attend returns res + out(MHA(q(x), memory)) for m rows. mask (m×n mask
// logits, blocked below 0) and res may be absent.
func (g graph) attend(f attention, x kernel.View, m int, mem memory, mask, res kernel.View) kernel.View {
	d := f.q.out
	q := g.linear(x, m, f.q, kernel.ActNone)
	y := g.Temp(m * d)
	g.Do(kernel.Attention{Dst: y, Q: q, K: mem.k, V: mem.v, Mask: mask, Count: mem.count,
		NQ: m, NK: mem.n, D: d, Heads: f.heads, Scale: invSqrt(d / f.heads)})
	dst := g.Temp(m * f.out.out)
	g.linearTo(dst, y, m, f.out, kernel.ActNone, res)
	return dst
}

// feedForward is linear2(act(linear1(x))).
type feedForward struct {
	linear1, linear2 linear
	act              kernel.Act
}

func (l *loader) feedForward(name string, d, hidden int, act kernel.Act) feedForward {
	return feedForward{l.linear(name+".linear1", d, hidden), l.linear(name+".linear2", hidden, d), act}
}

// feed returns x + linear2(act(linear1(x))).
func (g graph) feed(f feedForward, x kernel.View, m int) kernel.View {
	h := g.linear(x, m, f.linear1, f.act)
	dst := g.Temp(m * f.linear2.out)
	g.linearTo(dst, h, m, f.linear2, kernel.ActNone, x)
	return dst
}
