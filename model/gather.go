package model

import "github.com/pmp-seg/pmp/kernel"

// The maps of this file have their cells' centres in their middles, as networks
// have them that pad by half of a kernel on all sides.

// conv is a convolution with a square kernel and padding by half of it.
type conv struct {
	linear   // of a row of size*size*in numbers
	size     int
	dilation int // cells from one that is seen to the next; 0 is 1
}

// conv reads a convolution; without a bias it is zero.
func (l *loader) conv(name string, in, out, size int, bias bool) conv {
	l.check(name+".weight", out, in, size, size)
	f := conv{linear: linear{in: in, out: out}, size: size}
	if size == 1 && bias {
		f.linear = l.dense(name, in, out, fromRows)
		return f
	}
	f.weight = l.constants.Add(kernel.PackedLen(size*size*in, out), func(dst []float32) {
		w := l.floats(out * in * size * size)
		l.source.Read(name+".weight", w)
		kernel.PackInto(dst, size*size*in, out, func(k, n int) float32 { return w[(n*in+k%in)*size*size+k/in] })
	})
	if bias {
		f.bias = l.vector(name+".bias", out)
	} else {
		f.bias = l.constants.Add(out, func([]float32) {})
	}
	return f
}

// conv convolves. Sides that stride does not divide round up.
func (g graph) conv(x grid, f conv, stride int, act kernel.Act) grid {
	if f.size == 1 {
		return g.pointwise(g.every(x, stride), f.linear, act, kernel.View{})
	}
	y := g.grid((x.h+stride-1)/stride, (x.w+stride-1)/stride, f.out)
	if f.dilation > 1 {
		if stride > 1 || f.size != 3 {
			panic("model: a dilated convolution is one of three by three without a stride")
		}
		seen := g.gatherBy(table{kind: tableRound, h: x.h, w: x.w, toH: x.h, toW: 9 * x.w, dilation: f.dilation}, x, kernel.View{})
		g.Do(kernel.MatMul{Dst: y.View, A: seen.View, B: g.Const(f.weight), Bias: g.Const(f.bias), M: y.cells(), N: f.out, K: 9 * f.in, Act: act})
		return y
	}
	x = g.pad(x, f.size/2)
	g.Do(kernel.Conv{Dst: y.View, A: x.View, B: g.Const(f.weight), Bias: g.Const(f.bias),
		H: y.h, W: y.w, N: f.out, Size: f.size, Stride: stride, C: f.in, WP: x.w, Act: act})
	return y
}

// patches convolves squares that lie side by side.
func (g graph) patches(x grid, f conv) grid {
	y := g.grid(x.h/f.size, x.w/f.size, f.out)
	g.Do(kernel.Conv{Dst: y.View, A: x.View, B: g.Const(f.weight), Bias: g.Const(f.bias),
		H: y.h, W: y.w, N: f.out, Size: f.size, Stride: f.size, C: f.in, WP: x.w})
	return y
}

// normed is a convolution without a bias, or with one, and a group norm.
type normed struct {
	conv
	gamma, beta kernel.Const
}

// groups is the number of groups of every group norm.
const groups = 32

func (l *loader) normed(name string, in, out, size int, bias bool) normed {
	return normed{l.conv(name, in, out, size, bias), l.vector(name+".norm.weight", out), l.vector(name+".norm.bias", out)}
}

// normedTo writes act(norm(conv(x))) to dst.
func (g graph) normedTo(dst kernel.View, x grid, f normed, act kernel.Act) {
	y := g.conv(x, f.conv, 1, kernel.ActNone)
	g.Do(kernel.GroupNorm{Dst: dst, A: y.View, Gamma: g.Const(f.gamma), Beta: g.Const(f.beta),
		M: y.cells(), N: f.out, Groups: groups, Eps: layerNormEps, Act: act})
}

func (g graph) normed(x grid, f normed, act kernel.Act) grid {
	y := g.grid(x.h, x.w, f.out)
	g.normedTo(y.View, x, f, act)
	return y
}

// table says which cells of a map of h rows and w columns a gather takes. A
// program has each table once.
type table struct {
	kind           tableKind
	h, w, toH, toW int
	cut            windows // of tableWindows and tableCells
	dilation       int     // of tableRound
}

type tableKind uint8

const (
	tablePad     tableKind = iota // (toH-h)/2 cells on all sides
	tableEvery                    // every h/toH-th
	tableNearest                  // the nearest of smaller maps
	tablePool                     // windows of three by three, every second
	tableAverage                  // the means of cells two by two
	tableResize                   // the four nearest, with their weights
	tableRound                    // each cell and the eight round it, dilation apart
	tableMerge                    // cells two by two, columns first
	tableWindows                  // a row of cells for each window of toW cells
	tableCells                    // what tableWindows has made, as it was
)

type gathered struct {
	index, weight kernel.View
	taps          int
}

// gather makes a map of h rows and w columns out of cells of another one; res, which
// may be absent, is added.
func (g graph) gather(kind tableKind, x grid, h, w int, res kernel.View) grid {
	return g.gatherBy(table{kind: kind, h: x.h, w: x.w, toH: h, toW: w}, x, res)
}

func (g graph) gatherBy(key table, x grid, res kernel.View) grid {
	t, ok := g.tables[key]
	if !ok {
		t = g.tableOf(key)
		if g.tables == nil {
			g.tables = map[table]gathered{}
		}
		g.tables[key] = t
	}
	y := g.grid(key.toH, key.toW, x.c)
	g.Do(kernel.Gather{Dst: y.View, A: x.View, Index: t.index, Weight: t.weight, Res: res,
		M: y.cells(), N: x.c, Taps: t.taps, Max: key.kind == tablePool})
	return y
}

func (g graph) tableOf(k table) gathered {
	var index []int32
	var weight []float32
	at := func(y, x int) {
		if y < 0 || y >= k.h || x < 0 || x >= k.w {
			index = append(index, -1)
		} else {
			index = append(index, int32(y*k.w+x))
		}
	}
	ys, xs := kernel.ResizeTaps(k.h, k.toH), kernel.ResizeTaps(k.w, k.toW)
	for y := range k.toH {
		for x := range k.toW {
			switch k.kind {
			case tablePad:
				at(y-(k.toH-k.h)/2, x-(k.toW-k.w)/2)
			case tableEvery, tableNearest:
				at(y*k.h/k.toH, x*k.w/k.toW)
			case tablePool:
				for i := range 9 {
					at(2*y-1+i/3, 2*x-1+i%3)
				}
			case tableAverage:
				for i := range 4 {
					at(2*y+i/2, 2*x+i%2)
					weight = append(weight, 0.25)
				}
			case tableResize:
				for i := range 4 {
					at(int(ys.First[y])+i/2, int(xs.First[x])+i%2)
					weight = append(weight, ys.Weights[2*y+i/2]*xs.Weights[2*x+i%2])
				}
			case tableRound:
				at(y+(x%9/3-1)*k.dilation, x/9+(x%3-1)*k.dilation)
			case tableMerge:
				at(2*y+x%2, 2*(x/4)+x/2%2)
			case tableCells:
				index = append(index, int32(k.cut.row(y, x)))
			}
		}
	}
	if k.kind == tableWindows {
		index = k.cut.cells()
	}
	t := gathered{index: g.Data(wordBytes(index)), taps: len(index) / (k.toH * k.toW)}
	if weight != nil {
		t.weight = g.Floats(weight)
	}
	return t
}

// pad puts n cells of zeros round a map.
func (g graph) pad(x grid, n int) grid {
	return g.gather(tablePad, x, x.h+2*n, x.w+2*n, kernel.View{})
}

// every takes every stride-th cell, from the first one on.
func (g graph) every(x grid, stride int) grid {
	if stride == 1 {
		return x
	}
	return g.gather(tableEvery, x, x.h/stride, x.w/stride, kernel.View{})
}

// maxPool is the largest number in each window of three by three, every second cell.
func (g graph) maxPool(x grid) grid {
	return g.gather(tablePool, x, (x.h+1)/2, (x.w+1)/2, kernel.View{})
}

// average is the mean of each two by two cells.
func (g graph) average(x grid) grid {
	return g.gather(tableAverage, x, x.h/2, x.w/2, kernel.View{})
}

// resize is bilinear and does not filter where maps get smaller.
func (g graph) resize(x grid, h, w int, res kernel.View) grid {
	return g.gather(tableResize, x, h, w, res)
}

// nearest repeats cells.
func (g graph) nearest(x grid, h, w int, res kernel.View) grid {
	return g.gather(tableNearest, x, h, w, res)
}
