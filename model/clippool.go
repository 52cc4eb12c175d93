package model

import (
	"slices"

	"github.com/pmp-seg/pmp/kernel"
)

// attentionPool is how a ResNet of CLIP makes an embedding of a map: the mean of all
// cells looks at them, here at those under a mask only.
type attentionPool struct {
	attention
	position kernel.Const // of the mean, and of side·side cells
	side     int
}

const (
	poolPosition = "clip.pool.position"
	poolHead     = 64 // channels of each head
)

func (l *loader) attentionPool(name string, side, d, e int) *attentionPool {
	return &attentionPool{
		attention: attention{q: l.linear(name+".q", d, d), k: l.linear(name+".k", d, d), v: l.linear(name+".v", d, d), out: l.linear(name+".out", d, e), heads: d / poolHead},
		position:  l.vector(poolPosition, side*side+1, d), side: side,
	}
}

// run writes an embedding for each of q masks to dst, and to open, a row of a panel for
// each, the sum of the mask's logits that are above zero: nothing lies under a mask
// without any, and its embedding means nothing.
func (p *attentionPool) run(g graph, dst, open, embedding kernel.View, q int, mask matrix, x grid) {
	position := g.Const(p.position)
	mean, cells := g.Temp(x.c), x.cells()
	g.Do(kernel.MatMul{Dst: mean, A: g.Floats(slices.Repeat([]float32{1 / float32(cells)}, cells)), B: x.View, LDB: x.c, Res: position, M: 1, N: x.c, K: cells})
	// All masks are asked for by the same query.
	queries := g.Temp(q * x.c)
	g.Do(kernel.Gather{Dst: queries, A: g.linear(mean, 1, p.q, kernel.ActNone), Index: g.Data(wordBytes(make([]int32, q))), M: q, N: x.c, Taps: 1})

	at := g.resize(grid{position.At(x.c), p.side, p.side, x.c}, x.h, x.w, x.View)
	mem := g.remember(p.attention, at.View, at.View, mask.n, g.Temp)
	logits, y := g.times(embedding, q, mask, kernel.ActNone), g.Temp(q*x.c)
	g.Do(kernel.Attention{Dst: y, Q: queries, K: mem.k, V: mem.v, Mask: logits, Count: g.Data(wordBytes([]int32{int32(cells)})),
		NQ: q, NK: mem.n, D: x.c, Heads: p.heads, Scale: invSqrt(poolHead)})
	g.linearTo(dst, y, q, p.out, kernel.ActNone, kernel.View{})

	above := g.Temp(q * mask.n)
	g.Do(kernel.Activate{Dst: above, A: logits, N: q * mask.n, Act: kernel.ActReLU})
	g.Do(kernel.MatMul{Dst: open, A: above, LDA: mask.n, B: g.Floats(slices.Repeat([]float32{1}, cells*kernel.Panel)), M: q, N: kernel.Panel, K: cells})
}
