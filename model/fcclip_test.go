package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/weights/huggingface"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// fcclips are the fixtures of FC-CLIP, on a ConvNeXt and on a ResNet of CLIP, and what
// their tensors do not tell.
var fcclips = map[string]string{"fcclip": `, "text_heads": 4`, "fcclip-attention": ""}

// convertFCCLIP imports a fixture's checkpoint.
func convertFCCLIP(t testing.TB, name string) *quantize.Source {
	t.Helper()
	f := readFixture(t, name+".safetensors")
	tensors, _ := f.checkpoint(t, name)
	source, report, err := huggingface.ConvertDetectron2(huggingface.Beside{
		Names: strings.Split(string(f.bytes(t, "trained")), "\n"), Merges: f.bytes(t, "merges"),
		Settings: []byte(`{"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "short": 64, "long": 640` + fcclips[name] + `}`),
	}, tensors, nil)
	must(t, err)
	if len(report.Unused) > 0 {
		t.Errorf("nothing takes %q", report.Unused)
	}
	return source
}

// FC-CLIP computes what testdata/fcclip.py has made of the same weights: its text
// encoder, its image encoder, the embeddings of proposals, and what they are.
func TestFCCLIP(t *testing.T) {
	for name := range fcclips {
		f := readFixture(t, name+".safetensors")
		for _, d := range devices {
			t.Run(name+"/"+d.name, func(t *testing.T) {
				device, err := d.open()
				must(t, err)
				m := loadSource(t, convertFCCLIP(t, name), device)
				b, worst := m.network.(*base), worstErrors{}
				comparePrompts(t, f, m, worst)
				for picture, size := range basePictures {
					rgba := testPixels(picture, size.width, size.height)
					g := newGraph(&kernel.Program{})
					g.Stage()
					pixels := g.Input(4 * size.width * size.height)
					maps := b.trunk.run(g, b.see(g, pixels, size.width, size.height, size.width, size.height))
					views := map[string]tap{}
					for stride, x := range map[int]grid{4: maps.f4, 8: maps.f8, 16: maps.f16, 32: maps.f32} {
						views["f"+itoa(stride)] = tap{x.View, x.cells() * x.c}
					}
					taps := newTaps(g.Program, views)
					g.Plan()
					s, err := device.Open(g.Program)
					must(t, err)
					must(t, s.Write(pixels, rgba))
					for stage := range taps.stage {
						must(t, s.Run(stage))
					}
					for what, x := range taps.read(t, s) {
						worst.add(what, f.compare(t, picture+"/"+what, x))
					}
					must(t, s.Close())

					p, err := m.NewPicture(size.width, size.height)
					must(t, err)
					must(t, p.Write(rgba))
					must(t, p.Encode())
					compareProposals(t, f, picture, p, worst)
					must(t, p.Close())
				}
				worst.log(t)
			})
		}
	}
}

// comparePrompts compares embeddings of the fixture's prompts.
func comparePrompts(t *testing.T, f fixture, m *Model, worst worstErrors) {
	t.Helper()
	names, _, err := split(strings.Split(string(f.bytes(t, "prompts")), "\n"))
	must(t, err)
	phrases, err := m.embed(names)
	must(t, err)
	var text []float32
	for _, p := range phrases {
		text = append(text, p.embedding...)
	}
	worst.add("text", f.compare(t, "text", text))
}

// compareProposals compares what a picture's proposals are.
func compareProposals(t *testing.T, f fixture, picture string, p *Picture, worst worstErrors) {
	t.Helper()
	b, prompts := p.model.network.(*base), strings.Split(string(f.bytes(t, "prompts")), "\n")
	h, q := b.open, b.Queries
	said := make([]float32, q*h.width())
	must(t, p.session.Read(p.reply.logits, kernel.Bytes(said)))
	compared := slices.Clone(said)
	if h.pool != nil {
		var there []float32
		for i := range q {
			if said[2*q*h.e+i*kernel.Panel] > 0 {
				there = append(there, 1)
			} else {
				there = append(there, 0)
				clear(compared[(q+i)*h.e:][:h.e]) // it means nothing
			}
		}
		worst.add("there", f.compare(t, picture+"/there", there))
	}
	worst.add("class embedding", f.compare(t, picture+"/class embedding", compared[:q*h.e]))
	worst.add("clip embedding", f.compare(t, picture+"/clip embedding", compared[q*h.e:2*q*h.e]))
	names, owner, err := split(prompts)
	must(t, err)
	phrases, err := p.model.embed(names)
	must(t, err)
	worst.add("probabilities", f.compare(t, picture+"/probabilities", h.probabilities(said, names, phrases, owner, len(prompts))))
	worst.add("scores", f.compare(t, picture+"/scores", labelMaps(t, p, prompts)))
}

// firsts are rows of which all numbers but the first one are zero.
func firsts(width int, numbers ...float32) (rows []float32) {
	for _, x := range numbers {
		rows = append(append(rows, x), make([]float32, width-1)...)
	}
	return rows
}

// What lies under masks, worked out by hand: five cells, of which the first number is
// what a mask's own is multiplied with, and the cell's features are 1, 10, 100, ….
func TestUnder(t *testing.T) {
	const q, k, c, cells = 4, 8, 8, 5
	for _, d := range devices {
		device, err := d.open()
		must(t, err)
		defer device.Close()
		g := newGraph(&kernel.Program{})
		g.Stage()
		x := grid{g.Floats(firsts(c, 1, 10, 100, 1000, 10000)), 1, cells, c}
		mask := g.matrix(g.Floats(firsts(k, 1e-20, -1, 3, 0, -1e-20)), k, cells, true, false)
		y := g.under(g.Floats(firsts(k, 1, -5, 1e-9, 0)), q, mask, x)
		out := g.Keep(q * c)
		g.Do(kernel.Add{Dst: out, A: y, B: g.Floats(make([]float32, c)), M: q, N: c, MB: 1})
		g.Plan()
		must(t, device.Load(&kernel.Constants{}))
		s, err := device.Open(g.Program)
		must(t, err)
		must(t, s.Run(0))
		got := make([]float32, q*c)
		must(t, s.Read(out, kernel.Bytes(got)))
		// Cells 0 and 2; 1 and 4; 0 and 2; none.
		for i, want := range firsts(c, 101./2, 10010./2, 101./2, 0) {
			if math.Abs(float64(got[i]-want)) > 1e-3*math.Abs(float64(want)) {
				t.Errorf("%s: number %d is %v, want %v", d.name, i, got[i], want)
			}
		}
		must(t, s.Close())
	}
}

// Two prompts, one query, worked out by hand.
func TestEnsemble(t *testing.T) {
	ln := math.Log
	other := math.Pow(0.25, 0.2) * math.Pow(0.5, 0.8) / (math.Pow(0.75, 0.6) * math.Pow(0.5, 0.4))
	for _, c := range []struct {
		about         string
		first, second []float64 // logits
		void          float64
		known         []bool
		want          []float64
	}{
		// Probabilities of 3/4 and 1/4, and 1/2 each: with a share of 0.4 the mean is as 3^0.6 to 1.
		{"known", []float64{ln(3), 0}, []float64{0, 0}, math.Inf(-1), []bool{true, true}, []float64{math.Pow(3, 0.6) / (1 + math.Pow(3, 0.6)), 1 / (1 + math.Pow(3, 0.6))}},
		// With 0.8 it is as 3^0.2 to 1.
		{"new", []float64{ln(3), 0}, []float64{0, 0}, math.Inf(-1), []bool{false, false}, []float64{math.Pow(3, 0.2) / (1 + math.Pow(3, 0.2)), 1 / (1 + math.Pow(3, 0.2))}},
		// (3/4)^0.6 · (1/2)^0.4 against (1/4)^0.2 · (1/2)^0.8.
		{"both", []float64{ln(3), 0}, []float64{0, 0}, math.Inf(-1), []bool{true, false}, []float64{1 / (1 + other), other / (1 + other)}},
		// Void is as likely as both together, so that half is left.
		{"void", []float64{0, 0}, []float64{ln(9), 0}, ln(2), []bool{false, false}, []float64{0.5 * math.Pow(9, 0.8) / (1 + math.Pow(9, 0.8)), 0.5 / (1 + math.Pow(9, 0.8))}},
		// A single prompt is all there is beside void.
		{"single", []float64{ln(3)}, []float64{-7}, 0, []bool{true}, []float64{0.75}},
		// What is impossible for one branch is so for both, and no prompt gets less than nothing.
		{"extreme", []float64{0, 2000}, []float64{0, -2000}, 0, []bool{true, true}, []float64{0, 1}},
	} {
		got := ensemble(c.first, c.second, c.void, c.known, 0.4, 0.8)
		if slices.ContainsFunc(got, math.IsNaN) || len(got) != len(c.want) {
			t.Fatalf("%s: got %v", c.about, got)
		}
		for i, want := range c.want {
			if math.Abs(got[i]-want) > 1e-6 {
				t.Errorf("%s: got %v, want %v", c.about, got, c.want)
			}
		}
	}
}

// A name makes a prompt known if it is, letter by letter, among those of training.
func TestKnownNames(t *testing.T) {
	h := &openHead{OpenConfig: OpenConfig{Alpha: 0, Beta: 1}, e: 2, void: []float32{-1, 0}, scales: [2]float64{1, 1},
		trained: map[string]bool{"couch": true, "sofa": true}}
	// The first branch sees the first axis, the second one the other.
	embeddings := func() []float32 { return []float32{2, 0, 0, 3} }
	x, y := &phrase{embedding: []float32{1, 0}}, &phrase{embedding: []float32{0, 1}}
	for name, known := range map[string]bool{"couch": true, "sofa": true, "Sofa": false, "sofa bed": false, "sof": false} {
		p := h.probabilities(embeddings(), []string{"red", name, "other"}, []*phrase{y, x, y}, []int32{0, 0, 1}, 2)
		// The first branch alone says e/(1+e) of the first prompt, which counts if that is
		// known, and the second one 1/2 of each.
		if got := p[0] > 1.4*p[1]; got != known {
			t.Errorf("%q: P is %v, known should be %v", name, p, known)
		}
	}
}

// Under a mask that holds no cell of CLIP's map, CLIP has no share, however large it is.
func TestValidMask(t *testing.T) {
	const e = math.E
	h := &openHead{OpenConfig: OpenConfig{Alpha: 1, Beta: 1}, e: 2, void: []float32{-1, 0}, scales: [2]float64{1, 1}, pool: &attentionPool{}}
	// Two queries, for which the first branch sees the first prompt and CLIP the second one.
	said := []float32{2, 0, 1, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1e-9, 0, 0, 0, 0, 0, 0, 0}
	x, y := &phrase{embedding: []float32{1, 0}}, &phrase{embedding: []float32{0, 1}}
	got := h.probabilities(said, []string{"one", "other"}, []*phrase{x, y}, []int32{0, 1}, 2)
	// Void's logit is -1, so that something is there with (e+1)/(e+1+1/e); of that the
	// branch that counts gives e/(e+1) to what it sees.
	for i, want := range []float64{e, 1, 1, e} { // of each prompt, both queries
		if want /= e + 1 + 1/e; math.Abs(float64(got[i])-want) > 1e-6 {
			t.Errorf("number %d is %v, want %v", i, got[i], want)
		}
	}
}

// The attention pool, worked out by hand: where the query is zero, all cells under a mask
// weigh the same, and values and the result are what the cells are, with their position.
func TestAttentionPool(t *testing.T) {
	const q, k, c, cells = 4, 8, poolHead, 5
	for _, d := range devices {
		device, err := d.open()
		must(t, err)
		defer device.Close()
		constants := &kernel.Constants{}
		layer := func(diagonal float32) linear {
			return linear{in: c, out: c, bias: constants.Add(c, func([]float32) {}),
				weight: constants.Add(kernel.PackedLen(c, c), func(dst []float32) {
					kernel.PackInto(dst, c, c, func(k, n int) float32 {
						if k == n {
							return diagonal
						}
						return 0
					})
				})}
		}
		p := &attentionPool{attention: attention{q: layer(0), k: layer(1), v: layer(1), out: layer(2), heads: 1}, side: 1,
			position: constants.Add(2*c, func(dst []float32) { dst[c] = 0.5 })}
		g := newGraph(&kernel.Program{})
		g.Stage()
		x := grid{g.Floats(append(firsts(c, 1, 10, 100, 1000, 10000), make([]float32, 3*c)...)), 1, cells, c}
		mask := g.matrix(g.Floats(firsts(k, 2, -1, 3, 5, -1)), k, cells, true, false)
		out, open := g.Keep(q*c), g.Keep(q*kernel.Panel)
		p.run(g, out, open, g.Floats(firsts(k, 1, -7, 1e-3, 0)), q, mask, p.remember(g, x, q, mask.n, g.Temp))
		g.Plan()
		must(t, device.Load(constants))
		s, err := device.Open(g.Program)
		must(t, err)
		must(t, s.Run(0))
		got, sums := make([]float32, q*c), make([]float32, q*kernel.Panel)
		must(t, s.Read(out, kernel.Bytes(got)))
		must(t, s.Read(open, kernel.Bytes(sums)))
		for i, want := range []struct{ embedding, sum float32 }{{2 * (1101./3 + 0.5), 10}, {2 * (10010./2 + 0.5), 14}, {2 * (1101./3 + 0.5), 1e-2}, {0, 0}} {
			off := func(x, y float32) bool { return math.Abs(float64(x-y)) > 1e-5*float64(y) }
			if off(sums[i*kernel.Panel], want.sum) || want.sum > 0 && off(got[i*c], want.embedding) {
				t.Errorf("%s: mask %d gives %v and %v, want %v", d.name, i, got[i*c], sums[i*kernel.Panel], want)
			}
		}
		must(t, s.Close())
	}
}

func TestFCCLIPRefuses(t *testing.T) {
	for _, c := range []struct{ old, new string }{
		{`"alpha":0.4`, `"alpha":1.4`}, {`"beta":0.8`, `"beta":"x"`}, {`"widths":[32,64,96,160]`, `"widths":[32,64,96,161]`}, {`"depths":[1,1,2,1]`, `"depths":[1,1,3,1]`},
		{`"heads":4,"layers":2`, `"heads":5,"layers":2`}, {`"quick_gelu":false`, `"quick":false`}, {`"queries":20`, `"queries":21`},
	} {
		refuses(t, convertFCCLIP(t, FCCLIP), c.old, c.new)
	}
	for _, c := range []struct{ old, new string }{
		{`"deep":true`, `"deep":false`}, {`"deep":true`, `"basic":true,"deep":true`}, {`"early":false`, `"early":true`}, {`"stem":16`, `"stem":24`},
		{`"widths":[64,128,256,512]`, `"widths":[64,128,256,544]`},
	} {
		refuses(t, convertFCCLIP(t, "fcclip-attention"), c.old, c.new)
	}
	source := convertFCCLIP(t, FCCLIP)
	source.Vocabulary = []byte("#version: 0.2\na b\n")
	if _, err := LoadBase(manifestOf(t, source), scalar.New(), Float32); err == nil || !strings.Contains(err.Error(), "merges") {
		t.Errorf("with another tokenizer: %v", err)
	}
}

// CLIP sees six cells here, so that one on the other side of a mask's edge changes much.
func TestFCCLIPInt8(t *testing.T) {
	for name := range fcclips {
		t.Run(name, func(t *testing.T) {
			inIntegers(t, convertFCCLIP(t, name), func(m *Model, p *Picture, _ []byte) map[string][]float32 {
				b := m.network.(*base)
				n := b.Queries * b.open.e
				x := make([]float32, b.Queries*b.open.width())
				must(t, p.session.Read(p.reply.logits, kernel.Bytes(x)))
				return map[string][]float32{"class": x[:n], "clip": x[n : 2*n], "scores": labelMaps(t, p, []string{"dog", "sofa", "wall"})}
			}, map[string]float64{"class": 0.15, "clip": 0.5, "scores": 0.1})
		})
	}
}
