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

// convertOVSeg imports the fixture's checkpoint.
func convertOVSeg(t testing.TB) *quantize.Source {
	t.Helper()
	f := readFixture(t, "ovseg.safetensors")
	tensors, _ := f.checkpoint(t, "ovseg 2")
	source, report, err := huggingface.ConvertDetectron2(huggingface.Beside{Merges: f.bytes(t, "merges"),
		Settings: []byte(`{"short": 64, "long": 640, "heads": 4, "mask_threshold": ` + string(f.bytes(t, "threshold")) + `}`)}, tensors, nil)
	must(t, err)
	if len(report.Unused) > 0 {
		t.Errorf("nothing takes %q", report.Unused)
	}
	return source
}

// convertCLIP imports the Mask2Former of another fixture with the fixture's CLIP.
func convertCLIP(t testing.TB) *quantize.Source {
	t.Helper()
	f, source := readFixture(t, "clip.safetensors"), convert(t, readFixture(t, "mask2former.safetensors"), "mask2former")
	c := huggingface.CLIP{Config: f.bytes(t, "config"), Merges: f.bytes(t, "merges")}
	c.Tensors, c.Others = f.checkpoint(t, "clip")
	report, err := huggingface.AddCLIP(source, c)
	must(t, err)
	if len(report.Unused) > 0 {
		t.Errorf("nothing takes %q", report.Unused)
	}
	source.Config = []byte(strings.Replace(string(source.Config), `"threshold":0.5`, `"threshold":`+string(f.bytes(t, "threshold")), 1))
	return source
}

// clipped are the networks whose proposals CLIP sees one at a time.
var clipped = map[string]func(t testing.TB) *quantize.Source{"ovseg": convertOVSeg, "clip": convertCLIP}

// CLIP's image encoder, what it makes of proposals, and what they are is what
// testdata/ovseg.py has made of the same weights.
func TestClipped(t *testing.T) {
	for name, source := range clipped {
		f := readFixture(t, name+".safetensors")
		prompts := strings.Split(string(f.bytes(t, "prompts")), "\n")
		for _, d := range devices {
			t.Run(name+"/"+d.name, func(t *testing.T) {
				device, err := d.open()
				must(t, err)
				m := loadSource(t, source(t), device)
				worst := worstErrors{}
				comparePrompts(t, f, m, worst)
				for picture, size := range basePictures {
					p, err := m.NewPicture(size.width, size.height)
					must(t, err)
					// What CLIP has made of another picture must not stay.
					must(t, p.Write(testPixels("other", size.width, size.height)))
					must(t, p.Encode())
					labelMaps(t, p, prompts)
					must(t, p.Write(testPixels(picture, size.width, size.height)))
					must(t, p.Encode())
					compareClipped(t, f, picture, p, prompts, worst)
					must(t, p.Close())
				}
				worst.log(t)
			})
		}
	}
}

// compareClipped compares what a picture's proposals are.
func compareClipped(t *testing.T, f fixture, picture string, p *Picture, prompts []string, worst worstErrors) {
	t.Helper()
	b := p.model.network.(*base)
	for what, some := range map[string][]string{"": prompts, " single": prompts[:1]} {
		worst.add("scores"+what, f.compare(t, picture+"/scores"+what, labelMaps(t, p, some)))
		class := make([]float32, len(some)*b.Queries)
		must(t, p.session.Read(p.reply.class, kernel.Bytes(class)))
		worst.add("probabilities"+what, f.compare(t, picture+"/probabilities"+what, class))
	}
	if b.hidden.out > 0 {
		embeddings := make([]float32, b.Queries*b.class.out)
		must(t, p.session.Read(p.reply.logits, kernel.Bytes(embeddings)))
		worst.add("class embedding", f.compare(t, picture+"/class embedding", embeddings))
	}
	var seen []float32
	for _, e := range p.crops.embeddings {
		if e == nil {
			e = make([]float32, b.crops.e)
		}
		seen = append(seen, e...)
	}
	worst.add("clip embedding", f.compare(t, picture+"/clip embedding", seen))
}

// Crops of masks that are made up: a speck, a bar, a disc at the picture's edge, all of
// it, and none.
func TestCrops(t *testing.T) {
	f := readFixture(t, "ovseg.safetensors")
	h, config := cropHead{CropConfig: CropConfig{Mean: [3]float32{0.48145466, 0.4578275, 0.40821073}, Std: [3]float32{0.26862954, 0.26130258, 0.27577711}}}, ViTConfig{Patch: 8, Side: 4}
	frame, cells := grid{w: 96, h: 64}, grid{w: 24, h: 16}
	rgba := testPixels("crops", frame.w, frame.h)
	pixels, mean := make([]float32, len(rgba)), [3]float32{0.1, 0.2, 0.3}
	for i := range pixels {
		if i%rgbx < 3 {
			pixels[i] = (float32(rgba[i]) - 255*mean[i%rgbx]) / 128
		}
	}
	h.normalise(pixels, mean)
	r := newRegion(cells, frame)
	for i, logit := range []func(y, x float64) float64{
		func(y, x float64) float64 { return 1.3 - 4*(math.Abs(y-7)+math.Abs(x-11)) },
		func(y, _ float64) float64 { return 2.1 - 3.3*math.Abs(y-3) },
		func(y, x float64) float64 { return 5.3 - math.Hypot(y-14, x-21) },
		func(_, _ float64) float64 { return 7.7 },
		func(_, _ float64) float64 { return -1.1 },
	} {
		var logits []float32
		for j := range cells.cells() {
			logits = append(logits, float32(logit(float64(j/cells.w), float64(j%cells.w))))
		}
		name, inside := "crops/"+itoa(i), make([]float32, frame.cells())
		there := r.fill(logits, float32(math.Log(0.4/0.6)))
		for j, in := range r.inside {
			if in {
				inside[j] = 1
			}
		}
		if there {
			f.compare(t, name+" inside", inside)
		}
		if _, want := f[name+" seen"]; there != want {
			t.Errorf("mask %d: there is %v, want %v", i, there, want)
		}
		if !there {
			continue
		}
		crop := make([]float32, config.size()*config.size()*rgbx)
		r.cut(crop, pixels, config.size())
		f.compare(t, name+" seen", columns(crop, rgbx, 3))
		const first = 100
		in, out, touched := make([]int32, config.tokens()), make([]int32, config.tokens()), make([]float32, config.tokens()-1)
		r.prompts(in, out, config, first)
		if in[0] != first || out[0] != -1 {
			t.Errorf("mask %d: the picture's own token is %d, replaced by %d", i, in[0], out[0])
		}
		for j := range touched {
			switch [2]int32{in[1+j], out[1+j]} {
			case [2]int32{first + 1 + int32(j), -1}:
				touched[j] = 1
			case [2]int32{-1, int32(j)}:
			default:
				t.Errorf("mask %d, patch %d: its own token is %d, replaced by %d", i, j, in[1+j], out[1+j])
			}
		}
		f.compare(t, name+" touched", touched)
	}
}

// Mask prompts, worked out by hand: two pictures of two by two patches, and layers that
// only copy.
func TestMaskPrompts(t *testing.T) {
	c := ViTConfig{Width: 16, Heads: 1, FFN: 16, Layers: 2, Patch: 1, Side: 2, Embedding: 16, Prompts: 2}
	source := newRandom()
	source.change = func(name string, dst []float32) {
		clear(dst)
		switch {
		case name == "vit.masked.0", name == "vit.masked.1":
			for i := range dst {
				dst[i] = 1000 * float32(1+i/c.Width) // a patch's number
				if name == "vit.masked.1" {
					dst[i] *= 10
				}
				dst[i] *= float32(i % c.Width)
			}
		case name == "vit.position":
			dst[0] = 7 // the first token is not replaced
		case name == "vit.patch.weight":
			dst[3] = 1 // the second channel is a pixel's red
		}
	}
	for _, d := range devices {
		device, err := d.open()
		must(t, err)
		constants := &kernel.Constants{}
		l := &loader{source: source, constants: constants, precision: Float32}
		v := l.clipViT(c)
		must(t, l.err)
		g := newGraph(&kernel.Program{})
		g.Stage()
		in, out := v.input(g, 2), g.Keep(2*c.Embedding)
		v.run(g, in, out)
		// What goes into the position code, and what into the second layer.
		var rows []float32
		var views []kernel.View
		for _, o := range opsOf(g.Program, 0, func(o kernel.Gather) bool { return o.Res.Valid() }) {
			views = append(views, o.Dst)
		}
		if len(views) != 2 {
			t.Fatalf("patches are replaced %d times", len(views))
		}
		taps := newTaps(g.Program, map[string]tap{"0": {views[0], 2 * 5 * c.Width}, "1": {views[1], 2 * 5 * c.Width}})
		g.Plan()
		must(t, device.Load(constants))
		s, err := device.Open(g.Program)
		must(t, err)
		pixels := make([]float32, 2*4*rgbx)
		for i := range 8 {
			pixels[i*rgbx] = float32(1 + i)
		}
		must(t, s.Write(in.pixels, kernel.Bytes(pixels)))
		must(t, s.Write(in.inside, wordBytes([]int32{0, 1, -1, 3, -1, 5, -1, -1, -1, 9})))
		must(t, s.Write(in.outside, wordBytes([]int32{-1, -1, 1, -1, 3, -1, 0, 1, 2, -1})))
		for stage := range taps.stage {
			must(t, s.Run(stage))
		}
		all := taps.read(t, s)
		rows = columns(all["0"], c.Width, 2)
		// Tokens' first two numbers: a patch's pixel, or what replaces it, with their position.
		if want := []float32{7, 0, 0, 1, 0, 2000, 0, 3, 0, 4000, 7, 0, 0, 1000, 0, 2000, 0, 3000, 0, 8}; !slices.Equal(rows, want) {
			t.Errorf("%s: before the first layer tokens are %v, want %v", d.name, rows, want)
		}
		// The norm before the first layer has made zeros of all others.
		rows = columns(all["1"], c.Width, 2)
		if want := []float32{0, 0, 0, 0, 0, 20000, 0, 0, 0, 40000, 0, 0, 0, 10000, 0, 20000, 0, 30000, 0, 0}; !slices.Equal(rows, want) {
			t.Errorf("%s: before the second layer tokens are %v, want %v", d.name, rows, want)
		}
		must(t, device.Close())
	}
}

// What a query is, worked out by hand. Of two prompts the class head says 3 to 1, with
// void as likely as both, and CLIP 1 to 4.
func TestOVSegEnsemble(t *testing.T) {
	ln := func(x float64) float32 { return float32(math.Log(x)) }
	phrases := []*phrase{{embedding: []float32{1, 0, 0, 0}}, {embedding: []float32{0, 1, 0, 0}}}
	// A unit vector whose products with the phrases and void, times the scale, are the logits.
	unit := func(a, b, c, scale float32) []float32 {
		x := []float32{a / scale, b / scale, c / scale, 0}
		x[3] = float32(math.Sqrt(1 - float64(x[0]*x[0]+x[1]*x[1]+x[2]*x[2])))
		return x
	}
	const scale = 10
	x, y := unit(ln(3), 0, ln(4), scale), unit(0, ln(4), 0, scale)
	for _, c := range []struct {
		about string
		share float64
		seen  []float32
		want  []float64
	}{
		{"both", 0.7, y, []float64{math.Pow(3./8, 0.3) * math.Pow(1./5, 0.7), math.Pow(1./8, 0.3) * math.Pow(4./5, 0.7)}},
		{"class head", 0, y, []float64{3. / 8, 1. / 8}},
		{"CLIP", 1, y, []float64{1. / 5, 4. / 5}},
		{"no pixels", 0.7, nil, []float64{math.Pow(3./8, 0.3), math.Pow(1./8, 0.3)}},
		{"no pixels and only CLIP", 1, nil, []float64{0, 0}},
	} {
		h := &cropHead{CropConfig: CropConfig{Scale: scale, Share: c.share}, void: []float32{0, 0, 1, 0}, e: 4}
		nearly(t, c.about, h.both(slices.Clone(x), c.seen, phrases, []int32{0, 1}, 2), c.want)
	}
	h := &cropHead{CropConfig: CropConfig{Scale: scale}, e: 4}
	nearly(t, "a list", h.alone(0.25, y, phrases, []int32{0, 1}, 2), []float64{1. / 20, 4. / 20})
	nearly(t, "a list, no pixels", h.alone(0.25, nil, phrases, []int32{0, 1}, 2), []float64{0, 0})
	// The best of a prompt's names counts.
	nearly(t, "synonyms", h.alone(1, y, append(phrases, phrases[0]), []int32{0, 0, 1}, 2), []float64{4. / 5, 1. / 5})
}

func nearly(t *testing.T, about string, got, want []float64) {
	t.Helper()
	for i := range want {
		if !(math.Abs(got[i]-want[i]) < 1e-6) {
			t.Errorf("%s: got %v, want %v", about, got, want)
			return
		}
	}
}

// Where a list of labels says that queries are void, CLIP does not look at them.
func TestVoidIsNotSeen(t *testing.T) {
	source := convertCLIP(t)
	for _, x := range source.Tensors {
		if x.Name == "class.bias" {
			x.Data[len(x.Data)-1] += 100
		}
	}
	device, err := devices[1].open()
	must(t, err)
	m := loadSource(t, source, device)
	p := newEncoded(t, m, "wide", 96, 64)
	maps := labelMaps(t, p, []string{"dog", "sofa"})
	if slices.ContainsFunc(p.crops.embeddings, func(e []float32) bool { return e != nil }) || slices.Max(maps) > 0 {
		t.Errorf("CLIP has seen void, or a map is above zero: %v", slices.Max(maps))
	}
	if m.Labels != nil {
		t.Errorf("a network that takes any prompt has labels: %q", m.Labels)
	}
}

func TestClippedRefuses(t *testing.T) {
	for _, c := range []struct{ network, old, new string }{
		{"ovseg", `"prompts":3`, `"prompts":4`}, {"ovseg", `"prompts":3`, `"prompts":-1`}, {"ovseg", `"share":0.7`, `"share":1.7`},
		{"ovseg", `"share":0.7`, `"share":-0.1`}, {"ovseg", `"share":0.7`, `"none":0`}, {"ovseg", `"scale":100`, `"scale":0`}, {"ovseg", `"scale":100`, `"scale":1e9`},
		{"ovseg", `"threshold":0`, `"threshold":1`}, {"ovseg", `"threshold":0`, `"threshold":-0`}, {"ovseg", `0.26862954`, `0`}, {"ovseg", `"mean":[0.48145466,`, `"mean":[`},
		{"ovseg", `"layers":4,"heads":2`, `"layers":4,"heads":5`}, {"ovseg", `"layers":4,"heads":2`, `"layers":5,"heads":2`}, {"ovseg", `"layers":4,"heads":2`, `"layers":4000,"heads":2`},
		{"ovseg", `"templates":[`, `"other":[`}, {"ovseg", `"clip":{`, `"other":{`}, {"clip", `"clip":{`, `"other":{`}, {"clip", `"clip":{`, `"clip":{"share":0.5,`},
		{"clip", `"clip":{`, `"pmp":true,"clip":{`},
	} {
		source := clipped[c.network](t)
		refuses(t, source, c.old, c.new)
	}
	source := convertCLIP(t)
	source.Vocabulary = []byte("#version: 0.2\na b\n")
	if _, err := LoadBase(manifestOf(t, source), scalar.New(), Float32); err == nil || !strings.Contains(err.Error(), "merges") {
		t.Errorf("with another tokenizer: %v", err)
	}
	for _, c := range []struct {
		network, name string
		shape         []int
	}{
		{"ovseg", "vit.position", []int{16, 128}}, {"ovseg", "vit.position", []int{33*33 + 1, 128}}, {"ovseg", "vit.patch.weight", []int{128, 3 * 64}},
		{"ovseg", "vit.patch.weight", []int{128, 3, 257, 257}}, {"ovseg", "vit.projection", []int{40, 128}}, {"ovseg", "class.void", []int{47}},
		{"ovseg", "vit.masked.1", []int{1, 128}}, {"clip", "class.weight", []int{1, 128}}, {"clip", "class.weight", []int{11, 128}}, {"clip", "class.bias", []int{11}},
	} {
		name, shape, source := c.name, c.shape, clipped[c.network](t)
		i := slices.IndexFunc(source.Tensors, func(x quantize.Tensor) bool { return x.Name == name })
		n := 1
		for _, s := range shape {
			n *= s
		}
		source.Tensors[i].Shape, source.Tensors[i].Data = shape, make([]float32, n)
		if _, err := LoadBase(manifestOf(t, source), scalar.New(), Float32); err == nil {
			t.Errorf("%s of %v: no error", name, shape)
		}
	}
}

func TestClippedInt8(t *testing.T) {
	inIntegers(t, convertOVSeg(t), func(m *Model, p *Picture, _ []byte) map[string][]float32 {
		b, maps := m.network.(*base), labelMaps(t, p, []string{"dog", "sofa", "wall"})
		class := make([]float32, b.Queries*b.class.out)
		must(t, p.session.Read(p.reply.logits, kernel.Bytes(class)))
		return map[string][]float32{"class": class, "scores": maps}
	}, map[string]float64{"class": 0.15, "scores": 0.3})
}
