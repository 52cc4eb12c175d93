package scalar

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

// round7 rounds to the nearest integer, ties to even, and clamps to 0..127.
func round7(x float32) byte {
	return byte(min(max(math.RoundToEven(float64(x)), 0), 127))
}

// Go may fuse x*y + z where a machine can; converting the product forbids it.

func (s *session) quantize(o kernel.Quantize) {
	quantize(s.bytes(o.Dst), s.f(o.Rows), s.f(o.A), o.M, o.K)
}

func quantize(dst []byte, rows, a []float32, m, k int) {
	for i := range m {
		row := a[i*k : (i+1)*k]
		low, high := row[0], row[0]
		for _, x := range row {
			low, high = min(low, x), max(high, x)
		}
		inv := float32(0)
		if high > low {
			inv = 127 / (high - low)
		}
		rows[2*i], rows[2*i+1] = (high-low)/127, low
		for j, x := range row {
			dst[i*k+j] = round7((x - low) * inv)
		}
	}
}

func (s *session) matMul8(o kernel.MatMul8) {
	if o.LDD == 0 {
		o.LDD = o.N
	}
	if o.LDR == 0 {
		o.LDR = o.N
	}
	dst := s.bytes(o.Dst)
	matMul8(o, dst, s.bytes(o.A), s.bytes(o.B), s.f(o.Rows), s.f(o.Res))
}

func matMul8(o kernel.MatMul8, dst, a, block []byte, rows, res []float32) {
	floats := kernel.Floats(block)
	scale, bias, sums := floats[:o.N], floats[o.N:2*o.N], floats[2*o.N:3*o.N]
	weights := block[12*o.N:]
	for m := range o.M {
		in := a[m*o.K : (m+1)*o.K]
		for n := range o.N {
			column := weights[kernel.Pack8(o.K, 0, n):]
			var sum int32
			for k := 0; k < o.K; k += kernel.Quad {
				w := column[k*kernel.Panel:][:kernel.Quad]
				x := in[k:][:kernel.Quad]
				sum += int32(x[0])*int32(int8(w[0])) + int32(x[1])*int32(int8(w[1])) +
					int32(x[2])*int32(int8(w[2])) + int32(x[3])*int32(int8(w[3]))
			}
			var y float32
			if rows != nil {
				y = float32(float32(sum)*float32(rows[2*m]*scale[n])) + float32(float32(rows[2*m+1]*sums[n])+bias[n])
			} else {
				y = float32(float32(sum)*scale[n]) + bias[n]
			}
			if o.Bytes {
				dst[m*o.LDD+n] = round7(y)
				continue
			}
			y = o.Act.Apply(y)
			if res != nil {
				y += res[m*o.LDR+n]
			}
			at := m*o.LDD + n
			if o.Packed {
				at = (n/kernel.Panel*o.M+m)*kernel.Panel + n%kernel.Panel
			}
			kernel.Floats(dst)[at] = y
		}
	}
}

func (s *session) depthwise8(o kernel.Depthwise8) {
	depthwise8(o, s.bytes(o.Dst), s.bytes(o.A), s.bytes(o.B))
}

func depthwise8(o kernel.Depthwise8, dst, a, block []byte) {
	floats := kernel.Floats(block)
	scale, bias, taps := floats[:o.C], floats[o.C:2*o.C], block[8*o.C:]
	for y := range o.H {
		for x := range o.W {
			for c := range o.C {
				var sum int32
				for ky := range o.Size {
					for kx := range o.Size {
						iy, ix := y*o.Stride+ky-o.Pad, x*o.Stride+kx-o.Pad
						if 0 <= iy && iy < o.HI && 0 <= ix && ix < o.WI {
							sum += int32(a[(iy*o.WI+ix)*o.C+c]) * int32(int8(taps[kernel.PackDepthwise8(o.Size, o.C, ky, kx, c)]))
						}
					}
				}
				dst[(y*o.W+x)*o.C+c] = round7(float32(float32(sum)*scale[c]) + bias[c])
			}
		}
	}
}

func (s *session) residual8(o kernel.Residual8) {
	wide := s.bytes(o.A)
	if o.Expand.Valid() {
		cells := o.HI * o.WI
		q, rows := make([]byte, cells*o.In), make([]float32, 2*cells)
		quantize(q, rows, s.f(o.A), cells, o.In)
		wide = make([]byte, cells*o.C)
		matMul8(kernel.MatMul8{M: cells, N: o.C, K: o.In, LDD: o.C, Bytes: true}, wide, q, s.bytes(o.Expand), rows, nil)
	}
	deep := make([]byte, o.H*o.W*o.C)
	depthwise8(kernel.Depthwise8{H: o.H, W: o.W, HI: o.HI, WI: o.WI, C: o.C, Size: o.Size, Stride: o.Stride, Pad: o.Pad},
		deep, wide, s.bytes(o.Depthwise))
	matMul8(kernel.MatMul8{M: o.H * o.W, N: o.Out, K: o.C, LDD: o.Out, LDR: o.Out}, s.bytes(o.Dst), deep, s.bytes(o.Project), nil, s.f(o.Res))
}
