package model

import (
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/weights"
)

// ViTConfig is the shape of CLIP's vision transformer.
type ViTConfig struct {
	Width, Heads, FFN, Layers int
	Patch, Side               int // pixels along a side of a patch, and patches along a side of a picture
	Embedding                 int // width of what becomes of a picture
	QuickGelu                 bool
	Prompts                   int // before how many of the first layers patches outside of a mask are replaced
}

// clipViT is CLIP's vision transformer: a token for each patch of a square picture and
// one for all of it, which is projected to where texts are.
//
// With OVSeg's mask prompts it looks at a part of a picture: patches that lie wholly
// outside are replaced by learned ones, before the first layer and before the next ones.
type clipViT struct {
	c             ViTConfig
	patch         conv
	position      kernel.Const // a row for each token; the first one is the whole picture's token itself
	before, after layerNorm
	layers        []textLayer
	projection    kernel.Const
	masked        []kernel.Const // by layer: a row for each patch
}

// tokens are those of one picture.
func (c ViTConfig) tokens() int { return c.Side*c.Side + 1 }

// size is the number of pixels along a picture's side.
func (c ViTConfig) size() int { return c.Side * c.Patch }

func (l *loader) clipViT(c ViTConfig) clipViT {
	t := clipViT{c: c, patch: conv{linear: linear{in: rgbx, out: c.Width}, size: c.Patch}}
	t.patch.weight = l.pixelWeight("vit.patch.weight", c.Width, c.Patch, [3]float32{1, 1, 1})
	t.patch.bias = l.constants.Add(c.Width, func([]float32) {})
	t.position = l.vector("vit.position", c.tokens(), c.Width)
	t.before, t.after = l.layerNorm("vit.norm_before", c.Width, layerNormEps), l.layerNorm("vit.norm_after", c.Width, layerNormEps)
	t.layers = l.clipLayers("vit.layers.", c.Layers, c.Width, c.Heads, c.FFN, c.QuickGelu)
	l.check("vit.projection", c.Embedding, c.Width)
	t.projection = l.matrix("vit.projection", c.Width, c.Embedding)
	for i := range c.Prompts {
		t.masked = append(t.masked, l.vector("vit.masked."+itoa(i), c.tokens()-1, c.Width))
	}
	return t
}

// vitInput is what the host writes of some pictures.
type vitInput struct {
	pixels kernel.View // rows of all pictures below each other, four float32s a pixel, normalised
	// int32s for each token, of mask prompts: its own number, and the patch that replaces
	// it. One of them is -1.
	inside, outside kernel.View
	n               int
}

func (t clipViT) input(g graph, n int) vitInput {
	in := vitInput{pixels: g.Input(4 * n * t.c.size() * t.c.size() * rgbx), n: n}
	if t.c.Prompts > 0 {
		in.inside, in.outside = g.Input(4*n*t.c.tokens()), g.Input(4*n*t.c.tokens())
	}
	return in
}

// run encodes pictures into rows of dst.
func (t clipViT) run(g graph, in vitInput, dst kernel.View) {
	none := kernel.View{}
	c, d, tokens := t.c, t.c.Width, t.c.tokens()
	rows := in.n * tokens
	patches := g.patches(grid{in.pixels, in.n * c.size(), c.size(), rgbx}, t.patch)
	var index, whole []int32
	for i := range in.n {
		whole = append(whole, int32(i*tokens))
		index = append(index, -1)
		for j := range tokens - 1 {
			index = append(index, int32(i*(tokens-1)+j))
		}
	}
	x := g.pick(patches.View, g.Data(wordBytes(index)), rows, d, none)
	for i, l := range t.layers {
		if i < len(t.masked) {
			x = g.pick(g.Const(t.masked[i]), in.outside, rows, d, g.pick(x, in.inside, rows, d, none))
		}
		if i == 0 {
			g.Do(kernel.Add{Dst: x, A: x, B: g.Const(t.position), M: rows, N: d, MB: tokens})
			x = g.norm(x, none, rows, t.before)
		}
		x = l.run(g, x, in.n, tokens, none)
	}
	x = g.norm(g.pick(x, g.Data(wordBytes(whole)), in.n, d, none), none, in.n, t.after)
	g.Do(kernel.MatMul{Dst: dst, A: x, B: g.Const(t.projection), M: in.n, N: c.Embedding, K: d})
}

// pick returns n rows of x, with zeros for index -1, plus res, which may be absent.
func (g graph) pick(x, index kernel.View, n, d int, res kernel.View) kernel.View {
	y := g.Temp(n * d)
	g.Do(kernel.Gather{Dst: y, A: x, Index: index, Res: res, M: n, N: d, Taps: 1})
	return y
}

// read reads the shape of CLIP's vision transformer: f is the manifest's part about it.
func (c *ViTConfig) read(m *weights.Manifest, f weights.Fields) error {
	*c = ViTConfig{Layers: f.Int("layers"), Heads: f.Int("heads"), QuickGelu: f.Bool("quick_gelu"), Prompts: f.Int("prompts")}
	if err := f.Err(); err != nil {
		return err
	}
	t, err := m.Tensor("vit.patch.weight")
	if err != nil {
		return err
	}
	if len(t.Shape) != 4 {
		return ErrConfig
	}
	c.Patch = t.Shape[2]
	tokens := 0
	for _, of := range []struct {
		name          string
		rows, columns *int
	}{{"vit.position", &tokens, &c.Width}, {"vit.layers.0.linear1.weight", &c.FFN, &c.Width}, {"vit.projection", &c.Embedding, &c.Width}} {
		if err := sides(m, of.name, of.rows, of.columns); err != nil {
			return err
		}
	}
	for c.Side < mostPatches && c.tokens() < tokens {
		c.Side++
	}
	return nil
}

// mostPatches and mostPixels are how many of them a side may have.
const mostPatches, mostPixels = 32, 1024

func (c ViTConfig) sensible() bool {
	return multiple(c.Width, 16, 4096, 8) && within(c.Heads, 1, 64) && c.Width%(8*c.Heads) == 0 && multiple(c.FFN, 8, kernel.MaxK8, 8) && within(c.Layers, 1, 64) &&
		within(c.Side, 1, mostPatches) && within(c.Patch, 1, mostPixels/c.Side) && multiple(c.Embedding, 8, 4096, 8) && within(c.Prompts, 0, c.Layers)
}
