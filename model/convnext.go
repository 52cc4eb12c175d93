package model

import "github.com/pmp-seg/pmp/kernel"

// ConvNeXtConfig is the shape of a ConvNeXt without its classifier.
type ConvNeXtConfig struct {
	Widths [4]int // channels of the four stages
	Depths [4]int // and their blocks
}

// convNeXt is a convolutional network whose blocks see seven by seven cells, each
// channel by itself, and then mix channels as transformers do.
type convNeXt struct {
	stem   conv // four by four pixels become a cell
	norm   layerNorm
	stages [4]convNeXtStage
}

type convNeXtStage struct {
	norm   layerNorm
	down   conv // two by two cells become one; the first stage has none
	blocks []convNeXtBlock
}

// convNeXtBlock is x + linear2(gelu(linear1(norm(conv(x))))). The factor that each
// channel has there is part of linear2.
type convNeXtBlock struct {
	conv depthwise
	norm layerNorm
	ffn  feedForward
}

const convNeXtEps = 1e-6

func (c ConvNeXtConfig) channels() [4]int { return c.Widths }

func (c ConvNeXtConfig) sensible() bool {
	ok := true
	for i, width := range c.Widths {
		ok = ok && multiple(width, 8, kernel.MaxK8/4, 8) && within(c.Depths[i], 1, 64)
	}
	return ok
}

func (c ConvNeXtConfig) load(l *loader, pixels normalisation) imageEncoder {
	in := c.Widths[0]
	t := convNeXt{norm: l.layerNorm("trunk.norm", in, convNeXtEps)}
	t.stem = conv{linear: linear{in: rgbx, out: in}, size: patchSize}
	t.stem.weight, t.stem.bias = l.pixelWeight("trunk.stem.weight", in, patchSize, pixels.factor()), l.vector("trunk.stem.bias", in)
	for i, out := range c.Widths {
		stage, s := "trunk.stages."+itoa(i), &t.stages[i]
		if i > 0 {
			s.norm, s.down = l.layerNorm(stage+".norm", in, convNeXtEps), l.conv(stage+".down", in, out, 2, true)
		}
		for j := range c.Depths[i] {
			name := stage + "." + itoa(j)
			s.blocks = append(s.blocks, convNeXtBlock{l.depthwise(name+".conv", out, 7), l.layerNorm(name+".norm", out, convNeXtEps),
				l.feedForward(name, out, 4*out, kernel.ActGelu)})
		}
		in = out
	}
	return t
}

// run encodes a picture whose sides are multiples of 32.
func (t convNeXt) run(g graph, x grid) features {
	x = g.patches(x, t.stem)
	x = g.layerNormed(x, t.norm)
	var maps [len(t.stages)]grid
	for i, stage := range t.stages {
		if i > 0 {
			x = g.patches(g.layerNormed(x, stage.norm), stage.down)
		}
		for _, b := range stage.blocks {
			y := g.depthwise(x, b.conv, 1, kernel.ActNone)
			h := g.linear(g.layerNormed(y, b.norm).View, x.cells(), b.ffn.linear1, b.ffn.act)
			y = g.grid(x.h, x.w, x.c)
			g.linearTo(y.View, h, x.cells(), b.ffn.linear2, kernel.ActNone, x.View)
			x = y
		}
		maps[i] = x
	}
	return features{f4: maps[0], f8: maps[1], f16: maps[2], f32: maps[3]}
}
