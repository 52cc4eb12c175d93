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
// A pixel's four bytes are the four lanes of one vector. Some outputs at a time,
// what they see of the source is added up from top to bottom first, so that each
// of its bytes is unpacked about twice, and the sums then from left to right.
// Nothing is fused, see kernel.Picture.
func (k *kernels) pictureRow() *Func {
	f := k.Func("")
	dst, src, tapsY, tapsX, W, nextRow, nextTap := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	firstY, rows := taps(tapsY)
	src.Set(src.Add(firstY.Mul(nextRow)))
	line := f.Let(k.scratch.Get())

	// column adds up pixels side by side at p to vectors at to.
	column := func(pixels int, p, to I32) {
		sums := make([]V128, pixels)
		for i := range sums {
			sums[i] = f.LetV(f.Splat(0))
		}
		q, wy := f.Let(p), f.Let(tapsY.Plus(tapWeights))
		f.Repeat(f.Let(rows), func() {
			// Where nothing is resized, every second weight is 0.
			f.If(wy.I32(0), func() {
				weight := f.LetV(wy.Splat32(0))
				add := func(i int, ints V128) { sums[i].Set(sums[i].Add(ints.IntsToFloats().Mul(weight))) }
				if pixels == 1 {
					add(0, q.Word(0).BytesToInts())
					return
				}
				x := f.LetV(q.V128(0))
				low, high := f.LetV(x.LowU()), f.LetV(x.HighU())
				add(0, low.LowInts())
				add(1, low.HighInts())
				add(2, high.LowInts())
				add(3, high.HighInts())
			})
			wy.Inc(4)
			next(f, nextRow, q)
		})
		for i, sum := range sums {
			f.StoreV(to, 16*i, sum)
		}
	}

	// What span pixels take as vectors must fit in scratch.
	block := f.Let(Int(scratchSize / 16).DivU(nextTap.Plus(-tapWeights).ShrU(2)).Plus(-2).Min(Int(pictureBlock)).Max(Int(1)))
	f.While(W, func() {
		count := f.Let(W.Min(block))
		first, _ := taps(tapsX)
		first = f.Let(first)
		last, n := taps(f.Let(tapsX.Add(count.Plus(-1).Mul(nextTap))))
		span := f.Let(last.Add(n).Sub(first))
		p := f.Let(src.Add(first.Shl(2)))
		f.If(span.LessS(Int(4)), func() {
			f.For(Int(0), span, 1, func(x I32) { column(1, p.Add(x.Shl(2)), f.Let(line.Add(x.Shl(4)))) })
		}, func() {
			// The last four may overlap the ones before.
			f.For(Int(0), span, 4, func(x I32) {
				at := f.Let(x.Min(span.Plus(-4)))
				column(4, p.Add(at.Shl(2)), f.Let(line.Add(at.Shl(4))))
			})
		})
		f.Repeat(f.Let(count), func() {
			x, n := taps(tapsX)
			at := f.Let(line.Add(x.Sub(first).Shl(4)))
			wx, total := f.Let(tapsX), f.LetV(f.Splat(0))
			f.Walk(at, f.Let(at.Add(n.Shl(4))), 16, func() {
				total.Set(total.Add(at.V128(0).Mul(wx.Splat32(tapWeights))))
				wx.Inc(4)
			})
			colour := total.Sub(f.Splat(127)).Mul(f.Splat(1.0 / 128))
			f.StoreV(dst, 0, colour.And(Bits(0xffffffff, 0xffffffff, 0xffffffff, 0)))
			dst.Inc(16)
			next(f, nextTap, tapsX)
		})
		W.Set(W.Sub(count))
	})
	return f
}

// pictureBlock is how many outputs are made at a time.
const pictureBlock = 32
