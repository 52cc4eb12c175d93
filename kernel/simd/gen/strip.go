package main

import "github.com/pmp-seg/pmp/kernel"

// stripArgs are the parameters of the micro-kernel. Steps are in bytes.
type stripArgs struct {
	dst, a, b, bias, res I32 // addresses; bias and res may be 0
	rows, panels         I32 // of dst
	k                    I32 // numbers in a segment of a row of A
	segments, jump       I32 // segments in a row, bytes from one's end to the next one's start
	lda, ldd, ldr        I32 // from row to row
	ldb                  I32 // from row to row of B
	nextB                I32 // from panel to panel of B
	act                  I32
}

func (s *stripArgs) each() []*I32 {
	return []*I32{&s.dst, &s.a, &s.b, &s.bias, &s.res, &s.rows, &s.panels, &s.k, &s.segments, &s.jump,
		&s.lda, &s.ldd, &s.ldr, &s.ldb, &s.nextB, &s.act}
}

func (k *kernels) callStrip(f *Func, s stripArgs) { s.call(f, k.strip) }

func (s stripArgs) call(f *Func, strip *Func) {
	var args []value
	for _, p := range s.each() {
		args = append(args, *p)
	}
	f.Call(strip, args...)
}

// panelBytes is the width of a panel, two vectors.
const panelBytes = 4 * kernel.Panel

// makeStrip makes the micro-kernel that MatMul, Conv and Attention share: a
// product of some rows of A with panels of B, where a row of A is one or
// more segments. Conv's must not be fused, see kernel.Conv.
//
//	for each panel, row { s := bias[panel] (8 numbers)
//		for each segment, k { s += A[row, segment, k] * B[segment*K+k, panel] }
//		dst[row, panel] = clamp(s) + res[row, panel] }
//
// The sums of a tile, tileRows rows by one panel, are held in registers. The
// loop over k is not unrolled: V8 before its new back end moves the loads of
// an unrolled loop to its start, where they spill, and no engine gains.
func (k *kernels) makeStrip(fused bool) *Func {
	madd := func(a, b, c V128) V128 { return c.Add(a.Mul(b)) }
	if fused {
		madd = k.madd
	}
	tileRows := tileRows(fused)
	f := k.Func("")
	var s stripArgs
	for _, p := range s.each() {
		*p = f.Param()
	}
	length := f.Let(s.k.Shl(2))
	clamp := f.clamp(s.act)
	bias := [2]V128{f.Vec(), f.Vec()}

	a, dst, res, rows := f.Int(), f.Int(), f.Int(), f.Int()
	tile := func(height int) {
		rowA, sums := make([]I32, height), make([][2]V128, height)
		for r := range height {
			rowA[r] = f.Let(a)
			if r > 0 {
				rowA[r].Set(rowA[r-1].Add(s.lda))
			}
			for i := range 2 {
				sums[r][i] = f.LetV(bias[i])
			}
		}
		b, end, segments := f.Let(s.b), f.Int(), f.Let(s.segments)
		f.Do(func() {
			end.Set(rowA[0].Add(length))
			f.Walk(rowA[0], end, 4, func() {
				b1, b0 := f.LetV(b.V128(16)), f.LetV(b.V128(0))
				b.Set(b.Add(s.ldb))
				for r := range height {
					x := f.LetV(rowA[r].Splat32(0))
					sums[r][0].Set(madd(x, b0, sums[r][0]))
					sums[r][1].Set(madd(x, b1, sums[r][1]))
				}
				for r := 1; r < height; r++ {
					rowA[r].Inc(4)
				}
			})
			for r := range height {
				rowA[r].Set(rowA[r].Add(s.jump))
			}
			segments.Inc(-1)
		}, segments)

		f.If(clamp.on, func() {
			for r := range height {
				clamp.apply(sums[r][:])
			}
		})
		f.If(s.res, func() {
			p := f.Let(res)
			for r := range height {
				for i := range 2 {
					sums[r][i].Set(sums[r][i].Add(p.V128(16 * i)))
				}
				p.Set(p.Add(s.ldr))
			}
			res.Set(p)
		})
		for r := range height {
			for i := range 2 {
				f.StoreV(dst, 16*i, sums[r][i])
			}
			dst.Set(dst.Add(s.ldd))
		}
	}

	f.Repeat(s.panels, func() {
		f.If(s.bias, func() {
			bias[0].Set(s.bias.V128(0))
			bias[1].Set(s.bias.V128(16))
			s.bias.Inc(panelBytes)
		})
		a.Set(s.a)
		dst.Set(s.dst)
		res.Set(s.res)
		rows.Set(s.rows.DivU(Int(tileRows)))
		f.Repeat(rows, func() {
			tile(tileRows)
			a.Set(a.Add(s.lda.Times(tileRows)))
		})
		rows.Set(s.rows.RemU(Int(tileRows)))
		for _, height := range []int{4, 2, 1} {
			if height < tileRows {
				f.If(rows.And(height), func() {
					tile(height)
					a.Set(a.Add(s.lda.Times(height)))
				})
			}
		}

		s.b.Set(s.b.Add(s.nextB))
		s.dst.Inc(panelBytes)
		f.If(s.res, func() { s.res.Inc(panelBytes) })
	})
	return f
}

// tileRows is how many rows of dst a tile of strip has. On x86, with 16 registers,
// four rows are eight sums, two vectors of B, four of A and one product. With
// a fused multiply-add there is no product, and six rows hide its latency.
func (k *kernels) tileRows() int { return tileRows(k.options.Relaxed) }

func tileRows(fused bool) int {
	if fused {
		return 6
	}
	return 4
}

// clamp is the end of ReLU and ReLU6.
type clamp struct {
	on    I32 // whether the activation is one of them
	zero  V128
	upper V128
}

func (f *Func) clamp(act I32) clamp {
	return clamp{
		on:    f.Let(act.Plus(-int(kernel.ActReLU)).LessU(Int(2))),
		zero:  f.Splat(0),
		upper: f.LetV(Float(6).Select(Float(inf), act.Eq(Int(int(kernel.ActReLU6)))).Splat()),
	}
}

func (c clamp) apply(sums []V128) {
	for _, s := range sums {
		s.Set(s.PMax(c.zero).PMin(c.upper))
	}
}
