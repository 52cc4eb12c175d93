package model

import (
	"math"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/weights"
)

// BaseConfig is the architecture of a public checkpoint.
type BaseConfig struct {
	Arch            string // Mask2Former, MaskFormer or FCCLIP
	Trunk           TrunkConfig
	D, DM, Heads    int // as in Config
	FFN             int // width of the mask decoder's feed-forward parts
	Queries, Layers int
	Pixels          DeformableConfig // of Mask2Former
	Pyramid         int              // width of MaskFormer's pixel decoder
	Mean, Std       [3]float32       // of pixels from 0 to 1
	Short, Long     int              // sides of the encoded picture, at least and at most
	Width, Height   int              // or its fixed size, whatever the picture's shape
	Labels          []string         // what the network can name, nil if it can name anything
	Open            OpenConfig       // how FC-CLIP names it
	Crops           *CropConfig      // how CLIP names what it sees of it, nil if it does not

	// Prompt guidance, which "pmp import -pmp" adds.
	PMP       bool
	Text      TextConfig
	Templates []string
}

// The architectures of public checkpoints, by their names in manifests.
const (
	Mask2Former = "mask2former"
	MaskFormer  = "maskformer"
	FCCLIP      = "fcclip" // a Mask2Former whose proposals are named by CLIP
)

// MaxLabels is how many names a network may know.
const MaxLabels = 1 << 14

// TrunkConfig is the shape of an image encoder; there is a type for each kind.
type TrunkConfig interface {
	sensible() bool
	// channels are those of its maps at strides 4, 8, 16 and 32.
	channels() [4]int
	load(l *loader, pixels normalisation) imageEncoder
}

// imageEncoder encodes a picture whose sides are multiples of 32.
type imageEncoder interface {
	run(g graph, x grid) features
}

// base is a network of a public checkpoint: a mask generator, and a class head
// that knows a list of names, or CLIP.
type base struct {
	BaseConfig
	trunk  imageEncoder
	pixels interface {
		run(g graph, f features) pyramid
	}
	class  linear    // a column for each name and one for void, in whole panels; OVSeg's, behind hidden, makes an embedding
	hidden linear    // of OVSeg
	open   *openHead // of FC-CLIP, in place of class
	crops  *cropHead
	names  []string  // that the labels list
	of     []int32   // the label of each
	known  []*phrase // what a network knows of each that has them in place of CLIP's text encoder
	model  *Model
}

// LoadBase builds the network of a public checkpoint that "pmp import" has
// written, on a device. It takes prompts that are among the checkpoint's labels,
// or any if CLIP names its proposals.
// With Int8, products with matrices are computed in integers; convolutions of
// more than one cell and the class head stay float32.
func LoadBase(manifest *weights.Manifest, device kernel.Device, precision Precision) (*Model, error) {
	c, err := readBaseConfig(manifest)
	if err != nil {
		return nil, err
	}
	if !c.sensible() {
		return nil, ErrConfig
	}
	l := &loader{source: stored{manifest}, constants: &kernel.Constants{}, precision: precision}
	// What a network without calibration says of a prompt is its probability.
	m := &Model{Config: Config{Theta: 0.5, Presence: Presence{Logit: 1}, Text: c.Text, Templates: c.Templates}, Labels: c.Labels, device: device}
	b := &base{BaseConfig: c, model: m, trunk: c.Trunk.load(l, normalisation{c.Mean, c.Std})}
	b.names, b.of = phrasesOf(c.Labels)
	shape := decoderShape{q: c.Queries, d: c.D, dm: c.DM, heads: c.Heads, ffn: c.FFN, depth: c.Layers, pmp: c.PMP, e: c.Text.Embedding}
	if c.Arch == MaskFormer {
		shape.strides, shape.detr = []int{cellSize}, true
		b.pixels = l.fpn(c.Pyramid, shape, c.Trunk.channels())
	} else {
		shape.strides = levels[:]
		b.pixels = l.deformablePixels(c.Pixels, shape, c.Trunk.channels())
	}
	m.decoder.maskDecoder = l.maskDecoder(shape)
	m.network = b
	switch {
	case c.Arch == FCCLIP:
		b.open = l.openHead(c.Open, shape, c.Trunk.channels()[3])
	case c.Crops == nil:
		b.class = l.columns("class", c.D, len(c.Labels)+1)
	case c.Crops.Hidden > 0:
		b.hidden, b.class = l.linear("class.mlp.0", c.D, c.Crops.Hidden), l.linear("class.mlp.1", c.Crops.Hidden, c.Text.Embedding)
	default:
		b.class = l.columns("class", c.D, c.Crops.Classes+1)
	}
	known := len(b.names)
	if c.Crops != nil {
		b.crops = l.cropHead(*c.Crops)
		known++ // other is known, too
	}
	switch {
	case c.limited():
		b.known = l.known(known, c.Text.Embedding)
	case c.open():
		m.text = l.clipText(c.Text)
		err = m.readsWithCLIP(manifest.Vocabulary(), l.source)
	case c.PMP:
		m.text = l.textEncoder(c.Text)
		err = m.readsWith(manifest.Vocabulary(), l.source)
	}
	if err != nil {
		return nil, err
	}
	if err := m.put(l); err != nil {
		return nil, err
	}
	if m.text != nil {
		if err := m.keepWords(manifest); err != nil {
			return nil, err
		}
	}
	if b.crops != nil {
		if err := b.crops.open(device); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// columns is linear for any number of outputs: those that fill the last panel are zero.
func (l *loader) columns(name string, in, out int) linear {
	l.check(name+".weight", out, in)
	l.check(name+".bias", out)
	f := linear{weight: l.matrix(name+".weight", in, out), in: in, out: roundUp(out, kernel.Panel)}
	f.bias = l.constants.Add(f.out, func(dst []float32) { l.source.Read(name+".bias", dst[:out]) })
	return f
}

// open tells whether CLIP names proposals, and limited whether it then knows but a list
// of names, without a text encoder.
func (c BaseConfig) open() bool    { return c.Arch == FCCLIP || c.Crops != nil }
func (c BaseConfig) limited() bool { return c.open() && c.Labels != nil }

// sensible is Config.sensible for these.
func (c BaseConfig) sensible() bool {
	reads, listed := c.Text.sensible() && len(c.Templates) > 0, within(len(c.Labels), 1, MaxLabels)
	if c.limited() {
		reads = multiple(c.Text.Embedding, 8, 4096, 8) && listed
	}
	ok := (!c.PMP || reads) &&
		multiple(c.D, 16, 1024, 16) && multiple(c.DM, 8, 1024, 8) && multiple(c.Heads, 1, 64, 1) && c.D%c.Heads == 0 && c.D/c.Heads%8 == 0 &&
		multiple(c.FFN, 8, kernel.MaxK8, 8) && multiple(c.Queries, 1, 256, 1) && multiple(c.Layers, 1, 32, 1) && c.Trunk.sensible()
	if c.Arch == FCCLIP {
		ok = ok && reads && c.Open.sensible(c.Trunk.channels()[3])
	} else if c.Crops != nil {
		ok = ok && reads && !c.PMP && c.Crops.sensible() && c.Crops.ViT.Embedding == c.Text.Embedding
	} else {
		ok = ok && listed
	}
	if c.Arch == MaskFormer {
		ok = ok && multiple(c.Pyramid, 4*groups, 1024, 4*groups)
	} else {
		ok = ok && c.D%(4*groups) == 0 && multiple(c.Pixels.Layers, 1, 32, 1) && multiple(c.Pixels.FFN, 8, kernel.MaxK8, 8) &&
			c.Heads*len(levels)*points%kernel.Panel == 0
	}
	for _, s := range c.Std {
		ok = ok && s > 0
	}
	const most = 4096
	if c.Width == 0 {
		return ok && multiple(c.Short, 1, most, 1) && multiple(c.Long, c.Short, most, 1)
	}
	return ok && multiple(c.Width, 1, most, 1) && multiple(c.Height, 1, most, 1)
}

// fit is the size that the checkpoint's pictures were resized to: so that the
// short side is as long as it should, unless the long one gets too long, and
// both rounded up to cells of the coarsest stride.
func (b *base) fit(width, height int) (w, h int) {
	w, h = b.Width, b.Height
	if w == 0 {
		short, long := min(width, height), max(width, height)
		size, exact := b.Short, float64(b.Short)
		if float64(long)/float64(short)*exact > float64(b.Long) {
			exact = float64(b.Long) * float64(short) / float64(long)
			size = int(math.RoundToEven(exact))
		}
		other := int(exact * float64(long) / float64(short))
		if w, h = size, other; width > height {
			w, h = other, size
		}
	}
	return roundUp(max(w, 1), cellSize), roundUp(max(h, 1), cellSize)
}

func (b *base) taps(cells, pixels, _ int) kernel.TapTable { return kernel.ResizeTaps(cells, pixels) }

// encode records everything but the maps, where nothing depends on prompts, and
// otherwise the picture's side.
func (b *base) encode(g graph, p *Picture, w, h int) imageMemory {
	d := &b.model.decoder.maskDecoder
	x := b.see(g, p.pixels, p.Width, p.Height, w, h)
	f := b.trunk.run(g, x)
	maps := b.pixels.run(g, f)
	image := d.remember(g, maps)
	p.reply.class, p.crops.seen = g.Input(4*maxPhrase*d.q), x.View
	p.reply.logits = g.Keep(d.q * b.width())
	if b.open != nil {
		image.sight = b.open.remember(g, image, maps, f, d.q, b.PMP)
	}
	if b.PMP {
		p.ask.embeddings, p.ask.count = g.Input(4*maxPhrase*d.e), g.Input(4)
	} else {
		b.decode(g, p, image, tokens{})
	}
	return image
}

// width is how many numbers decode leaves for each proposal.
func (b *base) width() int {
	if b.open != nil {
		return b.open.width()
	}
	return b.class.out
}

// decode records the mask decoder and the class head.
func (b *base) decode(g graph, p *Picture, image imageMemory, text tokens) {
	d := &b.model.decoder.maskDecoder
	z := d.decode(g, image, text)
	d.maskEmbedding(g, z, p.reply.embedding)
	if b.open != nil {
		b.open.run(g, p.reply.logits, z, p.reply.embedding, image, image.sight, d.decoderShape)
		return
	}
	if b.hidden.out > 0 {
		z = g.linear(z, d.q, b.hidden, kernel.ActReLU)
	}
	g.linearTo(p.reply.logits, z, d.q, b.class, kernel.ActNone, kernel.View{})
}

// questions records the decoder for numbers of phrases that it reads. The host
// names the proposals, so there are no maps yet.
func (b *base) questions(g graph, p *Picture, image imageMemory, _ func(first, n int)) {
	if d := &b.model.decoder; b.crops != nil {
		for first := 0; first < d.q; first += mapsAtOnce {
			p.crops.masks = append(p.crops.masks, g.Stage())
			g.timesTo(p.reply.maps, p.reply.embedding.At(first*d.dm), min(d.q-first, mapsAtOnce), image.mask[4], kernel.ActNone)
		}
	}
	if !b.PMP {
		return
	}
	for i, n := range slots {
		p.segments[i] = segment{g.Stage(), n}
		b.decode(g, p, image, b.model.decoder.tokens(g, p.ask.embeddings, n, p.ask.count))
	}
}

// see resizes and normalises pixels. If CLIP looks at crops of them, they are kept.
func (b *base) see(g graph, pixels kernel.View, width, height, w, h int) grid {
	x := g.grid(h, w, rgbx)
	if b.crops != nil {
		x.View = g.Keep(x.cells() * rgbx)
	}
	tapsY, tapsX := kernel.Taps(height, h), kernel.Taps(width, w)
	g.Do(kernel.Picture{Dst: x.View, Src: pixels, TapsY: g.Data(tapsY.Encode()), TapsX: g.Data(tapsX.Encode()),
		H: h, W: w, HP: h, WP: w, HI: height, WI: width, SizeY: tapsY.Size, SizeX: tapsX.Size})
	row := make([]float32, 0, w*rgbx)
	for range w {
		row = append(row, normalisation{b.Mean, b.Std}.shift()...)
	}
	g.Do(kernel.Add{Dst: x.View, A: x.View, B: g.Floats(row), M: h, N: w * rgbx, MB: 1})
	return x
}

// normalisation is what a network expects of pixels from 0 to 1. What Picture
// makes of pixels is shifted, so that padding with zeros means the same, and the
// stem's weights do the rest.
type normalisation struct{ mean, std [3]float32 }

func (n normalisation) shift() []float32 {
	s := make([]float32, rgbx)
	for c, mean := range n.mean {
		s[c] = float32((127 - 255*float64(mean)) / 128)
	}
	return s
}

func (n normalisation) factor() (f [3]float32) {
	for c, std := range n.std {
		f[c] = float32(128 / (255 * float64(std)))
	}
	return f
}

// ask turns the class head's logits into P of the prompts, in which labels that
// a prompt lists add up.
func (b *base) ask(p *Picture, prompts []string, o Options) (shares, beside []float32, err error) {
	names, owner, err := split(prompts)
	if err != nil {
		return nil, nil, err
	}
	probabilities := namer(func(*Picture) ([]float32, error) { return o.named, nil })
	if o.named == nil {
		if probabilities, err = b.name(names, owner, len(prompts)); err != nil {
			return nil, nil, err
		}
	}
	if err := p.keepLatest(); err != nil {
		return nil, nil, err
	}
	p.held = held{}
	if b.PMP {
		if err := b.guide(p, names, o); err != nil {
			return nil, nil, err
		}
	}
	class, err := probabilities(p)
	if err != nil {
		return nil, nil, err
	}
	if err := p.session.Write(p.reply.class, kernel.Bytes(class)); err != nil {
		return nil, nil, err
	}
	if err := p.session.Write(p.ask.prompts, wordBytes([]int32{int32(min(len(prompts), mapsAtOnce))})); err != nil {
		return nil, nil, err
	}
	p.asked = p.maps[0]
	return make([]float32, len(prompts)), nil, p.session.Run(p.asked)
}

// namer says what proposals of a picture are: P of some prompts, Q numbers for each.
type namer func(p *Picture) ([]float32, error)

// name makes one for prompts, of which each name has an owner.
func (b *base) name(names []string, owner []int32, prompts int) (namer, error) {
	switch {
	case b.open != nil:
		return b.opened(names, owner, prompts)
	case b.crops != nil:
		return b.cropped(names, owner, prompts)
	}
	return b.closed(names, owner, prompts)
}

// among says what proposals are among all prompts, however many, or nil if the
// proposals depend on which of them are asked for together.
func (b *base) among(p *Picture, prompts []string) ([]float32, error) {
	if b.PMP {
		return nil, nil
	}
	names, owner := phrasesOf(prompts)
	probabilities, err := b.name(names, owner, len(prompts))
	if err != nil {
		return nil, err
	}
	return probabilities(p)
}

// closed takes prompts that are among the labels.
func (b *base) closed(names []string, owner []int32, prompts int) (namer, error) {
	asked := make([][]int, prompts)
	for i, name := range names {
		at, err := b.find(name)
		if err != nil {
			return nil, err
		}
		if of, label := &asked[owner[i]], int(b.of[at]); !slices.Contains(*of, label) {
			*of = append(*of, label)
		}
	}
	return func(p *Picture) ([]float32, error) {
		q, width := b.Queries, b.class.out
		logits, class := make([]float32, q*width), make([]float32, prompts*q)
		if err := p.session.Read(p.reply.logits, kernel.Bytes(logits)); err != nil {
			return nil, err
		}
		for i := range q {
			probability := softmax(logits[i*width:][:len(b.Labels)+1])
			for t, labels := range asked {
				for _, label := range labels {
					class[t*q+i] += probability[label]
				}
			}
		}
		return class, nil
	}, nil
}

// opened takes any prompts, or those that are among the labels.
func (b *base) opened(names []string, owner []int32, prompts int) (namer, error) {
	phrases, err := b.embed(names)
	if err != nil {
		return nil, err
	}
	return func(p *Picture) ([]float32, error) {
		said := make([]float32, b.Queries*b.open.width())
		if err := p.session.Read(p.reply.logits, kernel.Bytes(said)); err != nil {
			return nil, err
		}
		return b.open.probabilities(said, names, phrases, owner, prompts), nil
	}, nil
}

// guide lets the mask decoder read phrases.
func (b *base) guide(p *Picture, names []string, o Options) error {
	phrases, err := b.embed(names)
	if err != nil {
		return err
	}
	var embeddings []float32
	for _, ph := range phrases {
		embeddings = append(embeddings, ph.embedding...)
	}
	if err := p.session.Write(p.ask.embeddings, kernel.Bytes(embeddings)); err != nil {
		return err
	}
	if err := p.session.Write(p.ask.count, wordBytes([]int32{int32(1 + o.seen(len(names)))})); err != nil {
		return err
	}
	return p.session.Run(p.segmentFor(len(names)).stage)
}

// softmax is computed in place.
func softmax(x []float32) []float32 {
	top, sum := slices.Max(x), 0.0
	for _, v := range x {
		sum += math.Exp(float64(v - top))
	}
	for i, v := range x {
		x[i] = float32(math.Exp(float64(v-top)) / sum)
	}
	return x
}

// UnknownLabel says that a network with a list of names has none like this.
type UnknownLabel struct {
	Name   string
	Labels []string
}

func (e *UnknownLabel) Error() string {
	some := strings.Join(e.Labels[:min(len(e.Labels), 20)], "; ")
	if len(e.Labels) > 20 {
		some += "; …"
	}
	return "this network knows " + itoa(len(e.Labels)) + " names and \"" + e.Name + "\" is not one of them: " + some
}

// find finds a name among those that the labels list.
func (b *base) find(name string) (int, error) {
	at := slices.IndexFunc(b.names, func(s string) bool { return strings.EqualFold(s, name) })
	if at < 0 {
		return 0, &UnknownLabel{name, b.Labels}
	}
	return at, nil
}

// embed is Model.embed, or looks up what stands in place of a text encoder.
func (b *base) embed(names []string) ([]*phrase, error) {
	if b.known == nil {
		return b.model.embed(names)
	}
	found := make([]*phrase, len(names))
	for i, name := range names {
		at, err := b.find(name)
		if err != nil {
			return nil, err
		}
		found[i] = b.known[at]
	}
	return found, nil
}

// readBaseConfig reads the manifest's configuration.
func readBaseConfig(m *weights.Manifest) (BaseConfig, error) {
	f := m.Fields()
	c := BaseConfig{
		Arch: m.Arch, D: f.Int("d"), DM: f.Int("dm"), Heads: f.Int("heads"), FFN: f.Int("ffn"), Queries: f.Int("queries"), Layers: f.Int("layers"),
	}
	crops := m.Arch != FCCLIP && f.Has("clip")
	open := m.Arch == FCCLIP || crops
	limited := open && !f.Has("text")
	if !open || limited {
		c.Labels = f.Texts("labels")
	}
	switch t := f.Fields("trunk"); t.Text("kind") {
	case "resnet":
		r := ResNetConfig{Stem: t.Int("stem"), Basic: t.Has("basic") && t.Bool("basic"), Early: t.Bool("early"), Deep: t.Has("deep") && t.Bool("deep"),
			Average: t.Has("average") && t.Bool("average"), Widths: four(t, "widths"), Depths: four(t, "depths")}
		if t.Has("dilations") {
			r.Dilations = t.Ints("dilations")
		}
		c.Trunk = r
	case "swin":
		c.Trunk = SwinConfig{Window: t.Int("window"), Widths: four(t, "widths"), Depths: four(t, "depths"), Heads: four(t, "heads"), FFN: four(t, "ffn")}
	case "convnext":
		c.Trunk = ConvNeXtConfig{Widths: four(t, "widths"), Depths: four(t, "depths")}
	default:
		t.Fail("kind", "is not one that this version can build; fetch weights and program of the same version")
	}
	p := f.Fields("picture")
	threeOf(p, "mean", &c.Mean)
	threeOf(p, "std", &c.Std)
	if p.Has("width") {
		c.Width, c.Height = p.Int("width"), p.Int("height")
	} else {
		c.Short, c.Long = p.Int("short"), p.Int("long")
	}
	switch m.Arch {
	case Mask2Former, FCCLIP:
		d := f.Fields("pixels")
		c.Pixels = DeformableConfig{Layers: d.Int("layers"), FFN: d.Int("ffn")}
	case MaskFormer:
		c.Pyramid = f.Fields("pixels").Int("width")
	default:
		return c, ErrConfig
	}
	c.PMP = f.Has("pmp") && f.Bool("pmp")
	if (c.PMP || open) && !limited {
		c.Templates = f.Texts("templates")
	}
	if err := f.Err(); err != nil {
		return c, err
	}
	var err error
	if crops {
		c.Crops, err = readCrops(m)
	} else if open {
		err = c.Open.read(m)
	}
	switch {
	case err != nil:
	case limited:
		err = sides(m, labelTable, new(int), &c.Text.Embedding)
	case open:
		err = c.Text.readCLIP(m)
	case c.PMP:
		err = c.Text.read(m)
	}
	return c, err
}

// threeOf reads a number for each colour.
func threeOf(f weights.Fields, key string, to *[3]float32) {
	list := f.List(key)
	if len(list) != len(to) {
		f.Fail(key, "has not three numbers")
	}
	for i := range min(len(list), len(to)) {
		v, _ := list[i].Float()
		to[i] = float32(v)
	}
}

// four reads a number for each stage of an image encoder.
func four(f weights.Fields, key string) (n [4]int) {
	if list := f.Ints(key); len(list) != len(n) {
		f.Fail(key, "has not four numbers")
	} else {
		copy(n[:], list)
	}
	return n
}
