package main

// taps reads an entry of a tap table: the first input and the number of
// inputs; weights follow 8 bytes further.
func taps(entry I32) (first, n I32) { return entry.I32(0), entry.I32(4) }

const tapWeights = 8

func (k *kernels) picture() *Func {
	pixels := k.pictureRow()

	f, record := k.opFunc()
	v, n := views(f, record, 4), ints(f, record, 8)
	dst, src, tapsY, tapsX := v[0], v[1], v[2], v[3]
	H, W, HP, WP, WI, SizeY, SizeX := n[0], n[1], n[2], n[3], n[5], n[6], n[7]
	nextY := f.Let(SizeY.Shl(2).Plus(tapWeights))
	from, to := k.part(f, HP, 1)
	next(f, from.Mul(WP).Shl(4), dst)
	next(f, from.Mul(nextY), tapsY)
	f.For(from, to, 1, func(y I32) {
		width := f.Let(W.Select(Int(0), y.LessS(H)))
		f.If(width, func() {
			f.Call(pixels, dst, src, tapsY, tapsX, width, WI.Shl(2), SizeX.Shl(2).Plus(tapWeights))
		})
		f.Fill(dst.Add(width.Shl(4)), 0, WP.Sub(width).Shl(4))
		next(f, WP.Shl(4), dst)
		next(f, nextY, tapsY)
	})
	return f
}

// pictureRow makes pictureRow(dst, src, tapsY, tapsX, w, nextRow, nextTap).
// A pixel's four bytes are the four lanes of one vector.
func (k *kernels) pictureRow() *Func {
	f := k.Func("")
	dst, src, tapsY, tapsX, W, nextRow, nextTap := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	firstY, countY := taps(tapsY)
	src.Set(src.Add(firstY.Mul(nextRow)))
	rows := f.Let(countY)
	f.Repeat(W, func() {
		firstX, countX := taps(tapsX)
		column := f.Let(src.Add(firstX.Shl(2)))
		width := f.Let(countX.Shl(2))
		wy := f.Let(tapsY)
		total := f.LetV(f.Splat(0))
		f.Repeat(f.Let(rows), func() {
			p, wx := f.Let(column), f.Let(tapsX)
			line := f.LetV(f.Splat(0))
			f.Walk(p, f.Let(p.Add(width)), 4, func() {
				line.Set(k.madd(p.Word(0).BytesToInts().IntsToFloats(), wx.Splat32(tapWeights), line))
				wx.Inc(4)
			})
			total.Set(k.madd(line, wy.Splat32(tapWeights), total))
			wy.Inc(4)
			column.Set(column.Add(nextRow))
		})
		colour := total.Sub(f.Splat(127)).Mul(f.Splat(1.0 / 128))
		f.StoreV(dst, 0, colour.And(Bits(0xffffffff, 0xffffffff, 0xffffffff, 0)))
		dst.Inc(16)
		tapsX.Set(tapsX.Add(nextTap))
	})
	return f
}
