package main

import "github.com/pmp-seg/pmp/kernel"

func (k *kernels) gather() *Func {
	f := k.Func("")
	dst, a, index, weight, res := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	N, Taps, Max := f.Param(), f.Param(), f.Param()
	row := f.Let(N.Shl(2))
	start := f.LetV(Float(-inf).Select(Float(0), Max).Splat())
	fours(f, N, func(at I32) {
		s := f.LetV(start)
		i, w := f.Let(index), f.Let(weight)
		f.Repeat(f.Let(Taps), func() {
			f.If(i.I32(0).LessS(Int(0)).Zero(), func() {
				x := f.LetV(a.Add(i.I32(0).Mul(row)).Add(at).V128(0))
				f.If(Max, func() { s.Set(s.PMax(x)) }, func() {
					f.If(weight, func() { s.Set(k.madd(x, w.Splat32(0), s)) }, func() { s.Set(s.Add(x)) })
				})
			})
			next(f, Int(4), i, w)
		})
		f.If(res, func() { s.Set(s.Add(res.Add(at).V128(0))) })
		f.StoreV(dst.Add(at), 0, s)
	})

	rows, record := k.opFunc()
	v, n := views(rows, record, 5), ints(rows, record, 4)
	from, to := k.part(rows, n[0], 1)
	step := func(m I32) {
		bytes := rows.Let(m.Mul(n[1]).Shl(2))
		next(rows, bytes, v[0])
		rows.If(v[4], func() { next(rows, bytes, v[4]) })
		taps := rows.Let(m.Mul(n[2]).Shl(2))
		next(rows, taps, v[2])
		rows.If(v[3], func() { next(rows, taps, v[3]) })
	}
	step(from)
	rows.Repeat(rows.Let(to.Sub(from)), func() {
		rows.Call(f, v[0], v[1], v[2], v[3], v[4], n[1], n[2], n[3])
		step(Int(1))
	})
	return rows
}

// sumRows is how many rows are added up before their sum is added to that of
// the rows before: a single sum of very many numbers would lose their last bits.
const sumRows = 128

// groupNorm makes a call for each group, which threads share out.
func (k *kernels) groupNorm() *Func {
	f := k.Func("")
	dst, a, gamma, beta := f.Param(), f.Param(), f.Param(), f.Param()
	M, row, width, eps, relu := f.Param(), f.Param(), f.Param(), f.ParamF(), f.Param() // row and width in bytes
	clamp := f.clamp(relu)
	n := f.LetF(M.Mul(width.ShrU(2)).ToFloat())
	// mean is the mean of what term makes of the group's vectors.
	mean := func(term func(x V128) V128) V128 {
		total, p := f.LetV(f.Splat(0)), f.Let(a)
		f.For(Int(0), M, sumRows, func(i I32) {
			part := f.LetV(f.Splat(0))
			f.Repeat(f.Let(M.Sub(i).Min(Int(sumRows))), func() {
				f.For(Int(0), width, 16, func(at I32) { part.Set(part.Add(term(f.LetV(p.Add(at).V128(0))))) })
				next(f, row, p)
			})
			total.Set(total.Add(part))
		})
		return f.LetV(sum(total).Div(n).Splat())
	}
	middle := mean(func(x V128) V128 { return x })
	variance := mean(func(x V128) V128 {
		t := f.LetV(x.Sub(middle))
		return t.Mul(t)
	})
	scale := f.LetV(Float(1).Div(variance.Lane(0).Add(eps).Sqrt()).Splat())
	f.Repeat(M, func() {
		f.For(Int(0), width, 16, func(at I32) {
			t := a.Add(at).V128(0).Sub(middle).Mul(scale)
			y := f.LetV(k.madd(t, gamma.Add(at).V128(0), beta.Add(at).V128(0)))
			f.If(clamp.on, func() { clamp.apply([]V128{y}) })
			f.StoreV(dst.Add(at), 0, y)
		})
		next(f, row, dst, a)
	})

	groups, record := k.opFunc()
	v, m := views(groups, record, 4), ints(groups, record, 3)
	width = groups.Let(m[1].DivU(m[2]).Shl(2))
	from, to := k.part(groups, m[2], 1)
	next(groups, from.Mul(width), v...)
	groups.Repeat(groups.Let(to.Sub(from)), func() {
		groups.Call(f, v[0], v[1], v[2], v[3], m[0], m[1].Shl(2), width, float(record, 0), act(record))
		next(groups, width, v...)
	})
	return groups
}

// What deformable keeps in scratch: the weights of the points, and a list of
// cells, each an address and a weight.
const (
	sampleWeights = 0
	sampleList    = 4 * 64
)

// deformable makes a call for each query and head. It lists the cells that the
// points lie between, leaves out those outside, and then adds the cells up,
// eight channels at a time.
func (k *kernels) deformable() *Func {
	f := k.Func("")
	dst, v, offset, weight, at := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	sides, maps, points, row, head := f.Param(), f.Param(), f.Param(), f.Param(), f.Param() // row and head in bytes
	scratch := f.Let(k.scratch.Get())
	length := f.Let(maps.Mul(points).Shl(2))

	top := f.LetV(weight.V128(0))
	f.For(Int(16), length, 16, func(i I32) { top.Set(top.PMax(weight.Add(i).V128(0))) })
	top.Set(largest(top).Splat())
	total := f.LetV(f.Splat(0))
	f.For(Int(0), length, 16, func(i I32) {
		e := k.exp(f, f.LetV(weight.Add(i).V128(0).Sub(top)))
		f.StoreV(scratch.Add(i), sampleWeights, e)
		total.Set(total.Add(e))
	})
	scale := f.LetF(Float(1).Div(sum(total)))

	list := f.Let(scratch.Plus(sampleList))
	p, end := f.Let(scratch), f.Let(list)
	f.Repeat(maps, func() {
		rows, columns := f.LetF(sides.I32(0).ToFloat()), f.LetF(sides.I32(4).ToFloat())
		f.Repeat(f.Let(points), func() {
			w := f.LetF(p.F32(sampleWeights).Mul(scale))
			x := f.LetF(at.F32(0).Mul(columns).Add(offset.F32(0)).Sub(Float(0.5)))
			y := f.LetF(at.F32(4).Mul(rows).Add(offset.F32(4)).Sub(Float(0.5)))
			left, above := f.LetF(x.Floor()), f.LetF(y.Floor())
			x.Set(x.Sub(left))
			y.Set(y.Sub(above))
			f.For(Int(0), Int(4), 1, func(corner I32) {
				right, below := f.LetF(corner.And(1).ToFloat()), f.LetF(corner.ShrU(1).ToFloat())
				cx, cy := f.LetF(left.Add(right)), f.LetF(above.Add(below))
				// -1 < c is 0 ≤ c, since both are whole.
				inside := Float(-1).Less(cx).AndI(cx.Less(columns)).AndI(Float(-1).Less(cy)).AndI(cy.Less(rows))
				f.If(inside, func() {
					f.Store(end, 0, v.Add(cy.ToInt().Mul(sides.I32(4)).Add(cx.ToInt()).Mul(row)))
					share := func(at, side F32) F32 { return Float(1).Sub(side).Sub(at).Abs() } // 1-at or at
					f.StoreF(end, 4, w.Mul(share(x, right)).Mul(share(y, below)))
					end.Inc(8)
				})
			})
			next(f, Int(4), p)
			next(f, Int(8), offset)
		})
		next(f, sides.I32(0).Mul(sides.I32(4)).Mul(row), v)
		next(f, Int(8), sides)
	})

	f.For(Int(0), head, panelBytes, func(c I32) {
		sums := [2]V128{f.LetV(f.Splat(0)), f.LetV(f.Splat(0))}
		cell := f.Let(list)
		f.Walk(cell, end, 8, func() {
			from, share := f.Let(cell.I32(0).Add(c)), f.LetV(cell.Splat32(4))
			for i, s := range sums {
				s.Set(k.madd(from.V128(16*i), share, s))
			}
		})
		for i, s := range sums {
			f.StoreV(dst.Add(c), 16*i, s)
		}
	})

	queries, record := k.opFunc()
	views, n := views(queries, record, 5), ints(queries, record, 5)
	row, head = queries.Let(n[1].Shl(2)), queries.Let(n[1].DivU(n[2]).Shl(2))
	length = queries.Let(n[4].Mul(n[3]).Shl(2)) // of a head's weights
	from, to := k.part(queries, n[0], 1)
	next(queries, from.Mul(row), views[0])
	next(queries, from.Mul(n[2]).Mul(length), views[3])
	next(queries, from.Mul(n[2]).Mul(length).Shl(1), views[2])
	next(queries, from.Shl(3), views[4])
	queries.Repeat(queries.Let(to.Sub(from)), func() {
		channel := queries.Let(Int(0))
		queries.While(channel.LessS(row), func() {
			queries.Call(f, views[0], views[1].Add(channel), views[2], views[3], views[4],
				record.Plus(4*(kernel.RecordInts+5)), n[4], n[3], row, head)
			next(queries, head, views[0], channel)
			next(queries, length, views[3])
			next(queries, length.Shl(1), views[2])
		})
		next(queries, Int(8), views[4])
	})
	return queries
}
