package main

import "github.com/pmp-seg/pmp/kernel"

const (
	// keyBlock is how many keys a block of queries looks at before it goes
	// on: a head's part of so many rows of K and V and their scores stay in
	// the caches, while all the queries pass by.
	keyBlock = 128
	// maxQueries bounds a block of queries: a multiple of the micro-kernels' rows.
	maxQueries = 48
	// Before the scores of each query scratch keeps the largest score so far,
	// the sum of the weights so far, and the address of the query's mask.
	stateLargest, stateSum, stateMask, stateSize = 0, 4, 8, 16
)

// Attention takes a block of queries through one head, block by block of
// keys. The scores of a block go to scratch and become weights relative to
// the largest score so far; the weights times V are added to dst. When a
// later block has a larger score, what dst holds is scaled down first; in
// the end it is divided by the sum of the weights. Both products are the
// micro-kernel's.
func (k *kernels) attention() *Func {
	begin, weigh, scale := k.attentionBegin(), k.attentionWeigh(), k.scaleRow()

	f, record := k.opFunc()
	v, n := views(f, record, 6), ints(f, record, 6)
	dst, q, keys, values, mask, count := v[0], v[1], v[2], v[3], v[4], v[5]
	NQ, NK, D, Heads, LDQ, LDV := n[0], n[1], n[2], n[3], n[4], n[5]
	N := f.Let(NK)
	f.If(count, func() { N.Set(count.I32(0)) })
	headDim := f.Let(D.DivU(Heads))
	head := f.Let(headDim.Shl(2))
	nextDst, nextQ, nextV := f.Let(D.Shl(2)), f.Let(LDQ.Shl(2)), f.Let(LDV.Shl(2))

	scratch := f.Let(k.scratch.Get())
	line := f.Let(NK.Plus(kernel.Panel - 1).And(-kernel.Panel).Min(Int(keyBlock)).Shl(2).Plus(stateSize))
	block := Int(maxQueries)

	f.Repeat(Heads, func() {
		first := f.Let(Int(0))
		f.While(first.LessS(NQ), func() {
			rows := f.Let(NQ.Sub(first))
			rows.Set(rows.Min(block))
			out := f.Let(dst.Add(first.Mul(nextDst)))
			// each calls body for every query of the block, with its line of
			// scratch and its row of dst.
			each := func(body func(i, line, out I32)) {
				p, to := f.Let(scratch), f.Let(out)
				f.For(Int(0), rows, 1, func(i I32) {
					body(i, p, to)
					p.Set(p.Add(line))
					to.Set(to.Add(nextDst))
				})
			}
			each(func(i, line, out I32) {
				row := mask.Add(first.Add(i).Mul(NK).Shl(2))
				f.Call(begin, line, row.Select(Int(0), mask), N)
			})
			f.For(Int(0), N, keyBlock, func(j I32) {
				size := f.Let(N.Sub(j))
				size.Set(size.Min(Int(keyBlock)))
				k.callStrip(f, stripArgs{
					dst: scratch.Plus(stateSize), a: q.Add(first.Mul(nextQ)), b: keys.Add(j.Mul(nextDst)),
					bias: Int(0), res: Int(0),
					rows: rows, panels: size.Plus(kernel.Panel - 1).ShrU(3), k: headDim, segments: Int(1), jump: Int(0),
					lda: nextQ, ldd: line, ldr: Int(0), ldb: Int(panelBytes), nextB: D.Times(panelBytes),
					act: Int(0),
				})
				each(func(i, line, out I32) {
					f.Call(weigh, line, j, size, out, headDim, float(record, 0))
				})
				k.callStrip(f, stripArgs{
					dst: out, a: scratch.Plus(stateSize), b: values.Add(j.Mul(nextV)),
					bias: Int(0), res: out.Select(Int(0), j),
					rows: rows, panels: headDim.ShrU(3), k: size, segments: Int(1), jump: Int(0),
					lda: line, ldd: nextDst, ldr: nextDst, ldb: nextV, nextB: Int(panelBytes),
					act: Int(0),
				})
			})
			each(func(i, line, out I32) {
				f.Call(scale, out, headDim, Float(1).Div(line.F32(stateSum)))
			})
			first.Set(first.Add(rows))
		})
		next(f, head, dst, q, values)
		keys.Set(keys.Add(headDim.Times(panelBytes)))
	})
	return f
}

// attentionBegin makes begin(line, mask, n), which sets a query's state to
// that before the first key. A mask that blocks every key counts for nothing.
func (k *kernels) attentionBegin() *Func {
	f := k.Func("")
	line, mask, n := f.Param(), f.Param(), f.Param()
	f.If(mask, func() {
		blocked := f.LetV(Bits(0xffffffff))
		at := f.Let(Int(0))
		whole := f.Let(n.And(-4).Shl(2))
		f.While(at.LessS(whole).AndI(blocked.AllTrue()), func() {
			blocked.Set(mask.Add(at).V128(0).Less(f.Splat(0)))
			at.Inc(16)
		})
		f.If(n.And(3), func() {
			last := mask.Add(whole).V128(0).Less(f.Splat(0)).Or(overhang(n))
			blocked.Set(blocked.And(last))
		})
		f.If(blocked.AllTrue(), func() { mask.Set(Int(0)) })
	})
	f.StoreF(line, stateLargest, Float(-inf))
	f.StoreF(line, stateSum, Float(0))
	f.Store(line, stateMask, mask)
	return f
}

// overhang has ones in those lanes of the last of n numbers' fours that lie
// beyond n, which is not a multiple of four.
func overhang(n I32) V128 { return n.And(3).Plus(-1).Splat().LessI(Bits(0, 1, 2, 3)) }

// attentionWeigh makes weigh(line, j, n, out, headDim, scale): the n scores
// in line, those of the keys from j on, become weights, and what the query's
// row has summed up so far is scaled to match them. The last four scores may
// hang over n.
func (k *kernels) attentionWeigh() *Func {
	f := k.Func("")
	line, j, n, out, headDim, scale := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.ParamF()
	scores := f.Let(line.Plus(stateSize))
	factor := f.LetV(scale.Splat())
	bytes := f.Let(n.Shl(2))
	whole := f.Let(bytes.And(-16))
	mask := f.Let(line.I32(stateMask))
	f.If(mask, func() { mask.Set(mask.Add(j.Shl(2))) })

	old := f.LetF(line.F32(stateLargest))
	best := f.LetV(old.Splat())
	score := func(at I32, masked, last bool) {
		s := f.LetV(scores.Add(at).V128(0).Mul(factor))
		if masked {
			s.Set(f.Splat(-inf).Choose(s, mask.Add(at).V128(0).Less(f.Splat(0))))
		}
		if last {
			s.Set(f.Splat(-inf).Choose(s, overhang(n)))
		}
		f.StoreV(scores.Add(at), 0, s)
		best.Set(best.PMax(s))
	}
	pass := func(masked bool) func() {
		return func() {
			f.For(Int(0), whole, 16, func(at I32) { score(at, masked, false) })
			f.If(n.And(3), func() { score(whole, masked, true) })
		}
	}
	f.If(mask, pass(true), pass(false))

	// While every key so far is blocked there is nothing to be relative to.
	largest := f.LetF(largest(best))
	f.StoreF(line, stateLargest, largest)
	top := f.LetV(largest.Select(Float(0), Float(-inf).Less(largest)).Splat())
	sums := f.Vec()
	f.For(Int(0), bytes, 16, func(at I32) {
		e := k.exp(f, f.LetV(scores.Add(at).V128(0).Sub(top)))
		f.StoreV(scores.Add(at), 0, e)
		sums.Set(sums.Add(e))
	})
	total := f.LetF(line.F32(stateSum))
	f.If(old.Less(largest).AndI(Int(0).LessS(j)), func() {
		shrink := k.exp(f, f.LetV(old.Splat().Sub(top)))
		total.Set(total.Mul(shrink.Lane(0)))
		fours(f, headDim, func(at I32) { f.StoreV(out.Add(at), 0, out.Add(at).V128(0).Mul(shrink)) })
	})
	f.StoreF(line, stateSum, total.Add(sum(sums)))
	return f
}

// scaleRow makes scaleRow(row, n, factor).
func (k *kernels) scaleRow() *Func {
	f := k.Func("")
	row, n, factor := f.Param(), f.Param(), f.ParamF()
	v := f.LetV(factor.Splat())
	fours(f, n, func(at I32) { f.StoreV(row.Add(at), 0, row.Add(at).V128(0).Mul(v)) })
	return f
}
