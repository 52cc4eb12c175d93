package main

import "github.com/pmp-seg/pmp/kernel"

const (
	// maxPanels is how many panels of keys a row looks at before it goes on.
	maxPanels = 512
	// maxQueries is how many queries have a list in scratch at a time.
	maxQueries = 48

	// What lies in scratch: the scores of a row, the masks and the lists of
	// some queries, and for each of their rows the largest score so far and
	// the sum of the weights so far.
	masksAt                            = (maxPanels + 1) * panelBytes
	listsAt                            = masksAt + 4*maxQueries
	stateAt                            = listsAt + maxQueries*listBytes
	listCount, listTail, listFirst     = 0, 4, 8
	listBytes                          = listFirst + 4*(maxPanels+1)
	stateLargest, stateSum, stateBytes = 0, 4, 8
)

// Attention goes row by row; a row is one query of one head. Most masks leave
// a query only a small part of the picture. So each query first gets a list of
// the panels in which at least one key is open, which serves all heads, and
// nothing else is looked at. Without a mask one list, of all panels, serves
// all queries. The rows of a head follow one another, so that its part of K
// and V stays in the second-level cache. Threads share out the rows.
func (k *kernels) attention(list, attend *Func) *Func {
	whole := k.attentionMask()

	f, record := k.opFunc()
	v, n := views(f, record, 6), ints(f, record, 5)
	dst, q, keys, values, mask, count := v[0], v[1], v[2], v[3], v[4], v[5]
	NQ, NK, D, Heads, LDQ := n[0], n[1], n[2], n[3], n[4]
	N := f.Let(NK)
	f.If(count, func() { N.Set(count.I32(0)) })
	headDim := f.Let(D.DivU(Heads))
	head := f.Let(headDim.Shl(2))
	nextDst, nextQ, nextPanel := f.Let(D.Shl(2)), f.Let(LDQ.Shl(2)), f.Let(NK.Times(panelBytes))
	scratch := f.Let(k.scratch.Get())
	masks, lists, state := f.Let(scratch.Plus(masksAt)), f.Let(scratch.Plus(listsAt)), f.Let(scratch.Plus(stateAt))
	nextList := f.Let(Int(listBytes).Select(Int(0), mask))

	f.For(Int(0), NQ, maxQueries, func(first I32) {
		rows := f.Let(NQ.Sub(first))
		rows.Set(rows.Min(Int(maxQueries)))
		from, to := k.part(f, Heads.Mul(rows), 1)
		f.If(mask, func() {
			f.For(Int(0), rows, 1, func(i I32) {
				f.Call(whole, masks.Add(i.Shl(2)), mask.Add(first.Add(i).Mul(NK).Shl(2)), N)
			})
		})
		f.For(Int(0), N, maxPanels*kernel.Panel, func(j I32) {
			size := f.Let(N.Sub(j))
			size.Set(size.Min(Int(maxPanels * kernel.Panel)))
			f.If(mask, func() {
				f.For(Int(0), rows, 1, func(i I32) {
					row := f.Let(masks.Add(i.Shl(2)).I32(0))
					f.Call(list, lists.Add(i.Times(listBytes)), row.Add(j.Shl(2)).Select(Int(0), row), size)
				})
			}, func() { f.Call(list, lists, Int(0), size) })
			f.For(from, to, 1, func(item I32) {
				h := f.Let(item.DivU(rows))
				i := f.Let(item.Sub(h.Mul(rows)))
				query := f.Let(first.Add(i))
				row := f.Int()
				f.If(mask, func() {
					row.Set(masks.Add(i.Shl(2)).I32(0))
					f.If(row, func() { row.Set(row.Add(j.Shl(2))) })
				})
				part := f.Let(h.Mul(head))
				at := f.Let(part.Mul(NK).Add(j.Times(panelBytes))) // of the head's panels of K and V
				f.Call(attend,
					dst.Add(query.Mul(nextDst)).Add(part), q.Add(query.Mul(nextQ)).Add(part), keys.Add(at), values.Add(at),
					row, Int(0), lists.Add(i.Mul(nextList)), scratch, state.Add(item.Times(stateBytes)),
					size, headDim, nextPanel, j.Zero(), j.Add(size).Eq(N), float(record, 0))
			})
		})
	})
	return f
}

// attentionMask makes mask(to, mask, n), which stores the address of a query's
// row of the mask, or 0 if it blocks all of the n keys: then it counts for
// nothing.
func (k *kernels) attentionMask() *Func {
	f := k.Func("")
	to, mask, n := f.Param(), f.Param(), f.Param()
	blocked := f.LetV(Bits(0xffffffff))
	at := f.Let(Int(0))
	whole := f.Let(n.And(-4).Shl(2))
	f.While(at.LessS(whole).AndI(blocked.AllTrue()), func() {
		blocked.Set(mask.Add(at).V128(0).Less(f.Splat(0)))
		at.Inc(16)
	})
	f.If(n.And(3), func() {
		// The last of n's fours may hang over n; what is beyond is blocked.
		last := mask.Add(whole).V128(0).Less(f.Splat(0))
		beyond := n.And(3).Plus(-1).Splat().LessI(Bits(0, 1, 2, 3))
		blocked.Set(blocked.And(last.Or(beyond)))
	})
	f.Store(to, 0, mask.Select(Int(0), blocked.AllTrue().Zero()))
	return f
}

// attentionList makes list(list, mask, n), which lists the open ones of the
// full panels among n keys, and tells how many keys an open last panel that
// is not full has.
func (k *kernels) attentionList() *Func {
	f := k.Func("")
	list, mask, n := f.Param(), f.Param(), f.Param()
	to := f.Let(list)
	panels := f.Let(n.ShrU(3))
	tail := f.Let(n.And(kernel.Panel - 1))
	f.If(mask, func() {
		f.For(Int(0), panels, 1, func(i I32) {
			f.Store(to, listFirst, i)
			blocked := mask.V128(0).Less(f.Splat(0)).And(mask.V128(16).Less(f.Splat(0)))
			to.Set(to.Add(blocked.AllTrue().Zero().Shl(2)))
			mask.Inc(panelBytes)
		})
		open := f.Let(Int(0))
		f.For(Int(0), tail, 1, func(i I32) {
			open.Set(open.Add(mask.Add(i.Shl(2)).F32(0).Less(Float(0)).Zero()))
		})
		tail.Set(tail.Select(Int(0), open))
	}, func() {
		f.For(Int(0), panels, 1, func(i I32) {
			f.Store(to, listFirst, i)
			to.Inc(4)
		})
	})
	f.Store(list, listCount, to.Sub(list))
	f.Store(list, listTail, tail)
	return f
}

// attentionRow makes row(out, q, keys, values, mask, bias, list, scores, state,
// n, headDim, nextPanel, isFirst, isLast, scale): one query and one head, over
// the panels of a list, of n keys. That takes three steps: scores, weights
// relative to the largest score, and the sum of the weights times V. If these
// are not the first keys, what out holds is scaled to match; after the last
// ones it is divided by the sum of the weights.
func (k *kernels) attentionRow() *Func {
	f := k.Func("")
	out, q, keys, values, mask, bias := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	list, scores, state := f.Param(), f.Param(), f.Param()
	n, headDim, nextPanel := f.Param(), f.Param(), f.Param()
	isFirst, isLast, scale := f.Param(), f.Param(), f.ParamF()
	length := f.Let(list.I32(listCount)) // of the list, in bytes
	tail := f.Let(list.I32(listTail))
	first := f.Let(list.Plus(listFirst))
	end := f.Let(first.Add(length))
	tailPanel := f.Let(n.ShrU(3))
	factor := f.LetV(scale.Splat())
	// Eight keys have eight channels each in so many bytes.
	const block = kernel.Panel * panelBytes

	old := f.LetF(Float(-inf))
	f.If(isFirst.Zero(), func() { old.Set(state.F32(stateLargest)) })
	best := f.LetV(old.Splat())
	to := f.Let(scores)
	// score stores the scores of a panel's keys.
	score := func(panel I32) {
		x, p, c := f.Let(q), f.Let(keys.Add(panel.Times(block))), f.Let(headDim)
		var sums [kernel.Panel]V128
		for i := range sums {
			sums[i] = f.LetV(f.Splat(0))
		}
		f.Do(func() {
			for half := range 2 {
				y := f.LetV(x.V128(16 * half))
				for i, s := range sums {
					s.Set(k.madd(y, p.V128(panelBytes*i+16*half), s))
				}
			}
			x.Inc(panelBytes)
			p.Set(p.Add(nextPanel))
			c.Inc(-kernel.Panel)
		}, c)
		low, high := f.LetV(f.addAcross(sums[:4]).Mul(factor)), f.LetV(f.addAcross(sums[4:]).Mul(factor))
		f.If(bias, func() {
			for half, s := range []V128{low, high} {
				s.Set(s.Add(bias.Add(panel.Times(panelBytes)).V128(16 * half)))
			}
		})
		f.If(mask, func() {
			for half, s := range []V128{low, high} {
				m := mask.Add(panel.Times(panelBytes)).V128(16 * half)
				s.Set(f.Splat(-inf).Choose(s, m.Less(f.Splat(0))))
			}
		})
		f.StoreV(to, 0, low)
		f.StoreV(to, 16, high)
		best.Set(best.PMax(low).PMax(high))
		to.Inc(panelBytes)
	}
	next := f.Let(first)
	f.Walk(next, end, 4, func() { score(f.Let(next.I32(0))) })
	f.If(tail, func() {
		// Key by key, since what lies behind the last one is not ours to read.
		past := f.Let(tailPanel.Times(panelBytes))
		p, m, b := f.Let(keys.Add(tailPanel.Times(block))), f.Let(mask.Add(past)), f.Let(bias.Add(past))
		f.StoreV(to, 0, f.Splat(-inf))
		f.StoreV(to, 16, f.Splat(-inf))
		f.Repeat(f.Let(tail), func() {
			x, key, c, total := f.Let(q), f.Let(p), f.Let(headDim), f.LetV(f.Splat(0))
			f.Do(func() {
				for half := range 2 {
					total.Set(k.madd(x.V128(16*half), key.V128(16*half), total))
				}
				x.Inc(panelBytes)
				key.Set(key.Add(nextPanel))
				c.Inc(-kernel.Panel)
			}, c)
			s := f.LetF(sum(total).Mul(scale))
			f.If(bias, func() {
				s.Set(s.Add(b.F32(0)))
				b.Inc(4)
			})
			f.If(mask, func() {
				f.If(m.F32(0).Less(Float(0)), func() { s.Set(Float(-inf)) })
				m.Inc(4)
			})
			f.StoreF(to, 0, s)
			best.Set(best.PMax(s.Splat()))
			p.Inc(panelBytes)
			to.Inc(4)
		})
		to.Set(scores.Add(length.Shl(3)).Plus(panelBytes))
	})

	// While every key so far is blocked there is nothing to be relative to.
	largest := f.LetF(largest(best))
	top := f.LetV(largest.Select(Float(0), Float(-inf).Less(largest)).Splat())
	sums := [2]V128{f.Vec(), f.Vec()}
	at := f.Let(scores)
	f.Walk(at, to, panelBytes, func() {
		for half, total := range sums {
			e := k.exp(f, f.LetV(at.V128(16*half).Sub(top)))
			f.StoreV(at, 16*half, e)
			total.Set(total.Add(e))
		}
	})
	total := f.LetF(sum(sums[0].Add(sums[1])))
	shrink, done := f.LetV(f.Splat(1)), f.LetV(f.Splat(1))
	f.If(isFirst.Zero(), func() {
		shrink.Set(k.exp(f, f.LetV(old.Splat().Sub(top))))
		total.Set(total.Add(state.F32(stateSum).Mul(shrink.Lane(0))))
	})
	f.If(isLast, func() { done.Set(Float(1).Div(total).Splat()) }, func() {
		f.StoreF(state, stateLargest, largest)
		f.StoreF(state, stateSum, total)
	})

	// channels adds up some panels of eight channels of V. Keys take turns
	// between two sums, which hides the latency of an addition.
	channels := func(count int) {
		acc, v := make([][2]V128, 2*count), make([]I32, count)
		for i := range acc {
			acc[i] = [2]V128{f.LetV(f.Splat(0)), f.LetV(f.Splat(0))}
		}
		for i := range v {
			v[i] = f.Int()
		}
		weight := f.Let(scores)
		start := func(panel I32) {
			for i := range v {
				v[i].Set(values.Add(panel.Times(block)))
				if i > 0 {
					v[i].Set(v[i-1].Add(nextPanel))
				}
			}
		}
		key := func(i int) {
			w := f.LetV(weight.Splat32(4 * i))
			for j := range acc {
				s := acc[j][i%2]
				s.Set(k.madd(w, v[j/2].V128(panelBytes*i+16*(j%2)), s))
			}
		}
		at := f.Let(first)
		f.Walk(at, end, 4, func() {
			start(at.I32(0))
			for i := range kernel.Panel {
				key(i)
			}
			weight.Inc(panelBytes)
		})
		start(tailPanel)
		f.Repeat(f.Let(tail), func() {
			key(0)
			weight.Inc(4)
			for _, p := range v {
				p.Inc(panelBytes)
			}
		})
		for j := range acc {
			s := acc[j][0]
			s.Set(s.Add(acc[j][1]))
			f.If(isFirst.Zero(), func() { s.Set(s.Add(out.V128(16 * j).Mul(shrink))) })
			f.StoreV(out, 16*j, s.Mul(done))
		}
		out.Inc(panelBytes * count)
		values.Set(values.Add(nextPanel.Times(count)))
	}
	f.Repeat(f.Let(headDim.ShrU(4)), func() { channels(2) })
	f.If(headDim.And(8), func() { channels(1) })
	return f
}

// windowAttention goes window by window and head by head, which threads share out.
func (k *kernels) windowAttention(list, attend *Func) *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 5), ints(f, record, 6)
	dst, q, keys, values, bias := v[0], v[1], v[2], v[3], v[4]
	Windows, Size, D, Heads, LDQ, Rows := n[0], n[1], n[2], n[3], n[4], n[5]
	headDim := f.Let(D.DivU(Heads))
	nextDst, nextQ, nextPanel := f.Let(D.Shl(2)), f.Let(LDQ.Shl(2)), f.Let(Rows.Times(panelBytes))
	nextBias := f.Let(Size.Plus(3).And(-4).Shl(2))
	scratch := f.Let(k.scratch.Get())
	f.Call(list, scratch.Plus(listsAt), Int(0), Size)
	from, to := k.part(f, Windows.Mul(Heads), 1)
	f.For(from, to, 1, func(item I32) {
		w := f.Let(item.DivU(Heads))
		h := f.Let(item.Sub(w.Mul(Heads)))
		part := f.Let(h.Mul(headDim).Shl(2))
		query := f.Let(w.Mul(Size))
		at := f.Let(part.Mul(Rows).Add(query.Times(panelBytes))) // of the window's and head's panels of K and V
		b := f.Let(bias.Add(h.Mul(Size).Mul(nextBias)))
		f.Repeat(f.Let(Size), func() {
			f.Call(attend, dst.Add(query.Mul(nextDst)).Add(part), q.Add(query.Mul(nextQ)).Add(part), keys.Add(at), values.Add(at),
				Int(0), b, scratch.Plus(listsAt), scratch, scratch.Plus(stateAt), Size, headDim, nextPanel, Int(1), Int(1), float(record, 0))
			query.Inc(1)
			next(f, nextBias, b)
		})
	})
	return f
}

// addAcross is a vector of the sums of each of the first four vectors.
func (f *Func) addAcross(v []V128) V128 {
	pair := func(a, b V128) V128 {
		return f.LetV(a.Shuffle(b, 0, 4, 1, 5).Add(a.Shuffle(b, 2, 6, 3, 7)))
	}
	low, high := pair(v[0], v[1]), pair(v[2], v[3])
	return low.Shuffle(high, 0, 1, 4, 5).Add(low.Shuffle(high, 2, 3, 6, 7))
}
