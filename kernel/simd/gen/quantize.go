package main

// quantizeFour brings four rows of float32s to bytes, as Quantize means it,
// and walks over each twice. Four at a time fill the vectors when lanes are
// reduced, and the divisions. Write gets the next eight numbers of each row as
// i32s.
func (k *kernels) quantizeFour(f *Func, a, rows [4]I32, bytes I32, write func(x [4][2]V128)) {
	var low, high [4]V128
	for i, row := range a {
		low[i] = f.LetV(row.V128(0))
		high[i] = f.LetV(low[i])
	}
	f.For(Int(16), bytes, 16, func(at I32) {
		for i, row := range a {
			x := f.LetV(row.Add(at).V128(0))
			low[i].Set(x.PMin(low[i]))
			high[i].Set(x.PMax(high[i]))
		}
	})
	least := f.LetV(f.across(low, V128.PMin))
	span := f.LetV(f.across(high, V128.PMax).Sub(least))
	scale := f.LetV(span.Div(f.Splat(127)))
	for i, scaleAndLeast := range []V128{f.LetV(scale.Shuffle(least, 0, 4, 1, 5)), f.LetV(scale.Shuffle(least, 2, 6, 3, 7))} {
		f.StoreHalf(rows[2*i], 0, scaleAndLeast, 0)
		f.StoreHalf(rows[2*i+1], 0, scaleAndLeast, 1)
	}
	inverse := f.LetV(f.Splat(127).Div(span).And(f.Splat(0).Less(span)))
	var zero, inv [4]V128
	for i := range a {
		zero[i], inv[i] = f.LetV(least.Shuffle(least, i, i, i, i)), f.LetV(inverse.Shuffle(inverse, i, i, i, i))
	}
	f.For(Int(0), bytes, 32, func(at I32) {
		var x [4][2]V128
		for i, row := range a {
			for j := range 2 {
				x[i][j] = f.LetV(f.round(row.Add(at).V128(16 * j).Sub(zero[i]).Mul(inv[i])))
			}
		}
		write(x)
	})
}

// across reduces each of four vectors to a lane.
func (f *Func) across(v [4]V128, reduce func(x, y V128) V128) V128 {
	low := f.LetV(reduce(v[0].Shuffle(v[1], 0, 4, 1, 5), v[0].Shuffle(v[1], 2, 6, 3, 7)))
	high := f.LetV(reduce(v[2].Shuffle(v[3], 0, 4, 1, 5), v[2].Shuffle(v[3], 2, 6, 3, 7)))
	return reduce(low.Shuffle(high, 0, 1, 4, 5), low.Shuffle(high, 2, 3, 6, 7))
}

// quantize takes four rows at a time. Where fewer are left, the last one is
// made several times.
func (k *kernels) quantize() *Func {
	four := k.Func("")
	{
		f := four
		dst, rows, a, count, bytes := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
		var to, rowsOf, from [4]I32
		for i := range from {
			row := f.Let(Int(i).Min(count.Plus(-1)))
			to[i], rowsOf[i], from[i] = f.Let(dst.Add(row.Mul(bytes.ShrU(2)))), f.Let(rows.Add(row.Shl(3))), f.Let(a.Add(row.Mul(bytes)))
		}
		k.quantizeFour(f, from, rowsOf, bytes, func(x [4][2]V128) {
			for i := 0; i < 4; i += 2 {
				both := f.LetV(x[i][0].NarrowI(x[i][1]).NarrowU(x[i+1][0].NarrowI(x[i+1][1])))
				f.StoreHalf(to[i], 0, both, 0)
				f.StoreHalf(to[i+1], 0, both, 1)
			}
			for i := range to {
				to[i].Inc(8)
			}
		})
	}

	f, record := k.opFunc()
	v, n := views(f, record, 3), ints(f, record, 2)
	dst, rows, a, M, K := v[0], v[1], v[2], n[0], n[1]
	bytes := f.Let(K.Shl(2))
	from, to := k.part(f, M, 4)
	next(f, from.Mul(K), dst)
	next(f, from.Shl(3), rows)
	next(f, from.Mul(bytes), a)
	f.For(from, to, 4, func(row I32) {
		f.Call(four, dst, rows, a, to.Sub(row), bytes)
		next(f, bytes, dst)
		rows.Inc(32)
		next(f, bytes.Shl(2), a)
	})
	return f
}

// quantizePair makes quantizePair(dst, rows, upper, lower, width, k, next): two
// rows of width cells of k float32s are quantized, each cell by itself, in the
// order of a pair: the first cell of the upper row, the first of the lower, the
// second of the upper. dst lies in quads, next bytes apart. Cells are taken four
// at a time, so that two behind the last may be written too.
func (k *kernels) quantizePair() *Func {
	f := k.Func("")
	dst, rows, upper, lower, width, K, step := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	bytes := f.Let(K.Shl(2))
	f.While(Int(0).LessS(width), func() {
		right := f.Let(bytes.Select(Int(0), Int(1).LessS(width)))
		to := f.Let(dst)
		k.quantizeFour(f, [4]I32{upper, lower, f.Let(upper.Add(right)), f.Let(lower.Add(right))},
			[4]I32{rows, rows.Plus(8), rows.Plus(16), rows.Plus(24)}, bytes, func(x [4][2]V128) {
				for j := range 2 {
					k.storeQuad(f, to, x[0][j].NarrowI(x[1][j]).NarrowU(x[2][j].NarrowI(x[3][j])))
					next(f, step, to)
				}
			})
		dst.Inc(4 * k.quadBytes())
		rows.Inc(32)
		next(f, bytes.Shl(1), upper, lower)
		width.Inc(-2)
	})
	return f
}
