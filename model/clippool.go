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

// pooled is what depends on the picture alone: the query of all masks, and what it looks at.
type pooled struct {
	queries kernel.View
	memory
	cells int
}

// remember computes it of x, into buffers that keep makes, for q masks and n cells,
// of which those behind x only fill a panel.
func (p *attentionPool) remember(g graph, x grid, q, n int, keep func(int) kernel.View) pooled {
	position := g.Const(p.position)
	mean, cells := g.Temp(x.c), x.cells()
	g.Do(kernel.MatMul{Dst: mean, A: g.Floats(slices.Repeat([]float32{1 / float32(cells)}, cells)), B: x.View, LDB: x.c, Res: position, M: 1, N: x.c, K: cells})
	seen := pooled{queries: keep(q * x.c), cells: cells}
	g.Do(kernel.Gather{Dst: seen.queries, A: g.linear(mean, 1, p.q, kernel.ActNone), Index: g.Data(wordBytes(make([]int32, q))), M: q, N: x.c, Taps: 1})

	at := g.resize(grid{position.At(x.c), p.side, p.side, x.c}, x.h, x.w, x.View)
	seen.memory = g.remember(p.attention, at.View, at.View, n, keep)
	seen.count = g.Data(wordBytes([]int32{int32(cells)}))
	return seen
}

// run writes an embedding for each of q masks to dst, and to open, a row of a panel for
// each, the sum of the mask's logits that are above zero: nothing lies under a mask
// without any, and its embedding means nothing.
func (p *attentionPool) run(g graph, dst, open, embedding kernel.View, q int, mask matrix, seen pooled) {
	d := p.q.out
	logits, y := g.times(embedding, q, mask, kernel.ActNone), g.Temp(q*d)
	g.Do(kernel.Attention{Dst: y, Q: seen.queries, K: seen.k, V: seen.v, Mask: logits, Count: seen.count,
		NQ: q, NK: seen.n, D: d, Heads: p.heads, Scale: invSqrt(poolHead)})
	g.linearTo(dst, y, q, p.out, kernel.ActNone, kernel.View{})

	above := g.Temp(q * mask.n)
	g.Do(kernel.Activate{Dst: above, A: logits, N: q * mask.n, Act: kernel.ActReLU})
	g.Do(kernel.MatMul{Dst: open, A: above, LDA: mask.n, B: g.Floats(slices.Repeat([]float32{1}, seen.cells*kernel.Panel)), M: q, N: kernel.Panel, K: seen.cells})
}
