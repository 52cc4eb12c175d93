package model

import (
	"errors"
	"math"
	"slices"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model/token"
)

// What a person may ask for.
const (
	MaxPixels  = 50_000_000 // of one picture
	MaxSide    = 1<<16 - 1  // of its width and its height; taps of a longer side would take gigabytes
	MaxPrompts = 255        // at once, since a label map has one byte a pixel
	maxPhrase  = 256        // phrases of all prompts together
)

// Errors that a person can cause.
var (
	ErrEmptyPicture  = errors.New("the picture has no pixels; give one that is at least 1 pixel wide and high")
	ErrLargePicture  = errors.New("the picture has more than 50 megapixels; make it smaller first")
	ErrLongPicture   = errors.New("a side of the picture has more than 65,535 pixels; make it smaller first")
	ErrPixels        = errors.New("the number of bytes is not width × height × 4; give RGBA pixels")
	ErrNoPrompt      = errors.New("there is no prompt; give at least one word")
	ErrEmptyPrompt   = errors.New("a prompt is empty; give at least one word in each")
	ErrManyPrompts   = errors.New("there are more than 255 prompts; ask for fewer at once")
	ErrManyPhrases   = errors.New("the prompts have more than 256 phrases together; give fewer synonyms")
	ErrThreshold     = errors.New("the threshold must lie between 0 and 1")
	ErrNotEncoded    = errors.New("the picture is not encoded yet")
	ErrReleased      = errors.New("the result was released; segment the picture again")
	ErrPictureClosed = errors.New("the picture is closed; encode it again")
)

// slots are the numbers of phrases that programs are recorded for.
var slots = [...]int{8, 32, 128, maxPhrase}

// Picture is a picture on a device: a program of its own with an arena that
// keeps what does not depend on any prompt.
type Picture struct {
	Width, Height int

	model   *Model
	program *kernel.Program
	session kernel.Session
	encoded bool

	pixels    kernel.View
	ask       question
	reply     reply
	segments  [len(slots)]segment
	maps      []int // stages that make the maps of mapsAtOnce prompts, the first ones, the next, …
	proposals []int // stages that make the masks of mapsAtOnce proposals instead
	map4      grid  // H/4 × W/4 of the maps, without channels
	paint     painter
	smooth    kernel.View // if masks follow the picture's edges: its pixels without what is finer,
	guide     kernel.View // and what painting knows of its colours

	latest  *Result // the one whose maps the device can make
	held    held
	masks   [][]byte // on their way out of the device
	asked   int      // the stage of the last question
	crops   cropped  // for networks whose proposals CLIP sees one at a time
	encodes int      // how often it was encoded
}

// held is which maps are on the device.
type held struct {
	result *Result // nil: nobody's
	chunk  int     // mapsAtOnce prompts each
	stage  int     // that has made them ready to be painted, so that they are no longer what they were, or 0
}

// mapsAtOnce is how many maps the device keeps. Those of more prompts are made
// when they are asked for: maps are what takes most memory.
const mapsAtOnce = 32

// segment is one recording of everything that depends on prompts.
type segment struct{ stage, slots int }

// question is what the host writes before it runs a segment, with room for
// the phrases of the largest one.
type question struct {
	embeddings, rows kernel.View // slots×E, slots×1280
	coef, owner      kernel.View // 3×slots, slots int32s: see Classify
	count, prompts   kernel.View // int32s: text tokens in use, see decoder.run, and prompts whose maps are made
	theta, index     kernel.View // of these maps: thresholds, and the number of the first one
	palette          kernel.View // a colour for each label
}

// reply is what a segment leaves.
type reply struct {
	embedding kernel.View // mask embeddings, Q×DM
	class     kernel.View // P of prompts and void, (slots+1)×Q
	logits    kernel.View // of the class head, if there is one: Q rows
	maps      kernel.View // S of some prompts, or σ of the mask logits of some proposals, mapsAtOnce×H/4·W/4
	peaks     kernel.View // of the maps, mapsAtOnce
}

// painter brings maps to the picture's own resolution.
type painter struct {
	tidy, cut, all  int             // stages that take thresholds off the maps: without what is not meant, as they are, and where nothing is below
	masks           [mapsAtOnce]int // stages that paint one map each
	labels, colours int             // stages that paint all, and what labels are shown as

	fits                kernel.View // what is painted: the maps, or, with a guide, four numbers for each of their cells
	mask, label, colour kernel.View // a byte a pixel each, and four
}

// What is too small to be meant: less than a part of the map's cells in
// speck, or, for islands, than a part of the largest one's in islandToMain.
// On photos kept out of training this raises the IoU of masks by about half a
// point, and it is what makes them look clean.
const (
	speck        = 1000
	islandToMain = 20
)

// fit returns the size at which a picture is encoded: long side size, the
// other in proportion, at least one pixel.
func fit(width, height, size int) (w, h int) {
	long := max(width, height)
	scale := float64(size) / float64(long)
	side := func(n int) int { return max(int(math.Round(float64(n)*scale)), 1) }
	return side(width), side(height)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// NewPicture reserves what a picture of width × height pixels needs and
// records its program. Write its pixels, then Encode.
func (m *Model) NewPicture(width, height int) (*Picture, error) {
	if width <= 0 || height <= 0 {
		return nil, ErrEmptyPicture
	}
	if width > MaxPixels || height > MaxPixels || width*height > MaxPixels {
		return nil, ErrLargePicture
	}
	if width > MaxSide || height > MaxSide {
		return nil, ErrLongPicture
	}
	// Pictures that follow one another often have the same size.
	if m.last == nil || m.last.Width != width || m.last.Height != height {
		m.last = m.record(width, height)
		m.last.program.Plan()
	}
	p := *m.last
	var err error
	p.session, err = m.device.Open(p.program)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// record lists the ops of everything that is done with a picture.
func (m *Model) record(width, height int) *Picture {
	p := &Picture{Width: width, Height: height, model: m, program: &kernel.Program{}}
	g := newGraph(p.program)
	w, h := m.network.fit(width, height)

	p.program.Stage()
	p.pixels = p.program.ScratchInput(4 * width * height)
	p.map4 = grid{h: roundUp(h, cellSize) / 4, w: roundUp(w, cellSize) / 4, c: 1}
	q, cells := m.decoder.q, p.map4.cells()
	p.ask = question{prompts: g.Input(4), theta: g.Input(4 * mapsAtOnce), index: g.Input(4), palette: g.Input(4 * (kernel.NoLabel + 1))}
	p.reply = reply{embedding: g.Keep(q * m.decoder.dm), maps: g.Keep(mapsAtOnce * cells), peaks: g.Keep(mapsAtOnce)}
	image := m.network.encode(g, p, w, h)

	// makeMaps makes the maps of the prompts from the given one on, of at most n.
	makeMaps := func(first, n int) {
		n = min(n, mapsAtOnce)
		g.maps(p.reply.maps, p.reply.embedding, q, image.mask[4], p.reply.class.At(first*q), p.ask.prompts, n)
		g.Do(kernel.Peaks{Dst: p.reply.peaks, A: p.reply.maps, Count: p.ask.prompts, T: n, H: p.map4.h, W: p.map4.w})
	}
	m.network.questions(g, p, image, makeMaps)
	for first := 0; first < maxPhrase; first += mapsAtOnce {
		p.maps = append(p.maps, g.Stage())
		if first == 0 {
			// Labels of many prompts are painted between one run of these stages and the next.
			p.paint.label, p.paint.colour = g.Hold(width*height), g.Hold(4*width*height)
		}
		makeMaps(first, mapsAtOnce)
	}
	for first := 0; first < q; first += mapsAtOnce {
		p.proposals = append(p.proposals, g.Stage())
		g.timesTo(p.reply.maps, p.reply.embedding.At(first*m.decoder.dm), min(q-first, mapsAtOnce), image.mask[4], kernel.ActSigmoid)
	}
	m.painter(g, p, w, h)
	return p
}

// network is what the shipped network and those of public checkpoints do each
// in its way. A page's engine has the shipped one only.
type network interface {
	// fit returns the size at which a picture is encoded.
	fit(width, height int) (w, h int)
	// encode records what is computed once a picture, and makes the views of
	// questions and replies that are its own.
	encode(g graph, p *Picture, w, h int) imageMemory
	// questions records stages that end in the maps of n prompts.
	questions(g graph, p *Picture, image imageMemory, makeMaps func(first, n int))
	// ask leaves P of the prompts in p.reply, and the first of their maps. It
	// returns the second stage's share in each prompt, and where P of the prompts is
	// after Wait, asked beside others, or nil if that is not done.
	ask(p *Picture, prompts []string, o Options) (shares, beside []float32, err error)
	// taps are those that bring a side of a map to the picture's pixels; frame is
	// the side of the encoded picture.
	taps(cells, pixels, frame int) kernel.TapTable
}

// prompted is the shipped network, which reads prompts.
type prompted struct{ m *Model }

func (n *prompted) fit(width, height int) (w, h int) { return fit(width, height, n.m.Config.Size) }

func (n *prompted) taps(cells, pixels, frame int) kernel.TapTable {
	return kernel.PaintTaps(cells, pixels, float64(frame)/float64(pixels), 4)
}

func (n *prompted) encode(g graph, p *Picture, w, h int) imageMemory {
	m := n.m
	wp, hp := roundUp(w, cellSize), roundUp(h, cellSize)
	x := g.Temp((hp + 1) * (wp + 1) * rgbx)
	tapsY, tapsX := kernel.Taps(p.Height, h), kernel.Taps(p.Width, w)
	g.Do(kernel.Picture{Dst: x, Src: p.pixels, TapsY: g.Data(tapsY.Encode()), TapsX: g.Data(tapsX.Encode()),
		H: h, W: w, HP: hp + 1, WP: wp + 1, HI: p.Height, WI: p.Width, SizeY: tapsY.Size, SizeX: tapsX.Size})
	if m.Config.Edges > 0 {
		const unit = 255. / 128 // of Config.Edges, in that of x
		p.smooth = g.KeepBytes(4 * p.Width * p.Height)
		g.Do(kernel.Smooth{Dst: p.smooth, A: p.pixels, H: p.Height, W: p.Width})
		p.guide = g.Keep(kernel.GuideLen(p.map4.cells()))
		g.Do(kernel.Guide{Dst: p.guide, A: x, H: p.map4.h, W: p.map4.w, HI: h, WI: w, WP: wp + 1, Epsilon: m.Config.Edges * unit * unit})
	}
	f := m.trunk.run(g, x, hp, wp)
	image := m.decoder.remember(g, m.pixel.run(g, f), f.head)

	in := &p.ask
	in.embeddings, in.rows = g.Input(4*maxPhrase*m.decoder.e), g.Input(4*maxPhrase*trunkFeatures)
	in.coef, in.owner, in.count = g.Input(4*3*maxPhrase), g.Input(4*maxPhrase), g.Input(4)
	p.reply.class = g.Keep((maxPhrase + 1) * m.decoder.q)
	return image
}

func (n *prompted) questions(g graph, p *Picture, image imageMemory, makeMaps func(first, n int)) {
	for i, phrases := range slots {
		p.segments[i] = segment{g.Stage(), phrases}
		n.m.segment(g, image, p.ask, p.reply, phrases)
		makeMaps(0, phrases)
	}
}

func (n *prompted) ask(p *Picture, prompts []string, o Options) (shares, beside []float32, err error) {
	phrases, owner, err := n.m.prompts(prompts)
	if err != nil {
		return nil, nil, err
	}
	shares = slices.Repeat([]float32{max(n.m.Config.Alpha, n.m.Config.Beta)}, len(prompts))
	for i, ph := range phrases {
		shares[owner[i]] = min(shares[owner[i]], ph.share)
	}
	beside, err = p.contrast(phrases, owner, len(prompts), o)
	if err != nil {
		return nil, nil, err
	}
	return shares, beside, p.run(p.segmentFor(len(phrases)), phrases, owner, o.seen(len(phrases)), len(prompts))
}

// segment records the decoder and the second stage for n phrases, up to what
// maps are made of: S(t, p) = Σ_q P[q,t]·σ(m_q(p)).
func (m *Model) segment(g graph, image imageMemory, in question, out reply, n int) {
	q, e := m.decoder.q, m.decoder.e
	p := m.decoder.run(g, image, in.embeddings, n, in.count, out.embedding)
	a := g.dots(p.class, q, in.embeddings, n, e)
	b := m.second.compare(g, p.pooled, q, in.rows, n)
	void := g.Temp(q * kernel.Panel)
	g.Do(kernel.MatMul{Dst: void, A: p.class, B: g.Const(m.decoder.void), M: q, N: kernel.Panel, K: e})
	g.Do(kernel.Classify{Dst: out.class, A: a, B: b, Coef: in.coef, Owner: in.owner, Void: void,
		Q: q, S: n, T: n, LDVoid: kernel.Panel})
}

// painter records the way from maps to the picture's own pixels.
func (m *Model) painter(g graph, p *Picture, w, h int) {
	t := &p.paint
	maps, cells, pixels := p.reply.maps, p.map4.cells(), p.Width*p.Height
	tidy := kernel.Tidy{Dst: maps, A: maps, Theta: p.ask.theta, Count: p.ask.prompts, Scratch: g.Temp(2 * mapsAtOnce * cells),
		T: mapsAtOnce, H: p.map4.h, W: p.map4.w}
	t.fits = maps
	numbers := 1 // of a cell
	fit := func(everywhere bool) {}
	if p.guide.Valid() {
		numbers = 4
		t.fits = g.Temp(numbers * mapsAtOnce * cells)
		fit = func(everywhere bool) {
			g.Do(kernel.Guided{Dst: t.fits, A: maps, Guide: p.guide, Count: p.ask.prompts, T: mapsAtOnce, H: p.map4.h, W: p.map4.w, Everywhere: everywhere})
		}
	}
	t.all = g.Stage()
	g.Do(tidy)
	fit(true)
	t.cut = g.Stage()
	g.Do(tidy)
	fit(false)
	t.tidy = g.Stage()
	tidy.Speck, tidy.Island = speck, islandToMain
	g.Do(tidy)
	fit(false)

	tapsY, tapsX := m.network.taps(p.map4.h, p.Height, h), m.network.taps(p.map4.w, p.Width, w)
	paint := kernel.Paint{TapsY: g.Data(tapsY.Encode()), TapsX: g.Data(tapsX.Encode()),
		H: p.Height, W: p.Width, HI: p.map4.h, WI: p.map4.w}
	if p.guide.Valid() {
		paint.Pixels = p.smooth
	}
	t.mask = g.KeepBytes(pixels)
	for i := range t.masks {
		t.masks[i] = g.Stage()
		one := paint
		one.Mask, one.A, one.T = t.mask, t.fits.At(i*numbers*cells), 1
		g.Do(one)
	}
	// What was best at each pixel is of no use any more when labels get colours.
	t.labels = g.Stage()
	paint.Label, paint.Best, paint.A, paint.T = t.label, t.colour, t.fits, mapsAtOnce
	paint.Index, paint.Count = p.ask.index, p.ask.prompts
	g.Do(paint)
	t.colours = g.Stage()
	g.Do(kernel.Colour{Dst: t.colour, Label: t.label, Palette: p.ask.palette, N: pixels})
}

// Memory is the number of bytes that the picture's arena takes.
func (p *Picture) Memory() int { return p.program.ArenaSize() }

// Work is what a stage takes: the number of its ops, and how many bytes they
// move and would have to move at least, see kernel.Program.Traffic.
func (p *Picture) Work(stage int) (ops, moved, least int) {
	moved, least = p.program.Traffic(stage)
	return len(p.program.Ops(stage)), moved, least
}

// EncodeStage is the stage that Encode runs, and SegmentStage the one that
// Segment ran last.
func (p *Picture) EncodeStage() int  { return 0 }
func (p *Picture) SegmentStage() int { return p.asked }

// Session and Pixels let a host write RGBA pixels where the program reads
// them, without a copy in between.
func (p *Picture) Session() kernel.Session { return p.session }

// Pixels is where Width × Height RGBA pixels go.
func (p *Picture) Pixels() kernel.View { return p.pixels }

// Write copies RGBA pixels, rows from top to bottom.
func (p *Picture) Write(rgba []byte) error {
	if p.session == nil {
		return ErrPictureClosed
	}
	if len(rgba) != 4*p.Width*p.Height {
		return ErrPixels
	}
	if err := p.keepLatest(); err != nil {
		return err
	}
	return p.session.Write(p.pixels, rgba)
}

// Encode computes what does not depend on any prompt.
func (p *Picture) Encode() error {
	if p.session == nil {
		return ErrPictureClosed
	}
	if err := p.keepLatest(); err != nil {
		return err
	}
	p.encodes++
	p.crops.embeddings = nil
	p.held = held{} // what is painted may lie where encoding works
	if err := p.session.Run(0); err != nil {
		return err
	}
	if err := p.session.Wait(); err != nil {
		return err
	}
	p.encoded = true
	return nil
}

// Close frees the picture's arena.
func (p *Picture) Close() error {
	if p.session == nil {
		return nil
	}
	p.keepLatest()
	err := p.session.Close()
	p.session = nil
	return err
}

// NoThreshold is a threshold that everything is above: a label map names the
// strongest prompt of every pixel, as benchmarks without a background have it,
// and nothing is too small to be meant. Masks cover the whole picture.
const NoThreshold = -1

// Options of one segmentation.
type Options struct {
	// Threshold of the masks, between 0 and 1; 0 means the model's own, and
	// NoThreshold none.
	Threshold float32
	// Presence is the score from which a prompt counts as present; 0 means
	// one half. A negative one calls every prompt present.
	Presence float32
	// Unguided hides the prompts from the mask decoder, whose queries then
	// find only the null key to attend to. The proposals depend on the picture
	// alone, and prompts only name them: what a model without the method does,
	// though with weights that were trained with it.
	Unguided bool

	named []float32 // P of the prompts, Q numbers for each, where it is known before they are asked for
}

// seen is how many of the phrases the mask decoder reads.
func (o Options) seen(phrases int) int {
	if o.Unguided {
		return 0
	}
	return phrases
}

// Result is the answer to a set of prompts. It stays valid when the picture
// is segmented again, until it is closed, or, where masks follow its edges, until
// it is encoded again. Its maps stay on the device as long
// as they can; when the picture is segmented again or closed they are copied,
// unless Release was called before.
type Result struct {
	Prompts []Answer
	// Theta is the threshold that masks are cut at, 0 for NoThreshold.
	Theta float32
	// Named tells what the second stage calls each of the Q proposals.
	Named []Named

	picture *Picture
	encodes int       // of the picture until then
	count   int       // of prompts
	maps    []float32 // a map of H/4·W/4 for each prompt, nil while the device can make them
	cells   int
}

// Answer is what the model says of one prompt.
type Answer struct {
	Text    string
	Score   float32 // calibrated probability that it is in the picture
	Present bool    // Score ≥ Options.Presence
}

// Named is a proposal's likeliest prompt, and how likely it is against the
// other prompts and void.
type Named struct {
	Prompt int
	P      float32
}

// Segment finds each prompt in an encoded picture. A prompt may hold several
// phrases for one thing, separated by commas. The same prompt twice is asked
// for once and answered twice; a label map has the first of the two.
func (p *Picture) Segment(prompts []string, o Options) (*Result, error) {
	m := p.model
	switch {
	case p.session == nil:
		return nil, ErrPictureClosed
	case !p.encoded:
		return nil, ErrNotEncoded
	case !(o.Threshold >= 0 && o.Threshold < 1 || o.Threshold == NoThreshold):
		return nil, ErrThreshold
	}
	// The limits hold even if all prompts are the same.
	if _, _, err := split(prompts); err != nil {
		return nil, err
	}
	different, of := prompts, make([]int, len(prompts))
	for i := range of {
		of[i] = i
	}
	if o.named == nil {
		different, of = m.distinct(prompts)
	}
	shares, beside, err := m.network.ask(p, different, o)
	if err != nil {
		return nil, err
	}
	r := &Result{picture: p, encodes: p.encodes, count: len(different), cells: p.map4.cells(), Theta: o.Threshold}
	p.latest, p.held = r, held{result: r}
	switch r.Theta {
	case 0:
		r.Theta = m.Config.Theta
	case NoThreshold:
		r.Theta = 0
	}
	q, unseen := m.decoder.q, m.Config.unseen(shares)
	class, peaks := make([]float32, len(different)*q), make([]float32, len(different))
	if err := p.session.Fetch(p.reply.class, kernel.Bytes(class)); err != nil {
		return nil, err
	}
	for chunk := range r.chunks() {
		if err := r.make(chunk); err != nil {
			return nil, err
		}
		first, n := r.chunk(chunk)
		if err := p.session.Fetch(p.reply.peaks, kernel.Bytes(peaks[first:first+n])); err != nil {
			return nil, err
		}
	}
	if err := p.session.Wait(); err != nil {
		return nil, err
	}
	if beside == nil {
		beside = class
	}
	shown := class
	if unseen != nil {
		shown = capped(class, unseen, m.Config.Cap)
	}
	if len(different) < len(prompts) {
		shown, r.count = forAll(shown, q, of), len(prompts)
	}
	if unseen != nil || len(different) < len(prompts) {
		p.held = held{}
		if err := p.session.Write(p.reply.class, kernel.Bytes(shown)); err != nil {
			return nil, err
		}
	}
	presence := o.Presence
	if presence == 0 {
		presence = 0.5
	}
	r.Named = make([]Named, q)
	answers := make([]Answer, len(different))
	for t := range answers {
		first := slices.Index(of, t)
		for i, x := range class[t*q : (t+1)*q] {
			if x > r.Named[i].P {
				r.Named[i] = Named{first, x}
			}
		}
		score := m.Config.Presence.score(p.best(class, t), peaks[t], p.best(beside, t), shares[t], len(different))
		answers[t] = Answer{Score: score, Present: score >= presence}
	}
	for i, text := range prompts {
		answer := answers[of[i]]
		answer.Text = text
		r.Prompts = append(r.Prompts, answer)
	}
	return r, nil
}

// distinct are the prompts that the text encoder tells apart, and which of them
// each prompt is: case and spaces make no difference to it.
func (m *Model) distinct(prompts []string) (different []string, of []int) {
	var known [][]int32
	for _, prompt := range prompts {
		var read []int32
		for _, phrase := range token.Phrases(prompt) {
			if m.tokenizer != nil {
				read = append(read, m.tokenizer.Encode(phrase, m.Config.Text.MaxTokens)...)
			} else {
				read = append(append(read, []rune(phrase)...), 0)
			}
		}
		at := slices.IndexFunc(known, func(k []int32) bool { return slices.Equal(k, read) })
		if at < 0 {
			at, known, different = len(known), append(known, read), append(different, prompt)
		}
		of = append(of, at)
	}
	return different, of
}

// forAll gives each prompt the n numbers of the different one that it is.
func forAll(x []float32, n int, of []int) (all []float32) {
	for _, i := range of {
		all = append(all, x[i*n:(i+1)*n]...)
	}
	return all
}

// capped are the probabilities P that masks are made of, a row of Q for each
// prompt, like class. The second stage hardly tells proposals apart, so that
// all may have P near 1 if it is sure that a name is in the picture. The odds of
// a name that was never trained go down alike, until its best P is at most
// limit, where proposals differ, and then all rise in proportion, until the best
// one is as it was. If unseen is less than 1 the odds go down by that power.
func capped(class, unseen []float32, limit float32) []float32 {
	shown := slices.Clone(class)
	q := len(class) / len(unseen)
	odds := func(p float32) float64 { return float64(p) / max(1-float64(p), 1e-7) }
	for t, u := range unseen {
		row := shown[t*q : (t+1)*q]
		best := slices.Max(row)
		factor := math.Exp(float64(u) * math.Log(odds(limit)/max(odds(best), odds(limit)))) // math.Pow would add a kilobyte to the engine
		if factor == 1 {
			continue
		}
		lowered := func(p float32) float64 { x := factor * odds(p); return x / (1 + x) }
		scale := float64(best) / lowered(best)
		for i, p := range row {
			row[i] = float32(scale * lowered(p))
		}
	}
	return shown
}

// contrast asks for the common names beside the prompts. It returns where the
// probabilities of the prompts are after Wait, nil where it does not ask.
func (p *Picture) contrast(phrases []*phrase, owner []int32, prompts int, o Options) ([]float32, error) {
	c := p.model.Config.Contrast
	if len(c.Names) == 0 || prompts > c.Most {
		return nil, nil
	}
	common, err := p.model.embed(c.Names)
	if err != nil {
		return nil, err
	}
	all, owners := slices.Clone(phrases), slices.Clone(owner)
	for _, name := range common {
		if len(all) < maxPhrase && !slices.ContainsFunc(phrases, func(ph *phrase) bool { return cosine(ph.embedding, name.embedding) >= c.Below }) {
			all, owners = append(all, name), append(owners, owners[len(owners)-1]+1)
		}
	}
	if err := p.run(p.segmentFor(len(all)), all, owners, o.seen(len(all)), 1); err != nil {
		return nil, err
	}
	class := make([]float32, prompts*p.model.decoder.q)
	return class, p.session.Fetch(p.reply.class, kernel.Bytes(class))
}

// cosine is that of unit vectors.
func cosine(a, b []float32) float32 {
	sum := float32(0)
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

// best is the largest of prompt t's probabilities.
func (p *Picture) best(class []float32, t int) float32 {
	q := p.model.decoder.q
	return slices.Max(class[t*q : (t+1)*q])
}

// prompts is split, with what the network knows of the phrases.
func (m *Model) prompts(prompts []string) (phrases []*phrase, owner []int32, err error) {
	names, owner, err := split(prompts)
	if err != nil {
		return nil, nil, err
	}
	phrases, err = m.embed(names)
	return phrases, owner, err
}

// split splits prompts into phrases and says which prompt each is of.
func split(prompts []string) (names []string, owner []int32, err error) {
	if len(prompts) == 0 {
		return nil, nil, ErrNoPrompt
	}
	if len(prompts) > MaxPrompts {
		return nil, nil, ErrManyPrompts
	}
	for _, prompt := range prompts {
		if len(token.Phrases(prompt)) == 0 {
			return nil, nil, ErrEmptyPrompt
		}
	}
	if names, owner = phrasesOf(prompts); len(names) > maxPhrase {
		return nil, nil, ErrManyPhrases
	}
	return names, owner, nil
}

// phrasesOf are the phrases of prompts or labels, and which one each is of.
func phrasesOf(list []string) (phrases []string, owner []int32) {
	for i, text := range list {
		for _, phrase := range token.Phrases(text) {
			phrases, owner = append(phrases, phrase), append(owner, int32(i))
		}
	}
	return phrases, owner
}

// run writes the question and runs a segment. The owners are in order. The
// decoder sees so many of the phrases, and so many of the first maps are made.
func (p *Picture) run(s segment, phrases []*phrase, owner []int32, seen, maps int) error {
	m := p.model
	if err := p.keepLatest(); err != nil {
		return err
	}
	e, n := m.decoder.e, len(phrases)
	embeddings, rows := make([]float32, 0, n*e), make([]float32, 0, n*trunkFeatures)
	coef, owners := make([]float32, 3*s.slots), make([]int32, s.slots)
	for i := range owners {
		owners[i] = -1
	}
	// Slots that are not in use keep what they hold: nothing reads it.
	for i, ph := range phrases {
		embeddings, rows = append(embeddings, ph.embedding...), append(rows, ph.row...)
		owners[i] = owner[i]
		coef[i] = (1 - ph.share*(1-m.Config.Keep)) * m.tau
		coef[s.slots+i] = ph.share * m.Config.Kappa
		coef[2*s.slots+i] = -ph.share * m.Config.Kappa * m.Config.B0
	}
	for _, in := range []struct {
		view kernel.View
		data []byte
	}{
		{p.ask.embeddings, kernel.Bytes(embeddings)}, {p.ask.rows, kernel.Bytes(rows)}, {p.ask.coef, kernel.Bytes(coef)},
		{p.ask.owner, wordBytes(owners)}, {p.ask.count, wordBytes([]int32{int32(1 + seen)})}, {p.ask.prompts, wordBytes([]int32{int32(min(maps, mapsAtOnce))})},
	} {
		if err := p.session.Write(in.view, in.data); err != nil {
			return err
		}
	}
	p.held, p.asked = held{}, s.stage
	return p.session.Run(s.stage)
}

// keepLatest copies the maps of the last result, which are about to be lost.
func (p *Picture) keepLatest() error {
	r := p.latest
	if r == nil {
		return nil
	}
	all := make([]float32, r.count*r.cells)
	for chunk := range r.chunks() {
		if err := r.make(chunk); err != nil {
			return err
		}
		first, n := r.chunk(chunk)
		if err := p.session.Fetch(p.reply.maps, kernel.Bytes(all[first*r.cells:(first+n)*r.cells])); err != nil {
			return err
		}
	}
	if err := p.session.Wait(); err != nil {
		return err
	}
	p.latest, r.maps = nil, all
	return nil
}

// chunks is how many times mapsAtOnce prompts the result has, and chunk which
// prompts one of them holds.
func (r *Result) chunks() int { return (r.count + mapsAtOnce - 1) / mapsAtOnce }
func (r *Result) chunk(i int) (first, n int) {
	return i * mapsAtOnce, min(r.count-i*mapsAtOnce, mapsAtOnce)
}

// make sees to it that the device has a chunk of the latest result's maps.
func (r *Result) make(chunk int) error {
	p := r.picture
	if p.held == (held{r, chunk, 0}) {
		return nil
	}
	_, n := r.chunk(chunk)
	p.held = held{}
	if err := p.session.Write(p.ask.prompts, wordBytes([]int32{int32(n)})); err != nil {
		return err
	}
	if err := p.session.Run(p.maps[chunk]); err != nil {
		return err
	}
	p.held = held{r, chunk, 0}
	return nil
}

// Release says that nobody will ask for masks or maps any more, which saves
// their copy.
func (r *Result) Release() {
	if r.picture.latest == r {
		r.picture.latest = nil
	}
}

func (s Presence) score(best, peak, beside, share float32, prompts int) float32 {
	logit := func(p float32) float64 {
		x := min(max(float64(p), 1e-6), 1-1e-6)
		return math.Log(x / (1 - x))
	}
	z := float64(s.Bias) + float64(s.Logit)*logit(best) + float64(s.Peak)*logit(peak) + float64(s.Prompts)*math.Log(float64(prompts)) +
		float64(s.Contrast)*logit(beside) + float64(s.Share)*float64(share)
	return float32(1 / (1 + math.Exp(-z)))
}

// Map returns a copy of prompt i's map S at stride 4, nil if the result was
// released, and the number of its columns.
func (r *Result) Map(i int) (s []float32, columns int) {
	s = make([]float32, r.cells)
	if r.maps != nil {
		copy(s, r.maps[i*r.cells:])
	} else if r.picture.latest != r || r.make(i/mapsAtOnce) != nil ||
		r.picture.session.Read(r.picture.reply.maps.At(i%mapsAtOnce*r.cells), kernel.Bytes(s)) != nil {
		s = nil
	}
	return s, r.picture.map4.w
}
