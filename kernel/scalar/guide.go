package scalar

import "github.com/pmp-seg/pmp/kernel"

type vector = [4]float32

// window calls each with the cells from (y-1, x-1) to (y+1, x+1), of which those
// beyond an edge are the nearest ones on it.
func window(y, x, h, w int, each func(cell int)) {
	for i := y - 1; i <= y+1; i++ {
		for j := x - 1; j <= x+1; j++ {
			each(inside(i, h)*w + inside(j, w))
		}
	}
}

func inside(i, n int) int { return min(max(i, 0), n-1) }

func (s *session) smooth(o kernel.Smooth) {
	dst, a, line := s.bytes(o.Dst), s.bytes(o.A), 4*o.W
	mean := func(a, b byte) byte { return byte((int(a) + int(b) + 1) / 2) }
	column := make([]byte, line)
	for y := range o.H {
		up, here, down := a[inside(y-1, o.H)*line:], a[y*line:], a[inside(y+1, o.H)*line:]
		for i := range column {
			column[i] = mean(mean(up[i], down[i]), here[i])
		}
		for x := range o.W {
			for c := range 4 {
				dst[y*line+4*x+c] = mean(mean(column[4*inside(x-1, o.W)+c], column[4*inside(x+1, o.W)+c]), column[4*x+c])
			}
		}
	}
}

func (s *session) guide(o kernel.Guide) {
	dst, a, cells := s.f(o.Dst), s.f(o.A), o.H*o.W
	for cell := range cells {
		g := vector{3: 1}
		for i := 4*(cell/o.W) + 2; i < 4*(cell/o.W)+6; i++ {
			for j := 4*(cell%o.W) + 2; j < 4*(cell%o.W)+6; j++ {
				for c, v := range a[4*(inside(i, o.HI)*o.WP+inside(j, o.WI)):][:3] {
					g[c] += v / 16
				}
			}
		}
		copy(dst[4*cell:], g[:])
	}
	for cell := range cells {
		var m [4]vector
		window(cell/o.W, cell%o.W, o.H, o.W, func(at int) {
			g := dst[4*at : 4*at+4]
			for i, x := range g {
				for j, y := range g {
					m[i][j] += x * y / 9
				}
			}
		})
		for i := range 3 {
			m[i][i] += o.Epsilon
		}
		k := inverse(m)
		for i, row := range k {
			copy(dst[4*cells+16*cell+4*i:], row[:])
		}
	}
}

// inverse is that of a symmetric matrix whose last number is 1, by that of what
// the others vary by themselves.
func inverse(m [4]vector) (k [4]vector) {
	mean := m[3]
	var v [3][3]float32
	for i := range v {
		for j := range v {
			v[i][j] = m[i][j] - mean[i]*mean[j]
		}
	}
	// Cofactors by cyclic indices have their sign already.
	cofactor := func(i, j int) float32 {
		a, b, c, d := (i+1)%3, (i+2)%3, (j+1)%3, (j+2)%3
		return v[a][c]*v[b][d] - v[a][d]*v[b][c]
	}
	scale := 1 / (v[0][0]*cofactor(0, 0) + v[0][1]*cofactor(0, 1) + v[0][2]*cofactor(0, 2))
	k[3][3] = 1
	for i := range 3 {
		for j := range 3 {
			k[i][j] = cofactor(i, j) * scale
			k[i][3] -= k[i][j] * mean[j]
		}
		k[3][i] = k[i][3]
		k[3][3] -= k[i][3] * mean[i]
	}
	return k
}

func (s *session) guided(o kernel.Guided) {
	dst, a, guide, cells := s.f(o.Dst), s.f(o.A), s.f(o.Guide), o.H*o.W
	fitted := make([]vector, cells)
	for t := range s.count(o.Count, o.T) {
		for cell := range fitted {
			var m vector
			above := 0
			window(cell/o.W, cell%o.W, o.H, o.W, func(at int) {
				if a[t*cells+at] > 0 {
					above++
				}
				for i, g := range guide[4*at : 4*at+4] {
					m[i] += g * a[t*cells+at] / 9
				}
			})
			if !o.Everywhere && (above == 0 || above == 9) {
				fitted[cell] = vector{3: a[t*cells+cell]}
				continue
			}
			fitted[cell] = vector{}
			for i, k := range guide[4*cells+16*cell:][:16] {
				fitted[cell][i%4] += k * m[i/4]
			}
		}
		for cell := range fitted {
			var f vector
			window(cell/o.W, cell%o.W, o.H, o.W, func(at int) {
				for i, v := range fitted[at] {
					f[i] += v / 9
				}
			})
			f[3] = (128*f[3] - 127*(f[0]+f[1]+f[2])) / 128
			for i := range 3 {
				f[i] /= 128
			}
			copy(dst[4*(t*cells+cell):], f[:])
		}
	}
}
