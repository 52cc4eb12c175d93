package model

import "github.com/pmp-seg/pmp/kernel"

// maskDecoder is the mask decoder that all networks share: queries that look,
// layer by layer, at the picture, at the prompts and at each other, and masks
// made of them. The cross-attention from queries to prompts, of which networks
// without prompt guidance know nothing, lets the next mask proposals know what
// is asked for. Only the abstract of the method (arXiv 2412.10292) was at hand;
// the order of steps, the null key and the losses are a reconstruction.
type maskDecoder struct {
	queryFeat, queryPos kernel.Const // X before the first layer, and P
	textProj            linear       // prompts' embeddings to text tokens
	nullKey             kernel.Const // "none of these", so that one prompt leaves a choice
	textFirst           attention
	layers              []decoderLayer
	norm                layerNorm
	maskMLP             [3]linear
	decoderShape
	int8 bool
}

// decoderShape is what tells mask decoders apart.
type decoderShape struct {
	q, d, dm, e int // queries, their width, that of mask features and of prompts' embeddings
	heads, ffn  int
	depth       int
	strides     []int // that layers attend to, in turn
	pmp         bool
	// detr is for MaskFormer's decoder: queries start at zero, look at each
	// other before they look at the picture, and see all of it.
	detr bool
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

func (l *loader) maskDecoder(s decoderShape) maskDecoder {
	d := maskDecoder{decoderShape: s, int8: l.precision == Int8}
	if s.detr {
		d.queryFeat = l.constants.Add(s.q*s.d, func([]float32) {})
	} else {
		d.queryFeat = l.vector("decoder.query_feat", s.q, s.d)
	}
	d.queryPos = l.vector("decoder.query_pos", s.q, s.d)
	if s.pmp {
		d.textProj = l.linear("decoder.text_proj", s.e, s.d)
		d.nullKey = l.vector("decoder.null_key", s.d)
		d.textFirst = l.attention("decoder.text_first", s.d, s.heads)
	}
	for i := range s.depth {
		name := "decoder.layers." + itoa(i)
		layer := decoderLayer{
			image: l.attention(name+".image", s.d, s.heads), normImage: l.layerNorm(name+".norm_image", s.d, layerNormEps),
			self: l.attention(name+".self", s.d, s.heads), normSelf: l.layerNorm(name+".norm_self", s.d, layerNormEps),
			ffn: l.feedForward(name, s.d, s.ffn, kernel.ActReLU), normFFN: l.layerNorm(name+".norm_ffn", s.d, layerNormEps),
		}
		if s.pmp {
			layer.text = l.attention(name+".text", s.d, s.heads)
		}
		d.layers = append(d.layers, layer)
	}
	d.norm = l.layerNorm("decoder.norm", s.d, layerNormEps)
	d.maskMLP = [3]linear{l.linear("decoder.mask_mlp.0", s.d, s.d), l.linear("decoder.mask_mlp.1", s.d, s.d), l.linear("decoder.mask_mlp.2", s.d, s.dm)}
	return d
}

// imageMemory is the image's side of the decoder. It does not depend on any
// prompt, so it is computed once a picture and kept.
type imageMemory struct {
	layers []memory       // each layer's keys and values
	mask   map[int]matrix // mask features by stride, a column for each cell
	head   matrix         // the trunk head's features at stride 32, a row for each cell
	cells  map[int]int    // by stride
	sight  sight          // of FC-CLIP
}

// remember computes the image's side.
func (d *maskDecoder) remember(g graph, p pyramid) imageMemory {
	m := imageMemory{mask: map[int]matrix{}, cells: map[int]int{}}
	for i := range d.layers {
		l, layer := d.stride(i), &d.layers[i]
		cells := p.features[l].cells()
		// Masks have whole panels of cells; those that only fill the last one are not counted.
		mem := g.remember(layer.image, p.positioned[l].View, p.features[l].View, roundUp(cells, kernel.Panel), g.Keep)
		if mem.n != cells {
			mem.count = g.Data(wordBytes([]int32{int32(cells)}))
		}
		m.layers = append(m.layers, mem)
	}
	for _, stride := range []int{4, 8, 16, 32} {
		f, ok := p.mask[stride]
		if !ok {
			continue
		}
		m.cells[stride] = f.cells()
		// A coarse mask leaves many a query one cell or none, and rounding would
		// change which; it costs little as it is.
		m.mask[stride] = g.matrix(f.View, d.dm, f.cells(), true, d.int8 && stride <= 8)
	}
	return m
}

// stride is that of the cells that layer i attends to.
func (d *maskDecoder) stride(i int) int { return d.strides[i%len(d.strides)] }

// tokens are the text tokens S⁺: the null key, then one for each phrase.
type tokens struct {
	kernel.View
	n     int
	count kernel.View // int32: 1 + phrases in use
}

// tokens makes the text tokens of n unit embeddings of phrases. count holds
// the int32 number of those in use, 1 + phrases.
func (d *maskDecoder) tokens(g graph, e kernel.View, n int, count kernel.View) tokens {
	if !d.pmp {
		return tokens{}
	}
	text := tokens{g.Temp((n + 1) * d.d), n + 1, count}
	g.Do(kernel.Activate{Dst: text.View, A: g.Const(d.nullKey), N: d.d})
	g.linearTo(text.At(d.d), e, n, d.textProj, kernel.ActNone, kernel.View{})
	return text
}

// decode returns the normed queries behind the last layer.
func (d *maskDecoder) decode(g graph, image imageMemory, text tokens) kernel.View {
	none := kernel.View{}
	x, p := g.Const(d.queryFeat), g.Const(d.queryPos)
	x = d.promptStep(g, d.textFirst, x, p, text)
	for i := range d.layers {
		layer := &d.layers[i]
		if d.detr {
			x = d.exchange(g, layer, x, p)
			x = d.look(g, layer, x, p, image.layers[i], none)
			x = d.promptStep(g, layer.text, x, p, text)
		} else {
			steer := g.Temp(d.q * d.dm)
			d.maskEmbedding(g, d.normed(g, x), steer)
			mask := g.times(steer, d.q, image.mask[d.stride(i)], kernel.ActNone)
			x = d.look(g, layer, x, p, image.layers[i], mask)
			x = d.promptStep(g, layer.text, x, p, text)
			x = d.exchange(g, layer, x, p)
		}
		x = g.norm(g.feed(layer.ffn, x, d.q), none, d.q, layer.normFFN)
	}
	return d.normed(g, x)
}

// look is the attention of queries to the picture, where mask, which may be
// absent, is not below 0.
func (d *maskDecoder) look(g graph, f *decoderLayer, x, p kernel.View, image memory, mask kernel.View) kernel.View {
	y := g.attend(f.image, g.add(x, p, d.q, d.d), d.q, image, mask, x)
	return g.norm(y, kernel.View{}, d.q, f.normImage)
}

// exchange is the attention of queries to each other.
func (d *maskDecoder) exchange(g graph, f *decoderLayer, x, p kernel.View) kernel.View {
	at := g.add(x, p, d.q, d.d)
	y := g.attend(f.self, at, d.q, g.remember(f.self, at, x, d.q, g.Temp), kernel.View{}, x)
	return g.norm(y, kernel.View{}, d.q, f.normSelf)
}

// promptStep is the method's step: X ← X + W_o·MHA(X+P, S⁺, S⁺). Unused
// slots lie behind count and are not attended to.
func (d *maskDecoder) promptStep(g graph, f attention, x, p kernel.View, text tokens) kernel.View {
	if !d.pmp {
		return x
	}
	mem := g.remember(f, text.View, text.View, text.n, g.Temp)
	mem.count = text.count
	return g.attend(f, g.add(x, p, d.q, d.d), d.q, mem, kernel.View{}, x)
}

func (d *maskDecoder) normed(g graph, x kernel.View) kernel.View {
	return g.norm(x, kernel.View{}, d.q, d.norm)
}

func (d *maskDecoder) maskEmbedding(g graph, z, dst kernel.View) {
	z = g.linear(z, d.q, d.maskMLP[0], kernel.ActReLU)
	z = g.linear(z, d.q, d.maskMLP[1], kernel.ActReLU)
	g.linearTo(dst, z, d.q, d.maskMLP[2], kernel.ActNone, kernel.View{})
}

// decoder is the shipped network's: a small mask decoder, and what makes a
// class embedding of each query.
type decoder struct {
	maskDecoder
	classMLP [2]linear
	poolNorm layerNorm
	poolProj linear
	void     kernel.Const // packed, times the temperature
}

func (l *loader) decoder(c Config) decoder {
	d := decoder{maskDecoder: l.maskDecoder(decoderShape{q: c.Queries, d: c.D, dm: c.DM, e: c.Text.Width,
		heads: c.Heads, ffn: 4 * c.D, depth: c.Layers, strides: levels[:], pmp: c.PMP})}
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

// remember computes the image's side, with what the trunk's head says.
func (d *decoder) remember(g graph, p pyramid, head grid) imageMemory {
	m := d.maskDecoder.remember(g, p)
	m.head = g.matrix(head.View, head.cells(), head.c, false, d.int8)
	return m
}

// proposals are the decoder's answer for Q queries.
type proposals struct {
	embedding kernel.View // mask embeddings, Q×DM
	class     kernel.View // unit class embeddings, Q×E
	pooled    kernel.View // the trunk head's features under each mask, Q×1280
}

// run decodes. E holds slots unit embeddings of phrases, count the int32
// number of text tokens in use, 1 + phrases. The mask embeddings go to
// embedding, which the host keeps.
func (d *decoder) run(g graph, image imageMemory, e kernel.View, slots int, count, embedding kernel.View) proposals {
	none := kernel.View{}
	z := d.decode(g, image, d.tokens(g, e, slots, count))
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
