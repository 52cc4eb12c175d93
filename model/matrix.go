package model

import "github.com/pmp-seg/pmp/kernel"

// matrix is what depends on the picture and is multiplied with what depends
// on the prompts: k rows and n columns, packed or as int8.
type matrix struct {
	kernel.View
	k, n int
	int8 bool
}

// matrix keeps a tensor as a matrix of k rows and n columns, and zeros that
// fill the last panel; the tensor has n rows of k numbers if it is transposed.
func (g graph) matrix(x kernel.View, k, n int, transposed, int8 bool) matrix {
	m := matrix{k: k, n: roundUp(n, kernel.Panel), int8: int8}
	if int8 {
		m.View = g.Keep(kernel.MatMul8Len(k, n))
		g.Do(kernel.Columns8{Dst: m.View, A: x, K: k, N: n, Transposed: transposed})
	} else {
		m.View = g.Keep(kernel.PackedLen(k, n))
		g.Do(kernel.Pack{Dst: m.View, A: x, K: k, N: n, Transposed: transposed})
	}
	return m
}

// times returns act(x·b) for m rows.
func (g graph) times(x kernel.View, m int, b matrix, act kernel.Act) kernel.View {
	dst := g.Temp(m * b.n)
	g.timesTo(dst, x, m, b, act)
	return dst
}

func (g graph) timesTo(dst, x kernel.View, m int, b matrix, act kernel.Act) {
	if b.int8 {
		q := g.quantize(x, m, b.k)
		g.Do(kernel.MatMul8{Dst: dst, A: q.bytes, Rows: q.rows, B: b.View, M: m, N: b.n, K: b.k, Act: act})
		return
	}
	g.Do(kernel.MatMul{Dst: dst, A: x, B: b.View, M: m, N: b.n, K: b.k, Act: act})
}

// maps makes a map of each prompt in use, of at most t, from the mask
// embeddings of q proposals and the prompts' probabilities p.
func (g graph) maps(dst, embedding kernel.View, q int, features matrix, p, count kernel.View, t int) {
	o := kernel.Maps{Dst: dst, A: embedding, B: features.View, P: p, Count: count, Q: q, K: features.k, N: features.n, T: t}
	if features.int8 {
		x := g.quantize(embedding, q, features.k)
		o.A, o.Rows = x.bytes, x.rows
	}
	g.Do(o)
}
