package main

import "github.com/pmp-seg/pmp/kernel"

// productArgs are the parameters of the products of bytes. Steps are in bytes.
type productArgs struct {
	dst, a, b        I32 // a in quads, see dotTile; b packed
	constants, nextC I32 // the panels' scales, and the step from them to the biases and from these to the sums
	rows, res        I32 // what Quantize wrote; res may be 0
	count, panels    I32 // rows and panels of dst
	nextA, sizeB     I32 // from quad to quad of A, from panel to panel of B
	ldd, ldr         I32 // from row to row
	nextD            I32 // from panel to panel of dst; not for pairs
	act              I32
}

func (s *productArgs) each() []*I32 {
	return []*I32{&s.dst, &s.a, &s.b, &s.constants, &s.nextC, &s.rows, &s.res, &s.count, &s.panels,
		&s.nextA, &s.sizeB, &s.ldd, &s.ldr, &s.nextD, &s.act}
}

func (k *kernels) callProduct(f, product *Func, s productArgs) {
	var args []value
	for _, p := range s.each() {
		args = append(args, *p)
	}
	f.Call(product, args...)
}

// What a product writes.
type productKind int

const (
	toFloats productKind = iota
	toBytes              // round7 of the sums
	toPairs              // round7 too, in pairs of rows, see residual8.go: ldd is from four channels to the next
)

// product makes the function for one kind of result. Byrows tells whether A
// was quantized by rows.
func (k *kernels) product(kind productKind, byRows bool) *Func {
	f := k.Func("")
	var s productArgs
	for _, p := range s.each() {
		*p = f.Param()
	}
	end, a, dst, rows, res := f.Int(), f.Int(), f.Int(), f.Int(), f.Int()
	clamp := clamp{}
	if kind == toFloats {
		clamp = f.clamp(s.act)
	}
	sevens := f.sevens()
	biases, sumsOf := f.Int(), f.Int()

	tile := func(height int) {
		sums := k.dotTile(f, height, a, s.nextA, s.b, end)
		for i := range 2 {
			for r := range height {
				scale, bias := s.constants.V128(16*i), biases.V128(16*i)
				if byRows {
					scale = rows.Splat32(8 * r).Mul(scale)
					bias = rows.Splat32(8*r + 4).Mul(sumsOf.V128(16 * i)).Add(bias)
				}
				sums[r][i].Set(sums[r][i].IntsToFloats().Mul(scale).Add(bias))
				if kind != toFloats {
					sums[r][i].Set(f.round(sums[r][i]))
				}
			}
		}
		switch kind {
		case toFloats:
			f.If(clamp.on, func() {
				for r := range height {
					clamp.apply(sums[r][:])
				}
			})
			f.If(s.res, func() {
				for r := range height {
					for i := range 2 {
						sums[r][i].Set(sums[r][i].Add(res.V128(16 * i)))
					}
					res.Set(res.Add(s.ldr))
				}
			})
			for r := range height {
				for i := range 2 {
					f.StoreV(dst, 16*i, sums[r][i])
				}
				dst.Set(dst.Add(s.ldd))
			}
		case toBytes:
			for r := 0; r < height; r += 2 {
				first := sums[r][0].NarrowI(sums[r][1])
				second := first
				if r+1 < height {
					second = sums[r+1][0].NarrowI(sums[r+1][1])
				}
				both := f.LetV(first.NarrowU(second).MinU(sevens))
				f.StoreHalf(dst, 0, both, 0)
				dst.Set(dst.Add(s.ldd))
				if r+1 < height {
					f.StoreHalf(dst, 0, both, 1)
					dst.Set(dst.Add(s.ldd))
				}
			}
		case toPairs:
			r := 0
			for ; r+4 <= height; r += 4 {
				for i := range 2 {
					upper := f.LetV(sums[r][i].NarrowI(sums[r+2][i]))
					lower := f.LetV(sums[r+1][i].NarrowI(sums[r+3][i]))
					both := upper.ZipLow16(lower).NarrowU(upper.ZipHigh16(lower)).MinU(sevens)
					at := dst
					if i > 0 {
						at = dst.Add(s.ldd)
					}
					f.StoreV(at, 4*r, both)
				}
			}
			if r < height {
				upper := f.LetV(sums[r][0].NarrowI(sums[r][1]))
				lower := f.LetV(sums[r+1][0].NarrowI(sums[r+1][1]))
				both := f.LetV(upper.ZipLow16(lower).NarrowU(upper.ZipHigh16(lower)).MinU(sevens))
				f.StoreHalf(dst, 4*r, both, 0)
				f.StoreHalf(dst.Add(s.ldd), 4*r, both, 1)
			}
			dst.Inc(4 * height)
		}
		a.Inc(k.quadBytes() * height)
		if byRows {
			rows.Inc(8 * height)
		}
	}

	heights := k.tileHeights()
	if kind == toPairs {
		heights = heights[:len(heights)-1]
	}
	f.Repeat(s.panels, func() {
		end.Set(s.b.Add(s.sizeB))
		biases.Set(s.constants.Add(s.nextC))
		sumsOf.Set(biases.Add(s.nextC))
		a.Set(s.a)
		dst.Set(s.dst)
		res.Set(s.res)
		rows.Set(s.rows)
		k.tiles(f, s.count, heights, tile)

		s.b.Set(end)
		s.constants.Inc(panelBytes)
		if kind == toPairs {
			next(f, s.ldd.Shl(1), s.dst)
			return
		}
		next(f, s.nextD, s.dst)
		if kind == toFloats {
			f.If(s.res, func() { s.res.Inc(4 * kernel.Panel) })
		}
	})
	return f
}

// blockBytes is how large the rows of A and dst of a block may be, so that
// both stay in the second-level cache while the panels of B pass by.
const blockBytes = 32 << 10

// matMul8 takes blocks of rows. The rows of A are brought into quads first,
// which costs little beside N products and lets the inner loop run over one
// pointer.
func (k *kernels) matMul8() *Func {
	quads := k.packQuads()
	var products [2][2]*Func // to bytes, by rows
	for i, kind := range []productKind{toFloats, toBytes} {
		products[i] = [2]*Func{k.product(kind, false), k.product(kind, true)}
	}

	f, record := k.opFunc()
	v, n := views(f, record, 5), ints(f, record, 7)
	dst, a, b, rows, res := v[0], v[1], v[2], v[3], v[4]
	M, N, K, LDD, LDR, Bytes, Packed := n[0], n[1], n[2], n[3], n[4], n[5], n[6]
	act := f.Let(act(record))
	size := f.Let(Int(0).Select(Int(2), Bytes)) // of an element of dst, as a shift
	ldd, ldr := f.Let(LDD.ShlI(size)), f.Let(LDR.Shl(2))
	nextD := f.Let(Int(kernel.Panel).ShlI(size))
	f.If(Packed, func() {
		ldd.Set(nextD)
		nextD.Set(M.Mul(ldd))
	})
	nextC := f.Let(N.Shl(2))
	weights := f.Let(b.Add(N.Times(12)))

	const unit = 12 // of rows, for tiles of six and of four
	row, column := k.share(f, M, N, unit)
	next(f, row.Mul(ldd).Add(column.ShrU(3).Mul(nextD)), dst)
	next(f, row.Mul(K), a)
	next(f, column.Mul(K), weights)
	next(f, column.Shl(2), b)
	f.If(rows, func() { next(f, row.Shl(3), rows) })
	f.If(res, func() { next(f, row.Mul(ldr).Add(column.Shl(2)), res) })

	block := f.Let(Int(blockBytes).DivU(K.Add(N.ShlI(size))).DivU(Int(unit)).Max(Int(1)).Times(unit))
	f.While(Int(0).LessS(M), func() {
		count := f.Let(M.Min(block))
		nextA := f.Let(k.quadStride(count))
		f.Call(quads, k.scratch.Get(), a, count, K, nextA)
		s := productArgs{dst: dst, a: k.scratch.Get(), b: weights, constants: b, nextC: nextC,
			rows: rows, res: res.Select(Int(0), act.LessU(Int(int(kernel.ActGelu)))), count: count, panels: N.ShrU(3),
			nextA: nextA, sizeB: K.Shl(3), ldd: ldd, ldr: ldr, nextD: nextD, act: act}
		f.If(Bytes, func() {
			f.If(rows, func() { k.callProduct(f, products[1][1], s) }, func() { k.callProduct(f, products[1][0], s) })
		}, func() {
			f.If(rows, func() { k.callProduct(f, products[0][1], s) }, func() { k.callProduct(f, products[0][0], s) })
			f.If(Int(int(kernel.ActReLU6)).LessU(act), func() {
				f.Call(k.activateRows, dst, res, count, N, ldd, ldr, act)
			})
		})
		next(f, count.Mul(ldd), dst)
		next(f, count.Mul(K), a)
		f.If(rows, func() { next(f, count.Shl(3), rows) })
		f.If(res, func() { next(f, count.Mul(ldr), res) })
		M.Set(M.Sub(count))
	})
	return f
}

// packQuads makes packQuads(dst, a, count, k, next): rows of k bytes brought
// into quads, the first four bytes of all rows, then the next four, each
// next bytes after the ones before. Up to three rows behind the last are
// written too.
func (k *kernels) packQuads() *Func {
	f := k.Func("")
	dst, a, count, K, step := f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	last := f.Let(a.Add(count.Plus(-1).Mul(K)))
	end, p := f.Int(), [4]I32{f.Int(), f.Int(), f.Int(), f.Int()}
	f.Walk(a, last.Plus(1), 0, func() {
		for i := range p {
			p[i].Set(a)
			if i > 0 {
				p[i].Set(p[i-1].Add(K).MinU(last))
			}
		}
		end.Set(a.Add(K))
		to := f.Let(dst)
		f.Do(func() {
			upper := f.LetV(p[1].HighPair(0, p[0].Pair(0)))
			lower := f.LetV(p[3].HighPair(0, p[2].Pair(0)))
			k.storeQuad(f, to, upper.Shuffle(lower, 0, 2, 4, 6))
			next(f, step, to)
			k.storeQuad(f, to, upper.Shuffle(lower, 1, 3, 5, 7))
			next(f, step, to)
			for i := range p {
				p[i].Inc(8)
			}
		}, p[0].LessU(end))
		dst.Inc(4 * k.quadBytes())
		next(f, K.Shl(2), a)
	})
	return f
}

// makeRoundRow makes roundRow(dst, a, n): n float32s, a multiple of 8, become
// bytes.
func (k *kernels) makeRoundRow() *Func {
	f := k.Func("")
	dst, a, n := f.Param(), f.Param(), f.Param()
	sevens := f.sevens()
	f.Walk(a, f.Let(a.Add(n.Shl(2))), 32, func() {
		words := f.LetV(f.round(a.V128(0)).NarrowI(f.round(a.V128(16))))
		f.StoreHalf(dst, 0, words.NarrowU(words).MinU(sevens), 0)
		dst.Inc(8)
	})
	return f
}
