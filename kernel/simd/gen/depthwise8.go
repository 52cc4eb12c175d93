package main

// Two rows of a map lie in a pair: for each four channels (a group) the
// columns, for each column the four channels, for each channel the byte of
// the upper row and that of the lower. Two pairs, zipped, are quads of four
// rows, which is what a dot product takes: then one such quad serves every
// column of the window, and also the row of outputs below, whose taps are the
// same but a byte later.

// window is a shape of depthwise convolution.
type window struct{ size, stride int }

var windows = []window{{3, 1}, {3, 2}, {5, 1}, {5, 2}}

// rows is how many rows of the output are made at once, of pairs of the input.
func (w window) rows() int  { return 3 - w.stride }
func (w window) pairs() int { return (w.size + 1) / 2 }

// deepWidth is how many outputs side by side are made at once.
const deepWidth = 4

// deepArgs are the parameters of the depthwise step. Steps are in bytes.
type deepArgs struct {
	dst, nextDst, lower I32    // dst lies in quads; lower is from a row of outputs to the one below
	pairs               [3]I32 // from top to bottom; the last one is not read if two are enough
	nextPair            I32    // from group to group of a pair
	constants, channels I32    // the block of Depthwise8
	width               I32    // of the output, which is filled up to a multiple of deepWidth
	table               I32    // room for tableBytes
}

func (d *deepArgs) each() []*I32 {
	return []*I32{&d.dst, &d.nextDst, &d.lower, &d.pairs[0], &d.pairs[1], &d.pairs[2], &d.nextPair,
		&d.constants, &d.channels, &d.width, &d.table}
}

func (d deepArgs) values() []value {
	var args []value
	for _, p := range d.each() {
		args = append(args, *p)
	}
	return args
}

// tableBytes is room for the taps of four channels as dots take them.
const tableBytes = 5 * 3 * 2 * 16

// deep makes the function for one step: one or two rows of outputs from two
// or three pairs.
func (k *kernels) deep(w window) *Func {
	f := k.Func("")
	var d deepArgs
	for _, p := range d.each() {
		*p = f.Param()
	}
	bytes := f.Let(d.channels.Shl(2))
	scale := f.Let(d.constants)
	taps := f.Let(scale.Add(bytes.Shl(1)))
	stop := f.Let(scale.Add(bytes))
	sevens := f.sevens()
	steps := k.tapSteps(w.size)

	f.Walk(scale, stop, 16, func() {
		k.makeTable(f, w, d.table, taps, bytes)
		tap := func(kx, step, row int) V128 { return d.table.V128(16 * ((kx*steps+step)*w.rows() + row)) }
		if w.size == 3 && k.options.Relaxed { // few enough for registers
			kept := map[[3]int]V128{}
			for kx := range w.size {
				for step := range steps {
					for row := range w.rows() {
						kept[[3]int{kx, step, row}] = f.LetV(tap(kx, step, row))
					}
				}
			}
			tap = func(kx, step, row int) V128 { return kept[[3]int{kx, step, row}] }
		}
		factor, bias := f.LetV(scale.V128(0)), f.LetV(scale.Add(bytes).V128(0))
		var in [3]I32
		for i := range w.pairs() {
			in[i] = f.Let(d.pairs[i])
		}
		dst := f.Let(d.dst)
		end := f.Let(dst.Add(d.width.Times(k.quadBytes())))
		f.Walk(dst, end, k.quadBytes()*deepWidth, func() {
			sums := make([][deepWidth]V128, w.rows())
			for row := range sums {
				for x := range sums[row] {
					sums[row][x] = f.LetV(f.Splat(0))
				}
			}
			columns := (deepWidth-1)*w.stride + w.size
			for column := 0; column < columns; column += 2 {
				for side := range min(2, columns-column) {
					for step := range steps {
						quad := k.tapInput(f, in[:w.pairs()], 8*column, side, step)
						for x := range deepWidth {
							kx := column + side - x*w.stride
							if kx < 0 || kx >= w.size {
								continue
							}
							for row := range sums {
								k.addDot(sums[row][x], tap(kx, step, row), quad)
							}
						}
					}
				}
			}
			for row := range sums {
				for x := range sums[row] {
					sums[row][x].Set(f.round(sums[row][x].IntsToFloats().Mul(factor).Add(bias)))
				}
				s := sums[row]
				at := dst
				if row > 0 {
					at = dst.Add(d.lower)
				}
				k.storeQuad(f, at, s[0].NarrowI(s[1]).NarrowU(s[2].NarrowI(s[3])).MinU(sevens))
			}
			for i := range w.pairs() {
				in[i].Inc(8 * deepWidth * w.stride)
			}
		})
		next(f, d.nextDst, d.dst)
		next(f, d.nextPair, d.pairs[:w.pairs()]...)
		taps.Inc(16)
	})
	return f
}

// tapSteps is how many dots a column of the window takes: one for each quad
// of taps, or, without relaxed SIMD, for each pair.
func (k *kernels) tapSteps(size int) int {
	if k.options.Relaxed {
		return (size + 3) / 4
	}
	return (size + 1) / 2
}

// tapInput is what a dot takes of the pairs: of the column at offset, or of
// the one on its right (side 1), the rows of one step.
func (k *kernels) tapInput(f *Func, pairs []I32, offset, side, step int) V128 {
	if k.options.Relaxed {
		upper, lower := pairs[2*step], pairs[min(2*step+1, len(pairs)-1)]
		x, y := upper.V128(offset), lower.V128(offset)
		if side == 0 {
			return f.LetV(x.ZipLow16(y))
		}
		return f.LetV(x.ZipHigh16(y))
	}
	return f.LetV(pairs[step].Load8U(offset + 8*side))
}

func (k *kernels) addDot(sum, tap, x V128) {
	if k.options.Relaxed {
		sum.Set(dot(sum, tap, x))
	} else {
		sum.Set(sum.AddI(dot2(x, tap)))
	}
}

// makeTable writes the taps of the four channels at taps as dots take them;
// those of a lower row of outputs are a byte later. Words of the same channels
// are bytes apart.
func (k *kernels) makeTable(f *Func, w window, table, taps, bytes I32) {
	at, to := f.Let(taps), 0
	store := func(x V128) {
		f.StoreV(table, to, x)
		to += 16
	}
	for range w.size {
		words := make([]V128, (w.size+3)/4)
		for i := range words {
			words[i] = f.LetV(at.V128(0))
			next(f, bytes, at)
		}
		byRow := make([][]V128, w.rows())
		for row := range byRow {
			byRow[row] = words
			if row == 1 {
				byRow[1] = make([]V128, len(words))
				for i := range words {
					later := words[i].ShlI(8)
					if i > 0 {
						later = later.Or(words[i-1].ShrI(24))
					}
					byRow[1][i] = f.LetV(later)
				}
			}
		}
		for step := range k.tapSteps(w.size) {
			for row := range byRow {
				if k.options.Relaxed {
					store(byRow[row][step])
					continue
				}
				// Taps 0 and 2, and taps 1 and 3, as i16.
				word := byRow[row][step/2]
				even, odd := f.LetV(word.Shl16(8).Shr16(8)), f.LetV(word.Shr16(8))
				if step%2 == 0 {
					store(even.And(Bits(0xffff)).Or(odd.ShlI(16)))
				} else {
					store(even.ShrI(16).Or(odd.And(Bits(0xffff0000))))
				}
			}
		}
	}
}

// pairRows makes pairRows(dst, upper, lower, width, channels, nextPair): two
// rows of bytes, channels last, become a pair.
func (k *kernels) pairRows() *Func {
	f := k.Func("")
	dst, upper, lower, width, C, nextPair := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	// Columns are taken two at a time, the last one alone if it must be.
	zip := func(columns int) {
		f.For(Int(0), C, 16, func(c I32) {
			to := f.Let(dst.Add(nextPair.Mul(c.ShrU(2))))
			at := [2]I32{c, c.Add(C)}
			var halves [2][2]V128 // of channels, column
			for i := range columns {
				x, y := f.LetV(upper.Add(at[i]).V128(0)), f.LetV(lower.Add(at[i]).V128(0))
				halves[0][i], halves[1][i] = f.LetV(x.ZipLow8(y)), f.LetV(x.ZipHigh8(y))
			}
			for _, h := range halves {
				if columns == 1 {
					f.StoreHalf(to, 0, h[0], 0)
					next(f, nextPair, to)
					f.StoreHalf(to, 0, h[0], 1)
				} else {
					f.StoreV(to, 0, h[0].Shuffle(h[1], 0, 1, 4, 5))
					next(f, nextPair, to)
					f.StoreV(to, 0, h[0].Shuffle(h[1], 2, 3, 6, 7))
				}
				next(f, nextPair, to)
			}
		})
		next(f, C.Times(columns), upper, lower)
		dst.Inc(8 * columns)
	}
	f.Repeat(f.Let(width.ShrU(1)), func() { zip(2) })
	f.If(width.And(1), func() { zip(1) })
	return f
}

// keepRow makes keepRow(pair, end, upper): the lower row, or the upper, of a
// pair becomes 0.
func (k *kernels) keepRow() *Func {
	f := k.Func("")
	p, end, upper := f.Param(), f.Param(), f.Param()
	mask := f.LetV(Int(0x00ff00ff).Select(Int(-0x00ff0100), upper).Splat())
	f.Walk(p, end, 16, func() { f.StoreV(p, 0, p.V128(0).And(mask)) })
	return f
}

// spread makes spread(dst, a, nextA, width, channels): a row that lies in
// quads becomes channels-last.
func (k *kernels) spread() *Func {
	f := k.Func("")
	dst, a, nextA, width, C := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	f.For(Int(0), width, 4, func(x I32) {
		f.For(Int(0), C, 16, func(c I32) {
			from, to := f.Let(a.Add(nextA.Mul(c.ShrU(2)))), f.Let(dst.Add(c))
			var q [4]V128
			for i := range q {
				q[i] = f.LetV(k.loadQuad(from))
				next(f, nextA, from)
			}
			low01, low23 := f.LetV(q[0].Shuffle(q[1], 0, 4, 1, 5)), f.LetV(q[2].Shuffle(q[3], 0, 4, 1, 5))
			high01, high23 := f.LetV(q[0].Shuffle(q[1], 2, 6, 3, 7)), f.LetV(q[2].Shuffle(q[3], 2, 6, 3, 7))
			for i, column := range []V128{low01.Shuffle(low23, 0, 1, 4, 5), low01.Shuffle(low23, 2, 3, 6, 7),
				high01.Shuffle(high23, 0, 1, 4, 5), high01.Shuffle(high23, 2, 3, 6, 7)} {
				f.If(x.Plus(i).LessS(width), func() { f.StoreV(to, 0, column) })
				next(f, C, to)
			}
		})
		a.Inc(4 * k.quadBytes())
		next(f, C.Shl(2), dst)
	})
	return f
}
