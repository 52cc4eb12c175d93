package model

import "github.com/pmp-seg/pmp/kernel"

// swin is a Swin Transformer without its classifier: cells of four by four
// pixels, and in each stage blocks in which cells attend to the others of their
// window. Every second block shifts the windows by half of their size.
type swin struct {
	patch  conv
	norm   layerNorm
	stages [4]swinStage
	window int
}

type swinStage struct {
	blocks    []swinBlock
	out       layerNorm // of the map that others see
	mergeNorm layerNorm
	merge     linear // four cells to one of the next stage
}

type swinBlock struct {
	norm1, norm2 layerNorm
	qkv, out     linear
	bias         kernel.Const // by head and the places of two cells in their window
	ffn          feedForward
	heads        int
}

// SwinConfig is the shape of a Swin Transformer.
type SwinConfig struct {
	Window                     int    // cells along a side
	Widths, Depths, Heads, FFN [4]int // of the four stages: channels, blocks, and those of a block
}

func (c SwinConfig) channels() [4]int { return c.Widths }

func (c SwinConfig) sensible() bool {
	ok := within(c.Window, 1, 32)
	for i, d := range c.Widths {
		ok = ok && multiple(d, 8, kernel.MaxK8, 8) && within(c.Heads[i], 1, 1024) && d%(8*c.Heads[i]) == 0 &&
			multiple(c.FFN[i], 8, kernel.MaxK8, 8) && within(c.Depths[i], 1, 64)
	}
	return ok
}

// patchSize is the number of pixels along a side of the finest cells.
const patchSize = 4

func (c SwinConfig) load(l *loader, pixels normalisation) imageEncoder {
	t := swin{window: c.Window, norm: l.layerNorm("trunk.norm", c.Widths[0], layerNormEps)}
	t.patch = conv{linear: linear{in: rgbx, out: c.Widths[0]}, size: patchSize}
	t.patch.weight = l.pixelWeight("trunk.patch.weight", c.Widths[0], patchSize, pixels.factor())
	t.patch.bias = l.vector("trunk.patch.bias", c.Widths[0])
	for i, d := range c.Widths {
		s, name := &t.stages[i], "trunk.stages."+itoa(i)
		for j := range c.Depths[i] {
			name := name + "." + itoa(j)
			s.blocks = append(s.blocks, swinBlock{
				norm1: l.layerNorm(name+".norm1", d, layerNormEps), norm2: l.layerNorm(name+".norm2", d, layerNormEps),
				qkv: l.linear(name+".qkv", d, 3*d), out: l.linear(name+".out", d, d), bias: l.windowBias(name+".position", c.Window, c.Heads[i]),
				ffn: l.feedForward(name, d, c.FFN[i], kernel.ActGelu), heads: c.Heads[i],
			})
		}
		s.out = l.layerNorm(name+".norm", d, layerNormEps)
		if i+1 < len(c.Widths) {
			s.mergeNorm = l.layerNorm(name+".merge.norm", 4*d, layerNormEps)
			s.merge = l.unbiased(name+".merge", 4*d, c.Widths[i+1])
		}
	}
	return t
}

// unbiased is linear for a layer that has no bias.
func (l *loader) unbiased(name string, in, out int) linear {
	l.check(name+".weight", out, in)
	return linear{weight: l.matrix(name+".weight", in, out), bias: l.constants.Add(out, func([]float32) {}), in: in, out: out}
}

// windowBias reads what each head adds for two cells of a window: a row for each
// distance of theirs, down and across, from 1-size on.
func (l *loader) windowBias(name string, size, heads int) kernel.Const {
	distances, row := 2*size-1, biasRow(size)
	l.check(name, distances*distances, heads)
	return l.constants.Add(heads*size*size*row, func(dst []float32) {
		of := l.floats(distances * distances * heads)
		l.source.Read(name, of)
		for h := range heads {
			for i := range size * size {
				for j := range size * size {
					down, across := i/size-j/size+size-1, i%size-j%size+size-1
					dst[(h*size*size+i)*row+j] = of[(down*distances+across)*heads+h]
				}
			}
		}
	})
}

// biasRow is how long a row of kernel.WindowAttention's bias is.
func biasRow(size int) int { return roundUp(size*size, 4) }

func (t swin) run(g graph, x grid) features {
	y := g.patches(x, t.patch)
	y = g.layerNormed(y, t.norm)
	apart := g.apart(t.window)
	var maps [len(t.stages)]grid
	for i, s := range t.stages {
		for j, b := range s.blocks {
			y = b.run(g, y, windows{y.h, y.w, t.window, j % 2 * (t.window / 2)}, apart)
		}
		maps[i] = g.layerNormed(y, s.out)
		if i+1 < len(t.stages) {
			y = g.pointwise(g.layerNormed(g.mergeCells(y), s.mergeNorm), s.merge, kernel.ActNone, kernel.View{})
		}
	}
	return features{f4: maps[0], f8: maps[1], f16: maps[2], f32: maps[3]}
}

// layerNormed is norm over the cells of a map.
func (g graph) layerNormed(x grid, f layerNorm) grid {
	return grid{g.norm(x.View, kernel.View{}, x.cells(), f), x.h, x.w, x.c}
}

func (b swinBlock) run(g graph, x grid, cut windows, apart [4]kernel.View) grid {
	d, size := x.c, cut.size*cut.size
	// What fills the windows is zero behind the norm, and is attended to.
	in := g.intoWindows(g.layerNormed(x, b.norm1), cut)
	n := in.cells()
	qkv := g.linear(in.View, n, b.qkv, kernel.ActNone)
	k, v := g.Temp(n*d), g.Temp(n*d)
	g.Do(kernel.Pack{Dst: k, A: qkv.At(d), K: n, N: d, LDA: 3 * d})
	g.Do(kernel.Pack{Dst: v, A: qkv.At(2 * d), K: n, N: d, LDA: 3 * d})
	seen, first := grid{g.Temp(n * d), in.h, in.w, d}, 0
	for i, count := range cut.groups() {
		if count == 0 {
			continue
		}
		bias := g.Const(b.bias)
		if apart := apart[i]; apart.Valid() {
			sum, n := g.Temp(b.heads*size*biasRow(cut.size)), size*biasRow(cut.size)
			g.Do(kernel.Add{Dst: sum, A: bias, B: apart, M: b.heads, N: n, MB: 1})
			bias = sum
		}
		g.Do(kernel.WindowAttention{Dst: seen.At(first * d), Q: qkv.At(first * 3 * d), K: k.At(first * kernel.Panel), V: v.At(first * kernel.Panel),
			Bias: bias, Windows: count, Size: size, D: d, Heads: b.heads, LDQ: 3 * d, Rows: n, Scale: invSqrt(d / b.heads)})
		first += count * size
	}
	x = g.pointwise(g.outOfWindows(seen, cut), b.out, kernel.ActNone, x.View)
	deep := g.pointwise(g.layerNormed(x, b.norm2), b.ffn.linear1, b.ffn.act, kernel.View{})
	return g.pointwise(deep, b.ffn.linear2, kernel.ActNone, x.View)
}

// windows cuts a map into windows of size by size cells, which are filled at the
// right and the bottom. With a shift the first one starts so many cells further
// down and right, and what lies before it goes round to the last ones.
type windows struct{ h, w, size, shift int }

// sides are the numbers of windows below and beside each other.
func (c windows) sides() (down, across int) {
	return (c.h + c.size - 1) / c.size, (c.w + c.size - 1) / c.size
}

// groups are how many windows are whole; have cells from the left and the right
// of the map; from the top and the bottom; and from both. They lie in this order.
func (c windows) groups() [4]int {
	down, across := c.sides()
	if c.shift == 0 {
		return [4]int{down * across}
	}
	return [4]int{(down - 1) * (across - 1), down - 1, across - 1, 1}
}

// row is where a cell lies among the rows of all windows.
func (c windows) row(y, x int) int {
	down, across := c.sides()
	y, x = (y-c.shift+down*c.size)%(down*c.size), (x-c.shift+across*c.size)%(across*c.size)
	wy, wx := y/c.size, x/c.size
	number := wy*across + wx
	if c.shift > 0 {
		switch lastRow, lastColumn := wy == down-1, wx == across-1; {
		case lastRow && lastColumn:
		case lastRow:
			number = (down-1)*across + wx
		case lastColumn:
			number = (down-1)*(across-1) + wy
		default:
			number = wy*(across-1) + wx
		}
	}
	return (number*c.size+y%c.size)*c.size + x%c.size
}

// cells are the map's cells in the order of row, with -1 for those that fill the windows.
func (c windows) cells() []int32 {
	down, across := c.sides()
	index := make([]int32, down*across*c.size*c.size)
	for y := range down * c.size {
		for x := range across * c.size {
			cell := -1
			if y < c.h && x < c.w {
				cell = y*c.w + x
			}
			index[c.row(y, x)] = int32(cell)
		}
	}
	return index
}

// intoWindows makes a row of cells of each window.
func (g graph) intoWindows(x grid, c windows) grid {
	down, across := c.sides()
	return g.gatherBy(table{kind: tableWindows, h: x.h, w: x.w, toH: down * across, toW: c.size * c.size, cut: c}, x, kernel.View{})
}

// outOfWindows is the other way round.
func (g graph) outOfWindows(x grid, c windows) grid {
	return g.gatherBy(table{kind: tableCells, h: x.h, w: x.w, toH: c.h, toW: c.w, cut: c}, x, kernel.View{})
}

// apart is what is added to the bias, for each group of shifted windows, so that
// cells do not see those from the map's other side.
func (g graph) apart(size int) (masks [4]kernel.View) {
	const never = -100 // as in training; e^-100 is nothing beside 1
	border, row := size-size/2, biasRow(size)
	for group := 1; group < len(masks) && size > 1; group++ {
		mask := make([]float32, size*size*row)
		for i := range size * size {
			for j := range size * size {
				down, across := (i/size < border) != (j/size < border), (i%size < border) != (j%size < border)
				if group&1 != 0 && across || group&2 != 0 && down {
					mask[i*row+j] = never
				}
			}
		}
		masks[group] = g.Floats(mask)
	}
	return masks
}

// mergeCells joins the channels of two by two cells, columns first.
func (g graph) mergeCells(x grid) grid {
	y := g.gather(tableMerge, x, x.h/2, 2*x.w, kernel.View{})
	return grid{y.View, x.h / 2, x.w / 2, 4 * x.c}
}
