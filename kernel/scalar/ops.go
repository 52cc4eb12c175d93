package scalar

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

func (s *session) matMul(o kernel.MatMul) {
	dst, a, b, bias, res := s.f(o.Dst), s.f(o.A), s.f(o.B), s.f(o.Bias), s.f(o.Res)
	for m := range o.M {
		row := a[m*o.LDA : m*o.LDA+o.K]
		// A panel's columns are summed side by side: eight running sums stay
		// in registers and B is read in order.
		for n := 0; n < o.N; n += kernel.Panel {
			at, step := n/kernel.Panel*o.K*kernel.Panel, kernel.Panel
			if o.LDB != 0 {
				at, step = n, o.LDB
			}
			sum := dot8(row, b[at:], step)
			out := dst[m*o.LDD+n : m*o.LDD+n+kernel.Panel]
			for j := range out {
				v := sum[j]
				if bias != nil {
					v += bias[n+j]
				}
				v = o.Act.Apply(v)
				if res != nil {
					v += res[m*o.LDR+n+j]
				}
				out[j] = v
			}
		}
	}
}

// dot8 is the product of a row with eight neighbouring columns of b, whose
// rows are step apart.
func dot8(row, b []float32, step int) [kernel.Panel]float32 {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	at := 0
	for _, x := range row {
		c := b[at : at+kernel.Panel : at+kernel.Panel]
		s0 += x * c[0]
		s1 += x * c[1]
		s2 += x * c[2]
		s3 += x * c[3]
		s4 += x * c[4]
		s5 += x * c[5]
		s6 += x * c[6]
		s7 += x * c[7]
		at += step
	}
	return [kernel.Panel]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}

func (s *session) conv(o kernel.Conv) {
	a, b, bias := s.f(o.A), s.f(o.B), s.f(o.Bias)
	dst, bytes := s.f(o.Dst), s.bytes(o.Dst)
	span := o.Size * o.C // numbers that one kernel row covers
	for y := range o.H {
		for x := range o.W {
			for n := 0; n < o.N; n += kernel.Panel {
				var sums [kernel.Panel]float32
				if bias != nil {
					copy(sums[:], bias[n:])
				}
				panel := b[n*o.Size*span:]
				for ky := range o.Size {
					in := a[((y*o.Stride+ky)*o.WP+x*o.Stride)*o.C:]
					for i, p := range in[:span] {
						w := panel[(ky*span+i)*kernel.Panel:][:kernel.Panel]
						for j := range sums {
							sums[j] += float32(p * w[j]) // never fused
						}
					}
				}
				for j, v := range sums {
					if at := (y*o.W+x)*o.N + n + j; o.Bytes {
						bytes[at] = round7(v)
					} else {
						dst[at] = o.Act.Apply(v)
					}
				}
			}
		}
	}
}

func (s *session) depthwise(o kernel.Depthwise) {
	a, b, bias := s.f(o.A), s.f(o.B), s.f(o.Bias)
	dst, bytes := s.f(o.Dst), s.bytes(o.Dst)
	sums := make([]float32, o.C)
	for y := range o.H {
		for x := range o.W {
			at, out := (y*o.W+x)*o.C, sums
			if !o.Bytes {
				out = dst[at : at+o.C]
			}
			if bias != nil {
				copy(out, bias)
			} else {
				clear(out)
			}
			for ky := range o.Size {
				iy := y*o.Stride + ky - o.Pad
				if iy < 0 || iy >= o.HI {
					continue
				}
				for kx := range o.Size {
					ix := x*o.Stride + kx - o.Pad
					if ix < 0 || ix >= o.WI {
						continue
					}
					in := a[(iy*o.WI+ix)*o.C : (iy*o.WI+ix+1)*o.C]
					w := b[(ky*o.Size+kx)*o.C : (ky*o.Size+kx+1)*o.C]
					for c, v := range in {
						out[c] += v * w[c]
					}
				}
			}
			for c, v := range out {
				if o.Bytes {
					bytes[at+c] = round7(v)
				} else {
					out[c] = o.Act.Apply(v)
				}
			}
		}
	}
}

func (s *session) upsampleAdd(o kernel.UpsampleAdd) {
	dst, a, res := s.f(o.Dst), s.f(o.A), s.f(o.Res)
	// The inputs whose mean output i is.
	pair := func(i int) (int, int) {
		if i%2 == 1 {
			return i / 2, i / 2
		}
		return max(i/2-1, 0), i / 2
	}
	for y := range 2 * o.H {
		y0, y1 := pair(y)
		for x := range 2 * o.W {
			x0, x1 := pair(x)
			at := (y*2*o.W + x) * o.C
			for c := range o.C {
				in := func(y, x int) float32 { return a[(y*o.W+x)*o.C+c] }
				dst[at+c] = res[at+c] + (in(y0, x0)+in(y0, x1)+in(y1, x0)+in(y1, x1))/4
			}
		}
	}
}

func (s *session) layerNorm(o kernel.LayerNorm) {
	dst, a, res, gamma, beta := s.f(o.Dst), s.f(o.A), s.f(o.Res), s.f(o.Gamma), s.f(o.Beta)
	t := make([]float32, o.N)
	for m := range o.M {
		copy(t, a[m*o.N:])
		if res != nil {
			for n := range t {
				t[n] += res[m*o.N+n]
			}
		}
		var sum, squares float64
		for _, v := range t {
			sum += float64(v)
		}
		mean := sum / float64(o.N)
		for _, v := range t {
			squares += (float64(v) - mean) * (float64(v) - mean)
		}
		r := 1 / math.Sqrt(squares/float64(o.N)+float64(o.Eps))
		for n, v := range t {
			dst[m*o.N+n] = float32((float64(v)-mean)*r)*gamma[n] + beta[n]
		}
	}
}

// tiny keeps rows of zeros at zero instead of dividing by it.
const tiny = 1e-12

func (s *session) l2Norm(o kernel.L2Norm) {
	dst, a, center := s.f(o.Dst), s.f(o.A), s.f(o.Center)
	for m := range o.M {
		row, out := a[m*o.N:(m+1)*o.N], dst[m*o.N:(m+1)*o.N]
		var squares float64
		for n, v := range row {
			if center != nil {
				v -= center[n]
			}
			out[n] = v
			squares += float64(v) * float64(v)
		}
		r := float64(o.Scale) / max(math.Sqrt(squares), tiny)
		for n, v := range out {
			out[n] = float32(float64(v) * r)
		}
	}
}

func (s *session) l1Norm(o kernel.L1Norm) {
	dst, a := s.f(o.Dst), s.f(o.A)
	for m := range o.M {
		row := a[m*o.N : (m+1)*o.N]
		var sum float64
		for _, v := range row {
			sum += float64(v)
		}
		for n, v := range row {
			dst[m*o.N+n] = float32(float64(v) / max(sum, tiny))
		}
	}
}

func (s *session) add(o kernel.Add) {
	dst, a, b := s.f(o.Dst), s.f(o.A), s.f(o.B)
	for m := range o.M {
		for n := range o.N {
			dst[m*o.N+n] = a[m*o.N+n] + b[m%o.MB*o.N+n]
		}
	}
}

func (s *session) addPosition(o kernel.AddPosition) {
	dst, a, py, px := s.f(o.Dst), s.f(o.A), s.f(o.PY), s.f(o.PX)
	half := o.C / 2
	for y := range o.H {
		for x := range o.W {
			at := (y*o.W + x) * o.C
			for c := range half {
				dst[at+c] = a[at+c] + py[y*half+c]
				dst[at+half+c] = a[at+half+c] + px[x*half+c]
			}
		}
	}
}

func (s *session) attention(o kernel.Attention) {
	attend(o, s.f(o.Dst), s.f(o.Q), s.f(o.K), s.f(o.V), s.f(o.Mask), nil, s.count(o.Count, o.NK))
}

// attend is attention to the first keys of o.NK, with a bias of whole fours of
// them for each head and query, which may be absent.
func attend(o kernel.Attention, dst, q, k, v, mask, bias []float32, keys int) {
	ldq := o.LDQ
	if ldq == 0 {
		ldq = o.D
	}
	// packed is the place of element [j,c] of K and V; panels of eight
	// channels lie together.
	packed := func(j, c int) int { return (c/kernel.Panel*o.NK + j) * kernel.Panel }
	hd := o.D / o.Heads
	p := make([]float32, keys)
	for h := range o.Heads {
		for i := range o.NQ {
			query := q[i*ldq+h*hd : i*ldq+(h+1)*hd]
			for j := range p {
				p[j] = 0
				for c := 0; c < hd; c += kernel.Panel {
					row := k[packed(j, h*hd+c):][:kernel.Panel]
					for i, x := range query[c : c+kernel.Panel] {
						p[j] += x * row[i]
					}
				}
			}
			blocked := func(int) bool { return false }
			if mask != nil {
				row := mask[i*o.NK : i*o.NK+keys]
				for _, m := range row {
					if !(m < 0) { // at least one key is open, so the mask holds
						blocked = func(j int) bool { return row[j] < 0 }
						break
					}
				}
			}
			top := float32(math.Inf(-1))
			for j := range p {
				p[j] *= o.Scale
				if bias != nil {
					p[j] += bias[(h*o.NQ+i)*((keys+3)&^3)+j]
				}
				if blocked(j) {
					p[j] = float32(math.Inf(-1))
				}
				top = max(top, p[j])
			}
			var sum float64
			for j := range p {
				e := math.Exp(float64(p[j] - top))
				p[j] = float32(e)
				sum += e
			}
			out := dst[i*o.D+h*hd : i*o.D+(h+1)*hd]
			clear(out)
			for j, w := range p {
				if w == 0 {
					continue
				}
				for c := 0; c < hd; c += kernel.Panel {
					for i, x := range v[packed(j, h*hd+c):][:kernel.Panel] {
						out[c+i] += w * x
					}
				}
			}
			for c := range out {
				out[c] = float32(float64(out[c]) / sum)
			}
		}
	}
}

func (s *session) pack(o kernel.Pack) {
	dst, a := s.f(o.Dst), s.f(o.A)
	if o.Transposed {
		lda := o.LDA
		if lda == 0 {
			lda = o.K
		}
		kernel.PackInto(dst, o.K, o.N, func(k, n int) float32 { return a[n*lda+k] })
		return
	}
	lda := o.LDA
	if lda == 0 {
		lda = o.N
	}
	kernel.PackInto(dst, o.K, o.N, func(k, n int) float32 { return a[k*lda+n] })
}

func (s *session) activate(o kernel.Activate) {
	dst, a := s.f(o.Dst), s.f(o.A)
	for n := range o.N {
		dst[n] = o.Act.Apply(a[n])
	}
}

func (s *session) classify(o kernel.Classify) {
	dst, a, b, coef, void := s.f(o.Dst), s.f(o.A), s.f(o.B), s.f(o.Coef), s.f(o.Void)
	owner := s.i(o.Owner)
	z := make([]float64, o.T+1)
	for q := range o.Q {
		for t := range o.T {
			z[t] = math.Inf(-1)
		}
		z[o.T] = float64(void[q*o.LDVoid])
		for p := range o.S {
			if t := owner[p]; t >= 0 {
				v := coef[p]*a[q*o.S+p] + coef[o.S+p]*b[q*o.S+p] + coef[2*o.S+p]
				z[t] = max(z[t], float64(v))
			}
		}
		top := z[o.T]
		for _, v := range z {
			top = max(top, v)
		}
		var sum float64
		for t, v := range z {
			z[t] = math.Exp(v - top)
			sum += z[t]
		}
		for t, v := range z {
			dst[t*o.Q+q] = float32(v / sum)
		}
	}
}

func (s *session) picture(o kernel.Picture) {
	dst, src := s.f(o.Dst), s.bytes(o.Src)
	yFirst, yWeights := s.taps(o.TapsY, o.SizeY)
	xFirst, xWeights := s.taps(o.TapsX, o.SizeX)
	clear(dst[:o.HP*o.WP*4])
	for y := range o.H {
		row := dst[y*o.WP*4:]
		for x := range o.W {
			var sums [3]float32
			for i, wx := range xWeights(x) {
				var column [3]float32
				for j, wy := range yWeights(y) {
					pixel := src[((yFirst(y)+j)*o.WI+xFirst(x)+i)*4:]
					for c := range column {
						column[c] += float32(wy * float32(pixel[c])) // never fused
					}
				}
				for c := range sums {
					sums[c] += float32(wx * column[c])
				}
			}
			for c, v := range sums {
				row[x*4+c] = (v - 127) / 128
			}
		}
	}
}

// taps gives access to an encoded tap table whose entries have room for size weights.
func (s *session) taps(v kernel.View, size int) (first func(i int) int, weights func(i int) []float32) {
	n, w := s.i(v), s.f(v)
	entry := 2 + size
	return func(i int) int { return int(n[i*entry]) },
		func(i int) []float32 { return w[i*entry+2 : i*entry+2+int(n[i*entry+1])] }
}

func (s *session) paint(o kernel.Paint) {
	each := s.painted(o)
	if o.Mask.Valid() {
		mask := s.bytes(o.Mask)
		each(0, func(at int, v float32) {
			mask[at] = 0
			if v > 0 {
				mask[at] = 1
			}
		})
		return
	}
	label, best, index := s.bytes(o.Label), s.f(o.Best), int(s.i(o.Index)[0])
	if index == 0 {
		clear(best[:o.H*o.W])
		for i := range label[:o.H*o.W] {
			label[i] = kernel.NoLabel
		}
	}
	for t := range s.count(o.Count, o.T) {
		each(t, func(at int, v float32) {
			if v > best[at] {
				best[at], label[at] = v, byte(index+t)
			}
		})
	}
}

// painted gives the pixels of a map. Those of a guided one are 0 between cells
// at which no colour brings it above 0, as it is in most places.
func (s *session) painted(o kernel.Paint) (each func(t int, put func(at int, v float32))) {
	a := s.f(o.A)
	yFirst, yWeights := s.taps(o.TapsY, 2)
	xFirst, xWeights := s.taps(o.TapsX, 2)
	if !o.Pixels.Valid() {
		return func(t int, put func(at int, v float32)) {
			for y := range o.H {
				for x := range o.W {
					var v float32
					for j, wy := range yWeights(y) {
						for i, wx := range xWeights(x) {
							v += wy * wx * a[(t*o.HI+yFirst(y)+j)*o.WI+xFirst(x)+i]
						}
					}
					put(y*o.W+x, v)
				}
			}
		}
	}
	pixels, line, top := s.bytes(o.Pixels), make([]vector, o.WI), make([]float32, o.WI)
	return func(t int, put func(at int, v float32)) {
		for y := range o.H {
			clear(line)
			for j, w := range yWeights(y) {
				for i, v := range a[4*(t*o.HI+yFirst(y)+j)*o.WI:][:4*o.WI] {
					line[i/4][i%4] += w * v
				}
			}
			for i, f := range line {
				top[i] = f[3] + 255*(max(f[0], 0)+max(f[1], 0)+max(f[2], 0))
			}
			for x := range o.W {
				first, weights := xFirst(x), xWeights(x)
				if top[first] <= 0 && top[first+len(weights)-1] <= 0 {
					put(y*o.W+x, 0)
					continue
				}
				var f vector
				for i, w := range weights {
					for c, v := range line[first+i] {
						f[c] += w * v
					}
				}
				p := pixels[4*(y*o.W+x):]
				put(y*o.W+x, f[0]*float32(p[0])+f[1]*float32(p[1])+f[2]*float32(p[2])+f[3])
			}
		}
	}
}
