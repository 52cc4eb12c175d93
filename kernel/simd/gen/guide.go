package main

import "math"

// A line is a row of cells with a vector each. In front of the first one lies
// that one again, and behind the last one that: windows of three columns are
// the same everywhere.
const cellBytes = 16

// lineOf is how long a line of W cells is.
func lineOf(W I32) I32 { return W.Plus(2).Shl(4) }

// three are the sum of a cell of a line and of its neighbours.
func three(at I32) V128 { return at.V128(0).Add(at.V128(cellBytes)).Add(at.V128(2 * cellBytes)) }

// lanesOf is a vector of constants.
func lanesOf(x ...float32) V128 {
	var words []uint32
	for _, v := range x {
		words = append(words, math.Float32bits(v))
	}
	return Bits(words...)
}

// MeanU is the mean of bytes, and of those half between two the upper one.
func (x V128) MeanU(y V128) V128 { return V128{op(simd(0x7b), x, y)} }

// Smooth takes four pixels at a time, and those at a row's ends one by one.
// Threads share out the rows.
func (k *kernels) smooth() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 2), ints(f, record, 2)
	dst, a, H, W := v[0], v[1], n[0], n[1]
	line := f.Let(W.Shl(2))
	from, to := k.part(f, H, 1)
	f.For(from, to, 1, func(y I32) {
		row := func(y I32) I32 { return f.Let(a.Add(y.Max(Int(0)).Min(H.Plus(-1)).Mul(line))) }
		up, here, down := row(y.Plus(-1)), row(y), row(y.Plus(1))
		dst := f.Let(dst.Add(y.Mul(line)))
		smoothed := func(left, at, right I32, load func(I32) V128) V128 {
			column := func(at I32) V128 {
				return load(up.Add(at)).MeanU(load(down.Add(at))).MeanU(load(here.Add(at)))
			}
			return column(left).MeanU(column(right)).MeanU(column(at))
		}
		at := f.Let(Int(0))
		pixel := func() {
			word := func(p I32) V128 { return p.Splat32(0) }
			f.Store(dst.Add(at), 0, smoothed(at.Plus(-4).Max(Int(0)), at, at.Plus(4).Min(line.Plus(-4)), word).LaneI(0))
			at.Inc(4)
		}
		pixel()
		f.While(at.Plus(16).LessS(line), func() {
			f.StoreV(dst.Add(at), 0, smoothed(at.Plus(-4), at, at.Plus(4), func(p I32) V128 { return p.V128(0) }))
			at.Inc(16)
		})
		f.While(at.LessS(line), pixel)
	})
	return f
}

// Guide works row by row of cells, which threads share out. Of each it makes the
// colours of three rows, so that it needs nothing of its neighbours.
func (k *kernels) guide() *Func {
	colours, inverses := k.guideColours(), k.guideInverses()

	f, record := k.opFunc()
	v, n := views(f, record, 2), ints(f, record, 5)
	dst, a := v[0], v[1]
	H, W, HI, WI, WP := n[0], n[1], n[2], n[3], n[4]
	matrices := f.Let(dst.Add(H.Mul(W).Shl(4)))
	from, to := k.part(f, H, 1)
	scratch, line := f.Let(k.scratch.Get()), f.Let(lineOf(W))
	f.For(from, to, 1, func(y I32) {
		at := f.Let(scratch)
		f.For(y.Plus(-1), y.Plus(2), 1, func(row I32) {
			f.Call(colours, at, a, row.Max(Int(0)).Min(H.Plus(-1)), W, HI, WI, WP)
			next(f, line, at)
		})
		cell := f.Let(y.Mul(W))
		f.Call(inverses, dst.Add(cell.Shl(4)), matrices.Add(cell.Shl(6)), W, line, float(record, 0))
	})
	return f
}

// guideColours makes guideColours(line, a, y, w, hi, wi, wp), the colours of a row.
func (k *kernels) guideColours() *Func {
	f := k.Func("")
	line, a, y, W, HI, WI, WP := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	var rows [4]I32
	for i := range rows {
		rows[i] = f.Let(a.Add(y.Shl(2).Plus(2 + i).Min(HI.Plus(-1)).Mul(WP).Shl(4)))
	}
	at := f.Let(line)
	f.For(Int(0), W, 1, func(x I32) {
		total := f.LetV(f.Splat(0))
		for j := range 4 {
			column := f.Let(x.Shl(2).Plus(2 + j).Min(WI.Plus(-1)).Shl(4))
			for _, row := range rows {
				total.Set(total.Add(row.Add(column).V128(0)))
			}
		}
		f.StoreV(at, cellBytes, total.Mul(lanesOf(1./16, 1./16, 1./16, 0)).Add(lanesOf(0, 0, 0, 1)))
		at.Inc(cellBytes)
	})
	f.Call(k.closing, line, W)
	return f
}

// guideInverses makes guideInverses(colours, matrices, w, line, epsilon), what
// is kept of a row, out of the lines in scratch.
func (k *kernels) guideInverses() *Func {
	f := k.Func("")
	colours, matrices, W, line, epsilon := f.Param(), f.Param(), f.Param(), f.Param(), f.ParamF()
	at := f.Let(k.scratch.Get())
	f.Repeat(W, func() {
		var m [3]V128 // rows of the mean of g·gᵀ
		for i := range m {
			m[i] = f.LetV(f.Splat(0))
		}
		row := f.Let(at)
		for range 3 {
			for j := range 3 {
				g := f.LetV(row.V128(j * cellBytes))
				for i := range m {
					m[i].Set(k.madd(g, g.Shuffle(g, i, i, i, i), m[i]))
				}
			}
			next(f, line, row)
		}
		f.StoreV(colours, 0, at.Add(line).V128(cellBytes))
		for i := range m {
			m[i].Set(m[i].Mul(f.Splat(1. / 9)))
		}
		var mean [3]F32
		for i := range mean {
			mean[i] = f.LetF(m[i].Lane(3))
		}
		var v, c [3][3]F32 // how colours vary, and the cofactors of that
		for i := range 3 {
			for j := i; j < 3; j++ {
				x := m[i].Lane(j).Sub(mean[i].Mul(mean[j]))
				if i == j {
					x = x.Add(epsilon)
				}
				v[i][j] = f.LetF(x)
				v[j][i] = v[i][j]
			}
		}
		for i := range 3 {
			for j := i; j < 3; j++ {
				p, q, r, s := (i+1)%3, (i+2)%3, (j+1)%3, (j+2)%3
				c[i][j] = f.LetF(v[p][r].Mul(v[q][s]).Sub(v[p][s].Mul(v[q][r])))
				c[j][i] = c[i][j]
			}
		}
		scale := f.LetF(Float(1).Div(v[0][0].Mul(c[0][0]).Add(v[0][1].Mul(c[0][1])).Add(v[0][2].Mul(c[0][2]))))
		last := f.LetF(Float(1))
		for i := range 3 {
			one := f.LetF(Float(0))
			for j := range 3 {
				x := f.LetF(c[i][j].Mul(scale))
				f.StoreF(matrices, 16*i+4*j, x)
				one.Set(one.Sub(x.Mul(mean[j])))
			}
			f.StoreF(matrices, 16*i+12, one)
			f.StoreF(matrices, 48+4*i, one)
			last.Set(last.Sub(one.Mul(mean[i])))
		}
		f.StoreF(matrices, 60, last)
		next(f, Int(cellBytes), at, colours)
		matrices.Inc(4 * cellBytes)
	})
	return f
}

// Guided works map by map, which threads share out.
func (k *kernels) guided() *Func {
	row, smooth := k.guidedRow(), k.guidedColumns()

	f, record := k.opFunc()
	v, n := views(f, record, 4), ints(f, record, 4)
	dst, a, guide, count := v[0], v[1], v[2], v[3]
	T, H, W, everywhere := n[0], n[1], n[2], n[3]
	f.If(count, func() { T.Set(count.I32(0)) })
	cells := f.Let(H.Mul(W))
	from, to := k.part(f, T, 1)
	f.For(from, to, 1, func(t I32) {
		m, out := f.Let(a.Add(t.Mul(cells).Shl(2))), f.Let(dst.Add(t.Mul(cells).Shl(4)))
		f.For(Int(0), H, 1, func(y I32) {
			first := f.Let(y.Plus(-1).Max(Int(0)).Mul(W))
			middle := f.Let(y.Mul(W))
			last := f.Let(y.Plus(1).Min(H.Plus(-1)).Mul(W))
			f.Call(row, out.Add(middle.Shl(4)), m, guide, guide.Add(cells.Shl(4)), first, middle, last, W, everywhere)
		})
		f.Call(smooth, out, H, W)
	})
	return f
}

// guidedRow makes guidedRow(dst, a, colours, matrices, first, middle, last, w, everywhere),
// the fits of a row and their sums over three columns. It reads three rows of
// cells, whose first ones have these numbers.
func (k *kernels) guidedRow() *Func {
	f := k.Func("")
	dst, a, colours, matrices := f.Param(), f.Param(), f.Param(), f.Param()
	var rows [3]I32
	for i := range rows {
		rows[i] = f.Param()
	}
	W, everywhere := f.Param(), f.Param()
	next(f, rows[1].Shl(6), matrices)
	cell := f.Let(a.Add(rows[1].Shl(2)))
	sums, line := f.Let(k.scratch.Get()), f.Let(lineOf(W))
	fits := f.Let(sums.Add(line))
	above := f.Let(fits.Add(line)) // how many of the three rows are above 0: a line, too

	at, mark := f.Let(sums), f.Let(above)
	f.Repeat(f.Let(W), func() {
		total, n := f.Splat(0), Int(0)
		for _, row := range rows {
			n = n.Add(Float(0).Less(a.Add(row.Shl(2)).F32(0)))
			total = k.madd(colours.Add(row.Shl(4)).V128(0), a.Add(row.Shl(2)).Splat32(0), total)
		}
		f.StoreV(at, cellBytes, total.Mul(f.Splat(1./9)))
		f.StoreV(mark, cellBytes, n.Splat())
		next(f, Int(cellBytes), at, mark)
		for _, row := range rows {
			row.Inc(1)
		}
	})
	f.Call(k.closing, sums, W)
	f.Call(k.closing, above, W)
	at.Set(sums)
	mark.Set(above)
	to := f.Let(fits)
	f.Repeat(f.Let(W), func() {
		n := f.Let(mark.I32(0).Add(mark.I32(cellBytes)).Add(mark.I32(2 * cellBytes)))
		f.If(everywhere.OrI(Int(0).LessS(n).AndI(n.LessS(Int(9)))), func() {
			m := f.LetV(three(at))
			fit := f.Splat(0)
			for i := range 4 {
				fit = k.madd(matrices.V128(cellBytes*i), m.Shuffle(m, i, i, i, i), fit)
			}
			f.StoreV(to, cellBytes, fit)
		}, func() {
			f.StoreV(to, cellBytes, cell.Splat32(0).And(Bits(0, 0, 0, 0xffffffff)))
		})
		next(f, Int(cellBytes), at, to, mark)
		cell.Inc(4)
		matrices.Inc(4 * cellBytes)
	})
	f.Call(k.closing, fits, W)
	at.Set(fits)
	f.Repeat(f.Let(W), func() {
		f.StoreV(dst, 0, three(at))
		next(f, Int(cellBytes), at, dst)
	})
	return f
}

// guidedColumns makes guidedColumns(dst, h, w): sums over three rows, and then
// the units of bytes.
func (k *kernels) guidedColumns() *Func {
	f := k.Func("")
	dst, H, W := f.Param(), f.Param(), f.Param()
	line := f.Let(W.Shl(4))
	f.Repeat(W, func() {
		at, left := f.Let(dst), f.Let(H)
		above, here := f.LetV(at.V128(0)), f.LetV(at.V128(0))
		f.Repeat(left, func() {
			below := f.LetV(at.Add(line.Select(Int(0), Int(1).LessS(left))).V128(0))
			fit := f.LetV(above.Add(here).Add(below).Mul(f.Splat(1. / 9)))
			colours := f.LetV(fit.Mul(lanesOf(1./128, 1./128, 1./128, 0)))
			f.StoreV(at, 0, colours.Add(fit.Sub(sum(colours).Splat().Mul(f.Splat(127))).And(Bits(0, 0, 0, 0xffffffff))))
			above.Set(here)
			here.Set(below)
			next(f, line, at)
		})
		dst.Inc(cellBytes)
	})
	return f
}

// makeClosing makes closing(line, w), which puts a line's first and last cells
// beyond its edges.
func (k *kernels) makeClosing() *Func {
	f := k.Func("")
	line, W := f.Param(), f.Param()
	f.StoreV(line, 0, line.V128(cellBytes))
	next(f, W.Shl(4), line)
	f.StoreV(line, cellBytes, line.V128(0))
	return f
}
