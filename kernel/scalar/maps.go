package scalar

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

func (s *session) columns8(o kernel.Columns8) {
	dst, a := s.bytes(o.Dst), s.f(o.A)
	floats, weights := kernel.Floats(dst[:12*o.N]), dst[12*o.N:]
	scale, bias, sums := floats[:o.N], floats[o.N:2*o.N], floats[2*o.N:]
	at := func(k, n int) float32 { return a[k*o.N+n] }
	if o.Transposed {
		at = func(k, n int) float32 { return a[n*o.K+k] }
	}
	for n := range o.N {
		top := float32(0)
		for k := range o.K {
			top = max(top, at(k, n), -at(k, n))
		}
		inv := float32(0)
		if top > 0 {
			inv = 127 / top
		}
		sum := 0
		for k := range o.K {
			w := int8(math.RoundToEven(float64(at(k, n) * inv)))
			weights[kernel.Pack8(o.K, k, n)] = byte(w)
			sum += int(w)
		}
		scale[n], bias[n], sums[n] = top/127, 0, top/127*float32(sum)
	}
}

func (s *session) maps(o kernel.Maps) {
	masks := make([]float32, o.Q*o.N)
	if o.Rows.Valid() {
		product := kernel.MatMul8{M: o.Q, N: o.N, K: o.K, LDD: o.N, Act: kernel.ActSigmoid}
		matMul8(product, kernel.Bytes(masks), s.bytes(o.A), s.bytes(o.B), s.f(o.Rows), nil)
	} else {
		a, b := s.f(o.A), s.f(o.B)
		for q := range o.Q {
			for i := 0; i < o.N; i += kernel.Panel {
				x := dot8(a[q*o.K:(q+1)*o.K], b[i*o.K:], kernel.Panel)
				for j := range x {
					masks[q*o.N+i+j] = kernel.ActSigmoid.Apply(x[j])
				}
			}
		}
	}
	dst, p := s.f(o.Dst), s.f(o.P)
	for t := range s.count(o.Count, o.T) {
		out := dst[t*o.N : (t+1)*o.N]
		clear(out)
		for q, w := range p[t*o.Q : (t+1)*o.Q] {
			for i, m := range masks[q*o.N : (q+1)*o.N] {
				out[i] += w * m
			}
		}
	}
}

func (s *session) peaks(o kernel.Peaks) {
	dst, a := s.f(o.Dst), s.f(o.A)
	for t := range s.count(o.Count, o.T) {
		dst[t] = 0
		for y := 1; y < o.H; y += 2 {
			for x := 1; x < o.W; x += 2 {
				dst[t] = max(dst[t], a[(t*o.H+y)*o.W+x])
			}
		}
	}
}

// count is the number in v, at most n, or n if v is absent.
func (s *session) count(v kernel.View, n int) int {
	if !v.Valid() {
		return n
	}
	c := int(s.i(v)[0])
	if c < 1 || c > n {
		panic("kernel/scalar: count out of range")
	}
	return c
}
