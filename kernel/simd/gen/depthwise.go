package main

import "github.com/pmp-seg/pmp/kernel"

const (
	// columns is how many outputs side by side a strip keeps in registers:
	// each vector of weights serves all of them, and neighbours share input.
	columns = 4
	// channelBytes is the width of a strip. The rows of the input that a
	// strip reads, cut to this width, stay in the first-level cache.
	channelBytes = 128
)

// depthwiseArgs are the parameters of the inner functions. Steps are in bytes.
type depthwiseArgs struct {
	dst, a, b, bias I32 // bias may be 0
	rows            I32 // of the window inside the input
	width, channels I32 // outputs, and bytes of channels
	pixel           I32 // C channels
	nextRow         I32 // from row to row of the input
	act             I32
}

func (d *depthwiseArgs) each() []*I32 {
	return []*I32{&d.dst, &d.a, &d.b, &d.bias, &d.rows, &d.width, &d.channels, &d.pixel, &d.nextRow, &d.act}
}

func (d depthwiseArgs) values(more ...value) []value {
	var args []value
	for _, p := range d.each() {
		args = append(args, *p)
	}
	return append(args, more...)
}

// depthwiseStrip makes the function for a run of outputs, of one row, whose
// windows lie inside the input from left to right; rows of the window that
// stick out at the top or the bottom are left out by the caller. There are
// at least four outputs: the last four may overlap the ones before.
func (k *kernels) depthwiseStrip(size, stride int) *Func {
	f := k.Func("")
	var d depthwiseArgs
	for _, p := range d.each() {
		*p = f.Param()
	}
	clamp := f.clamp(d.act)
	nextWeights := f.Let(d.pixel.Times(size))
	span := (columns-1)*stride + size // columns of the input that the outputs see
	pixels := make([]I32, span)       // multiples of a pixel
	for i := 1; i < span; i++ {
		pixels[i] = f.Let(d.pixel.Times(i))
	}
	plus := func(p I32, i int) I32 {
		if i == 0 {
			return p
		}
		return p.Add(pixels[i])
	}

	f.While(Int(0).LessS(d.width), func() {
		back := f.Let(Int(columns).Sub(d.width).Max(Int(0)).Mul(d.pixel))
		d.dst.Set(d.dst.Sub(back))
		d.a.Set(d.a.Sub(back.Times(stride)))
		f.For(Int(0), d.channels, 16, func(c I32) {
			var sums [columns]V128
			for i := range sums {
				sums[i] = f.LetV(f.Splat(0))
			}
			f.If(d.bias, func() {
				for i := range sums {
					sums[i].Set(d.bias.Add(c).V128(0))
				}
			})
			a, b, rows := f.Let(d.a.Add(c)), f.Let(d.b.Add(c)), f.Let(d.rows)
			f.Repeat(rows, func() {
				var weights [7]V128
				for x := range size {
					weights[x] = f.LetV(plus(b, x).V128(0))
				}
				for x := range span {
					in := f.LetV(plus(a, x).V128(0))
					for i := range sums {
						if w := x - i*stride; 0 <= w && w < size {
							sums[i].Set(k.madd(in, weights[w], sums[i]))
						}
					}
				}
				a.Set(a.Add(d.nextRow))
				b.Set(b.Add(nextWeights))
			})
			f.If(clamp.on, func() { clamp.apply(sums[:]) })
			for i := range sums {
				f.StoreV(plus(d.dst.Add(c), i), 0, sums[i])
			}
		})
		d.dst.Set(d.dst.Add(pixels[columns-1]).Add(d.pixel))
		d.a.Set(d.a.Add(d.pixel.Times(columns * stride)))
		d.width.Inc(-columns)
	})
	return f
}

// depthwiseEdge makes the function for one output whose window may stick out
// anywhere: rows times width cells of it lie inside the input. Its last
// parameter is the length of a row of weights.
func (k *kernels) depthwiseEdge() *Func {
	f := k.Func("")
	var d depthwiseArgs
	for _, p := range d.each() {
		*p = f.Param()
	}
	nextWeights := f.Param()
	clamp := f.clamp(d.act)
	f.For(Int(0), d.channels, 32, func(c I32) {
		var sums [2]V128
		for i := range sums {
			sums[i] = f.LetV(f.Splat(0))
		}
		f.If(d.bias, func() {
			for i := range sums {
				sums[i].Set(d.bias.Add(c).V128(16 * i))
			}
		})
		a, b := f.Let(d.a.Add(c)), f.Let(d.b.Add(c))
		f.Repeat(f.Let(d.rows), func() {
			pa, pb := f.Let(a), f.Let(b)
			f.Repeat(f.Let(d.width), func() {
				for i := range sums {
					sums[i].Set(k.madd(pa.V128(16*i), pb.V128(16*i), sums[i]))
				}
				next(f, d.pixel, pa, pb)
			})
			a.Set(a.Add(d.nextRow))
			b.Set(b.Add(nextWeights))
		})
		f.If(clamp.on, func() { clamp.apply(sums[:]) })
		for i := range sums {
			f.StoreV(d.dst.Add(c), 16*i, sums[i])
		}
	})
	return f
}

func (k *kernels) depthwise() *Func {
	edge := k.depthwiseEdge()
	strips := map[[2]int]*Func{}
	for _, size := range []int{3, 5} {
		for _, stride := range []int{1, 2} {
			strips[[2]int{size, stride}] = k.depthwiseStrip(size, stride)
		}
	}

	strips[[2]int{7, 1}] = k.depthwiseStrip(7, 1)

	f, record := k.opFunc()
	v, n := views(f, record, 4), ints(f, record, 9)
	dst, a, b, bias := v[0], v[1], v[2], v[3]
	H, W, HI, WI, C, Size, Stride, Pad, Bytes := n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]
	act := f.Let(act(record))
	pixel, nextRow := f.Let(C.Shl(2)), f.Let(WI.Mul(C).Shl(2))
	nextWeights := f.Let(Size.Mul(pixel))

	// Outputs from left to below right see only columns of the input.
	left := f.Let(Pad.Add(Stride).Plus(-1).DivU(Stride).Min(W))
	right := f.Let(WI.Add(Pad).Sub(Size))
	right.Set(Int(0).Select(right.DivU(Stride).Plus(1), right.LessS(Int(0))).Min(W))
	f.If(right.LessS(left.Plus(columns)), func() { right.Set(left) })

	// What becomes bytes is made in scratch first, as much of a row as there is
	// room for.
	bytes := f.Let(W.Mul(C).ShlI(Int(0).Select(Int(2), Bytes)))
	block := f.Let(Int(scratchSize).DivU(pixel).And(-columns).Min(W).Select(W, Bytes))
	from, to := k.part(f, H, 1)
	next(f, from.Mul(bytes), dst)
	f.For(from, to, 1, func(y I32) {
		// Rows top to below bottom of the window lie inside the input.
		y0 := f.Let(y.Mul(Stride).Sub(Pad))
		top := f.Let(Int(0).Sub(y0).Max(Int(0)))
		bottom := f.Let(HI.Sub(y0).Min(Size))
		rowA := f.Let(a.Add(y0.Add(top).Mul(nextRow)))
		rowB := f.Let(b.Add(top.Mul(nextWeights)))
		begin := f.Let(Int(0))
		f.While(begin.LessS(W), func() {
			end := f.Let(begin.Add(block).Min(W))
			left := f.Let(left.Max(begin).Min(end))
			right := f.Let(right.Min(end))
			f.If(right.LessS(left.Plus(columns)), func() { right.Set(left) })
			out := f.Let(k.scratch.Get().Sub(begin.Mul(pixel)).Select(dst, Bytes))
			d := depthwiseArgs{dst: out, a: rowA, b: rowB, bias: bias, rows: f.Let(bottom.Sub(top)),
				pixel: pixel, nextRow: nextRow, act: act}

			f.If(left.LessS(right), func() {
				f.For(Int(0), pixel, channelBytes, func(c I32) {
					d := d
					d.dst = out.Add(left.Mul(pixel)).Add(c)
					d.a = rowA.Add(left.Mul(Stride).Sub(Pad).Mul(pixel)).Add(c)
					d.b = rowB.Add(c)
					d.bias = bias.Add(c).Select(Int(0), bias)
					d.width = right.Sub(left)
					d.channels = f.Let(pixel.Sub(c)).Min(Int(channelBytes))
					call := func(size, stride int) func() {
						return func() { f.Call(strips[[2]int{size, stride}], d.values()...) }
					}
					f.If(Size.Eq(Int(3)), func() {
						f.If(Stride.Eq(Int(1)), call(3, 1), call(3, 2))
					}, func() {
						f.If(Size.Eq(Int(5)), func() {
							f.If(Stride.Eq(Int(1)), call(5, 1), call(5, 2))
						}, call(7, 1))
					})
				})
			})
			f.For(begin, end, 1, func(x I32) {
				f.If(x.Eq(left), func() { x.Set(right) })
				f.If(x.LessS(end), func() {
					d := d
					x0 := f.Let(x.Mul(Stride).Sub(Pad))
					first := f.Let(Int(0).Sub(x0).Max(Int(0)))
					last := f.Let(WI.Sub(x0).Min(Size))
					d.dst = out.Add(x.Mul(pixel))
					d.a = rowA.Add(x0.Add(first).Mul(pixel))
					d.b = rowB.Add(first.Mul(pixel))
					d.width = last.Sub(first)
					d.channels = pixel
					f.Call(edge, d.values(nextWeights)...)
				})
			})
			f.If(Bytes, func() {
				f.Call(k.roundRow, dst.Add(begin.Mul(C)), k.scratch.Get(), end.Sub(begin).Mul(C))
			})
			begin.Set(end)
		})
		f.If(Int(int(kernel.ActReLU6)).LessU(act), func() {
			f.Call(k.activateRow, dst, dst, W.Mul(C), act)
		})
		next(f, bytes, dst)
	})
	return f
}
