package model

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

// textEncoder is a BERT-like encoder, distilled from MiniLM: post-norm
// layers over word pieces, averaged, made a unit vector, centred.
type textEncoder struct {
	wordV    kernel.Const // the second factor of the word embeddings
	position kernel.Const // packed, a row for each place in a text
	norm     layerNorm
	layers   []textLayer
	center   kernel.Const
	c        TextConfig
}

type textLayer struct {
	attention    attention
	norm1, norm2 layerNorm
	ffn          feedForward
}

// wordTable is the first factor of the word embeddings. It stays with the host,
// which looks up a row for each token.
const wordTable = "text.word_u"

const textNormEps = 1e-12

func (l *loader) textEncoder(c TextConfig) textEncoder {
	t := textEncoder{c: c}
	l.check(wordTable, c.Vocab, c.Rank) // looked up row by row, see Model.encodeTexts
	t.wordV = l.plainMatrix("text.word_v", c.Rank, c.Width)
	t.position = l.plainMatrix("text.position", c.MaxTokens, c.Width)
	t.norm = l.layerNorm("text.embed_norm", c.Width, textNormEps)
	for i := range c.Layers {
		name := "text.layers." + itoa(i)
		t.layers = append(t.layers, textLayer{
			attention: l.attention(name+".attention", c.Width, c.Heads),
			norm1:     l.layerNorm(name+".norm1", c.Width, textNormEps),
			ffn:       l.feedForward(name, c.Width, c.FFN, kernel.ActGelu),
			norm2:     l.layerNorm(name+".norm2", c.Width, textNormEps),
		})
	}
	t.center = l.vector("text.center", c.Width)
	return t
}

// textInput is what the host writes for some texts together. The tokens of
// all texts follow one another, without gaps, in rows.
type textInput struct {
	words kernel.View // rows×Rank of the first factor, zero if unused
	place kernel.View // rows×MaxTokens: 1 at a token's place in its text, 0 elsewhere
	mask  kernel.View // rows×rows: 1 between tokens of one text, -1 elsewhere, and with CLIP at those that follow
	mean  kernel.View // texts×rows: 1 over a text's number of tokens at its tokens, 0 elsewhere; CLIP: 1 at its end
	rows  int
	stage int
}

// texts is how many texts n rows may hold: each has [CLS] and [SEP].
func texts(n int) int { return n / 2 }

// run encodes texts into rows of dst, which are unit vectors.
func (t textEncoder) run(g graph, in textInput, dst kernel.View) {
	none := kernel.View{}
	n, d := in.rows, t.c.Width
	x := g.Temp(n * d)
	g.Do(kernel.MatMul{Dst: x, A: in.place, B: g.Const(t.position), M: n, N: d, K: t.c.MaxTokens})
	words := g.Temp(n * d)
	g.Do(kernel.MatMul{Dst: words, A: in.words, B: g.Const(t.wordV), Res: x, M: n, N: d, K: t.c.Rank})
	x = g.norm(words, none, n, t.norm)
	for _, l := range t.layers {
		y := g.attend(l.attention, x, n, g.remember(l.attention, x, x, n, g.Temp), in.mask, x)
		x = g.norm(y, none, n, l.norm1)
		x = g.norm(g.feed(l.ffn, x, n), none, n, l.norm2)
	}
	g.Do(kernel.MatMul{Dst: dst, A: in.mean, B: x, LDB: d, M: texts(n), N: d, K: n})
	g.Do(kernel.L2Norm{Dst: dst, A: dst, M: texts(n), N: d, Scale: 1})
	g.Do(kernel.L2Norm{Dst: dst, A: dst, Center: g.Const(t.center), M: texts(n), N: d, Scale: 1})
}

func invSqrt(n int) float32 { return float32(1 / math.Sqrt(float64(n))) }

// normalise makes v a unit vector; a vector of zeros stays.
func normalise(v []float32) {
	var s float64
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	r := 1 / max(math.Sqrt(s), 1e-12)
	for i := range v {
		v[i] = float32(float64(v[i]) * r)
	}
}
