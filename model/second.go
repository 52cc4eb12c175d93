package model

import "github.com/pmp-seg/pmp/kernel"

// secondStage names proposals by the trunk's own recognition of ImageNet's
// 1,000 things: kernel ridge regression, fitted offline, takes a phrase's
// embedding to a row of the classifier, and that row is compared with the
// head's features under each mask. It knows names that the decoder was never
// trained on, but only things, so its share is small for trained names.
//
// There are more names than ImageNet's, so they are compared in fewer numbers
// than embeddings have.
type secondStage struct {
	project linear // of embeddings, to where names are compared; none if space is e
	names   linear // exp((E·Nᵀ − 1)/ridgeWidth)
	coefU   kernel.Const
	coefV   kernel.Const
	center  kernel.Const
	trained kernel.Const // packed unit embeddings of the trained names
	rank    int
	rows    int
	space   int
	e       int
	known   int // trained names
}

// ridgeWidth is the width of the ridge's kernel exp((a·b−1)/width).
const ridgeWidth = 0.3

func (l *loader) secondStage(c Config) secondStage {
	s := secondStage{rank: c.Rank, rows: c.Rows, space: c.Space, e: c.Text.Width, known: c.Trained}
	if s.space != s.e {
		// As floating point with any precision: a row costs little and counts in all masks of its name.
		l.check("stage2.project.weight", s.space, s.e)
		s.project = linear{weight: l.matrix("stage2.project.weight", s.e, s.space), bias: l.vector("stage2.project.bias", s.space), in: s.e, out: s.space}
	}
	l.check("stage2.names", s.rows, s.space)
	s.names = linear{in: s.space, out: s.rows}
	s.names.weight = l.constants.Add(kernel.PackedLen(s.space, s.rows), func(dst []float32) {
		w := l.floats(s.rows * s.space)
		l.source.Read("stage2.names", w)
		kernel.PackInto(dst, s.space, s.rows, func(k, n int) float32 { return w[n*s.space+k] / ridgeWidth })
	})
	s.names.bias = l.constants.Add(s.rows, func(dst []float32) {
		for i := range dst {
			dst[i] = -1 / float32(ridgeWidth)
		}
	})
	s.coefU = l.plainMatrix("stage2.coef_u", s.rows, s.rank)
	s.coefV = l.plainMatrix("stage2.coef_v", s.rank, trunkFeatures)
	s.center = l.vector("stage2.center", trunkFeatures)
	l.check("stage2.trained", s.known, s.e)
	s.trained = l.constants.Add(kernel.PackedLen(s.e, s.known), func(dst []float32) {
		w := l.floats(s.known * s.e)
		l.source.Read("stage2.trained", w)
		for i := range s.known {
			normalise(w[i*s.e : (i+1)*s.e])
		}
		kernel.PackInto(dst, s.e, s.known, func(k, n int) float32 { return w[n*s.e+k] })
	})
	return s
}

// columns is the number of columns of likeness: known, in whole panels.
func (s secondStage) columns() int { return roundUp(s.known, kernel.Panel) }

// describe makes of n unit embeddings their unit classifier rows and their
// cosines with the trained names.
func (s secondStage) describe(g graph, e, rows, likeness kernel.View, n int) {
	place := e
	if s.space != s.e {
		place = g.linear(e, n, s.project, kernel.ActNone)
		g.Do(kernel.L2Norm{Dst: place, A: place, M: n, N: s.space, Scale: 1})
	}
	k, u := g.linear(place, n, s.names, kernel.ActExp), g.Temp(n*s.rank)
	g.Do(kernel.MatMul{Dst: u, A: k, B: g.Const(s.coefU), M: n, N: s.rank, K: s.rows})
	g.Do(kernel.MatMul{Dst: rows, A: u, B: g.Const(s.coefV), M: n, N: trunkFeatures, K: s.rank})
	g.Do(kernel.L2Norm{Dst: rows, A: rows, M: n, N: trunkFeatures, Scale: 1})
	g.Do(kernel.MatMul{Dst: likeness, A: e, B: g.Const(s.trained), M: n, N: s.columns(), K: s.e})
}

// compare returns the cosine of each query's pooled features with each of
// slots classifier rows.
func (s secondStage) compare(g graph, pooled kernel.View, q int, rows kernel.View, slots int) kernel.View {
	unit := g.Temp(q * trunkFeatures)
	g.Do(kernel.L2Norm{Dst: unit, A: pooled, Center: g.Const(s.center), M: q, N: trunkFeatures, Scale: 1})
	return g.dots(unit, q, rows, slots, trunkFeatures)
}

// dots returns the m×n products of m rows with n rows of k numbers.
func (g graph) dots(a kernel.View, m int, b kernel.View, n, k int) kernel.View {
	packed, dst := g.Temp(kernel.PackedLen(k, n)), g.Temp(m*n)
	g.packTransposed(packed, b, n, k)
	g.Do(kernel.MatMul{Dst: dst, A: a, B: packed, M: m, N: n, K: k})
	return dst
}
