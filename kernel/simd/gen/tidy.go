package main

import "github.com/pmp-seg/pmp/kernel"

// A run is neighbouring cells of a row that are all above the threshold or all
// not. Tidy keeps two words of each in the op's scratch, row by row: where it
// ends, counting cells from the map's first, in front of two bits; and where
// in scratch a run of the same region is, or, for the one that the others lead
// to, minus the region's size.
const (
	runEnd, runLink, runBytes = 0, 4, 8

	runAbove, runLast, runShift = 1, 2, 2 // bits of the first word: above, the last of its row
)

// Tidy works on one map after the other. Threads share out the maps.
func (k *kernels) tidy() *Func {
	tidyMap := k.tidyMap()

	f, record := k.opFunc()
	v, n := views(f, record, 5), ints(f, record, 5)
	dst, a, theta, count, scratch := v[0], v[1], v[2], v[3], v[4]
	T, H, W, Speck, Island := n[0], n[1], n[2], n[3], n[4]
	f.If(count, func() { T.Set(count.I32(0)) })
	bytes := f.Let(H.Mul(W).Shl(2))
	from, to := k.part(f, T, 1)
	f.For(from, to, 1, func(t I32) {
		at := f.Let(t.Mul(bytes))
		f.Call(tidyMap, dst.Add(at), a.Add(at), scratch.Add(at.Shl(1)), theta.Add(t.Shl(2)).F32(0), bytes, W, Speck, Island)
	})
	return f
}

// tidyMap makes tidyMap(dst, a, runs, theta, bytes, w, speck, island). One pass
// over the cells subtracts theta and lists the runs; what follows looks at runs
// only. An island that is removed becomes background by turning over its runs,
// so that its regions and those around it need only be joined.
func (k *kernels) tidyMap() *Func {
	f := k.Func("")
	dst, a, runs, theta, bytes := f.Param(), f.Param(), f.Param(), f.ParamF(), f.Param()
	W, speck, island := f.Param(), f.Param(), f.Param()
	fill := func(p, end I32, x F32) {
		at := f.Let(p)
		f.Walk(at, end, 4, func() { f.StoreF(at, 0, x) })
	}
	f.If(theta.Less(Float(kernel.Nowhere)).Zero(), func() {
		fill(dst, f.Let(dst.Add(bytes)), Float(-1))
		f.Return()
	})

	to := f.Let(runs)
	k.listRuns(f, dst, a, to, theta, bytes, W)
	f.If(speck.Zero(), f.Return)

	// First islands, with the cells above, then holes.
	cells := f.Let(bytes.ShrU(2))
	kind, x, changed, largest := f.Let(Int(runAbove)), f.LetF(theta.Mul(Float(0.5)).Sub(theta)), f.Let(Int(1)), f.Int()
	f.Do(func() {
		f.If(changed, func() { f.joinRuns(runs, to, W) })
		changed.Set(Int(0))
		largest.Set(Int(0))
		r := f.Let(runs)
		f.If(kind, func() {
			f.Walk(r, to, runBytes, func() {
				size := Int(0).Sub(r.I32(runLink))
				f.If(r.I32(runEnd).And(runAbove), func() { largest.Set(largest.Max(size)) })
			})
		})
		first := f.Let(dst)
		r.Set(runs)
		f.Walk(r, to, runBytes, func() {
			word := f.Let(r.I32(runEnd))
			end := f.Let(dst.Add(word.ShrU(runShift).Shl(2)))
			f.If(word.Xor(kind).And(runAbove).Zero(), func() {
				_, link := f.rootOf(runs, r)
				size := f.Let(Int(0).Sub(link))
				f.If(size.Mul(speck).LessS(cells).OrI(size.Mul(island).LessS(largest)), func() {
					fill(first, end, x)
					f.Store(r, runEnd, word.Xor(Int(runAbove)))
					changed.Set(Int(1))
				})
			})
			first.Set(end)
		})
		x.Set(theta.Add(Float(1)).Mul(Float(0.5)).Sub(theta))
		kind.Inc(-1)
	}, Int(-1).LessS(kind))
	return f
}

// listRuns stores A - theta in dst and lists the runs at the local to. It
// takes 32 cells at a time, the last of which is bit 31 of a word; where a bit
// is not that of the cell before, a run ends.
func (k *kernels) listRuns(f *Func, dst, a, to I32, theta F32, bytes, W I32) {
	thetaV := f.LetV(theta.Splat())
	p, cell, start, above := f.Let(a), f.Let(Int(0)), f.Let(Int(0)), f.Int()
	q, end := f.Let(dst), f.Let(dst.Add(bytes))
	list := func(end I32, last int) {
		f.Store(to, runEnd, end.Shl(runShift).OrI(above).Or(last))
		f.Store(to, runLink, start.Sub(end))
		start.Set(end)
		to.Inc(runBytes)
	}
	f.While(q.LessU(end), func() {
		above.Set(theta.Less(p.F32(0)))
		left := f.Let(W)
		f.Do(func() {
			n, bits := f.Let(left.Min(Int(32))), f.Let(Int(0))
			f.Repeat(f.Let(n.ShrU(2)), func() {
				s := f.LetV(p.V128(0).Sub(thetaV))
				f.StoreV(q, 0, s)
				bits.Set(bits.ShrU(4).OrI(f.Splat(0).Less(s).Bitmask().Shl(28)))
				next(f, Int(16), p, q)
			})
			f.Repeat(f.Let(n.And(3)), func() {
				s := f.LetF(p.F32(0).Sub(theta))
				f.StoreF(q, 0, s)
				bits.Set(bits.ShrU(1).OrI(Float(0).Less(s).Shl(31)))
				next(f, Int(4), p, q)
			})
			cell.Set(cell.Add(n))
			bits.Set(bits.Xor(bits.Shl(1)).Xor(above.ShlI(Int(32).Sub(n))))
			f.While(bits, func() {
				list(f.Let(bits.TrailingZeros().Add(cell).Plus(-32)), 0)
				above.Set(above.Xor(Int(runAbove)))
				bits.Set(bits.AndI(bits.Plus(-1)))
			})
			left.Set(left.Sub(n))
		}, left)
		list(cell, runLast)
	})
}

// joinRuns makes one region of runs of a kind that touch.
func (f *Func) joinRuns(runs, to, W I32) {
	// Side by side there are such only where some were turned over.
	r, last := f.Let(runs), f.Let(to.Plus(-runBytes))
	f.Walk(r, last, runBytes, func() {
		word := f.Let(r.I32(runEnd))
		f.If(word.Xor(r.I32(runBytes+runEnd)).And(runAbove).OrI(word.And(runLast)).Zero(), func() { f.joinRun(runs, r, r.Plus(runBytes)) })
	})
	// One run of a row and one of the row below it. Rows end at the same time.
	upper, lower := f.Let(runs), f.Let(runs)
	f.Do(func() { lower.Inc(runBytes) }, lower.Plus(-runBytes).I32(runEnd).And(runLast).Zero())
	row := f.Let(W.Shl(runShift))
	f.While(lower.LessU(to), func() {
		u, l := f.Let(upper.I32(runEnd).Add(row)), f.Let(lower.I32(runEnd))
		f.If(u.Xor(l).And(runAbove).Zero(), func() { f.joinRun(runs, upper, lower) })
		u.Set(u.ShrU(runShift))
		l.Set(l.ShrU(runShift))
		upper.Set(upper.Add(l.LessU(u).Zero().Times(runBytes)))
		lower.Set(lower.Add(u.LessU(l).Zero().Times(runBytes)))
	})
}

// joinRun joins the regions of two runs. The smaller one is led to the larger,
// so that no way is longer than the logarithm of a region's size.
func (f *Func) joinRun(runs, i, j I32) {
	a, sizeA := f.rootOf(runs, i)
	b, sizeB := f.rootOf(runs, j)
	f.If(a.Eq(b).Zero(), func() {
		swap := f.Let(sizeB.LessS(sizeA)) // sizes are negative
		large := f.Let(b.Select(a, swap))
		f.Store(large, runLink, sizeA.Add(sizeB))
		f.Store(a.Select(b, swap), runLink, large.Sub(runs))
	})
}

// rootOf is the run that run r leads to, and its link.
func (f *Func) rootOf(runs, r I32) (root, link I32) {
	root = f.Let(r)
	link = f.Let(root.I32(runLink))
	f.While(Int(-1).LessS(link), func() {
		root.Set(runs.Add(link))
		link.Set(root.I32(runLink))
	})
	return root, link
}
