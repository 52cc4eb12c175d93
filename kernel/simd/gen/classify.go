package main

// Classify goes query by query and keeps the prompts' logits where their
// probabilities will be, in column q of dst. There are few of them, so it
// works number by number; only exp is a vector, of which one lane counts.
func (k *kernels) classify() *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 6), ints(f, record, 4)
	dst, a, b, coef, owner, void := v[0], v[1], v[2], v[3], v[4], v[5]
	Q, S, T, LDVoid := n[0], n[1], n[2], n[3]
	nextT := f.Let(Q.Shl(2))
	bytes := f.Let(S.Shl(2))
	prompts := f.Let(T.Mul(nextT)) // bytes from the first prompt's row to void's

	from, to := k.part(f, Q, lineFloats)
	next(f, from.Mul(bytes), a, b)
	next(f, from.Mul(LDVoid).Shl(2), void)
	next(f, from.Shl(2), dst)
	f.Repeat(f.Let(to.Sub(from)), func() {
		last := f.Let(dst.Add(prompts))
		p := f.Int()
		along := func(end I32, body func()) {
			p.Set(dst)
			f.Do(func() {
				body()
				p.Set(p.Add(nextT))
			}, p.LessU(end))
		}
		along(last, func() { f.StoreF(p, 0, Float(-inf)) })
		f.StoreF(last, 0, void.F32(0))

		f.For(Int(0), bytes, 4, func(s I32) {
			t := f.Let(owner.Add(s).I32(0))
			f.If(Int(-1).LessS(t), func() {
				c := f.Let(coef.Add(s))
				z := c.F32(0).Mul(a.Add(s).F32(0))
				z = z.Add(c.Add(bytes).F32(0).Mul(b.Add(s).F32(0)))
				z = z.Add(c.Add(bytes.Shl(1)).F32(0))
				p.Set(dst.Add(t.Mul(nextT)))
				f.StoreF(p, 0, p.F32(0).Max(z))
			})
		})

		// From here on void is one more prompt.
		end := f.Let(last.Plus(1))
		best, total := f.LetF(Float(-inf)), f.LetF(Float(0))
		along(end, func() { best.Set(best.Max(p.F32(0))) })
		along(end, func() {
			e := f.LetF(k.exp(f, f.LetV(p.F32(0).Sub(best).Splat())).Lane(0))
			f.StoreF(p, 0, e)
			total.Set(total.Add(e))
		})
		along(end, func() { f.StoreF(p, 0, p.F32(0).Div(total)) })

		next(f, bytes, a, b)
		void.Set(void.Add(LDVoid.Shl(2)))
		dst.Inc(4)
	})
	return f
}
