package main

import "math"

var inf = math.Inf(1)

// exp is e^x in four lanes with a relative error below 2e-7: x is split into
// n·ln 2 + r, e^r is a polynomial, and n is added to the exponent bits.
// Below -87 the result is exactly 0, so that what a mask sets to -Inf has no
// weight at all; from 88.3 on it stays at e^88.3. NaN gives NaN.
func (k *kernels) exp(f *Func, x V128) V128 {
	const (
		lowest, highest = -87, 88.3
		// 1.5·2^23: adding it rounds to an integer, which then lies in the low bits.
		magic = 12582912
		// ln 2 in two parts, of which the first times n is exact.
		ln2High, ln2Low = 0.693359375, -2.12194440e-4
	)
	c := f.LetV(x.PMin(f.Splat(highest)))
	t := f.LetV(k.madd(c, f.Splat(math.Log2E), f.Splat(magic)))
	n := f.LetV(t.Sub(f.Splat(magic)))
	r := f.LetV(k.madd(n, f.Splat(-ln2Low), k.madd(n, f.Splat(-ln2High), c)))
	e := k.polynomial(f, r, 1, 1, 0.4999922215938568, 0.16667120158672333, 0.0418914258480072, 0.00831238366663456)
	return f.LetV(e.AddI(t.ShlI(23)).AndNot(x.Less(f.Splat(lowest))))
}

// gelu is x·(1+erf(x/√2))/2. With e = erfc(|x|/√2) that is max(x, 0) -
// |x|·e/2, where nothing cancels; e = exp(-|x|·P(|x|)), and P is a polynomial
// fitted for 0..6, which makes erf right to 1.1e-7. Beyond 6 P stays as it
// is there, where e has long vanished.
func (k *kernels) gelu(f *Func, x V128) V128 {
	a := f.LetV(x.Abs())
	u := f.LetV(a.PMin(f.Splat(6)))
	p := k.polynomial(f, u, 0.7978859543800354, 0.3182913661003113, 0.03641765937209129, -0.004950605798512697,
		0.00014570193889085203, 0.00010412189294584095, -2.118679003615398e-05, 1.3798940017295536e-06)
	e := k.exp(f, f.LetV(f.Splat(0).Sub(a.Mul(p))))
	return f.LetV(x.PMax(f.Splat(0)).Sub(a.Mul(f.Splat(0.5)).Mul(e)))
}

// sigmoid is 1/(1+exp(-x)).
func (k *kernels) sigmoid(f *Func, x V128) V128 {
	e := k.exp(f, f.LetV(f.Splat(0).Sub(x)))
	return f.LetV(f.Splat(1).Div(e.Add(f.Splat(1))))
}

// polynomial is c[0] + c[1]·x + c[2]·x² + …
func (k *kernels) polynomial(f *Func, x V128, c ...float64) V128 {
	p := f.Splat(c[len(c)-1])
	for i := len(c) - 2; i >= 0; i-- {
		p = k.madd(p, x, f.Splat(c[i]))
	}
	return f.LetV(p)
}

// madd is a·b + c, rounded once or twice.
func (k *kernels) madd(a, b, c V128) V128 {
	if k.options.Relaxed {
		return V128{op(simd(0x105), a, b, c)}
	}
	return c.Add(a.Mul(b))
}

// sum and largest reduce four lanes to one number.
func sum(v V128) F32 {
	return v.Lane(0).Add(v.Lane(1)).Add(v.Lane(2).Add(v.Lane(3)))
}

func largest(v V128) F32 {
	return v.Lane(0).Max(v.Lane(1)).Max(v.Lane(2).Max(v.Lane(3)))
}
