package model

import (
	"math"
	"slices"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/weights"
)

// CropConfig says how CLIP names proposals that it sees one at a time, as OVSeg has it:
// cut out of the picture, with nothing round them.
type CropConfig struct {
	ViT       ViTConfig
	Mean, Std [3]float32 // of what CLIP sees
	Threshold float64    // from which probability on a pixel is part of a mask
	Scale     float64    // of cosines
	// Hidden is the width of the middle of OVSeg's class head, which makes an embedding
	// of each query. Where it is 0, the class head is that of a list of so many names, and
	// only what it says of void counts.
	Hidden, Classes int
	Share           float64 // CLIP's in what a proposal is, beside OVSeg's class head
}

// cropHead is CLIP with its program: it encodes some crops at a time.
type cropHead struct {
	CropConfig
	vit     clipViT
	void    []float32 // unit, of OVSeg
	session kernel.Session
	input   vitInput
	output  kernel.View
	e       int
}

// cropsAtOnce is how many crops are encoded at once: enough that reading the weights
// takes little of the time.
const cropsAtOnce = 4

// other is asked for beside a single prompt, as OVSeg's demonstration does: probabilities
// are those against other names.
const other = "others"

// leastThere is how much a proposal must be anything for CLIP to look at it, where a list
// of labels tells. Most queries are void, and looking takes most of the time.
const leastThere = 0.01

func (l *loader) cropHead(c CropConfig) *cropHead {
	h := &cropHead{CropConfig: c, vit: l.clipViT(c.ViT), e: c.ViT.Embedding}
	if c.Hidden > 0 {
		h.void = l.numbers("class.void", h.e)
		normalise(h.void)
	}
	return h
}

// open makes the program.
func (h *cropHead) open(device kernel.Device) (err error) {
	g := newGraph(&kernel.Program{})
	g.Stage()
	h.input, h.output = h.vit.input(g, cropsAtOnce), g.Keep(cropsAtOnce*h.e)
	h.vit.run(g, h.input, h.output)
	g.Plan()
	h.session, err = device.Open(g.Program)
	return err
}

// cropped is what a picture has for CLIP.
type cropped struct {
	seen  kernel.View // the picture as the network sees it
	masks []int       // stages that leave mask logits of mapsAtOnce proposals in place of maps
	// embeddings are what CLIP makes of crops: a unit vector for each proposal, and none
	// for one that has no pixels. They do not depend on prompts and are made for the first.
	embeddings [][]float32
}

// look lets CLIP see a picture's proposals, of which there tells how much each is anything.
func (b *base) look(p *Picture, there func(proposal int) float64) error {
	if p.crops.embeddings != nil {
		return nil
	}
	p.held = held{} // mask logits take the place of maps
	h, q, cells := b.crops, b.Queries, p.map4.cells()
	frame := grid{w: 4 * p.map4.w, h: 4 * p.map4.h}
	pixels, logits := make([]float32, frame.cells()*rgbx), make([]float32, mapsAtOnce*cells)
	if err := p.session.Read(p.crops.seen, kernel.Bytes(pixels)); err != nil {
		return err
	}
	h.normalise(pixels, b.Mean)
	embeddings := make([][]float32, q)
	mask := newRegion(p.map4, frame)
	tokens, size := h.ViT.tokens(), h.ViT.size()
	some, inside, outside := make([]float32, cropsAtOnce*size*size*rgbx), make([]int32, cropsAtOnce*tokens), make([]int32, cropsAtOnce*tokens)
	var waiting []int // proposals that are in some
	encode := func() error {
		if len(waiting) == 0 {
			return nil
		}
		if err := h.session.Write(h.input.pixels, kernel.Bytes(some)); err != nil {
			return err
		}
		if h.ViT.Prompts > 0 {
			if err := h.session.Write(h.input.inside, wordBytes(inside)); err != nil {
				return err
			}
			if err := h.session.Write(h.input.outside, wordBytes(outside)); err != nil {
				return err
			}
		}
		if err := h.session.Run(0); err != nil {
			return err
		}
		all := make([]float32, cropsAtOnce*h.e)
		if err := h.session.Read(h.output, kernel.Bytes(all)); err != nil {
			return err
		}
		for i, proposal := range waiting {
			embeddings[proposal] = all[i*h.e:][:h.e:h.e]
			normalise(embeddings[proposal])
		}
		waiting = waiting[:0]
		return nil
	}
	least := float32(math.Log(h.Threshold / (1 - h.Threshold)))
	for i := range q {
		if i%mapsAtOnce == 0 {
			if err := p.session.Run(p.crops.masks[i/mapsAtOnce]); err != nil {
				return err
			}
			if err := p.session.Read(p.reply.maps, kernel.Bytes(logits[:min(q-i, mapsAtOnce)*cells])); err != nil {
				return err
			}
		}
		if there(i) < leastThere || !mask.fill(logits[i%mapsAtOnce*cells:][:cells], least) {
			continue
		}
		slot := len(waiting)
		mask.cut(some[slot*size*size*rgbx:][:size*size*rgbx], pixels, size)
		mask.prompts(inside[slot*tokens:][:tokens], outside[slot*tokens:][:tokens], h.ViT, int32(slot*tokens))
		if waiting = append(waiting, i); len(waiting) == cropsAtOnce {
			if err := encode(); err != nil {
				return err
			}
		}
	}
	if err := encode(); err != nil {
		return err
	}
	p.crops.embeddings = embeddings
	return nil
}

// normalise makes what CLIP expects of pixels that the network sees, see normalisation.
func (h *cropHead) normalise(pixels []float32, mean [3]float32) {
	for c := range mean {
		scale := 128 / (255 * h.Std[c])
		shift := (mean[c] - h.Mean[c]) / h.Std[c]
		for i := c; i < len(pixels); i += rgbx {
			pixels[i] = pixels[i]*scale + shift
		}
	}
}

// region is where a mask is in the picture, and the box around it.
type region struct {
	grid                     // of the picture, without channels
	inside                   []bool
	left, top, right, bottom int // the last ones are not part of it
	cells                    grid
	tapsY, tapsX             kernel.TapTable
	row                      []float32
}

func newRegion(cells, frame grid) *region {
	return &region{grid: frame, cells: cells, inside: make([]bool, frame.cells()), row: make([]float32, cells.w),
		tapsY: kernel.ResizeTaps(cells.h, frame.h), tapsX: kernel.ResizeTaps(cells.w, frame.w)}
}

// fill takes the mask where logits, resized to the picture, are above least, and tells
// whether that is anywhere.
func (r *region) fill(logits []float32, least float32) bool {
	r.left, r.top, r.right, r.bottom = r.w, r.h, 0, 0
	for y := range r.h {
		inside := r.inside[y*r.w:][:r.w]
		above, below := logits[int(r.tapsY.First[y])*r.cells.w:][:r.cells.w], logits[int(r.tapsY.First[y]+1)*r.cells.w:][:r.cells.w]
		for i := range r.row {
			r.row[i] = r.tapsY.Weights[2*y]*above[i] + r.tapsY.Weights[2*y+1]*below[i]
		}
		if slices.Max(r.row) <= least {
			clear(inside)
			continue
		}
		for x := range inside {
			i := r.tapsX.First[x]
			inside[x] = r.tapsX.Weights[2*x]*r.row[i]+r.tapsX.Weights[2*x+1]*r.row[i+1] > least
			if inside[x] {
				r.left, r.right, r.top, r.bottom = min(r.left, x), max(r.right, x+1), min(r.top, y), y+1
			}
		}
	}
	return r.bottom > 0
}

// cut resizes the box to size by size pixels, in which what lies outside of the mask is
// zero: CLIP's mean. As OVSeg has it, the resize is bicubic and is not filtered where
// boxes are larger (PyTorch's interpolate with antialias=False, where a is -0.75).
func (r *region) cut(dst, pixels []float32, size int) {
	ys, xs := cubic(r.bottom-r.top, size), cubic(r.right-r.left, size)
	row := make([]float32, (r.right-r.left)*rgbx)
	for y := range size {
		clear(row)
		for i, from := range ys[y].from {
			at := (r.top+from)*r.w + r.left
			for x, inside := range r.inside[at:][:r.right-r.left] {
				if inside {
					for c := range 3 {
						row[x*rgbx+c] += ys[y].weight[i] * pixels[(at+x)*rgbx+c]
					}
				}
			}
		}
		for x := range size {
			to := dst[(y*size+x)*rgbx:][:rgbx]
			clear(to)
			for i, from := range xs[x].from {
				for c := range 3 {
					to[c] += xs[x].weight[i] * row[from*rgbx+c]
				}
			}
		}
	}
}

// fourTaps are what an output of a bicubic resize is made of.
type fourTaps struct {
	from   [4]int
	weight [4]float32
}

func cubic(in, out int) []fourTaps {
	const a = -0.75
	taps := make([]fourTaps, out)
	for i := range taps {
		at := (float64(i)+0.5)*float64(in)/float64(out) - 0.5
		first := math.Floor(at)
		for j := range 4 {
			taps[i].from[j] = min(max(int(first)-1+j, 0), in-1)
			d := math.Abs(at - first + 1 - float64(j))
			if d <= 1 {
				taps[i].weight[j] = float32((a+2)*d*d*d - (a+3)*d*d + 1)
			} else {
				taps[i].weight[j] = float32(a*d*d*d - 5*a*d*d + 8*a*d - 4*a)
			}
		}
	}
	return taps
}

// prompts tells which tokens are those of patches that the mask touches, and which
// patches replace the others. The first token's number is first. As OVSeg has it, each
// pixel of a crop is in the mask if the nearest one of the box is.
func (r *region) prompts(inside, outside []int32, c ViTConfig, first int32) {
	size, width, height := c.size(), r.right-r.left, r.bottom-r.top
	inside[0], outside[0] = first, -1
	for i := 1; i < len(inside); i++ {
		inside[i], outside[i] = -1, int32(i-1)
	}
	for y := range size {
		row := r.inside[(r.top+nearest(y, height, size))*r.w+r.left:][:width]
		for x := range size {
			if i := 1 + y/c.Patch*c.Side + x/c.Patch; outside[i] >= 0 && row[nearest(x, width, size)] {
				inside[i], outside[i] = first+int32(i), -1
			}
		}
	}
}

// nearest is PyTorch's, with its rounding.
func nearest(i, in, out int) int {
	return min(int(float32(i)*(float32(in)/float32(out))), in-1)
}

// cropped takes any prompts.
func (b *base) cropped(names []string, owner []int32, prompts int) (namer, error) {
	phrases, err := b.embed(names)
	all := prompts
	if err == nil && prompts == 1 {
		var beside *phrase
		beside, err = b.beside()
		phrases, owner, all = append(phrases, beside), append(slices.Clone(owner), 1), 2
	}
	if err != nil {
		return nil, err
	}
	return func(p *Picture) ([]float32, error) {
		q, width := b.Queries, b.class.out
		class := make([]float32, q*width)
		if err := p.session.Read(p.reply.logits, kernel.Bytes(class)); err != nil {
			return nil, err
		}
		there := func(int) float64 { return 1 }
		if b.crops.Hidden == 0 {
			for i := range q {
				softmax(class[i*width:][:b.crops.Classes+1])
			}
			there = func(i int) float64 { return 1 - float64(class[i*width+b.crops.Classes]) }
		}
		if err := b.look(p, there); err != nil {
			return nil, err
		}
		probabilities := make([]float32, all*q)
		for i := range q {
			var named []float64
			if b.crops.Hidden > 0 {
				named = b.crops.both(class[i*width:][:width], p.crops.embeddings[i], phrases, owner, all)
			} else {
				named = b.crops.alone(there(i), p.crops.embeddings[i], phrases, owner, all)
			}
			for t, v := range named {
				probabilities[t*q+i] = float32(v)
			}
		}
		return probabilities[:prompts*q], nil
	}, nil
}

// beside is what the network knows of other.
func (b *base) beside() (*phrase, error) {
	if b.known != nil {
		return b.known[len(b.names)], nil
	}
	phrases, err := b.model.embed([]string{other})
	if err != nil {
		return nil, err
	}
	return phrases[0], nil
}

// both is P of prompts where OVSeg's class head has made x of a query and CLIP has made y
// of its crop: a geometric mean, which need not add up to one. Void, which only the first
// one knows, takes its part of that. Of a proposal without pixels CLIP says nothing, which
// counts as 1.
func (h *cropHead) both(x, y []float32, phrases []*phrase, owner []int32, prompts int) []float64 {
	if y == nil && h.Share == 1 { // nobody says anything
		return make([]float64, prompts)
	}
	normalise(x)
	p := logSoftmax(append(promptLogits(x, h.Scale, phrases, owner, prompts), h.Scale*dot(x, h.void)))[:prompts]
	seen := make([]float64, prompts)
	if y != nil {
		seen = logSoftmax(promptLogits(y, h.Scale, phrases, owner, prompts))
	}
	for t := range p {
		p[t] = math.Exp((1-h.Share)*p[t] + h.Share*seen[t])
	}
	return p
}

// alone is P of prompts where only CLIP names a proposal, which is there times anything.
func (h *cropHead) alone(there float64, y []float32, phrases []*phrase, owner []int32, prompts int) []float64 {
	if y == nil {
		return make([]float64, prompts)
	}
	p := logSoftmax(promptLogits(y, h.Scale, phrases, owner, prompts))
	for t := range p {
		p[t] = there * math.Exp(p[t])
	}
	return p
}

// readCrops reads what the manifest says of crops.
func readCrops(m *weights.Manifest) (*CropConfig, error) {
	c, f := &CropConfig{}, m.Fields().Fields("clip")
	c.Threshold, c.Scale = f.Float("threshold"), f.Float("scale")
	threeOf(f, "mean", &c.Mean)
	threeOf(f, "std", &c.Std)
	var err error
	if f.Has("share") {
		c.Share = f.Float("share")
		err = sides(m, "class.mlp.0.weight", &c.Hidden, new(int))
	} else {
		err = sides(m, "class.weight", &c.Classes, new(int))
		c.Classes-- // void is no name
	}
	if err != nil {
		return nil, err
	}
	return c, c.ViT.read(m, f)
}

func (c *CropConfig) sensible() bool {
	ok := c.ViT.sensible() && c.Threshold > 0 && c.Threshold < 1 && c.Scale > 0 && c.Scale <= 1000 && c.Share >= 0 && c.Share <= 1 &&
		(multiple(c.Hidden, 8, kernel.MaxK8, 8) || c.Hidden == 0 && within(c.Classes, 1, MaxLabels))
	for _, s := range c.Std {
		ok = ok && s > 0
	}
	return ok
}
