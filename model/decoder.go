package model

import "github.com/pmp-seg/pmp/kernel"

// decoder is the prompt-guided mask decoder: Mask2Former's, small, with a
// cross-attention from queries to prompts in every layer, so that the next
// mask proposals know what is asked for. Only the abstract of the method
// (arXiv 2412.10292) was at hand; the order of steps, the null key and the
// losses are a reconstruction.
type decoder struct {
	queryFeat, queryPos kernel.Const // X before the first layer, and P
	textProj            linear       // prompts' embeddings to text tokens
	nullKey             kernel.Const // "none of these", so that one prompt leaves a choice
	textFirst           attention
	layers              []decoderLayer
	norm                layerNorm
	maskMLP             [3]linear
	classMLP            [2]linear
	poolNorm            layerNorm
	poolProj            linear
	void                kernel.Const // packed, times the temperature
	q, d, dm, e         int
	pmp, int8           bool
}

type decoderLayer struct {
	image     attention
	normImage layerNorm
	text      attention
	self      attention
	normSelf  layerNorm
	ffn       feedForward
	normFFN   layerNorm
}

func (l *loader) decoder(c Config) decoder {
	d := decoder{q: c.Queries, d: c.D, dm: c.DM, e: c.Text.Width, pmp: c.PMP, int8: l.precision == Int8}
	d.queryFeat = l.vector("decoder.query_feat", c.Queries, c.D)
	d.queryPos = l.vector("decoder.query_pos", c.Queries, c.D)
	if c.PMP {
		d.textProj = l.linear("decoder.text_proj", c.Text.Width, c.D)
		d.nullKey = l.vector("decoder.null_key", c.D)
		d.textFirst = l.attention("decoder.text_first", c.D, c.Heads)
	}
	for i := range c.Layers {
		name := "decoder.layers." + itoa(i)
		layer := decoderLayer{
			image: l.attention(name+".image", c.D, c.Heads), normImage: l.layerNorm(name+".norm_image", c.D, layerNormEps),
			self: l.attention(name+".self", c.D, c.Heads), normSelf: l.layerNorm(name+".norm_self", c.D, layerNormEps),
			ffn: l.feedForward(name, c.D, 4*c.D, kernel.ActReLU), normFFN: l.layerNorm(name+".norm_ffn", c.D, layerNormEps),
		}
		if c.PMP {
			layer.text = l.attention(name+".text", c.D, c.Heads)
		}
		d.layers = append(d.layers, layer)
	}
	d.norm = l.layerNorm("decoder.norm", c.D, layerNormEps)
	d.maskMLP = [3]linear{l.linear("decoder.mask_mlp.0", c.D, c.D), l.linear("decoder.mask_mlp.1", c.D, c.D), l.linear("decoder.mask_mlp.2", c.D, c.DM)}
	d.classMLP = [2]linear{l.linear("decoder.class_mlp.0", c.D, 2*c.D), l.linear("decoder.class_mlp.1", 2*c.D, d.e)}
	d.poolNorm = l.layerNorm("decoder.pool_norm", trunkFeatures, layerNormEps)
	d.poolProj = l.linear("decoder.pool_proj", trunkFeatures, d.e)
	l.check("decoder.void", d.e)
	d.void = l.constants.Add(kernel.PackedLen(d.e, 1), func(dst []float32) {
		void := make([]float32, d.e)
		l.source.Read("decoder.void", void)
		normalise(void)
		tau := l.temperature()
		kernel.PackInto(dst, d.e, 1, func(k, _ int) float32 { return tau * void[k] })
	})
	return d
}

// imageMemory is the image's side of the decoder. It does not depend on any
// prompt, so it is computed once a picture and kept.
type imageMemory struct {
	layers []memory       // each layer's keys and values
	mask   map[int]matrix // mask features by stride, a column for each cell
	head   matrix         // the trunk head's features at stride 32, a row for each cell
	cells  map[int]int    // by stride
}

// remember computes the image's side.
func (d decoder) remember(g graph, p pyramid, head grid) imageMemory {
	m := imageMemory{mask: map[int]matrix{}, cells: map[int]int{}}
	for i, layer := range d.layers {
		l := levels[i%len(levels)]
		m.layers = append(m.layers, g.remember(layer.image, p.positioned[l].View, p.features[l].View, p.features[l].cells(), g.Keep))
	}
	for _, stride := range []int{4, 8, 16, 32} {
		f := p.mask[stride]
		m.cells[stride] = f.cells()
		// A coarse mask leaves many a query one cell or none, and rounding would
		// change which; it costs little as it is.
		m.mask[stride] = g.matrix(f.View, d.dm, f.cells(), true, d.int8 && stride <= 8)
	}
	m.head = g.matrix(head.View, head.cells(), head.c, false, d.int8)
	return m
}

// proposals are the decoder's answer for Q queries.
type proposals struct {
	embedding kernel.View // mask embeddings, Q×DM
	class     kernel.View // unit class embeddings, Q×E
	pooled    kernel.View // the trunk head's features under each mask, Q×1280
}

// tokens are the text tokens S⁺: the null key, then one for each phrase.
type tokens struct {
	kernel.View
	n     int
	count kernel.View // int32: 1 + phrases in use
}

// run decodes. E holds slots unit embeddings of phrases, count the int32
// number of text tokens in use, 1 + phrases. The mask embeddings go to
// embedding, which the host keeps.
func (d decoder) run(g graph, image imageMemory, e kernel.View, slots int, count, embedding kernel.View) proposals {
	none := kernel.View{}
	x, p := g.Const(d.queryFeat), g.Const(d.queryPos)

	var text tokens
	if d.pmp {
		text = tokens{g.Temp((slots + 1) * d.d), slots + 1, count}
		g.Do(kernel.Activate{Dst: text.View, A: g.Const(d.nullKey), N: d.d})
		g.linearTo(text.At(d.d), e, slots, d.textProj, kernel.ActNone, none)
	}

	x = d.promptStep(g, d.textFirst, x, p, text)
	for i, layer := range d.layers {
		stride := levels[i%len(levels)]
		steer := g.Temp(d.q * d.dm)
		d.maskEmbedding(g, d.normed(g, x), steer)
		mask := g.times(steer, d.q, image.mask[stride], kernel.ActNone)

		y := g.attend(layer.image, g.add(x, p, d.q, d.d), d.q, image.layers[i], mask, none, x)
		x = g.norm(y, none, d.q, layer.normImage)
		x = d.promptStep(g, layer.text, x, p, text)
		at := g.add(x, p, d.q, d.d)
		y = g.attend(layer.self, at, d.q, g.remember(layer.self, at, x, d.q, g.Temp), none, none, x)
		x = g.norm(y, none, d.q, layer.normSelf)
		x = g.norm(g.feed(layer.ffn, x, d.q), none, d.q, layer.normFFN)
	}

	z := d.normed(g, x)
	d.maskEmbedding(g, z, embedding)
	out := proposals{embedding: embedding}

	// The head's features are averaged under each mask.
	weights := g.times(embedding, d.q, image.mask[cellSize], kernel.ActSigmoid)
	g.Do(kernel.L1Norm{Dst: weights, A: weights, M: d.q, N: image.cells[cellSize]})
	out.pooled = g.times(weights, d.q, image.head, kernel.ActNone)

	out.class = g.Temp(d.q * d.e)
	seen := g.linear(g.norm(out.pooled, none, d.q, d.poolNorm), d.q, d.poolProj, kernel.ActNone)
	g.linearTo(out.class, g.linear(z, d.q, d.classMLP[0], kernel.ActReLU), d.q, d.classMLP[1], kernel.ActNone, seen)
	g.Do(kernel.L2Norm{Dst: out.class, A: out.class, M: d.q, N: d.e, Scale: 1})
	return out
}

// promptStep is the method's step: X ← X + W_o·MHA(X+P, S⁺, S⁺). Unused
// slots lie behind count and are not attended to.
func (d decoder) promptStep(g graph, f attention, x, p kernel.View, text tokens) kernel.View {
	if !d.pmp {
		return x
	}
	mem := g.remember(f, text.View, text.View, text.n, g.Temp)
	return g.attend(f, g.add(x, p, d.q, d.d), d.q, mem, kernel.View{}, text.count, x)
}

func (d decoder) normed(g graph, x kernel.View) kernel.View {
	return g.norm(x, kernel.View{}, d.q, d.norm)
}

func (d decoder) maskEmbedding(g graph, z, dst kernel.View) {
	z = g.linear(z, d.q, d.maskMLP[0], kernel.ActReLU)
	z = g.linear(z, d.q, d.maskMLP[1], kernel.ActReLU)
	g.linearTo(dst, z, d.q, d.maskMLP[2], kernel.ActNone, kernel.View{})
}
