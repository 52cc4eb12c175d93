package main

import "github.com/pmp-seg/pmp/kernel"

// Pack goes panel by panel. Where a panel is full and four rows are left, a
// block of four rows by eight columns is moved at once; what remains is
// moved number by number.
func (k *kernels) pack() *Func {
	panel := k.packPanel()
	transposed := k.packTransposed()

	f, record := k.opFunc()
	v, n := views(f, record, 2), ints(f, record, 4)
	dst, a := v[0], v[1]
	K, N, LDA, Transposed := n[0], n[1], n[2], n[3]
	lda := f.Let(LDA.Shl(2))
	from, to := k.part(f, N, kernel.Panel)
	next(f, from.Mul(K).Shl(2), dst)
	next(f, from.Mul(lda.Select(Int(4), Transposed)), a)
	N.Set(to.Sub(from))
	f.While(Int(0).LessS(N), func() {
		width := f.Let(N.Min(Int(kernel.Panel)))
		f.If(Transposed, func() {
			done := f.Let(K.And(-4).Select(Int(0), width.Eq(Int(kernel.Panel))))
			f.If(done, func() { f.Call(transposed, dst, a, lda, done) })
			f.If(done.LessS(K), func() {
				f.Call(panel, dst.Add(done.Times(panelBytes)), a.Add(done.Shl(2)), Int(4), lda, K.Sub(done), width)
			})
			a.Set(a.Add(lda.Shl(3)))
		}, func() {
			f.Call(panel, dst, a, lda, Int(4), K, width)
			a.Inc(panelBytes)
		})
		dst.Set(dst.Add(K.Times(panelBytes)))
		N.Inc(-kernel.Panel)
	})
	return f
}

// packPanel makes packPanel(dst, a, nextK, nextN, k, width): one panel of
// which width columns exist.
func (k *kernels) packPanel() *Func {
	f := k.Func("")
	dst, a, nextK, nextN, K, width := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	vectors := f.Let(width.Eq(Int(kernel.Panel)).AndI(nextN.Eq(Int(4))))
	f.Repeat(K, func() {
		f.If(vectors, func() {
			f.StoreV(dst, 0, a.V128(0))
			f.StoreV(dst, 16, a.V128(16))
		}, func() {
			f.StoreV(dst, 0, f.Splat(0))
			f.StoreV(dst, 16, f.Splat(0))
			p, to := f.Let(a), f.Let(dst)
			f.Repeat(f.Let(width), func() {
				f.StoreF(to, 0, p.F32(0))
				p.Set(p.Add(nextN))
				to.Inc(4)
			})
		})
		a.Set(a.Add(nextK))
		dst.Inc(panelBytes)
	})
	return f
}

// packTransposed makes packTransposed(dst, a, lda, k): a full panel from
// eight rows of A, k numbers of each, which are a multiple of four.
func (k *kernels) packTransposed() *Func {
	f := k.Func("")
	dst, a, lda, K := f.Param(), f.Param(), f.Param(), f.Param()
	f.For(Int(0), f.Let(K.Shl(2)), 16, func(at I32) {
		p := f.Let(a.Add(at))
		for half := range 2 {
			var x [4]V128
			for i := range x {
				x[i] = f.LetV(p.V128(0))
				p.Set(p.Add(lda))
			}
			low01, low23 := f.LetV(x[0].Shuffle(x[1], 0, 4, 1, 5)), f.LetV(x[2].Shuffle(x[3], 0, 4, 1, 5))
			high01, high23 := f.LetV(x[0].Shuffle(x[1], 2, 6, 3, 7)), f.LetV(x[2].Shuffle(x[3], 2, 6, 3, 7))
			f.StoreV(dst, 16*half, low01.Shuffle(low23, 0, 1, 4, 5))
			f.StoreV(dst, 16*half+panelBytes, low01.Shuffle(low23, 2, 3, 6, 7))
			f.StoreV(dst, 16*half+2*panelBytes, high01.Shuffle(high23, 0, 1, 4, 5))
			f.StoreV(dst, 16*half+3*panelBytes, high01.Shuffle(high23, 2, 3, 6, 7))
		}
		dst.Inc(4 * panelBytes)
	})
	return f
}
