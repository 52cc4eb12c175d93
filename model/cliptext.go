package model

import "github.com/pmp-seg/pmp/kernel"

// clipText is CLIP's text encoder: pre-norm layers in which a token sees those before
// it. What the one that ends the text has become is projected to where pictures are.
type clipText struct {
	c          TextConfig
	position   kernel.Const // packed, a row for each place in a text
	layers     []textLayer
	norm       layerNorm
	projection kernel.Const
}

func (l *loader) clipText(c TextConfig) clipText {
	t := clipText{c: c, position: l.plainMatrix("text.position", c.MaxTokens, c.Width)}
	l.check(wordTable, c.Vocab, c.Width) // looked up row by row, see Model.encodeTexts
	act := kernel.ActGelu
	if c.QuickGelu {
		act = kernel.ActQuickGelu
	}
	for i := range c.Layers {
		name := "text.layers." + itoa(i)
		t.layers = append(t.layers, textLayer{
			attention: l.attention(name+".attention", c.Width, c.Heads),
			norm1:     l.layerNorm(name+".norm1", c.Width, layerNormEps),
			ffn:       l.feedForward(name, c.Width, c.FFN, act),
			norm2:     l.layerNorm(name+".norm2", c.Width, layerNormEps),
		})
	}
	t.norm = l.layerNorm("text.norm", c.Width, layerNormEps)
	l.check("text.projection", c.Embedding, c.Width)
	t.projection = l.matrix("text.projection", c.Width, c.Embedding)
	return t
}

// run encodes texts into rows of dst, which are unit vectors.
func (t clipText) run(g graph, in textInput, dst kernel.View) {
	none := kernel.View{}
	n, d := in.rows, t.c.Width
	x := g.Temp(n * d)
	g.Do(kernel.MatMul{Dst: x, A: in.place, B: g.Const(t.position), Res: in.words, M: n, N: d, K: t.c.MaxTokens})
	for _, l := range t.layers {
		y := g.norm(x, none, n, l.norm1)
		x = g.attend(l.attention, y, n, g.remember(l.attention, y, y, n, g.Temp), in.mask, x)
		h := g.linear(g.norm(x, none, n, l.norm2), n, l.ffn.linear1, l.ffn.act)
		y = g.Temp(n * d)
		g.linearTo(y, h, n, l.ffn.linear2, kernel.ActNone, x)
		x = y
	}
	ends := g.Temp(texts(n) * d)
	g.Do(kernel.MatMul{Dst: ends, A: in.mean, B: g.norm(x, none, n, t.norm), LDB: d, M: texts(n), N: d, K: n})
	g.Do(kernel.MatMul{Dst: dst, A: ends, B: g.Const(t.projection), M: texts(n), N: t.c.Embedding, K: d})
	g.Do(kernel.L2Norm{Dst: dst, A: dst, M: texts(n), N: t.c.Embedding, Scale: 1})
}
