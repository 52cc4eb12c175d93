package model

import "github.com/pmp-seg/pmp/kernel"

// resnet is a residual network of bottlenecks without its classifier. Its batch
// norms are part of the convolutions, since nothing trains them any more.
type resnet struct {
	stem   conv
	stages [4][]bottleneck
}

// bottleneck is relu(shortcut(x) + expand(conv(reduce(x)))): to a quarter of the
// channels, a convolution of three by three, and back. Without weights the
// shortcut is x.
type bottleneck struct {
	reduce, conv, expand, shortcut conv
	early, late                    int // strides of reduce and of conv
}

// ResNetConfig is the shape of a residual network.
type ResNetConfig struct {
	Stem   int    // channels behind the stem
	Widths [4]int // channels of the four stages
	Depths [4]int // and their blocks
	// Early says that a block with a stride takes it in its first convolution,
	// as the first networks of that name did, and not in its second one.
	Early bool
}

func (c ResNetConfig) channels() [4]int { return c.Widths }

func (c ResNetConfig) sensible() bool {
	ok := multiple(c.Stem, 8, 1024, 8)
	for i, width := range c.Widths {
		ok = ok && multiple(width, 32, kernel.MaxK8, 32) && within(c.Depths[i], 1, 64)
	}
	return ok
}

func (c ResNetConfig) load(l *loader, pixels normalisation) imageEncoder {
	var t resnet
	t.stem = conv{linear{in: rgbx, out: c.Stem}, 7}
	t.stem.weight = l.pixelWeight("trunk.stem.weight", c.Stem, 7, pixels.factor())
	t.stem.bias = l.vector("trunk.stem.bias", c.Stem)
	in := c.Stem
	for stage, out := range c.Widths {
		for i := range c.Depths[stage] {
			name, deep := "trunk.stages."+itoa(stage)+"."+itoa(i), out/4
			b := bottleneck{early: 1, late: 1}
			if i == 0 && stage > 0 {
				if c.Early {
					b.early = 2
				} else {
					b.late = 2
				}
			}
			b.reduce = l.conv(name+".reduce", in, deep, 1, true)
			b.conv = l.conv(name+".conv", deep, deep, 3, true)
			b.expand = l.conv(name+".expand", deep, out, 1, true)
			if in != out || b.early*b.late != 1 {
				b.shortcut = l.conv(name+".shortcut", in, out, 1, true)
			}
			t.stages[stage] = append(t.stages[stage], b)
			in = out
		}
	}
	return t
}

func (t resnet) run(g graph, x grid) features {
	x = g.maxPool(g.conv(x, t.stem, 2, kernel.ActReLU))
	var maps [len(t.stages)]grid
	for i, stage := range t.stages {
		for _, b := range stage {
			x = b.run(g, x)
		}
		maps[i] = x
	}
	return features{f4: maps[0], f8: maps[1], f16: maps[2], f32: maps[3]}
}

func (b bottleneck) run(g graph, x grid) grid {
	y := g.conv(x, b.reduce, b.early, kernel.ActReLU)
	y = g.conv(y, b.conv, b.late, kernel.ActReLU)
	if b.shortcut.size > 0 {
		x = g.conv(x, b.shortcut, b.early*b.late, kernel.ActNone)
	}
	z := g.pointwise(y, b.expand.linear, kernel.ActNone, x.View)
	g.Do(kernel.Activate{Dst: z.View, A: z.View, N: z.cells() * z.c, Act: kernel.ActReLU})
	return z
}
