package main

import "github.com/pmp-seg/pmp/kernel"

// Entries of Paint's tap tables have two weights.
const paintTap = tapWeights + 8

// Paint goes row by row of the picture, which threads share out. First it
// blends, down the columns, the two rows of cells that a row lies between, of
// all maps, or as many as fit, into lines in scratch. So of each pixel the taps
// are read once, its best stays in a register, and each map costs it two cells.
func (k *kernels) paint() *Func {
	blend, labelRow, maskRow := k.paintBlend(), k.paintRow(true), k.paintRow(false)

	f, record := k.opFunc()
	v, n := views(f, record, 8), ints(f, record, 5)
	mask, a, tapsY, tapsX, index, label, best, count := v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
	H, W, HI, WI, T := n[0], n[1], n[2], n[3], n[4]
	f.If(count, func() { T.Set(count.I32(0)) })
	from, to := k.part(f, H, 1)
	out := f.Let(mask.Add(label).Add(from.Mul(W))) // one of them is 0
	next(f, from.Mul(W).Shl(2), best)
	next(f, from.Times(paintTap), tapsY)
	H.Set(to.Sub(from))
	number := f.Int()
	f.If(label, func() {
		number.Set(index.I32(0))
		f.If(number.Zero(), func() {
			f.Fill(out, kernel.NoLabel, H.Mul(W))
			f.Fill(best, 0, H.Mul(W).Shl(2))
		})
	})
	line := f.Let(WI.Shl(2).Plus(4))
	atOnce := f.Let(Int(scratchSize).DivU(line))
	nextMap := f.Let(HI.Mul(WI).Shl(2))
	f.Repeat(H, func() {
		first := f.Let(Int(0))
		f.While(first.LessS(T), func() {
			maps := f.Let(T.Sub(first).Min(atOnce))
			f.Call(blend, a.Add(first.Mul(nextMap)), tapsY, WI, nextMap, maps)
			f.If(label, func() {
				f.Call(labelRow, out, tapsX, W, best, line, maps.Mul(line), number.Add(first))
			}, func() { f.Call(maskRow, out, tapsX, W) })
			first.Set(first.Add(maps))
		})
		next(f, W, out)
		next(f, W.Shl(2), best)
		tapsY.Inc(paintTap)
	})
	return f
}

// paintBlend makes paintBlend(a, tapsY, wi, nextMap, maps), which makes the
// lines. A line ends with a 0, the right neighbour of an only cell.
func (k *kernels) paintBlend() *Func {
	f := k.Func("")
	a, tapsY, WI, nextMap, maps := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	first, count := taps(tapsY)
	wide := f.Let(WI.Shl(2))
	next(f, first.Mul(wide), a)
	// Where there is but one row, the second has no weight; it is read from the
	// same place, since there is no other.
	down := f.Let(count.Plus(-1).Mul(wide))
	w := [2]F32{f.LetF(tapsY.F32(tapWeights)), f.LetF(tapsY.F32(tapWeights + 4))}
	wV := [2]V128{f.LetV(w[0].Splat()), f.LetV(w[1].Splat())}
	to := f.Let(k.scratch.Get())
	f.Repeat(maps, func() {
		p := f.Let(a)
		f.Repeat(f.Let(WI.ShrU(2)), func() {
			f.StoreV(to, 0, k.madd(p.V128(0), wV[0], p.Add(down).V128(0).Mul(wV[1])))
			next(f, Int(16), p, to)
		})
		f.Repeat(f.Let(WI.And(3)), func() {
			f.StoreF(to, 0, p.F32(0).Mul(w[0]).Add(p.Add(down).F32(0).Mul(w[1])))
			next(f, Int(4), p, to)
		})
		f.Store(to, 0, Int(0))
		to.Inc(4)
		next(f, nextMap, a)
	})
	return f
}

// paintRow makes the function of a row, which reads lines of cells:
//
//	labelRow(label, tapsX, w, best, line, lines, index): line and lines are
//	the bytes of one and of all, and index is what the first one's label is
//	maskRow(mask, tapsX, w)
func (k *kernels) paintRow(label bool) *Func {
	f := k.Func("")
	out, tapsX, W := f.Param(), f.Param(), f.Param()
	var best, line, lines, index I32
	if label {
		best, line, lines, index = f.Param(), f.Param(), f.Param(), f.Param()
	}
	scratch := f.Let(k.scratch.Get())
	one := f.LetV(Bits(1))
	cellsOf := func(pixel int) I32 {
		first, _ := taps(tapsX.Plus(pixel * paintTap))
		return f.Let(scratch.Add(first.Shl(2)))
	}
	step := func(pixels int) {
		next(f, Int(pixels), out)
		if label {
			best.Inc(4 * pixels)
		}
		tapsX.Inc(pixels * paintTap)
		W.Inc(-pixels)
	}
	f.While(Int(3).LessS(W), func() {
		// Two pixels share a vector of left and right cells.
		var at [4]I32
		var w [2]V128
		for i := range at {
			at[i] = cellsOf(i)
		}
		for i := range w {
			tap := 2*i*paintTap + tapWeights
			w[i] = f.LetV(tapsX.HighPair(tap+paintTap, tapsX.Pair(tap)))
		}
		sums := func() V128 {
			p := f.LetV(at[1].HighPair(0, at[0].Pair(0)).Mul(w[0]))
			q := f.LetV(at[3].HighPair(0, at[2].Pair(0)).Mul(w[1]))
			return f.LetV(p.Shuffle(q, 0, 2, 4, 6).Add(p.Shuffle(q, 1, 3, 5, 7)))
		}
		if label {
			top, name, number := f.LetV(best.V128(0)), f.LetV(out.Word(0).BytesToInts()), f.LetV(index.Splat())
			end := f.Let(at[0].Add(lines))
			f.Do(func() {
				s := sums()
				name.Set(number.Choose(name, top.Less(s)))
				top.Set(top.PMax(s))
				number.Set(number.AddI(one))
				next(f, line, at[:]...)
			}, at[0].LessU(end))
			f.StoreV(best, 0, top)
			f.Store(out, 0, name.IntsToBytes().LaneI(0))
		} else {
			f.Store(out, 0, f.Splat(0).Less(sums()).And(one).IntsToBytes().LaneI(0))
		}
		step(4)
	})
	f.While(W, func() {
		at, w := cellsOf(0), f.LetV(tapsX.Pair(tapWeights))
		sum := func() F32 {
			p := f.LetV(at.Pair(0).Mul(w))
			return f.LetF(p.Lane(0).Add(p.Lane(1)))
		}
		if label {
			end, number := f.Let(at.Add(lines)), f.Let(index)
			f.Do(func() {
				s := sum()
				f.If(best.F32(0).Less(s), func() {
					f.StoreF(best, 0, s)
					f.StoreByte(out, 0, number)
				})
				next(f, line, at)
				number.Inc(1)
			}, at.LessU(end))
		} else {
			f.StoreByte(out, 0, Float(0).Less(sum()))
		}
		step(1)
	})
	return f
}

// colourBlock is how many labels are coloured in a call, so that engines can
// swap in optimised code soon.
const colourBlock = 1 << 12

// Colour takes 16 labels at a time, which are mostly the same. Threads share out
// the labels.
func (k *kernels) colour() *Func {
	block := k.Func("")
	{
		f := block
		dst, label, palette, n := f.Param(), f.Param(), f.Param(), f.Param()
		colourOf := func(i int) I32 { return palette.Add(label.Byte(i).Shl(2)) }
		f.Repeat(f.Let(n.ShrU(4)), func() {
			same := label.Byte(0).Times(0x01010101).Splat()
			f.If(label.V128(0).EqI(same).AllTrue(), func() {
				colour := f.LetV(colourOf(0).Splat32(0))
				for i := range 4 {
					f.StoreV(dst, 16*i, colour)
				}
			}, func() {
				for i := range 16 {
					f.Store(dst, 4*i, colourOf(i).I32(0))
				}
			})
			dst.Inc(64)
			label.Inc(16)
		})
		f.Repeat(f.Let(n.And(15)), func() {
			f.Store(dst, 0, colourOf(0).I32(0))
			dst.Inc(4)
			label.Inc(1)
		})
	}

	f, record := k.opFunc()
	v := views(f, record, 3)
	from, to := k.part(f, integer(record, 0), lineFloats)
	f.For(from, to, colourBlock, func(i I32) {
		f.Call(block, v[0].Add(i.Shl(2)), v[1].Add(i), v[2], to.Sub(i).Min(Int(colourBlock)))
	})
	return f
}
