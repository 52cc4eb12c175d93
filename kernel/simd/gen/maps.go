package main

import "github.com/pmp-seg/pmp/kernel"

// mapPanels is how many panels of cells Maps takes at a time: few enough for
// the proposals of these cells to stay in the first-level cache.
const mapPanels = 8

// Maps takes some cells at a time: all proposals there go to scratch, and the
// prompts' maps are a product with them. Behind the proposals scratch has A in
// quads, if it is bytes. Threads share out the cells.
func (k *kernels) maps() *Func {
	quads, product := k.packQuads(), k.product(toFloats, true)
	const width = mapPanels * panelBytes

	f, record := k.opFunc()
	v, n := views(f, record, 6), ints(f, record, 4)
	dst, a, rows, b, p, count := v[0], v[1], v[2], v[3], v[4], v[5]
	Q, K, N, T := n[0], n[1], n[2], n[3]
	f.If(count, func() { T.Set(count.I32(0)) })
	cells := f.Let(k.scratch.Get())
	rest := f.Let(cells.Add(Q.Times(width)))
	nextA, nextC := f.Let(k.quadStride(Q)), f.Let(N.Shl(2))
	weights := f.Let(b.Add(N.Times(12)))
	from, to := k.part(f, N, mapPanels*kernel.Panel)
	f.If(rows, func() { f.Call(quads, rest, a, Q, K, nextA) })
	f.For(from, to, mapPanels*kernel.Panel, func(i I32) {
		panels := f.Let(N.Sub(i).ShrU(3))
		panels.Set(panels.Min(Int(mapPanels)))
		f.If(rows, func() {
			k.callProduct(f, product, productArgs{
				dst: cells, a: rest, b: weights.Add(i.Mul(K)), constants: b.Add(i.Shl(2)), nextC: nextC,
				rows: rows, res: Int(0), count: Q, panels: panels,
				nextA: nextA, sizeB: K.Shl(3), ldd: Int(width), ldr: Int(0), nextD: Int(panelBytes), act: Int(0),
			})
		}, func() {
			k.callStrip(f, stripArgs{
				dst: cells, a: a, b: b.Add(i.Mul(K).Shl(2)), bias: Int(0), res: Int(0),
				rows: Q, panels: panels, k: K, segments: Int(1), jump: Int(0),
				lda: K.Shl(2), ldd: Int(width), ldr: Int(0), ldb: Int(panelBytes), nextB: K.Times(panelBytes), act: Int(0),
			})
		})
		f.Call(k.activateRow, cells, cells, Q.Times(mapPanels*kernel.Panel), Int(int(kernel.ActSigmoid)))
		k.callStrip(f, stripArgs{
			dst: dst.Add(i.Shl(2)), a: p, b: cells, bias: Int(0), res: Int(0),
			rows: T, panels: panels, k: Q, segments: Int(1), jump: Int(0),
			lda: Q.Shl(2), ldd: nextC, ldr: Int(0), ldb: Int(width), nextB: Int(panelBytes), act: Int(0),
		})
	})
	return f
}

// peaks goes over every second row and takes every second number of two
// vectors. Threads share out the maps.
func (k *kernels) peaks() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 3), ints(f, record, 3)
	dst, a, count := v[0], v[1], v[2]
	T, H, W := n[0], n[1], n[2]
	f.If(count, func() { T.Set(count.I32(0)) })
	from, to := k.part(f, T, 1)
	row := f.Let(W.Shl(2))
	f.For(from, to, 1, func(t I32) {
		best := f.LetV(f.Splat(0))
		p := f.Let(a.Add(t.Mul(H).Mul(row)))
		f.For(Int(1), H, 2, func(I32) {
			p.Set(p.Add(row))
			end := f.Let(p.Add(row))
			f.Do(func() {
				best.Set(best.PMax(p.V128(0).Shuffle(p.V128(16), 1, 3, 5, 7)))
				p.Inc(panelBytes)
			}, p.LessU(end))
		})
		f.StoreF(dst.Add(t.Shl(2)), 0, largest(best))
	})
	return f
}

// columns8 takes a panel at a time: its columns' largest numbers, and then
// their bytes, quad by quad. Threads share out the panels.
func (k *kernels) columns8() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 2), ints(f, record, 3)
	dst, a := v[0], v[1]
	K, N, transposed := n[0], n[1], n[2]
	row := f.Let(N.Shl(2))
	from, to := k.part(f, N, kernel.Panel)
	constants := f.Let(dst.Add(from.Shl(2)))
	w := f.Let(dst.Add(row.Times(3)).Add(from.Mul(K)))
	// scales are from the largest numbers of four columns; those of their
	// inverses are what numbers are multiplied with.
	scales := func(top V128) (scale, inverse V128) {
		some := f.Splat(0).Less(top)
		return f.LetV(top.Div(f.Splat(127))), f.LetV(f.Splat(127).Div(top).And(some))
	}
	// finish stores what stands beside the bytes of four columns.
	finish := func(half int, scale, sum V128) {
		f.StoreV(constants, 16*half, scale)
		f.StoreV(constants.Add(row), 16*half, f.Splat(0))
		f.StoreV(constants.Add(row.Shl(1)), 16*half, scale.Mul(sum.IntsToFloats()))
	}
	f.If(transposed, func() {
		a.Set(a.Add(from.Mul(K).Shl(2)))
		next := f.Let(K.Shl(2))
		f.For(from, to, kernel.Panel, func(I32) {
			for half := range 2 {
				var p [4]I32
				var tops, sums, inverse [4]V128
				for i := range p {
					p[i] = f.Let(a)
					a.Set(a.Add(next))
					tops[i], sums[i] = f.LetV(f.Splat(0)), f.LetV(f.Splat(0))
				}
				f.For(Int(0), next, 16, func(at I32) {
					for i := range p {
						tops[i].Set(tops[i].PMax(p[i].Add(at).V128(0).Abs()))
					}
				})
				scale, inv := scales(f.LetV(f.maxAcross(tops)))
				for i := range inverse {
					inverse[i] = f.LetV(inv.Shuffle(inv, i, i, i, i))
				}
				to := f.Let(w)
				f.For(Int(0), next, 16, func(at I32) {
					var x [4]V128
					for i := range p {
						x[i] = f.LetV(f.round(p[i].Add(at).V128(0).Mul(inverse[i])))
						sums[i].Set(sums[i].AddI(x[i]))
					}
					f.StoreV(to, 16*half, x[0].NarrowI(x[1]).NarrowS(x[2].NarrowI(x[3])))
					to.Inc(panelBytes)
				})
				finish(half, scale, f.addAcrossI(sums))
			}
			constants.Inc(panelBytes)
			w.Set(w.Add(K.Shl(3)))
		})
	}, func() {
		a.Set(a.Add(from.Shl(2)))
		f.For(from, to, kernel.Panel, func(I32) {
			for half := range 2 {
				p, top, sum := f.Let(a.Plus(16*half)), f.LetV(f.Splat(0)), f.LetV(f.Splat(0))
				f.Repeat(f.Let(K), func() {
					top.Set(top.PMax(p.V128(0).Abs()))
					p.Set(p.Add(row))
				})
				scale, inv := scales(top)
				p.Set(a.Plus(16 * half))
				to := f.Let(w)
				f.Repeat(f.Let(K.ShrU(2)), func() {
					var x [4]V128
					for i := range x {
						x[i] = f.LetV(f.round(p.V128(0).Mul(inv)))
						sum.Set(sum.AddI(x[i]))
						p.Set(p.Add(row))
					}
					rows := f.LetV(x[0].NarrowI(x[1]).NarrowS(x[2].NarrowI(x[3])))
					f.StoreV(to, 16*half, rows.transposeBytes())
					to.Inc(panelBytes)
				})
				finish(half, scale, sum)
			}
			a.Inc(panelBytes)
			constants.Inc(panelBytes)
			w.Set(w.Add(K.Shl(3)))
		})
	})
	return f
}

// maxAcross is a vector of the largest number of each of four vectors.
func (f *Func) maxAcross(v [4]V128) V128 {
	pair := func(a, b V128) V128 {
		return f.LetV(a.Shuffle(b, 0, 4, 1, 5).PMax(a.Shuffle(b, 2, 6, 3, 7)))
	}
	low, high := pair(v[0], v[1]), pair(v[2], v[3])
	return low.Shuffle(high, 0, 1, 4, 5).PMax(low.Shuffle(high, 2, 3, 6, 7))
}

// addAcrossI is a vector of the sums of each of four vectors of i32.
func (f *Func) addAcrossI(v [4]V128) V128 {
	pair := func(a, b V128) V128 {
		return f.LetV(a.Shuffle(b, 0, 4, 1, 5).AddI(a.Shuffle(b, 2, 6, 3, 7)))
	}
	low, high := pair(v[0], v[1]), pair(v[2], v[3])
	return f.LetV(low.Shuffle(high, 0, 1, 4, 5).AddI(low.Shuffle(high, 2, 3, 6, 7)))
}

// NarrowS makes signed bytes of the i16s of x and y.
func (x V128) NarrowS(y V128) V128 { return V128{op(simd(0x65), x, y)} }

// transposeBytes takes a vector as four rows of four bytes, and gives the columns.
func (x V128) transposeBytes() V128 {
	code := simd(0x0d)
	for i := range 16 {
		code = append(code, byte(i%4*4+i/4))
	}
	return V128{op(code, x, x)}
}
