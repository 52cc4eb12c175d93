package kerneltest

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

func gather(s *suite) {
	for _, l := range [][4]int{{1, 4, 1, 1}, {7, 8, 3, 1}, {5, 12, 9, 4}, {33, 64, 20, 9}, {600, 256, 150, 4}} {
		m, n, rows, taps := l[0], l[1], l[2], l[3]
		index := func(t *trial) kernel.View {
			var all []int
			for range m * taps {
				all = append(all, t.random.IntN(rows+1)-1) // one in so many is none
			}
			all[0] = rows - 1
			return t.ints(all...)
		}
		for variant := range 4 {
			weight, res := variant&1 != 0, variant&2 != 0
			s.try(shape("taps ", l, " variant ", variant), sumOf(taps), func(t *trial) []kernel.Op {
				o := kernel.Gather{Dst: t.out(m * n), A: t.in(rows * n), Index: index(t), M: m, N: n, Taps: taps}
				if weight {
					o.Weight = t.in(m * taps)
				}
				if res {
					o.Res = t.in(m * n)
				}
				return one(o)
			})
			s.try(shape("largest ", l, " variant ", variant), sumOf(1), func(t *trial) []kernel.Op {
				o := kernel.Gather{Dst: t.out(m * n), A: t.in(rows * n), Index: index(t), M: m, N: n, Taps: taps, Max: true}
				if res {
					o.Res = t.in(m * n)
				}
				return one(o)
			})
		}
	}
}

func groupNorm(s *suite) {
	for _, l := range [][3]int{{1, 4, 1}, {3, 8, 2}, {10, 24, 2}, {255, 128, 32}, {256, 256, 32}, {257, 12, 3}, {5000, 16, 2}} {
		m, n, groups := l[0], l[1], l[2]
		for _, act := range []kernel.Act{kernel.ActNone, kernel.ActReLU} {
			// As for LayerNorm; sums of so many numbers are made in parts.
			tol := tolerance{abs: 60 * epsilon, rel: 60 * epsilon}
			o := kernel.GroupNorm{M: m, N: n, Groups: groups, Eps: 1e-5, Act: act}
			s.try(shape(l, " act ", act), tol, func(t *trial) []kernel.Op {
				o.Dst, o.A, o.Gamma, o.Beta = t.out(m*n), t.in(m*n), t.in(n), t.in(n)
				return one(o)
			})
			s.try(shape("in place ", l, " act ", act), tol, func(t *trial) []kernel.Op {
				o.A, o.Gamma, o.Beta = t.inOut(m*n), t.in(n), t.in(n)
				o.Dst = o.A
				return one(o)
			})
		}
	}
}

func deformable(s *suite) {
	for _, c := range []struct {
		q, d, heads, points int
		sides               [][2]int
	}{
		{1, 8, 1, 4, [][2]int{{1, 1}}},
		{5, 16, 2, 4, [][2]int{{3, 5}}},
		{9, 48, 3, 2, [][2]int{{2, 3}, {4, 7}}},
		{40, 128, 8, 4, [][2]int{{3, 4}, {6, 8}, {12, 16}}},
		{7, 64, 2, 16, [][2]int{{1, 9}, {9, 1}, {2, 2}, {16, 16}}},
	} {
		n, cells := c.q*c.heads*len(c.sides)*c.points, 0
		for _, side := range c.sides {
			cells += side[0] * side[1]
		}
		// far is how many cells a point may lie away from its query.
		for _, far := range []float32{0.4, 2, 30} {
			// What x and y are off by, some epsilons of a coordinate, moves the
			// sample as far as neighbouring cells differ; as do their weights.
			tol := tolerance{abs: 64*epsilon*float64(16+far) + 4*expError}
			s.try(shape(c, " far ", far), tol, func(t *trial) []kernel.Op {
				offset, where := t.numbers(2*n), t.numbers(2*c.q)
				for i := range offset {
					offset[i] *= far
				}
				for i := range where {
					where[i] = (where[i] + 1) / 2
				}
				if far == 30 { // and some beyond all bounds
					offset[0], offset[len(offset)-1] = float32(math.Inf(1)), -1e30
				}
				return one(kernel.Deformable{Dst: t.out(c.q * c.d), V: t.in(cells * c.d), Offset: t.floats(offset),
					Weight: t.in(n), At: t.floats(where), Q: c.q, D: c.d, Heads: c.heads, Points: c.points, Sides: c.sides})
			})
		}
	}
	// Points that lie on cells take their values as they are, and on the edge
	// half of them, whatever the weights are.
	s.try("on cells", tolerance{abs: 4 * expError}, func(t *trial) []kernel.Op {
		const w, d = 4, 8
		var where, offset []float32
		for i := range w {
			where = append(where, (float32(i)+0.5)/w, 0.5)
			for j := range 4 {
				offset = append(offset, float32(j-1), 0)
			}
		}
		offset[0] = -0.5
		return one(kernel.Deformable{Dst: t.out(w * d), V: t.in(w * d), Offset: t.floats(offset), Weight: t.in(4 * w),
			At: t.floats(where), Q: w, D: d, Heads: 1, Points: 4, Sides: [][2]int{{1, w}}})
	})
}

func windowAttention(s *suite) {
	tol := tolerance{abs: 4*expError + 64*epsilon} // as for attention
	for _, o := range []kernel.WindowAttention{
		{Windows: 1, Size: 1, D: 8, Heads: 1, Rows: 1, Scale: 1},
		{Windows: 3, Size: 4, D: 16, Heads: 2, Rows: 12, Scale: 2},
		{Windows: 2, Size: 9, D: 48, Heads: 2, LDQ: 144, Rows: 31, Scale: 0.5},
		{Windows: 5, Size: 49, D: 96, Heads: 3, LDQ: 288, Rows: 245, Scale: 0.18},
		{Windows: 2, Size: 144, D: 64, Heads: 2, LDQ: 192, Rows: 300, Scale: 0.18},
		{Windows: 1, Size: 520, D: 8, Heads: 1, Rows: 520, Scale: 1},
	} {
		for _, strength := range []float32{1, 20} {
			s.try(shape(o.Windows, "x", o.Size, " channels ", o.D, " bias ", strength), tol, func(t *trial) []kernel.Op {
				n := o.Windows * o.Size
				bias := t.numbers(o.Heads * o.Size * ((o.Size + 3) &^ 3))
				for i := range bias {
					bias[i] *= strength
					if strength > 1 && i%5 == 1 {
						bias[i] = -100 // as between parts of a window that are none of the other's business
					}
				}
				o.Dst, o.Q = t.out(n*o.D), t.in((n-1)*max(o.LDQ, o.D)+o.D)
				o.K, o.V, o.Bias = t.packed(o.Rows, o.D), t.packed(o.Rows, o.D), t.floats(bias)
				return one(o)
			})
		}
	}
	// A bias of -100 leaves each row nothing but itself.
	s.try("itself", tolerance{abs: 4 * expError}, func(t *trial) []kernel.Op {
		const size, d = 12, 8
		bias := make([]float32, size*size)
		for i := range bias {
			if i%(size+1) != 0 {
				bias[i] = -100
			}
		}
		return one(kernel.WindowAttention{Dst: t.out(2 * size * d), Q: t.in(2 * size * d), K: t.packed(2*size, d), V: t.packed(2*size, d),
			Bias: t.floats(bias), Windows: 2, Size: size, D: d, Heads: 1, Rows: 2 * size, Scale: 0.1})
	})
}
