package scalar

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

func (s *session) gather(o kernel.Gather) {
	dst, a, index, weight, res := s.f(o.Dst), s.f(o.A), s.i(o.Index), s.f(o.Weight), s.f(o.Res)
	start := float32(0)
	if o.Max {
		start = float32(math.Inf(-1))
	}
	for m := range o.M {
		out := dst[m*o.N : (m+1)*o.N]
		for n := range out {
			out[n] = start
		}
		for t, i := range index[m*o.Taps : (m+1)*o.Taps] {
			if i < 0 {
				continue
			}
			w := float32(1)
			if weight != nil {
				w = weight[m*o.Taps+t]
			}
			for n, v := range a[int(i)*o.N : (int(i)+1)*o.N] {
				if o.Max {
					out[n] = max(out[n], v)
				} else {
					out[n] += w * v
				}
			}
		}
		if res != nil {
			for n := range out {
				out[n] += res[m*o.N+n]
			}
		}
	}
}

func (s *session) groupNorm(o kernel.GroupNorm) {
	dst, a, gamma, beta := s.f(o.Dst), s.f(o.A), s.f(o.Gamma), s.f(o.Beta)
	width := o.N / o.Groups
	for first := 0; first < o.N; first += width {
		each := func(f func(at, n int)) {
			for m := range o.M {
				for n := first; n < first+width; n++ {
					f(m*o.N+n, n)
				}
			}
		}
		var sum, squares float64
		each(func(at, _ int) { sum += float64(a[at]) })
		count := float64(o.M * width)
		mean := sum / count
		each(func(at, _ int) { squares += (float64(a[at]) - mean) * (float64(a[at]) - mean) })
		r := 1 / math.Sqrt(squares/count+float64(o.Eps))
		each(func(at, n int) { dst[at] = o.Act.Apply(float32((float64(a[at])-mean)*r)*gamma[n] + beta[n]) })
	}
}

func (s *session) deformable(o kernel.Deformable) {
	dst, v, offset, weight, where := s.f(o.Dst), s.f(o.V), s.f(o.Offset), s.f(o.Weight), s.f(o.At)
	points, hd := len(o.Sides)*o.Points, o.D/o.Heads
	p := make([]float64, points)
	for q := range o.Q {
		for h := range o.Heads {
			first := (q*o.Heads + h) * points
			top, sum := math.Inf(-1), 0.0
			for _, x := range weight[first : first+points] {
				top = max(top, float64(x))
			}
			for j, x := range weight[first : first+points] {
				p[j] = math.Exp(float64(x) - top)
				sum += p[j]
			}
			out := dst[q*o.D+h*hd : q*o.D+(h+1)*hd]
			clear(out)
			cells := v // of the map
			for l, side := range o.Sides {
				rows, columns := side[0], side[1]
				for j := l * o.Points; j < (l+1)*o.Points; j++ {
					x := where[2*q]*float32(columns) + offset[2*(first+j)] - 0.5
					y := where[2*q+1]*float32(rows) + offset[2*(first+j)+1] - 0.5
					left, above := float32(math.Floor(float64(x))), float32(math.Floor(float64(y)))
					share := [2][2]float32{{1 - (y - above), y - above}, {1 - (x - left), x - left}}
					for corner := range 4 {
						below, right := corner/2, corner%2
						cy, cx := above+float32(below), left+float32(right)
						// Compared as they are: what is far outside need not fit an integer.
						if !(0 <= cx && cx < float32(columns) && 0 <= cy && cy < float32(rows)) {
							continue
						}
						w := float32(p[j]/sum) * share[0][below] * share[1][right]
						for c, value := range cells[(int(cy)*columns+int(cx))*o.D+h*hd:][:hd] {
							out[c] += w * value
						}
					}
				}
				cells = cells[rows*columns*o.D:]
			}
		}
	}
}

func (s *session) windowAttention(o kernel.WindowAttention) {
	dst, q, k, v, bias := s.f(o.Dst), s.f(o.Q), s.f(o.K), s.f(o.V), s.f(o.Bias)
	one := kernel.Attention{NQ: o.Size, NK: o.Rows, D: o.D, Heads: o.Heads, LDQ: o.LDQ, Scale: o.Scale}
	if one.LDQ == 0 {
		one.LDQ = o.D
	}
	for first := 0; first < o.Windows*o.Size; first += o.Size {
		attend(one, dst[first*o.D:], q[first*one.LDQ:], k[first*kernel.Panel:], v[first*kernel.Panel:], nil, bias, o.Size)
	}
}
