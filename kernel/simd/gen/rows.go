package main

import "github.com/pmp-seg/pmp/kernel"

// The ops in this file go over rows of N numbers, four at a time. Each row
// is a call of a function of its own: engines swap in optimised code only
// when a function is entered.

// lineFloats is a cache line of numbers: where threads share a row at its
// multiples they do not write to the same line.
const lineFloats = 16

// fours calls body for every four of n numbers, with their offset in bytes.
func fours(f *Func, n I32, body func(at I32)) {
	f.For(Int(0), f.Let(n.Shl(2)), 16, body)
}

// makeActivateRow makes activateRow(dst, a, n, act).
func (k *kernels) makeActivateRow() *Func {
	f := k.Func("")
	dst, a, n, act := f.Param(), f.Param(), f.Param(), f.Param()
	apply := [...]func(x V128) V128{
		kernel.ActNone:      func(x V128) V128 { return x },
		kernel.ActReLU:      func(x V128) V128 { return x.PMax(f.Splat(0)) },
		kernel.ActReLU6:     func(x V128) V128 { return x.PMax(f.Splat(0)).PMin(f.Splat(6)) },
		kernel.ActGelu:      func(x V128) V128 { return k.gelu(f, x) },
		kernel.ActSigmoid:   func(x V128) V128 { return k.sigmoid(f, x) },
		kernel.ActExp:       func(x V128) V128 { return k.exp(f, x) },
		kernel.ActQuickGelu: func(x V128) V128 { return x.Mul(k.sigmoid(f, f.LetV(x.Mul(f.Splat(1.702))))) },
	}
	for i := range apply {
		f.If(act.Eq(Int(i)), func() {
			fours(f, n, func(at I32) {
				f.StoreV(dst.Add(at), 0, apply[i](f.LetV(a.Add(at).V128(0))))
			})
		})
	}
	return f
}

// makeAddRow makes addRow(dst, a, b, n).
func (k *kernels) makeAddRow() *Func {
	f := k.Func("")
	dst, a, b, n := f.Param(), f.Param(), f.Param(), f.Param()
	fours(f, n, func(at I32) {
		f.StoreV(dst.Add(at), 0, a.Add(at).V128(0).Add(b.Add(at).V128(0)))
	})
	return f
}

// makeActivateRows makes activateRows(dst, res, rows, n, ldd, ldr, act), the
// end of a product whose activation is not a mere clamp:
//
//	dst[m,:] = act(dst[m,:]) + res[m,:]
func (k *kernels) makeActivateRows() *Func {
	f := k.Func("")
	dst, res, rows, n, ldd, ldr, act := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	f.Repeat(rows, func() {
		f.Call(k.activateRow, dst, dst, n, act)
		f.If(res, func() {
			f.Call(k.addRow, dst, dst, res, n)
			res.Set(res.Add(ldr))
		})
		dst.Set(dst.Add(ldd))
	})
	return f
}

func (k *kernels) activation() *Func {
	f, record := k.opFunc()
	from, to := k.part(f, integer(record, 0), lineFloats)
	at := f.Let(from.Shl(2))
	f.Call(k.activateRow, view(record, 0).Add(at), view(record, 1).Add(at), to.Sub(from), act(record))
	return f
}

func (k *kernels) add() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 3), ints(f, record, 3)
	dst, a, b := v[0], v[1], v[2]
	M, N, MB := n[0], n[1], n[2]
	bytes := f.Let(N.Shl(2))
	from, to := k.part(f, M, 1)
	next(f, from.Mul(bytes), dst, a)
	row := f.Let(from.RemU(MB))
	f.For(from, to, 1, func(I32) {
		f.If(row.Eq(MB), func() { row.Set(Int(0)) })
		f.Call(k.addRow, dst, a, b.Add(row.Mul(bytes)), N)
		next(f, bytes, dst, a)
		row.Inc(1)
	})
	return f
}

func (k *kernels) addPosition() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 4), ints(f, record, 3)
	dst, a, py, px := v[0], v[1], v[2], v[3]
	H, W, C := n[0], n[1], n[2]
	half := f.Let(C.ShrU(1))
	bytes := f.Let(half.Shl(2))
	from, to := k.part(f, H, 1)
	next(f, from.Mul(W).Mul(C).Shl(2), dst, a)
	next(f, from.Mul(bytes), py)
	f.Repeat(f.Let(to.Sub(from)), func() {
		x := f.Let(px)
		f.Repeat(f.Let(W), func() {
			for _, position := range []I32{py, x} {
				f.Call(k.addRow, dst, a, position, half)
				dst.Set(dst.Add(bytes))
				a.Set(a.Add(bytes))
			}
			x.Set(x.Add(bytes))
		})
		py.Set(py.Add(bytes))
	})
	return f
}

func (k *kernels) layerNorm() *Func {
	f := k.Func("")
	dst, a, res, gamma, beta, N, eps := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.ParamF()
	n := f.LetF(N.ToFloat())
	total := f.Vec()
	f.If(res, func() {
		fours(f, N, func(at I32) {
			t := f.LetV(a.Add(at).V128(0).Add(res.Add(at).V128(0)))
			f.StoreV(dst.Add(at), 0, t)
			total.Set(total.Add(t))
		})
		a.Set(dst)
	}, func() {
		fours(f, N, func(at I32) { total.Set(total.Add(a.Add(at).V128(0))) })
	})
	mean := f.LetV(sum(total).Div(n).Splat())
	total.Set(f.Splat(0))
	fours(f, N, func(at I32) {
		t := f.LetV(a.Add(at).V128(0).Sub(mean))
		total.Set(total.Add(t.Mul(t)))
	})
	scale := f.LetV(Float(1).Div(sum(total).Div(n).Add(eps).Sqrt()).Splat())
	fours(f, N, func(at I32) {
		t := a.Add(at).V128(0).Sub(mean).Mul(scale)
		f.StoreV(dst.Add(at), 0, k.madd(t, gamma.Add(at).V128(0), beta.Add(at).V128(0)))
	})

	rows, record := k.opFunc()
	v, m := views(rows, record, 5), ints(rows, record, 2)
	bytes := rows.Let(m[1].Shl(2))
	from, to := k.part(rows, m[0], 1)
	next(rows, from.Mul(bytes), v[0], v[1])
	rows.If(v[2], func() { next(rows, from.Mul(bytes), v[2]) })
	rows.Repeat(rows.Let(to.Sub(from)), func() {
		rows.Call(f, v[0], v[1], v[2], v[3], v[4], m[1], float(record, 0))
		next(rows, bytes, v[0], v[1])
		rows.If(v[2], func() { next(rows, bytes, v[2]) })
	})
	return rows
}

// next moves pointers to the next row.
func next(f *Func, bytes I32, pointers ...I32) {
	for _, p := range pointers {
		p.Set(p.Add(bytes))
	}
}

func (k *kernels) l2Norm() *Func {
	f := k.Func("")
	dst, a, center, N, length := f.Param(), f.Param(), f.Param(), f.Param(), f.ParamF()
	total := f.Vec()
	f.If(center, func() {
		fours(f, N, func(at I32) {
			f.StoreV(dst.Add(at), 0, a.Add(at).V128(0).Sub(center.Add(at).V128(0)))
		})
		a.Set(dst)
	})
	fours(f, N, func(at I32) {
		t := f.LetV(a.Add(at).V128(0))
		total.Set(total.Add(t.Mul(t)))
	})
	scale := f.LetV(length.Div(sum(total).Sqrt().Max(Float(1e-12))).Splat())
	fours(f, N, func(at I32) { f.StoreV(dst.Add(at), 0, a.Add(at).V128(0).Mul(scale)) })

	rows, record := k.opFunc()
	v, m := views(rows, record, 3), ints(rows, record, 2)
	bytes := rows.Let(m[1].Shl(2))
	from, to := k.part(rows, m[0], 1)
	next(rows, from.Mul(bytes), v[0], v[1])
	rows.Repeat(rows.Let(to.Sub(from)), func() {
		rows.Call(f, v[0], v[1], v[2], m[1], float(record, 0))
		next(rows, bytes, v[0], v[1])
	})
	return rows
}

func (k *kernels) l1Norm() *Func {
	f := k.Func("")
	dst, a, N := f.Param(), f.Param(), f.Param()
	total := f.Vec()
	fours(f, N, func(at I32) { total.Set(total.Add(a.Add(at).V128(0))) })
	scale := f.LetV(Float(1).Div(sum(total).Max(Float(1e-12))).Splat())
	fours(f, N, func(at I32) { f.StoreV(dst.Add(at), 0, a.Add(at).V128(0).Mul(scale)) })

	rows, record := k.opFunc()
	v, m := views(rows, record, 2), ints(rows, record, 2)
	bytes := rows.Let(m[1].Shl(2))
	from, to := k.part(rows, m[0], 1)
	next(rows, from.Mul(bytes), v[0], v[1])
	rows.Repeat(rows.Let(to.Sub(from)), func() {
		rows.Call(f, v[0], v[1], m[1])
		next(rows, bytes, v[0], v[1])
	})
	return rows
}

// upsampleAdd walks over the output. Up(i) is the mean of in[(i-1)/2], not
// below 0, and in[i/2]: for odd i both are the same cell. So every output is
// the mean of four cells of A, of which some coincide.
func (k *kernels) upsampleAdd() *Func {
	f := k.Func("")
	dst, res, upper, lower, W, C := f.Param(), f.Param(), f.Param(), f.Param(), f.Param(), f.Param()
	bytes := f.Let(C.Shl(2))
	f.For(Int(0), f.Let(W.Shl(1)), 1, func(x I32) {
		left := f.Let(x.Plus(-1).Max(Int(0)).ShrU(1).Mul(bytes))
		right := f.Let(x.ShrU(1).Mul(bytes))
		fours(f, C, func(at I32) {
			cell := func(y, x I32) V128 { return y.Add(x).Add(at).V128(0) }
			mean := cell(upper, left).Add(cell(upper, right)).Add(cell(lower, left).Add(cell(lower, right)))
			f.StoreV(dst.Add(at), 0, k.madd(mean, f.Splat(0.25), res.Add(at).V128(0)))
		})
		next(f, bytes, dst, res)
	})

	rows, record := k.opFunc()
	v, n := views(rows, record, 3), ints(rows, record, 3)
	dst, a, res := v[0], v[1], v[2]
	H, W, C := n[0], n[1], n[2]
	in := rows.Let(W.Mul(C).Shl(2))
	from, to := k.part(rows, H.Shl(1), 1)
	next(rows, from.Mul(in).Shl(1), dst, res)
	rows.For(from, to, 1, func(y I32) {
		upper := a.Add(y.Plus(-1).Max(Int(0)).ShrU(1).Mul(in))
		lower := a.Add(y.ShrU(1).Mul(in))
		rows.Call(f, dst, res, upper, lower, W, C)
		next(rows, in.Shl(1), dst, res)
	})
	return rows
}
