package model

import "github.com/pmp-seg/pmp/kernel"

// deformablePixels is Mask2Former's pixel decoder: some layers in which all
// cells of strides 32, 16 and 8 sample each other, see kernel.Deformable, and
// mask features at stride 4.
type deformablePixels struct {
	project         [len(levels)]normed // from the trunk to d channels
	levelCode       [len(levels)][]float32
	layers          []deformableLayer
	lateral, output normed // at stride 4
	mask            conv
	decoderCode     [len(levels)]kernel.Const // what the mask decoder knows a level by
	d               int
}

type deformableLayer struct {
	offset, weight, value, out linear
	norm1, norm2               layerNorm
	ffn                        feedForward
	heads                      int
}

// points is how many cells a head samples of each map.
const points = 4

// DeformableConfig is the shape of Mask2Former's pixel decoder.
type DeformableConfig struct {
	Layers, FFN int
}

func (l *loader) deformablePixels(c DeformableConfig, s decoderShape, trunk [4]int) deformablePixels {
	p := deformablePixels{d: s.d}
	for i := range levels {
		level := itoa(i)
		p.project[i] = l.normed("pixel.project."+level, trunk[3-i], s.d, 1, true)
		p.levelCode[i] = l.numbers("pixel.level."+level, s.d)
		p.decoderCode[i] = l.vector("decoder.level."+level, s.d)
	}
	for i := range c.Layers {
		name, n := "pixel.layers."+itoa(i), s.heads*len(levels)*points
		p.layers = append(p.layers, deformableLayer{
			offset: l.linear(name+".offset", s.d, 2*n), weight: l.linear(name+".weight", s.d, n),
			value: l.linear(name+".value", s.d, s.d), out: l.linear(name+".out", s.d, s.d),
			norm1: l.layerNorm(name+".norm1", s.d, layerNormEps), norm2: l.layerNorm(name+".norm2", s.d, layerNormEps),
			ffn: l.feedForward(name, s.d, c.FFN, kernel.ActReLU), heads: s.heads,
		})
	}
	p.lateral = l.normed("pixel.lateral4", trunk[0], s.d, 1, false)
	p.output = l.normed("pixel.out4", s.d, s.d, 3, false)
	p.mask = l.conv("pixel.mask", s.d, s.dm, 1, true)
	return p
}

// numbers reads a tensor that takes part in what is computed before anything runs.
func (l *loader) numbers(name string, n int) []float32 {
	l.check(name, n)
	x := make([]float32, n)
	if l.err == nil {
		l.source.Read(name, x)
	}
	return x
}

func (p deformablePixels) run(g graph, f features) pyramid {
	maps := [len(levels)]grid{f.f32, f.f16, f.f8}
	sides, n := make([][2]int, len(levels)), 0
	for i, m := range maps {
		sides[i] = [2]int{m.h, m.w}
		n += m.cells()
	}
	// All cells lie one behind the other in x; level cuts one map's out.
	x := g.Temp(n * p.d)
	level := func(x kernel.View, i int) grid {
		at := 0
		for _, m := range maps[:i] {
			at += m.cells()
		}
		return grid{x.At(at * p.d), maps[i].h, maps[i].w, p.d}
	}
	var py, px [len(levels)]kernel.View
	for i, m := range maps {
		g.normedTo(level(x, i).View, m, p.project[i], kernel.ActNone)
		py[i], px[i] = g.Floats(shifted(centred(m.h, p.d/2), p.levelCode[i][:p.d/2])), g.Floats(shifted(centred(m.w, p.d/2), p.levelCode[i][p.d/2:]))
	}
	where := g.Floats(middles(sides))
	for _, l := range p.layers {
		at := g.Temp(n * p.d)
		for i, m := range maps {
			g.Do(kernel.AddPosition{Dst: level(at, i).View, A: level(x, i).View, PY: py[i], PX: px[i], H: m.h, W: m.w, C: p.d})
		}
		x = l.run(g, x, at, where, n, sides)
	}

	y := pyramid{map[int]grid{}, map[int]grid{}, map[int]grid{}}
	for i, stride := range levels {
		out := g.grid(maps[i].h, maps[i].w, p.d)
		g.Do(kernel.Add{Dst: out.View, A: level(x, i).View, B: g.Const(p.decoderCode[i]), M: out.cells(), N: p.d, MB: 1})
		y.features[stride], y.positioned[stride] = out, g.centred(out)
	}
	x4 := g.normed(f.f4, p.lateral, kernel.ActNone)
	x4 = g.resize(level(x, len(levels)-1), x4.h, x4.w, x4.View)
	y.mask[4] = g.conv(g.normed(x4, p.output, kernel.ActReLU), p.mask, 1, kernel.ActNone)
	// Masks that steer attention are products with resized mask features, which
	// is exact, since resizing and the product with a query commute.
	for i, stride := range levels {
		y.mask[stride] = g.resize(y.mask[4], maps[i].h, maps[i].w, kernel.View{})
	}
	return y
}

// run is one post-norm layer over the n cells of x, which are with their positions in at.
func (l deformableLayer) run(g graph, x, at, where kernel.View, n int, sides [][2]int) kernel.View {
	d := l.value.out
	y := g.Temp(n * d)
	g.Do(kernel.Deformable{Dst: y, V: g.linear(x, n, l.value, kernel.ActNone), Offset: g.linear(at, n, l.offset, kernel.ActNone),
		Weight: g.linear(at, n, l.weight, kernel.ActNone), At: where, Q: n, D: d, Heads: l.heads, Points: points, Sides: sides})
	z := g.Temp(n * d)
	g.linearTo(z, y, n, l.out, kernel.ActNone, x)
	x = g.norm(z, kernel.View{}, n, l.norm1)
	return g.norm(g.feed(l.ffn, x, n), kernel.View{}, n, l.norm2)
}

// centred codes n cells whose far edges are at 1 to n of n.
func centred(n, c int) []float32 {
	const noZero = 1e-6 // as the checkpoints' own code has it
	return sines(n, 1, float64(n)+noZero, c)
}

// centred returns x plus a sine code of each cell.
func (g graph) centred(x grid) grid {
	y := g.grid(x.h, x.w, x.c)
	g.Do(kernel.AddPosition{Dst: y.View, A: x.View, PY: g.Floats(centred(x.h, x.c/2)), PX: g.Floats(centred(x.w, x.c/2)), H: x.h, W: x.w, C: x.c})
	return y
}

// shifted adds a row to each row of code.
func shifted(code, row []float32) []float32 {
	for i := range code {
		code[i] += row[i%len(row)]
	}
	return code
}

// middles are where the cells of maps are, from 0 to 1: x and y.
func middles(sides [][2]int) []float32 {
	var at []float32
	for _, side := range sides {
		for y := range side[0] {
			for x := range side[1] {
				at = append(at, (float32(x)+0.5)/float32(side[1]), (float32(y)+0.5)/float32(side[0]))
			}
		}
	}
	return at
}
