package model

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
	"github.com/pmp-seg/pmp/weights/huggingface"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// The pictures that testdata/base.py has shown to the networks. Their sides are
// multiples of 32, and the short one is as long as the preprocessor wants it, so
// that nothing is resized.
var basePictures = map[string]struct{ width, height int }{
	"wide": {96, 64},
	"tall": {64, 160},
}

// checkpoint returns the tensors that save_pretrained would write, with numbers
// that come from their names, and the names of those that are integers.
func (f fixture) checkpoint(t testing.TB, name string) (tensors []quantize.Tensor, others []string) {
	t.Helper()
	return checkpointtest.Tensors(t, f.bytes(t, "names"), func(x quantize.Tensor) {
		middle, width := checkpointtest.Spread(x.Name, x.Shape)
		s := newStream(name + "/" + x.Name)
		for i := range x.Data {
			x.Data[i] = float32(middle + float64(width*s.uniform(i)))
		}
	})
}

// convert imports a fixture's checkpoint.
func convert(t testing.TB, f fixture, name string) *quantize.Source {
	t.Helper()
	tensors, others := f.checkpoint(t, name)
	source, report, err := huggingface.Convert(f.bytes(t, "config"), []byte(`{"size":{"shortest_edge":64,"longest_edge":640}}`), tensors, others)
	must(t, err)
	for _, unused := range report.Unused {
		if !huggingface.Ignored(unused) {
			t.Errorf("nothing takes %q", unused)
		}
	}
	return source
}

// newTestBase builds the network of a fixture's checkpoint.
func newTestBase(t testing.TB, f fixture, name string, device kernel.Device) *Model {
	t.Helper()
	return loadSource(t, convert(t, f, name), device)
}

// loadSource builds the network of a source as it is read after it was written.
func loadSource(t testing.TB, source *quantize.Source, device kernel.Device) *Model {
	t.Helper()
	source.Store = weights.F32
	m, err := LoadBase(manifestOf(t, source), device, Float32)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// baseTaps are what the parts of a network leave, by the names in the fixture.
func baseTaps(t testing.TB, m *Model, width, height int, rgba []byte) map[string][]float32 {
	t.Helper()
	b, d := m.network.(*base), &m.decoder.maskDecoder
	g := newGraph(&kernel.Program{})
	g.Stage()
	pixels := g.Input(4 * width * height)
	f := b.trunk.run(g, b.see(g, pixels, width, height, width, height))
	pixelStage := g.Stage()
	pyramid := b.pixels.run(g, f)
	decoderStage := g.Stage()
	image, embedding := d.remember(g, pyramid), g.Temp(d.q*d.dm)
	d.maskEmbedding(g, d.decode(g, image, tokens{}), embedding)
	views := map[string]tap{}
	// Not what a picture keeps, which is behind a sigmoid that large logits do not come back from.
	views["mask"] = tap{g.times(embedding, d.q, image.mask[4], kernel.ActNone), d.q * image.cells[4]}
	for stride, m := range map[int]grid{4: f.f4, 8: f.f8, 16: f.f16, 32: f.f32} {
		views["f"+itoa(stride)] = tap{m.View, m.cells() * m.c}
	}
	views["mask features"] = tap{pyramid.mask[4].View, pyramid.mask[4].cells() * d.dm}
	norms := func(stage int) []kernel.LayerNorm {
		return opsOf(g.Program, stage, func(o kernel.LayerNorm) bool { return o.N == d.d })
	}
	for i, o := range norms(pixelStage) { // two a layer
		if i%2 == 1 {
			views["pixel."+itoa(i/2)] = tap{o.Dst, o.M * o.N}
		}
	}
	if b.Arch == MaskFormer {
		for i, o := range opsOf(g.Program, pixelStage, func(o kernel.GroupNorm) bool { return o.Act == kernel.ActReLU })[1:] {
			views["pyramid."+itoa(i)] = tap{o.Dst, o.M * o.N}
		}
	} else {
		for i, o := range opsOf(g.Program, pixelStage, func(o kernel.Add) bool { return o.MB == 1 }) {
			views["pyramid."+itoa(i)] = tap{o.A, o.M * o.N}
		}
	}
	each := 3 // layer norms in a layer of MaskFormer's decoder
	if b.Arch == Mask2Former {
		each = 4 // and one before the mask
	}
	for i := range d.layers {
		views["layer."+itoa(i)] = tap{norms(decoderStage)[each*i+each-1].Dst, d.q * d.d}
	}
	taps := newTaps(g.Program, views)
	g.Plan()
	s, err := m.device.Open(g.Program)
	must(t, err)
	defer s.Close()
	must(t, s.Write(pixels, rgba))
	for stage := range taps.stage {
		must(t, s.Run(stage))
	}
	return taps.read(t, s)
}

// The networks of public checkpoints compute what transformers computes, part by
// part, and as a whole what it makes of a picture.
func TestBases(t *testing.T) {
	for _, name := range checkpointtest.Bases(t, "testdata") {
		f := readFixture(t, name+".safetensors")
		for _, d := range devices {
			t.Run(name+"/"+d.name, func(t *testing.T) {
				device, err := d.open()
				must(t, err)
				m := newTestBase(t, f, name, device)
				worst, compared := worstErrors{}, map[string]bool{}
				compare := func(name, what string, x []float32) {
					t.Helper()
					compared[name+"/"+what] = true
					worst.add(what, f.compare(t, name+"/"+what, x))
				}
				for picture, size := range basePictures {
					rgba := testPixels(picture, size.width, size.height)
					for what, x := range baseTaps(t, m, size.width, size.height, rgba) {
						compare(picture, what, x)
					}
					p, err := m.NewPicture(size.width, size.height)
					must(t, err)
					must(t, p.Write(rgba))
					must(t, p.Encode())
					compare(picture, "class", classLogits(t, p))
					compare(picture, "scores", labelMaps(t, p, m.network.(*base).Labels))
					must(t, p.Close())
				}
				for what := range f {
					if picture, _, ok := strings.Cut(what, "/"); ok && basePictures[picture].width > 0 && !compared[strings.TrimSuffix(what, "#")] {
						t.Errorf("%s is not compared", what)
					}
				}
				worst.log(t)
			})
		}
	}
}

// classLogits are those of all labels and void.
func classLogits(t testing.TB, p *Picture) []float32 {
	t.Helper()
	b := p.model.network.(*base)
	logits := make([]float32, b.Queries*b.class.out)
	must(t, p.session.Read(p.reply.logits, kernel.Bytes(logits)))
	return columns(logits, b.class.out, len(b.Labels)+1)
}

// labelMaps are the maps of prompts: sums of the proposals, each times how likely
// it has that label.
func labelMaps(t testing.TB, p *Picture, labels []string) (scores []float32) {
	t.Helper()
	r, err := p.Segment(labels, Options{Presence: -1})
	must(t, err)
	for i := range labels {
		s, _ := r.Map(i)
		scores = append(scores, s...)
	}
	return scores
}

// maskLogits takes the sigmoid off the proposals.
func maskLogits(t testing.TB, p *Picture) (logits []float32) {
	t.Helper()
	q, cells := p.model.decoder.q, p.map4.cells()
	for first := 0; first < q; first += mapsAtOnce {
		must(t, p.session.Run(p.proposals[first/mapsAtOnce]))
		x := make([]float32, min(q-first, mapsAtOnce)*cells)
		must(t, p.session.Read(p.reply.maps, kernel.Bytes(x)))
		for _, v := range x {
			logits = append(logits, float32(math.Log(float64(v)/(1-float64(v)))))
		}
	}
	return logits
}

func TestBasePrompts(t *testing.T) {
	f := readFixture(t, "maskformer.safetensors")
	device, err := devices[1].open()
	must(t, err)
	m := newTestBase(t, f, MaskFormer, device)
	p := newEncoded(t, m, "any", 50, 40)
	if _, err := p.Segment([]string{"dog", "unicorn"}, Options{}); err == nil || !strings.Contains(err.Error(), `11 names and "unicorn"`) {
		t.Errorf("an unknown name gives %v", err)
	}
	if _, err := p.Segment(nil, Options{}); err != ErrNoPrompt {
		t.Errorf("no prompt gives %v", err)
	}
	maps := func(prompts ...string) (all [][]float32) {
		r, err := p.Segment(prompts, Options{})
		must(t, err)
		for i := range prompts {
			s, _ := r.Map(i)
			all = append(all, s)
		}
		return all
	}
	apart, joined := maps("dog", "Potted Plant"), maps("potted plant, dog, DOG")
	for i, got := range joined[0] {
		if want := apart[0][i] + apart[1][i]; math.Abs(float64(got-want)) > 1e-5 {
			t.Fatalf("labels of one prompt add up to %v, want %v", got, want)
		}
	}
}

// Weights whose configuration or tensors do not fit are refused.
func TestBaseRefuses(t *testing.T) {
	type change struct{ old, new string }
	resnet := []change{
		{`"kind":"resnet"`, `"kind":"vit"`}, {`"widths":[32,64,96,160]`, `"widths":[32,64,96]`}, {`"widths":[32,64,96,160]`, `"widths":[32,64,96,161]`},
		{`"heads":4`, `"heads":7`}, {`"d":128`, `"d":120`}, {`"d":128`, `"d":256`}, {`"queries":20`, `"queries":0`}, {`"queries":20`, `"queries":400`},
		{`0.229`, `0`}, {`"layers":4`, `"layers":3000`}, {`"short":64`, `"short":100000`}, {`"dog",`, ``}, {`"dog",`, `7,`}, {`"stem":16`, `"stem":32`},
		{`"dm":64`, `"pmp":true,"dm":64`}, {`"kind"`, `"basic":true,"kind"`},
	}
	swin := []change{
		{`"window":4`, `"window":7`}, {`"window":4`, `"window":0`}, {`"window":4`, `"window":33`}, {`"kind":"swin"`, `"kind":"resnet"`}, {`"heads":[2,4`, `"heads":[2,8`},
		{`"heads":[2,4`, `"heads":[3,4`}, {`"widths":[32`, `"widths":[40`}, {`"ffn":[64`, `"ffn":[60`}, {`"depths":[2`, `"depths":[3`},
	}
	for i, c := range slices.Concat(resnet, swin) {
		name := "mask2former"
		if i >= len(resnet) {
			name = "mask2former-swin"
		}
		refuses(t, convert(t, readFixture(t, name+".safetensors"), name), c.old, c.new)
	}
}

// refuses tells whether no network is built once a part of the configuration is another.
func refuses(t *testing.T, source *quantize.Source, old, new string) {
	t.Helper()
	changed := strings.Replace(string(source.Config), old, new, 1)
	if changed == string(source.Config) {
		t.Fatalf("the configuration has no %s: %s", old, changed)
	}
	source.Config = []byte(changed)
	if _, err := LoadBase(manifestOf(t, source), scalar.New(), Float32); err == nil {
		t.Errorf("%s instead of %s: no error", new, old)
	}
}

// manifestOf opens what is written of a source.
func manifestOf(t testing.TB, source *quantize.Source) *weights.Manifest {
	t.Helper()
	files, err := source.Files()
	must(t, err)
	manifest, err := files.Open()
	must(t, err)
	return manifest
}

// Pictures are encoded at the sizes that transformers chooses.
func TestBaseFit(t *testing.T) {
	for _, c := range []struct {
		config              BaseConfig
		width, height, w, h int
	}{
		{BaseConfig{Short: 800, Long: 1333}, 640, 480, 1088, 800}, // 1066 × 800
		{BaseConfig{Short: 800, Long: 1333}, 480, 640, 800, 1088},
		{BaseConfig{Short: 800, Long: 1333}, 2000, 1000, 1344, 672}, // 1333 × 666
		{BaseConfig{Short: 640, Long: 2560}, 683, 512, 864, 640},    // 853 × 640
		{BaseConfig{Short: 800, Long: 1333}, 50_000, 1, 1344, 32},
		{BaseConfig{Width: 384, Height: 384}, 640, 480, 384, 384},
	} {
		if w, h := (&base{BaseConfig: c.config}).fit(c.width, c.height); w != c.w || h != c.h {
			t.Errorf("%d × %d: got %d × %d, want %d × %d", c.width, c.height, w, h, c.w, c.h)
		}
	}
}

// speaksUp lets guidance that was not trained say something.
func speaksUp(x quantize.Tensor) {
	if strings.Contains(x.Name, ".text") && strings.HasSuffix(x.Name, ".out.weight") {
		for i := range x.Data {
			x.Data[i] = float32(i%7-3) / 20
		}
	}
}

// With guidance that was not trained yet a network answers what it did without, to
// the last bit, whatever is asked; with guidance that says something it does not.
func TestBaseGuidance(t *testing.T) {
	reader, err := weights.Load(shipped.FS.ReadFile)
	must(t, err)
	prompts := []string{"dog", "potted plant, tree", "sky"}
	sources := map[string]func() *quantize.Source{}
	for _, name := range checkpointtest.Bases(t, "testdata") {
		sources[name] = func() *quantize.Source { return convert(t, readFixture(t, name+".safetensors"), name) }
	}
	for name := range fcclips {
		sources[name] = func() *quantize.Source { return convertFCCLIP(t, name) }
	}
	for name, convert := range sources {
		// answer is what a network makes of a picture, with a change to its tensors.
		answer := func(guided bool, o Options, change func(x quantize.Tensor)) []float32 {
			source := convert()
			if guided {
				must(t, huggingface.Guide(source, reader))
			}
			for _, x := range source.Tensors {
				change(x)
			}
			device, err := devices[1].open()
			must(t, err)
			m := loadSource(t, source, device)
			p := newEncoded(t, m, "wide", 96, 64)
			r, err := p.Segment(prompts, o)
			must(t, err)
			b := m.network.(*base)
			all := make([]float32, b.Queries*b.width())
			must(t, p.session.Read(p.reply.logits, kernel.Bytes(all)))
			for i := range prompts {
				s, _ := r.Map(i)
				all = append(all, s...)
			}
			return append(all, maskLogits(t, p)...)
		}
		same := func(quantize.Tensor) {}
		plain := answer(false, Options{}, same)
		if got := answer(true, Options{}, same); !slices.Equal(got, plain) {
			t.Errorf("%s: guidance that was not trained changes the answer", name)
		}
		guided := answer(true, Options{}, speaksUp)
		if slices.Equal(guided, plain) {
			t.Errorf("%s: guidance changes nothing", name)
		}
		if slices.Equal(guided, answer(true, Options{Unguided: true}, speaksUp)) {
			t.Errorf("%s: the decoder does not read the prompts", name)
		}
	}
}

func TestBaseInt8(t *testing.T) {
	for _, name := range checkpointtest.Bases(t, "testdata") {
		t.Run(name, func(t *testing.T) {
			source := convert(t, readFixture(t, name+".safetensors"), name)
			inIntegers(t, source, func(m *Model, p *Picture, rgba []byte) map[string][]float32 {
				all := baseTaps(t, m, p.Width, p.Height, rgba)
				all["class"], all["scores"] = classLogits(t, p), labelMaps(t, p, m.Labels)
				return all
			}, map[string]float64{"f4": 0.02, "f32": 0.04, "mask features": 0.04, "class": 0.15, "scores": 0.25})
		})
	}
}

// inIntegers tells whether a network, stored as int8 where that does no harm,
// computes in integers what it does in float32 up to rounding: some percent of a
// tensor's root mean square. A mistake would be off by all of it.
func inIntegers(t *testing.T, source *quantize.Source, tensors func(m *Model, p *Picture, rgba []byte) map[string][]float32, most map[string]float64) {
	t.Helper()
	size, manifest := basePictures["wide"], manifestOf(t, source)
	rgba := testPixels("wide", size.width, size.height)
	compute := func(precision Precision) map[string][]float32 {
		device, err := devices[1].open()
		must(t, err)
		m, err := LoadBase(manifest, device, precision)
		must(t, err)
		defer m.Close()
		p, err := m.NewPicture(size.width, size.height)
		must(t, err)
		must(t, p.Write(rgba))
		must(t, p.Encode())
		return tensors(m, p, rgba)
	}
	want, got := compute(Float32), compute(Int8)
	for what, most := range most {
		var off, all float64
		for i, x := range want[what] {
			off += float64(got[what][i]-x) * float64(got[what][i]-x)
			all += float64(x) * float64(x)
		}
		e := math.Sqrt(off / all)
		t.Logf("%s is off by %.1f %%", what, 100*e)
		if !(1e-4 < e && e < most) {
			t.Errorf("%s is off by %.4f of its root mean square, want at most %.2f, and not as in float32", what, e, most)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestCheckpoint compares a whole checkpoint with what testdata/checkpoint.py,
// testdata/fcclip.py or testdata/ovseg.py has written beside it.
func TestCheckpoint(t *testing.T) {
	dir := os.Getenv("PMP_CHECKPOINT")
	if dir == "" {
		t.Skip("PMP_CHECKPOINT is not set; testdata/checkpoint.py says what it is")
	}
	file, err := os.ReadFile(filepath.Join(dir, "expected.safetensors"))
	must(t, err)
	f := parseFixture(t, file)
	source, _, err := huggingface.Read(dir)
	must(t, err)
	if backbone := filepath.Join(dir, "backbone.pth"); exists(backbone) {
		_, err = huggingface.ReadBackbone(source, backbone)
		must(t, err)
	}
	if dir := filepath.Join(dir, "clip"); exists(dir) {
		clip, err := huggingface.ReadCLIP(dir)
		must(t, err)
		_, err = huggingface.AddCLIP(source, clip)
		must(t, err)
	}
	const picture = "checkpoint"
	width, height := 320, 256
	if _, ok := f["size"]; ok {
		_, err = fmt.Sscan(string(f.bytes(t, "size")), &width, &height)
		must(t, err)
	}
	var config map[string]any
	must(t, json.Unmarshal(source.Config, &config))
	config["picture"] = map[string]any{"width": width, "height": height, "mean": []float64{0.485, 0.456, 0.406}, "std": []float64{0.229, 0.224, 0.225}}
	if _, ok := f["threshold"]; ok {
		config["clip"].(map[string]any)["threshold"] = json.RawMessage(f.bytes(t, "threshold"))
	}
	source.Config, err = json.Marshal(config)
	must(t, err)
	device, err := devices[1].open()
	must(t, err)
	m := loadSource(t, source, device)
	p := newEncoded(t, m, picture, width, height)
	worst, b := worstErrors{}, m.network.(*base)
	switch {
	case b.open != nil:
		comparePrompts(t, f, m, worst)
		compareProposals(t, f, picture, p, worst)
	case b.crops != nil:
		compareClipped(t, f, picture, p, strings.Split(string(f.bytes(t, "prompts")), "\n"), worst)
	default:
		worst.add("class", f.compare(t, "class", classLogits(t, p)))
		worst.add("scores", f.compare(t, "scores", labelMaps(t, p, b.Labels)))
	}
	worst.log(t)
}

// A ResNet that begins with three convolutions, which transformers does not have, is
// what testdata/deep.py has made of a checkpoint in detectron2's layout.
func TestDeepStem(t *testing.T) {
	const name = "deep"
	f := readFixture(t, name+".safetensors")
	tensors, _ := f.checkpoint(t, name)
	labels := strings.Split(string(f.bytes(t, "labels")), "\n")
	for _, d := range devices {
		t.Run(d.name, func(t *testing.T) {
			source, report, err := huggingface.ConvertDetectron2(huggingface.Beside{Names: labels, Settings: []byte(`{"short": 64, "long": 640}`)}, tensors, nil)
			must(t, err)
			if len(report.Unused) > 0 {
				t.Errorf("nothing takes %q", report.Unused)
			}
			device, err := d.open()
			must(t, err)
			m, worst := loadSource(t, source, device), worstErrors{}
			for picture, size := range basePictures {
				rgba := testPixels(picture, size.width, size.height)
				taps := baseTaps(t, m, size.width, size.height, rgba)
				for _, what := range []string{"f4", "f8", "f16", "f32"} {
					worst.add(what, f.compare(t, picture+"/"+what, taps[what]))
				}
				p, err := m.NewPicture(size.width, size.height)
				must(t, err)
				must(t, p.Write(rgba))
				must(t, p.Encode())
				worst.add("class", f.compare(t, picture+"/class", classLogits(t, p)))
				worst.add("scores", f.compare(t, picture+"/scores", labelMaps(t, p, labels)))
				must(t, p.Close())
			}
			worst.log(t)
		})
	}
}

func TestDeepStemRefuses(t *testing.T) {
	const name = "deep"
	f := readFixture(t, name+".safetensors")
	tensors, _ := f.checkpoint(t, name)
	beside := huggingface.Beside{Names: strings.Split(string(f.bytes(t, "labels")), "\n")}
	for _, c := range []struct{ old, new string }{
		{`"deep":true`, `"deep":false`}, {`"stem":32`, `"stem":16`}, {`"dilations":[1,2,4]`, `"dilations":[1,2]`}, {`"dilations":[1,2,4]`, `"dilations":[2,2,4]`},
		{`"dilations":[1,2,4]`, `"dilations":[1,2,400]`}, {`"dilations":[1,2,4]`, `"dilations":4`},
	} {
		source, _, err := huggingface.ConvertDetectron2(beside, tensors, nil)
		must(t, err)
		refuses(t, source, c.old, c.new)
	}
	beside.Settings = []byte(`{"res5_multi_grid": [1, 2]}`)
	if _, _, err := huggingface.ConvertDetectron2(beside, tensors, nil); err == nil || !strings.Contains(err.Error(), "res5_multi_grid") {
		t.Errorf("a dilation too few: %v", err)
	}
}
