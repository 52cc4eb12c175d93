package kerneltest

import (
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
