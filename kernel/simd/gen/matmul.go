package main

import "github.com/pmp-seg/pmp/kernel"

// blockFloats is how many numbers of A and dst together a block of rows may
// have, so that both stay in the second-level cache while the panels of B
// pass by one after the other, each in the first-level cache.
const blockFloats = 16 << 10

func (k *kernels) matMul() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 5), ints(f, record, 7)
	dst, a, b, bias, res := v[0], v[1], v[2], v[3], v[4]
	M, N, K, LDA, LDB, LDD, LDR := n[0], n[1], n[2], n[3], n[4], n[5], n[6]
	act := f.Let(act(record))

	if k.options.Threads {
		row, column := k.share(f, M, N, k.tileRows())
		next(f, row.Mul(LDD).Add(column).Shl(2), dst)
		next(f, row.Mul(LDA).Shl(2), a)
		next(f, column.Mul(Int(1).Select(K, LDB)).Shl(2), b)
		f.If(bias, func() { next(f, column.Shl(2), bias) })
		f.If(res, func() { next(f, row.Mul(LDR).Add(column).Shl(2), res) })
	}

	tiles := f.Let(Int(blockFloats).DivU(K.Add(N)).DivU(Int(k.tileRows())))
	block := f.Let(tiles.Max(Int(1)).Times(k.tileRows()))
	f.While(Int(0).LessS(M), func() {
		rows := f.Let(M.Min(block))
		s := stripArgs{
			dst: dst, a: a, b: b, bias: bias, res: res.Select(Int(0), act.LessU(Int(int(kernel.ActGelu)))),
			rows: rows, panels: N.ShrU(3), k: K, segments: Int(1), jump: Int(0),
			lda: LDA.Shl(2), ldd: LDD.Shl(2), ldr: LDR.Shl(2),
			ldb: LDB.Shl(2).Select(Int(panelBytes), LDB), nextB: Int(panelBytes).Select(K.Shl(5), LDB),
			act: act,
		}
		k.callStrip(f, s)
		f.If(Int(int(kernel.ActReLU6)).LessU(act), func() {
			f.Call(k.activateRows, dst, res, rows, N, LDD.Shl(2), LDR.Shl(2), act)
		})
		dst.Set(dst.Add(rows.Mul(LDD).Shl(2)))
		a.Set(a.Add(rows.Mul(LDA).Shl(2)))
		f.If(res, func() { res.Set(res.Add(rows.Mul(LDR).Shl(2))) })
		M.Set(M.Sub(rows))
	})
	return f
}

func (k *kernels) conv() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 4), ints(f, record, 8)
	dst, a, b, bias := v[0], v[1], v[2], v[3]
	H, W, N, Size, Stride, C, WP, Bytes := n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]
	act := f.Let(act(record))

	// One row of the output is a product whose rows of A overlap: they are
	// Stride pixels apart and consist of Size segments, one from each row of
	// the input. What becomes bytes is made in scratch first, as much of a row
	// as there is room for.
	bytes := f.Let(W.Mul(N).ShlI(Int(0).Select(Int(2), Bytes)))
	block := f.Let(Int(scratchSize/4).DivU(N).Min(W).Select(W, Bytes))
	from, to := k.part(f, H, 1)
	next(f, from.Mul(bytes), dst)
	next(f, from.Mul(WP).Mul(C).Mul(Stride).Shl(2), a)
	f.Repeat(f.Let(to.Sub(from)), func() {
		x := f.Let(Int(0))
		f.While(x.LessS(W), func() {
			count := f.Let(W.Sub(x).Min(block))
			sums := f.Let(k.scratch.Get().Select(dst, Bytes))
			stripArgs{
				dst: sums, a: a.Add(x.Mul(Stride).Mul(C).Shl(2)), b: b, bias: bias, res: Int(0),
				rows: count, panels: N.ShrU(3), k: Size.Mul(C), segments: Size, jump: WP.Sub(Size).Mul(C).Shl(2),
				lda: Stride.Mul(C).Shl(2), ldd: N.Shl(2), ldr: Int(0),
				ldb: Int(panelBytes), nextB: Size.Mul(Size).Mul(C).Times(panelBytes),
				act: act,
			}.call(f, k.exactStrip)
			f.If(Bytes, func() { f.Call(k.roundRow, dst.Add(x.Mul(N)), sums, count.Mul(N)) })
			next(f, count, x)
		})
		f.If(Int(int(kernel.ActReLU6)).LessU(act), func() {
			f.Call(k.activateRows, dst, Int(0), W, N, N.Shl(2), Int(0), act)
		})
		next(f, bytes, dst)
		next(f, WP.Mul(C).Mul(Stride).Shl(2), a)
	})
	return f
}
