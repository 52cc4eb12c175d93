package main

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

// Entries of Paint's tap tables have two weights.
const paintTap = tapWeights + 8

// Paint goes row by row of the picture, which threads share out. First it
// blends, down the columns, the two rows of cells that a row lies between, of
// all maps, or as many as fit, into lines in scratch. So of each pixel the taps
// are read once, its best stays in a register, and each map costs it two cells.
func (k *kernels) paint() *Func {
	blend, labelRow, maskRow := k.paintBlend(), k.paintRow(true), k.paintRow(false)

	return k.paintRows(0, func(f *Func, p painting) {
		f.Call(blend, p.a, p.tapsY, p.WI, p.nextMap, p.maps)
		f.If(p.best, func() {
			f.Call(labelRow, p.out, p.tapsX, p.W, p.best, p.line, p.maps.Mul(p.line), p.number)
		}, func() { f.Call(maskRow, p.out, p.tapsX, p.W) })
	})
}

// painting is what a row of some maps is made of. Of each map a line in scratch
// is kept, line bytes long.
type painting struct {
	out, best    I32 // the row's bytes, and, where these are labels, its best
	a, nextMap   I32 // the first of the maps, and the bytes of one
	tapsY, tapsX I32
	W, WI        I32
	maps, line   I32 // how many, and a line's bytes
	number       I32 // what the first one's label is
	pixels       I32
}

// paintRows makes an op that calls row for each row of the picture. A cell of
// a map is 4<<shift bytes.
func (k *kernels) paintRows(shift int, row func(f *Func, p painting)) *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 8), ints(f, record, 5)
	p := painting{out: v[0], tapsY: v[2], tapsX: v[3], pixels: v[5], best: v[6], W: n[1], WI: n[3]}
	a, index, count := v[1], v[4], v[7]
	H, HI, T := n[0], n[2], n[4]
	f.If(count, func() { T.Set(count.I32(0)) })
	from, to := k.part(f, H, 1)
	next(f, from.Mul(p.W), p.out)
	pixels := f.Let(from.Mul(p.W).Shl(2))
	f.If(p.best, func() { next(f, pixels, p.best) })
	next(f, pixels, p.pixels)
	next(f, from.Times(paintTap), p.tapsY)
	H.Set(to.Sub(from))
	number := f.Int()
	f.If(p.best, func() {
		number.Set(index.I32(0))
		f.If(number.Zero(), func() {
			f.Fill(p.out, kernel.NoLabel, H.Mul(p.W))
			f.Fill(p.best, 0, H.Mul(p.W).Shl(2))
		})
	})
	p.line = f.Let(p.WI.Shl(2).Plus(4))
	if shift > 0 {
		p.line.Set(p.line.Add(p.line.Shl(shift)))
	}
	atOnce := f.Let(Int(scratchSize).DivU(p.line))
	p.nextMap = f.Let(HI.Mul(p.WI).Shl(2 + shift))
	p.maps, p.a, p.number = f.Int(), f.Int(), f.Int()
	f.Repeat(H, func() {
		first := f.Let(Int(0))
		f.While(first.LessS(T), func() {
			p.maps.Set(T.Sub(first).Min(atOnce))
			p.a.Set(a.Add(first.Mul(p.nextMap)))
			p.number.Set(number.Add(first))
			row(f, p)
			first.Set(first.Add(p.maps))
		})
		next(f, p.W, p.out)
		f.If(p.best, func() { next(f, p.W.Shl(2), p.best) })
		next(f, p.W.Shl(2), p.pixels)
		p.tapsY.Inc(paintTap)
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

// PaintGuided's maps have four numbers a cell, of which a vector is made. A line
// ends with its cells' tops: as high as any colour brings the map there. Between
// two cells whose tops are not above 0, as they are in most places, nothing is
// left to be done.
func (k *kernels) paintGuided() *Func {
	blend, labelRow, maskRow := k.guidedBlend(), k.paintGuidedRow(true), k.paintGuidedRow(false)
	return k.paintRows(2, func(f *Func, p painting) {
		f.Call(blend, p.a, p.tapsY, p.WI, p.nextMap, p.maps)
		f.If(p.best, func() {
			f.Call(labelRow, p.out, p.tapsX, p.W, p.pixels, p.WI, p.line, p.best, p.maps, p.number)
		}, func() {
			f.Fill(p.out, 0, p.W)
			f.Call(maskRow, p.out, p.tapsX, p.W, p.pixels, p.WI, p.line)
		})
	})
}

// guidedBlend makes guidedBlend(a, tapsY, wi, nextMap, maps), see paintBlend.
func (k *kernels) guidedBlend() *Func {
	f := k.Func("")
	a, tapsY, WI, nextMap, maps := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	first, count := taps(tapsY)
	wide := f.Let(WI.Shl(4))
	next(f, first.Mul(wide), a)
	down := f.Let(count.Plus(-1).Mul(wide))
	w := [2]V128{f.LetV(tapsY.Splat32(tapWeights)), f.LetV(tapsY.Splat32(tapWeights + 4))}
	to := f.Let(k.scratch.Get())
	f.Repeat(maps, func() {
		p, top := f.Let(a), f.Let(to.Add(wide).Plus(cellBytes))
		f.Repeat(f.Let(WI), func() {
			cell := f.LetV(k.madd(p.V128(0), w[0], p.Add(down).V128(0).Mul(w[1])))
			f.StoreV(to, 0, cell)
			f.StoreF(top, 0, sum(f.LetV(cell.PMax(lanesOf(0, 0, 0, -math.MaxFloat32)).Mul(lanesOf(255, 255, 255, 1)))))
			next(f, Int(cellBytes), p, to)
			top.Inc(4)
		})
		f.StoreV(to, 0, f.Splat(0))
		f.StoreF(top, 0, Float(0))
		to.Set(top.Plus(4))
		next(f, nextMap, a)
	})
	return f
}

// paintGuidedRow makes the function of a row, which goes from one pair of cells
// to the next:
//
//	labelRow(label, tapsX, w, pixels, wi, line, best, maps, number)
//	maskRow(mask, tapsX, w, pixels, wi, line), where the mask is 0
func (k *kernels) paintGuidedRow(label bool) *Func {
	f := k.Func("")
	out, tapsX, W, pixels, WI, line := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	var best, maps, number I32
	if label {
		best, maps, number = f.Param(), f.Param(), f.Param()
	}
	scratch := f.Let(k.scratch.Get())
	tops := f.Let(scratch.Add(WI.Plus(1).Shl(4)))

	// span paints n pixels between the cells at `at` and behind it.
	span := func(at, n, name I32) {
		left := f.LetV(at.V128(0))
		step := f.LetV(at.V128(cellBytes).Sub(left))
		var lefts, steps [4]V128
		for c := range lefts {
			lefts[c] = f.LetV(left.Shuffle(left, c, c, c, c))
			steps[c] = f.LetV(step.Shuffle(step, c, c, c, c))
		}
		var names V128
		if label {
			names = f.LetV(name.Splat())
		}
		f.For(Int(0), n, 4, func(i I32) {
			tap, rgb, to := f.Let(tapsX.Add(i.Shl(4))), f.Let(pixels.Add(i.Shl(2))), f.Let(out.Add(i))
			f.If(W.Sub(i).LessS(Int(4)), func() {
				// The row's last few, one by one.
				f.Repeat(f.Let(n.Sub(i)), func() {
					value := f.LetV(k.madd(step, tap.Splat32(tapWeights+4), left))
					colour := rgb.Word(0).BytesToInts().IntsToFloats().And(Bits(0xffffffff, 0xffffffff, 0xffffffff, 0)).Or(lanesOf(0, 0, 0, 1))
					s := f.LetF(sum(f.LetV(value.Mul(colour))))
					if label {
						top := f.Let(best.Add(to.Sub(out).Shl(2)))
						f.If(top.F32(0).Less(s), func() {
							f.StoreF(top, 0, s)
							f.StoreByte(to, 0, name)
						})
					} else {
						f.StoreByte(to, 0, Float(0).Less(s))
					}
					tap.Inc(paintTap)
					next(f, Int(4), rgb)
					to.Inc(1)
				})
			}, func() {
				// Four, of which some may be beyond the next cell: they stay as they are.
				mine := Bits(0, 1, 2, 3).LessI(n.Sub(i).Splat())
				low := tap.V128(0).Shuffle(tap.V128(paintTap), 3, 7, 3, 7)
				high := tap.V128(2*paintTap).Shuffle(tap.V128(3*paintTap), 3, 7, 3, 7)
				weight := f.LetV(low.Shuffle(high, 0, 1, 4, 5))
				words := f.LetV(rgb.V128(0))
				s := k.madd(steps[3], weight, lefts[3])
				for c := range 3 {
					byteOf := words
					if c > 0 {
						byteOf = words.ShrI(8 * c)
					}
					s = k.madd(byteOf.And(Bits(0xff)).IntsToFloats(), k.madd(steps[c], weight, lefts[c]), s)
				}
				if label {
					top := f.Let(best.Add(i.Shl(2)))
					s := f.LetV(s)
					old := f.LetV(top.V128(0))
					higher := f.LetV(old.Less(s).And(mine))
					f.StoreV(top, 0, s.Choose(old, higher))
					f.Store(to, 0, names.Choose(to.Word(0).BytesToInts(), higher).IntsToBytes().LaneI(0))
				} else {
					f.Store(to, 0, f.Splat(0).Less(s).And(mine).And(Bits(1)).IntsToBytes().LaneI(0))
				}
			})
		})
	}

	f.While(W, func() {
		first, _ := taps(tapsX)
		first = f.Let(first)
		// How many pixels lie between the same two cells.
		n, end, more := f.Let(Int(1)), f.Let(tapsX.Plus(paintTap)), f.Int()
		f.Do(func() {
			more.Set(Int(0))
			f.If(n.LessS(W), func() {
				more.Set(end.I32(0).Eq(first))
				n.Set(n.Add(more))
				end.Inc(paintTap)
			})
		}, more)
		at, top := f.Let(scratch.Add(first.Shl(4))), f.Let(tops.Add(first.Shl(2)))
		above := Float(0).Less(top.F32(0).Max(top.F32(4)))
		if label {
			name := f.Let(number)
			f.Repeat(f.Let(maps), func() {
				f.If(above, func() { span(at, n, name) })
				next(f, line, at, top)
				name.Inc(1)
			})
		} else {
			f.If(above, func() { span(at, n, Int(0)) })
		}
		next(f, n, out)
		next(f, n.Shl(2), pixels)
		if label {
			next(f, n.Shl(2), best)
		}
		tapsX.Set(tapsX.Add(n.Shl(4)))
		W.Set(W.Sub(n))
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
