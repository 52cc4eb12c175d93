package model

import (
	"slices"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model/bpe"
	"github.com/pmp-seg/pmp/weights"
)

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
	t.layers = l.clipLayers("text.layers.", c.Layers, c.Width, c.Heads, c.FFN, c.QuickGelu)
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
		x = l.run(g, x, 1, n, in.mask)
	}
	ends := g.Temp(texts(n) * d)
	g.Do(kernel.MatMul{Dst: ends, A: in.mean, B: g.norm(x, none, n, t.norm), LDB: d, M: texts(n), N: d, K: n})
	g.Do(kernel.MatMul{Dst: dst, A: ends, B: g.Const(t.projection), M: texts(n), N: t.c.Embedding, K: d})
	g.Do(kernel.L2Norm{Dst: dst, A: dst, M: texts(n), N: t.c.Embedding, Scale: 1})
}

// clipLayers are those of CLIP's encoders, for texts and for pictures.
func (l *loader) clipLayers(name string, n, width, heads, ffn int, quick bool) (layers []textLayer) {
	act := kernel.ActGelu
	if quick {
		act = kernel.ActQuickGelu
	}
	for i := range n {
		name := name + itoa(i)
		layers = append(layers, textLayer{
			attention: l.attention(name+".attention", width, heads),
			norm1:     l.layerNorm(name+".norm1", width, layerNormEps),
			ffn:       l.feedForward(name, width, ffn, act),
			norm2:     l.layerNorm(name+".norm2", width, layerNormEps),
		})
	}
	return layers
}

// run returns what becomes of the n tokens of each of some parts, which see each other
// where mask, which may be absent, lets them.
func (l textLayer) run(g graph, x kernel.View, parts, n int, mask kernel.View) kernel.View {
	none, rows, d := kernel.View{}, parts*n, l.norm1.n
	y := g.norm(x, none, rows, l.norm1)
	f := l.attention
	q, k, v, seen := g.linear(y, rows, f.q, kernel.ActNone), g.linear(y, rows, f.k, kernel.ActNone), g.linear(y, rows, f.v, kernel.ActNone), g.Temp(rows*d)
	for first := 0; first < rows*d; first += n * d {
		keys, values := g.Temp(n*d), g.Temp(n*d)
		g.Do(kernel.Pack{Dst: keys, A: k.At(first), K: n, N: d})
		g.Do(kernel.Pack{Dst: values, A: v.At(first), K: n, N: d})
		g.Do(kernel.Attention{Dst: seen.At(first), Q: q.At(first), K: keys, V: values, Mask: mask,
			NQ: n, NK: n, D: d, Heads: f.heads, Scale: invSqrt(d / f.heads)})
	}
	y = g.Temp(rows * d)
	g.linearTo(y, seen, rows, f.out, kernel.ActNone, x)
	x = g.Temp(rows * d)
	g.linearTo(x, g.linear(g.norm(y, none, rows, l.norm2), rows, l.ffn.linear1, l.ffn.act), rows, l.ffn.linear2, kernel.ActNone, y)
	return x
}

// labelTable has what CLIP's text encoder has made of the names that the labels list,
// and behind these of other, where CLIP sees proposals one at a time.
const labelTable = "labels.embedding"

func (l *loader) known(names, e int) []*phrase {
	l.check(labelTable, names, e)
	if l.err != nil {
		return nil
	}
	known, all := make([]*phrase, names), make([]float32, names*e)
	l.source.Read(labelTable, all)
	for i := range known {
		known[i] = &phrase{embedding: all[i*e:][:e]}
		normalise(known[i].embedding)
	}
	return known
}

// Embeddings are what CLIP's text encoder makes of names, a row for each, as labelTable
// has them. The manifest needs no other tensors than the text encoder's.
func Embeddings(manifest *weights.Manifest, device kernel.Device, names []string) ([]float32, error) {
	f := manifest.Fields()
	c := Config{Templates: f.Texts("templates")}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if err := c.Text.readCLIP(manifest); err != nil {
		return nil, err
	}
	if !c.Text.sensible() || len(c.Templates) == 0 {
		return nil, ErrConfig
	}
	l, m := &loader{source: stored{manifest}, constants: &kernel.Constants{}, precision: Float32}, &Model{Config: c, device: device}
	m.text = l.clipText(c.Text)
	if err := m.readsWithCLIP(manifest.Vocabulary(), l.source); err != nil {
		return nil, err
	}
	if err := m.put(l); err != nil {
		return nil, err
	}
	if f.Has("clip") {
		names = append(slices.Clone(names), other)
	}
	phrases, err := m.embed(names)
	var rows []float32
	for _, p := range phrases {
		rows = append(rows, p.embedding...)
	}
	return rows, err
}

// readsWithCLIP prepares what the host does with words.
func (m *Model) readsWithCLIP(merges []byte, source Source) error {
	t, err := bpe.New(merges, m.Config.Text.Vocab)
	m.reads(t, source)
	return err
}

// readCLIP reads the shape of CLIP's text encoder.
func (c *TextConfig) readCLIP(m *weights.Manifest) error {
	f := m.Fields().Fields("text")
	*c = TextConfig{CLIP: true, Layers: f.Int("layers"), Heads: f.Int("heads"), QuickGelu: f.Bool("quick_gelu")}
	if err := f.Err(); err != nil {
		return err
	}
	for _, of := range []struct {
		name          string
		rows, columns *int
	}{{wordTable, &c.Vocab, &c.Rank}, {"text.position", &c.MaxTokens, &c.Rank}, {"text.layers.0.linear1.weight", &c.FFN, &c.Width}, {"text.projection", &c.Embedding, &c.Rank}} {
		if err := sides(m, of.name, of.rows, of.columns); err != nil {
			return err
		}
	}
	return nil
}
