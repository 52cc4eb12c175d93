package model

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// taps are copies of intermediate tensors, made by a stage of their own so
// that the stages under test stay as they are.
type taps struct {
	stage int
	views map[string]tap
}

type tap struct {
	kernel.View
	n int
}

// newTaps records the copies. It must come before the program is planned.
func newTaps(p *kernel.Program, views map[string]tap) taps {
	t := taps{p.Stage(), map[string]tap{}}
	for name, v := range views {
		to := p.Keep(v.n)
		p.Do(kernel.Activate{Dst: to, A: v.View, N: v.n})
		t.views[name] = tap{to, v.n}
	}
	return t
}

// read runs the copies and returns them.
func (t taps) read(tb testing.TB, s kernel.Session) map[string][]float32 {
	tb.Helper()
	must(tb, s.Run(t.stage))
	out := map[string][]float32{}
	for name, v := range t.views {
		x := make([]float32, v.n)
		must(tb, s.Read(v.View, kernel.Bytes(x)))
		out[name] = x
	}
	return out
}

// opsOf returns the ops of one type in a stage that fit.
func opsOf[T kernel.Op](p *kernel.Program, stage int, fits func(T) bool) []T {
	var out []T
	for _, op := range p.Ops(stage) {
		if o, ok := op.(T); ok && fits(o) {
			out = append(out, o)
		}
	}
	return out
}

func all[T any](T) bool { return true }

// imageTaps finds the tensors of the first stage by the ops that make or
// read them, so that the network's code needs no hooks.
func imageTaps(p *Picture) map[string]tap {
	c := p.model.Config
	cells := p.map4.cells()
	at := func(stride int) int { return cells * 16 / stride / stride }
	product := func(n, k int) kernel.MatMul {
		return opsOf(p.program, 0, func(o kernel.MatMul) bool { return o.N == n && o.K == k })[0]
	}
	up := opsOf(p.program, 0, all[kernel.UpsampleAdd])
	positioned := opsOf(p.program, 0, all[kernel.AddPosition])
	packed := opsOf(p.program, 0, func(o kernel.Pack) bool { return o.K == c.DM && o.Transposed })
	picture := opsOf(p.program, 0, all[kernel.Picture])[0]
	return map[string]tap{
		"x":    {picture.Dst, picture.HP * picture.WP * rgbx},
		"f4":   {product(c.DM, 24).A, at(4) * 24},
		"f8":   {product(c.D, 40).A, at(8) * 40},
		"f16":  {product(c.D, 112).A, at(16) * 112},
		"f32":  {product(c.D, 320).A, at(32) * 320},
		"head": {product(trunkFeatures, 320).Dst, at(32) * trunkFeatures},
		"x32":  {up[0].A, at(32) * c.D},
		"x16":  {up[0].Dst, at(16) * c.D},
		"x8":   {up[1].Dst, at(8) * c.D},
		"x4":   {up[2].Dst, at(4) * c.DM},
		"P32":  {positioned[1].A, at(32) * c.D},
		"P16":  {positioned[2].A, at(16) * c.D},
		"P8":   {positioned[3].A, at(8) * c.D},
		"M4":   {packed[0].A, at(4) * c.DM},
		"M8":   {packed[1].A, at(8) * c.DM},
		"M16":  {packed[2].A, at(16) * c.DM},
		"M32":  {packed[3].A, at(32) * c.DM},
	}
}

// segmentTaps finds the tensors of one segment's stage. Each decoder layer
// has four layer norms over D channels: before its mask proposal, and after
// the attention to the image, the self-attention and the feed-forward part.
func segmentTaps(p *Picture, s segment) map[string]tap {
	c, q := p.model.Config, p.model.decoder.q
	norms := opsOf(p.program, s.stage, func(o kernel.LayerNorm) bool { return o.N == c.D })
	// made returns the product whose result is v.
	made := func(v kernel.View) kernel.MatMul {
		return opsOf(p.program, s.stage, func(o kernel.MatMul) bool { return o.Dst == v })[0]
	}
	classify := opsOf(p.program, s.stage, all[kernel.Classify])[0]
	views := map[string]tap{
		"text_tokens": {opsOf(p.program, s.stage, all[kernel.Activate])[0].Dst, (s.slots + 1) * c.D},
		"text_first":  {norms[0].A, q * c.D},
		"mask_embed":  {p.reply.embedding, q * c.DM},
		"pooled":      {opsOf(p.program, s.stage, func(o kernel.MatMul) bool { return o.N == trunkFeatures })[0].Dst, q * trunkFeatures},
		"e":           {made(classify.Void).A, q * c.Text.Width},
		"a":           {classify.A, q * s.slots},
		"b":           {classify.B, q * s.slots},
		"v":           {classify.Void, q * kernel.Panel},
		"P":           {p.reply.class, q * (s.slots + 1)},
		"S":           {p.reply.maps, s.slots * p.map4.cells()},
	}
	for i := range c.Layers {
		name := "layers." + itoa(i)
		views[name+".image"] = tap{norms[4*i+1].Dst, q * c.D}
		views[name+".text"] = tap{made(norms[4*i+2].A).Res, q * c.D}
		views[name+".self"] = tap{norms[4*i+2].Dst, q * c.D}
		views[name+".ffn"] = tap{norms[4*i+3].Dst, q * c.D}
	}
	return views
}

// tapped is a picture with taps on its first stage and on two segments.
type tapped struct {
	*Picture
	image    taps
	segments map[int]taps // by number of slots
}

func newTapped(t testing.TB, m *Model, width, height int, rgba []byte) tapped {
	t.Helper()
	p := tapped{Picture: m.record(width, height), segments: map[int]taps{}}
	p.image = newTaps(p.program, imageTaps(p.Picture))
	for _, s := range p.Picture.segments[:2] {
		p.segments[s.slots] = newTaps(p.program, segmentTaps(p.Picture, s))
	}
	p.program.Plan()
	var err error
	p.session, err = m.device.Open(p.program)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	must(t, p.Write(rgba))
	must(t, p.Encode())
	return p
}

// columns cuts every row of width numbers to its first n.
func columns(x []float32, width, n int) []float32 {
	var out []float32
	for ; len(x) > 0; x = x[width:] {
		out = append(out, x[:n]...)
	}
	return out
}

// Every part of the network computes what PyTorch computes, tensor by
// tensor: the trunk what timm's computes, the decoders what
// torch.nn.MultiheadAttention and a second reading of the description
// compute (make.py sees to that).
func TestNetwork(t *testing.T) {
	f := readFixture(t, "network.safetensors")
	onDevices(t, func(t *testing.T, m *Model) {
		worst := worstErrors{}
		for name, size := range testPictures {
			p := newTapped(t, m, size.width, size.height, testPixels(name, size.width, size.height))
			for part, got := range p.image.read(t, p.session) {
				if part == "x" {
					for i := 3; i < len(got); i += rgbx {
						if got[i] != 0 {
							t.Fatal("the picture's fourth channel is not zero")
						}
					}
					got = columns(got, rgbx, 3)
				}
				worst.add(part, f.compare(t, name+"/"+part, got))
			}
			for prompts, texts := range testPrompts {
				if _, ok := f[name+"/"+prompts+"/E"]; ok {
					compareSegment(t, f, p, name+"/"+prompts, texts, worst)
				}
			}
		}
		worst.log(t)
	})
}

func compareSegment(t *testing.T, f fixture, p tapped, name string, prompts []string, worst worstErrors) {
	phrases, owner, err := p.model.prompts(prompts)
	must(t, err)
	s := p.segmentFor(len(phrases))
	must(t, p.run(s, phrases, owner, len(phrases), len(prompts)))
	n, c, q := len(phrases), p.model.Config, p.model.decoder.q
	var e, row, w []float32
	for _, ph := range phrases {
		e, row, w = append(e, ph.embedding...), append(row, ph.row...), append(w, ph.share)
	}
	got := p.segments[s.slots].read(t, p.session)
	got["masks"] = proposalsOf(t, p.Picture)
	got["E"], got["row"], got["w"] = e, row, w
	got["text_tokens"] = got["text_tokens"][:(n+1)*c.D]
	got["a"], got["b"] = columns(got["a"], s.slots, n), columns(got["b"], s.slots, n)
	for i := range got["a"] {
		got["a"][i] *= p.model.tau // which the engine has in a coefficient
	}
	got["v"] = columns(got["v"], kernel.Panel, 1)
	got["P"] = slices.Concat(got["P"][:len(prompts)*q], got["P"][s.slots*q:])
	got["S"] = got["S"][:len(prompts)*p.map4.cells()]
	for part, x := range got {
		worst.add(part, f.compare(t, name+"/"+part, x))
	}
}

// The text encoder computes what transformers' BertModel computes with the
// same weights, for all texts together and for each alone.
func TestTextEncoder(t *testing.T) {
	f := readFixture(t, "network.safetensors")
	onDevices(t, func(t *testing.T, m *Model) {
		worst := worstErrors{}
		var texts []string
		var tokens []int
		for i := 0; ; i++ {
			name := fmt.Sprintf("text/%d/", i)
			if _, ok := f[name+"ids"]; !ok {
				break
			}
			text := string(f.bytes(t, name+"bytes"))
			var ids []float32
			for _, id := range m.tokenizer.Encode(text, m.Config.Text.MaxTokens) {
				ids = append(ids, float32(id))
			}
			if want := f.floats(t, name+"ids"); !slices.Equal(ids, want) {
				t.Errorf("%q has tokens %v, want %v", text, ids, want)
			}
			texts, tokens = append(texts, text), append(tokens, len(ids))
		}
		if len(texts) < 2 {
			t.Fatal("the fixture has no texts")
		}
		for i, text := range texts {
			must(t, m.encodeTexts([]string{text}, func(_ int, e []float32) {
				worst.add(fmt.Sprintf("E of %2d tokens", tokens[i]), f.compare(t, fmt.Sprintf("text/%d/E", i), e))
			}))
		}
		seen := 0
		must(t, m.encodeTexts(slices.Concat(texts, texts, texts), func(i int, e []float32) {
			seen++
			worst.add("E, all together", f.compare(t, fmt.Sprintf("text/%d/E", i%len(texts)), e))
		}))
		if seen != 3*len(texts) {
			t.Errorf("%d of %d texts have an embedding", seen, 3*len(texts))
		}
		worst.log(t)
	})
}

// The public face gives what PyTorch gives: scores, maps, masks and label
// maps at the picture's own resolution.
func TestAnswer(t *testing.T) {
	f := readFixture(t, "network.safetensors")
	onDevices(t, func(t *testing.T, m *Model) {
		worst := worstErrors{}
		for name, size := range testPictures {
			p := newEncoded(t, m, name, size.width, size.height)
			for prompts, texts := range testPrompts {
				if _, ok := f[name+"/"+prompts+"/E"]; ok {
					compareAnswer(t, f, p, name+"/"+prompts, texts, worst)
				}
			}
		}
		worst.log(t)
	})
}

// newEncoded returns an encoded picture.
func newEncoded(t testing.TB, m *Model, name string, width, height int) *Picture {
	t.Helper()
	p, err := m.NewPicture(width, height)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	must(t, p.Write(testPixels(name, width, height)))
	must(t, p.Encode())
	return p
}

// compareMasks compares masks, wherever rounding does not decide.
func compareMasks(t *testing.T, f fixture, r *Result, name string) {
	t.Helper()
	pixels := r.picture.Width * r.picture.Height
	got := make([]byte, pixels)
	want, sure := f.bytes(t, name+"mask"), f.bytes(t, name+"mask sure")
	set := 0
	for i := range r.Prompts {
		must(t, r.Mask(i, got))
		for j, m := range got {
			set += int(m)
			if bit(sure, i*pixels+j) && (m == 1) != bit(want, i*pixels+j) {
				t.Errorf("%s: the mask of prompt %d is wrong at pixel %d", name, i, j)
				break
			}
		}
	}
	if set == 0 || set == pixels*len(r.Prompts) {
		t.Errorf("%s: the masks have %d pixels, so they test nothing", name, set)
	}
}

func compareAnswer(t *testing.T, f fixture, p *Picture, name string, prompts []string, worst worstErrors) {
	theta := f.floats(t, name+"/theta")[0]
	// All prompts count as present, so that all masks are seen. Queries with
	// random weights do not share the picture out, so that maps and the
	// threshold that cuts them in half lie above 1.
	r, err := p.Segment(prompts, Options{Presence: -1})
	must(t, err)
	r.Theta = theta
	var scores, maps []float32
	for i, a := range r.Prompts {
		if a.Text != prompts[i] || !a.Present {
			t.Errorf("%s: prompt %d is answered as %+v", name, i, a)
		}
		s, columns := r.Map(i)
		if columns != p.map4.w {
			t.Errorf("%s: a map has %d columns, want %d", name, columns, p.map4.w)
		}
		scores, maps = append(scores, a.Score), append(maps, s...)
	}
	worst.add("score", f.compare(t, name+"/score", scores))
	worst.add("S", f.compare(t, name+"/S", maps))

	compareMasks(t, f, r, name+"/")
	got := make([]byte, p.Width*p.Height)
	// Masks of single prompts were painted in between and must leave no trace.
	must(t, r.LabelMap(got))
	label, sure := f.bytes(t, name+"/label"), f.bytes(t, name+"/label sure")
	for j, l := range got {
		if bit(sure, j) && l != label[j] {
			t.Errorf("%s: the label of pixel %d is %d, want %d", name, j, l, label[j])
			break
		}
	}
}
