package main

import "github.com/pmp-seg/pmp/kernel"

// Entries of Paint's tap tables have two weights.
const paintTap = tapWeights + 8

func (k *kernels) paint() *Func {
	pixels := k.paintRow()

	f, record := k.opFunc()
	v, n := views(f, record, 7), ints(f, record, 3)
	mask, a, tapsY, tapsX, index, label, best := v[0], v[1], v[2], v[3], v[4], v[5], v[6]
	H, W, WI := n[0], n[1], n[2]
	number := f.Let(index.I32(0))
	from, to := k.part(f, H, 1)
	next(f, from.Mul(W), mask, label)
	next(f, from.Mul(W).Shl(2), best)
	next(f, from.Times(paintTap), tapsY)
	H.Set(to.Sub(from))
	f.If(number.Zero(), func() {
		f.Fill(label, kernel.NoLabel, H.Mul(W))
		f.Fill(best, 0, H.Mul(W).Shl(2))
	})
	f.Repeat(H, func() {
		f.Call(pixels, mask, label, best, a, tapsY, tapsX, W, WI.Shl(2), number, float(record, 0))
		next(f, W, mask, label)
		best.Set(best.Add(W.Shl(2)))
		tapsY.Inc(paintTap)
	})
	return f
}

// paintRow makes paintRow(mask, label, best, a, tapsY, tapsX, w, wide, index,
// theta), where wide is the length of a row of A in bytes.
func (k *kernels) paintRow() *Func {
	f := k.Func("")
	mask, label, best, a, tapsY, tapsX := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	W, wide, index, theta := f.Param(), f.Param(), f.Param(), f.ParamF()

	// Where there is but one row or column, the second has no weight; it is
	// read from the same place, since there is no other.
	first, count := taps(tapsY)
	upper := f.Let(a.Add(first.Mul(wide)))
	lower := f.Let(upper.Add(count.Plus(-1).Mul(wide)))
	wy := [2]F32{f.LetF(tapsY.F32(tapWeights)), f.LetF(tapsY.F32(tapWeights + 4))}
	wyV := [2]V128{f.LetV(wy[0].Splat()), f.LetV(wy[1].Splat())}
	thetaV, indexV := f.LetV(theta.Splat()), f.LetV(index.Splat())

	// Two pixels share a vector: each one's left and right cell, blended
	// down the column, wait for its weights.
	pairs := func(tap int) V128 {
		var at [2]I32
		for i := range at {
			at[i] = f.Let(tapsX.I32(tap + i*paintTap).Shl(2))
		}
		cells := func(row I32) V128 {
			return row.Add(at[1]).HighPair(0, row.Add(at[0]).Pair(0))
		}
		s := k.madd(cells(upper), wyV[0], cells(lower).Mul(wyV[1]))
		w := tapsX.HighPair(tap+paintTap+tapWeights, tapsX.Pair(tap+tapWeights))
		return f.LetV(s.Mul(w))
	}
	f.If(Int(4).LessS(wide), func() {
		f.While(Int(3).LessS(W), func() {
			p, q := pairs(0), pairs(2*paintTap)
			s := f.LetV(p.Shuffle(q, 0, 2, 4, 6).Add(p.Shuffle(q, 1, 3, 5, 7)))
			f.Store(mask, 0, thetaV.Less(s).And(Bits(1)).IntsToBytes().LaneI(0))
			old := f.LetV(best.V128(0))
			wins := f.LetV(old.PMax(thetaV).Less(s))
			f.StoreV(best, 0, s.Choose(old, wins))
			f.Store(label, 0, indexV.Choose(label.Word(0).BytesToInts(), wins).IntsToBytes().LaneI(0))
			next(f, Int(4), mask, label)
			best.Inc(16)
			tapsX.Inc(4 * paintTap)
			W.Inc(-4)
		})
	})
	f.Repeat(W, func() {
		first, count := taps(tapsX)
		x0 := f.Let(first.Shl(2))
		x1 := f.Let(x0.Add(count.Plus(-1).Shl(2)))
		column := func(x I32) F32 {
			return upper.Add(x).F32(0).Mul(wy[0]).Add(lower.Add(x).F32(0).Mul(wy[1]))
		}
		s := f.LetF(column(x0).Mul(tapsX.F32(tapWeights)).Add(column(x1).Mul(tapsX.F32(tapWeights + 4))))
		f.StoreByte(mask, 0, theta.Less(s))
		f.If(best.F32(0).Max(theta).Less(s), func() {
			f.StoreF(best, 0, s)
			f.StoreByte(label, 0, index)
		})
		next(f, Int(1), mask, label)
		best.Inc(4)
		tapsX.Inc(paintTap)
	})
	return f
}
