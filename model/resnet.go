package model

import "github.com/pmp-seg/pmp/kernel"

// resnet is a residual network without its classifier. Its batch norms are part
// of the convolutions, since nothing trains them any more.
type resnet struct {
	stem    []conv // the first sees pixels and has a stride
	average bool   // what follows the stem is the mean of cells, not the largest
	stages  [4][]residual
}

// residual is relu(shortcut(x) + last(relu(… first(x)))). Its convolutions are two
// of three by three or, in a bottleneck, one to a quarter of the channels, one of
// three by three, and one back. Without weights the shortcut is x.
type residual struct {
	convs    []conv
	strided  int // which of convs takes the stride
	stride   int
	average  bool // the stride is a mean of cells, behind that one and before the shortcut
	shortcut conv
}

// ResNetConfig is the shape of a residual network.
type ResNetConfig struct {
	Stem   int    // channels behind the stem
	Widths [4]int // channels of the four stages
	Depths [4]int // and their blocks
	// Basic says that blocks are no bottlenecks.
	Basic bool
	// Early says that a bottleneck with a stride takes it in its first convolution,
	// as the first networks of that name did, and not in its second one.
	Early bool
	// Deep says that the stem is three convolutions of three by three, the first two
	// with half of its channels, and not one of seven by seven.
	Deep bool
	// Average says that strides but the first are means of two by two cells, as CLIP
	// has them: behind the stem, and in blocks behind the second convolution and before
	// the shortcut.
	Average bool
	// Dilations, if there are any, are those of the three by three convolutions of the
	// last stage, a number for each block.
	Dilations []int
}

func (c ResNetConfig) channels() [4]int { return c.Widths }

func (c ResNetConfig) sensible() bool {
	ok := multiple(c.Stem, 8, 1024, 8) && !(c.Deep && c.Stem%16 != 0) && !(c.Average && (c.Basic || c.Early))
	ok = ok && (len(c.Dilations) == 0 || len(c.Dilations) == c.Depths[3] && !c.Basic)
	for i, dilation := range c.Dilations {
		ok = ok && within(dilation, 1, 64) && (dilation == 1 || i > 0 || c.Early || c.Average)
	}
	for i, width := range c.Widths {
		ok = ok && multiple(width, 32, kernel.MaxK8, 32) && within(c.Depths[i], 1, 64)
	}
	return ok
}

func (c ResNetConfig) load(l *loader, pixels normalisation) imageEncoder {
	t := resnet{average: c.Average}
	first, half, size := "trunk.stem", c.Stem, 7
	if c.Deep {
		first, half, size = "trunk.stem.0", c.Stem/2, 3
	}
	stem := conv{linear: linear{in: rgbx, out: half}, size: size}
	stem.weight, stem.bias = l.pixelWeight(first+".weight", half, size, pixels.factor()), l.vector(first+".bias", half)
	t.stem = []conv{stem}
	if c.Deep {
		t.stem = append(t.stem, l.conv("trunk.stem.1", half, half, 3, true), l.conv("trunk.stem.2", half, c.Stem, 3, true))
	}
	in := c.Stem
	for stage, out := range c.Widths {
		for i := range c.Depths[stage] {
			name, b := "trunk.stages."+itoa(stage)+"."+itoa(i), residual{stride: 1, average: c.Average}
			if i == 0 && stage > 0 {
				b.stride = 2
			}
			if c.Basic {
				b.convs = []conv{l.conv(name+".conv", in, out, 3, true), l.conv(name+".last", out, out, 3, true)}
			} else {
				b.convs = []conv{l.conv(name+".reduce", in, out/4, 1, true), l.conv(name+".conv", out/4, out/4, 3, true), l.conv(name+".expand", out/4, out, 1, true)}
				if !c.Early {
					b.strided = 1
				}
				if stage == len(c.Widths)-1 && len(c.Dilations) > 0 {
					b.convs[1].dilation = c.Dilations[i]
				}
			}
			if in != out || b.stride > 1 {
				b.shortcut = l.conv(name+".shortcut", in, out, 1, true)
			}
			t.stages[stage] = append(t.stages[stage], b)
			in = out
		}
	}
	return t
}

func (t resnet) run(g graph, x grid) features {
	stride := 2
	for _, f := range t.stem {
		x, stride = g.conv(x, f, stride, kernel.ActReLU), 1
	}
	if t.average {
		x = g.average(x)
	} else {
		x = g.maxPool(x)
	}
	var maps [len(t.stages)]grid
	for i, stage := range t.stages {
		for _, b := range stage {
			x = b.run(g, x)
		}
		maps[i] = x
	}
	return features{f4: maps[0], f8: maps[1], f16: maps[2], f32: maps[3]}
}

func (b residual) run(g graph, x grid) grid {
	y, n, stride := x, len(b.convs)-1, b.stride
	for i, f := range b.convs[:n] {
		own := 1
		if i == b.strided && !b.average {
			own = stride
		}
		y = g.conv(y, f, own, kernel.ActReLU)
	}
	if b.average && stride > 1 {
		x, y, stride = g.average(x), g.average(y), 1
	}
	if b.shortcut.size > 0 {
		x = g.conv(x, b.shortcut, stride, kernel.ActNone)
	}
	if last := b.convs[n]; last.size == 1 {
		y = g.pointwise(y, last.linear, kernel.ActNone, x.View)
	} else {
		y = g.conv(y, last, 1, kernel.ActNone)
		g.Do(kernel.Add{Dst: y.View, A: y.View, B: x.View, M: y.cells(), N: y.c, MB: y.cells()})
	}
	g.Do(kernel.Activate{Dst: y.View, A: y.View, N: y.cells() * y.c, Act: kernel.ActReLU})
	return y
}
