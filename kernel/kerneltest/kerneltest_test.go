package kerneltest

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// TestScalar finds what only a single device can break: guard words, inputs
// that change, the life of sessions.
func TestScalar(t *testing.T) { Run(t, scalar.New) }

// TestScalarAgainstGonum compares the reference itself, in float64, with a
// product that others wrote.
func TestScalarAgainstGonum(t *testing.T) {
	const m, n, k = 37, 24, 53
	random := rand.New(rand.NewPCG(4, 4))
	dense := func(rows, cols int) (*mat.Dense, []float32) {
		d, f := mat.NewDense(rows, cols, nil), make([]float32, rows*cols)
		for i := range f {
			f[i] = 2*random.Float32() - 1
			d.Set(i/cols, i%cols, float64(f[i]))
		}
		return d, f
	}
	a, af := dense(m, k)
	b, bf := dense(k, n)
	res, resf := dense(m, n)
	packed := make([]float32, kernel.PackedLen(k, n))
	kernel.PackInto(packed, k, n, func(k, col int) float32 { return bf[k*n+col] })

	var p kernel.Program
	p.Stage()
	dst, again := p.Keep(m*n), p.Keep(m*n)
	p.Do(kernel.MatMul{Dst: dst, A: p.Floats(af), B: p.Floats(packed), Res: p.Floats(resf), M: m, N: n, K: k})
	p.Do(kernel.MatMul{Dst: again, A: p.Floats(af), B: p.Floats(bf), LDB: n, Res: p.Floats(resf), M: m, N: n, K: k})
	p.Plan()
	s := &suite{T: t, device: scalar.New()}
	session := s.must(s.device.Open(&p))

	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, a.RawMatrix(), b.RawMatrix(), 1, res.RawMatrix())
	want := make([]float32, m*n)
	for i := range want {
		want[i] = float32(res.At(i/n, i%n))
	}
	s.same("packed", s.runAndRead(session, 0, dst, m*n), want, sumOf(k))
	s.same("rows", s.runAndRead(session, 0, again, m*n), want, sumOf(k))
}

// TestGuidedAgainstGonum fits each window by least squares, which others wrote,
// in float64, and asks the fits at pixels of their own.
func TestGuidedAgainstGonum(t *testing.T) {
	const h, w, height, width, epsilon = 6, 8, 23, 31, 0.01
	random := rand.New(rand.NewPCG(5, 5))
	a, s := make([]float32, 4*height*width), make([]float32, h*w)
	for i := range a {
		if i%4 < 3 {
			a[i] = 2*random.Float32() - 1
		}
	}
	for i := range s {
		s[i] = random.Float32() - 0.5
		if i%w > 4 {
			s[i] += 0.5 // far from any border
		}
	}
	pixels := make([]byte, 4*height*width)
	for i := range pixels {
		pixels[i] = byte(random.Uint32())
	}

	inside := func(i, n int) int { return min(max(i, 0), n-1) }
	colour := func(y, x int) (g [3]float64) {
		for i := range 16 {
			for c := range g {
				g[c] += float64(a[4*(inside(4*y+2+i/4, height)*width+inside(4*x+2+i%4, width))+c]) / 16
			}
		}
		return g
	}
	fit := func(y, x int) *mat.VecDense {
		above := 0
		for i := range 9 {
			if s[inside(y+i/3-1, h)*w+inside(x+i%3-1, w)] > 0 {
				above++
			}
		}
		if above == 0 || above == 9 {
			return mat.NewVecDense(4, []float64{0, 0, 0, float64(s[y*w+x])})
		}
		// Nine equations, and three that keep slopes small.
		m, b := mat.NewDense(12, 4, nil), mat.NewVecDense(12, nil)
		for i := range 9 {
			y, x := inside(y+i/3-1, h), inside(x+i%3-1, w)
			g := colour(y, x)
			m.SetRow(i, []float64{g[0] / 3, g[1] / 3, g[2] / 3, 1. / 3})
			b.SetVec(i, float64(s[y*w+x])/3)
		}
		for c := range 3 {
			m.Set(9+c, c, math.Sqrt(epsilon))
		}
		f := mat.NewVecDense(4, nil)
		if err := f.SolveVec(m, b); err != nil {
			t.Fatal(err)
		}
		return f
	}
	tapsY, tapsX := kernel.PaintTaps(h, height, 1, 4), kernel.PaintTaps(w, width, 1, 4)
	value := func(y, x int) (v float64) {
		p := pixels[4*(y*width+x):]
		for i := range 4 {
			cy, cx := int(tapsY.First[y])+i/2, int(tapsX.First[x])+i%2
			weight := float64(tapsY.Weights[2*y+i/2]) * float64(tapsX.Weights[2*x+i%2])
			for j := range 9 {
				f := fit(inside(cy+j/3-1, h), inside(cx+j%3-1, w))
				v += weight / 9 * f.AtVec(3)
				for c := range 3 {
					v += weight / 9 * f.AtVec(c) * (float64(p[c]) - 127) / 128
				}
			}
		}
		return v
	}
	want := make([]float32, height*width)
	for i := range want {
		want[i] = float32(max(value(i/width, i%width), 0))
	}

	var p kernel.Program
	p.Stage()
	guide, fits, best := p.Temp(kernel.GuideLen(h*w)), p.Temp(4*h*w), p.Keep(height*width)
	p.Do(kernel.Guide{Dst: guide, A: p.Floats(a), H: h, W: w, HI: height, WI: width, WP: width, Epsilon: epsilon})
	p.Do(kernel.Guided{Dst: fits, A: p.Floats(s), Guide: guide, T: 1, H: h, W: w})
	p.Do(kernel.Paint{Label: p.KeepBytes(height * width), Best: best, A: fits, Pixels: p.Data(pixels), Index: p.Data(make([]byte, 4)),
		TapsY: p.Data(tapsY.Encode()), TapsX: p.Data(tapsX.Encode()), H: height, W: width, HI: h, WI: w, T: 1})
	p.Plan()
	u := &suite{T: t, device: scalar.New()}
	u.same("heights", u.runAndRead(u.must(u.device.Open(&p)), 0, best, height*width), want, tolerance{abs: 1e-4})
}
