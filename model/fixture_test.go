package model

import (
	"encoding/binary"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/weights"
)

// devices are those that the network is tested on. All get the same fixture
// and the same tolerance.
var devices = []struct {
	name string
	open func() (kernel.Device, error)
}{
	{"scalar", func() (kernel.Device, error) { return scalar.New(), nil }},
	{"simd", func() (kernel.Device, error) { return simd.New() }},
}

// tolerance is the largest error of a number, relative to itself or to the
// root mean square of its tensor if that is larger. Float32 sums of some
// hundred terms are off by about 1e-6 of that, and some fifty layers
// multiply it; a mistake of any kind is off by 1e-2 and more.
const tolerance = 1e-4

// The same numbers are in testdata/make.py.
func testConfig() Config {
	return Config{
		D: 128, DM: 64, Heads: 8, Queries: 24, Layers: 3, Size: 256, PMP: true,
		Text:  TextConfig{Width: 384, Heads: 12, FFN: 1536, Layers: 2, Vocab: 113, Rank: 128, MaxTokens: 64, Embedding: 384},
		Alpha: 0.1, Beta: 0.7, Keep: 0.3, Cap: 1, Kappa: 12, B0: 0.05, SeenHi: 0.1, SeenLo: -0.05, Theta: 0.5,
		Presence:  Presence{Bias: -5, Logit: 0.8, Peak: 0.4, Prompts: -0.2},
		Templates: []string{"{}", "a photo of {}."},
		Rows:      48, Space: 384, Rank: 16, Trained: 5,
	}
}

var testPictures = map[string]struct{ width, height int }{
	"wide": {150, 100},
	"tall": {61, 203},
}

var testPrompts = map[string][]string{
	"several": {"sofa, couch", "Dog", "a big red ball"},
	"one":     {"dog"},
	"twenty": {"dog", "cat", "sofa", "couch", "ball", "tree", "grass", "sky", "road", "car",
		"bus", "person", "man", "woman", "bottle", "chair", "table", "lamp", "door", "wall"},
}

// stream is the splitmix64 stream of a name, as in make.py. Its numbers can
// be had in any order, which a table read row by row needs.
type stream uint64

func newStream(name string) stream {
	const salt = "4/"
	h := uint64(0xCBF29CE484222325)
	for _, c := range []byte(salt + name) {
		h = (h ^ uint64(c)) * 0x100000001B3
	}
	return stream(h)
}

func (s stream) at(i int) uint64 {
	x := uint64(s) + uint64(i+1)*0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// uniform is between -1 and 1.
func (s stream) uniform(i int) float64 { return float64(s.at(i)>>11)*0x1p-52 - 1 }

// random is a source of weights that are made from their names. It says yes
// to whatever it is asked for and remembers the shapes.
type random struct {
	shapes map[string][]int
	// change may alter a tensor after it was made.
	change func(name string, dst []float32)
}

func newRandom() random { return random{shapes: map[string][]int{}} }

func (r random) Check(name string, shape ...int) error {
	r.shapes[name] = slices.Clone(shape)
	return nil
}

func (r random) Read(name string, dst []float32) { r.read(name, 0, dst) }

func (r random) ReadRow(name string, i int, dst []float32) {
	if n := r.shapes[name]; i < 0 || i >= n[0] || len(dst) != n[1] {
		panic("a row that is not there was asked for")
	}
	r.read(name, i*len(dst), dst)
}

func (r random) read(name string, first int, dst []float32) {
	shape, ok := r.shapes[name]
	if !ok {
		panic("tensor " + name + " was read but not checked")
	}
	middle, width := spread(name, shape)
	s := newStream(name)
	for i := range dst {
		// The conversion keeps the compiler from joining product and sum,
		// which would round differently on some machines.
		dst[i] = float32(middle + float64(width*s.uniform(first+i)))
	}
	if r.change != nil {
		r.change(name, dst)
	}
}

// spread is the middle and half the width of a tensor's uniform
// distribution, the same as in make.py.
func spread(name string, shape []int) (middle, width float64) {
	last := name[strings.LastIndexByte(name, '.')+1:]
	fan := 1
	for _, n := range shape[min(len(shape), 1):] {
		fan *= n
	}
	gain := 1.0
	if len(shape) == 4 {
		gain = 2
	}
	if strings.Contains(name, ".lateral") {
		gain = 0.1
	}
	switch {
	case name == "decoder.logit_scale":
		return 2.5, 0
	case last == "center":
		return 0, 0.02
	case name == "decoder.mask_mlp.2.bias":
		return 0, 0.01
	case last == "bias":
		return 0, 0.1
	case last == "weight" && len(shape) == 1:
		return 1, 0.2
	case name == "decoder.text_proj.weight" || len(shape) == 1 || slices.Contains([]string{"query_feat", "query_pos", "word_u"}, last):
		return 0, math.Sqrt(3)
	case last == "position":
		return 0, 0.3
	case last == "word_v" || last == "coef_u" || last == "coef_v":
		fan = shape[0]
	case name == "decoder.mask_mlp.2.weight":
		gain = 0.04
	}
	return 0, math.Sqrt(3 * gain / float64(fan))
}

// testPixels is the RGBA picture that make.py calls picture.
func testPixels(name string, width, height int) []byte {
	s := newStream(name)
	rgba := make([]byte, 0, 4*width*height)
	for y := range height {
		for x := range width {
			for c := range 3 {
				wave := (7*x+3*y+40*c)%256 - 128
				noise := s.at((y*width+x)*3+c) >> 58
				rgba = append(rgba, byte(max(wave, -wave)+int(noise)))
			}
			rgba = append(rgba, 255)
		}
	}
	return rgba
}

func testVocabulary(t testing.TB) []byte {
	t.Helper()
	vocabulary, err := os.ReadFile("testdata/vocab.txt")
	if err != nil {
		t.Fatal(err)
	}
	return vocabulary
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTestModel makes a model with random weights.
func newTestModel(t testing.TB, c Config, source Source, device kernel.Device) *Model {
	t.Helper()
	m, err := New(c, source, testVocabulary(t), device, Float32)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// testModel returns a model on the scalar device, which tests share and
// must leave as it is.
func testModel(t testing.TB) *Model { return sharedModel(t, 0) }

// onDevices runs a test with the shared model of each device.
func onDevices(t *testing.T, test func(t *testing.T, m *Model)) {
	for i, d := range devices {
		t.Run(d.name, func(t *testing.T) { test(t, sharedModel(t, i)) })
	}
}

var sharedModels = map[int]*Model{}

func sharedModel(t testing.TB, device int) *Model {
	t.Helper()
	if sharedModels[device] == nil {
		d, err := devices[device].open()
		must(t, err)
		sharedModels[device] = newTestModel(t, testConfig(), newRandom(), d)
	}
	return sharedModels[device]
}

// fixture is what PyTorch says of the network with random weights.
type fixture map[string]weights.Entry

func readFixture(t testing.TB, name string) fixture {
	t.Helper()
	file, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return parseFixture(t, file)
}

func parseFixture(t testing.TB, file []byte) fixture {
	t.Helper()
	entries, err := weights.ReadSafetensors(file)
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{}
	for _, e := range entries {
		f[e.Name] = e
	}
	return f
}

func (f fixture) bytes(t testing.TB, name string) []byte {
	t.Helper()
	e, ok := f[name]
	if !ok {
		t.Fatalf("the fixture has no %q; make it anew", name)
	}
	return e.Data
}

func (f fixture) floats(t testing.TB, name string) []float32 {
	t.Helper()
	b := f.bytes(t, name)
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

// bit tells whether bit i of a packed tensor is set.
func bit(packed []byte, i int) bool { return packed[i/8]>>(7-i%8)&1 == 1 }

// compare holds a tensor against the samples and the sums that the fixture
// keeps of it, and returns the largest error.
func (f fixture) compare(t testing.TB, name string, got []float32) float64 {
	t.Helper()
	const step = 7919
	samples, sums := f.floats(t, name), f.floats(t, name+"#")
	if len(got) != int(sums[0]) {
		t.Errorf("%s has %d numbers, want %d", name, len(got), int(sums[0]))
		return math.Inf(1)
	}
	s := newStream("signs")
	var squares, signed float64
	for i, x := range got {
		squares += float64(x) * float64(x)
		if s.at(i)>>63 == 1 {
			x = -x
		}
		signed += float64(x)
	}
	length := float64(sums[1])
	mean := length / math.Sqrt(float64(len(got)))
	worst := max(off(math.Sqrt(squares), length, length), off(signed, float64(sums[2]), length))
	for i, want := range samples {
		at := i
		if len(got) > len(samples) {
			at = i * step % len(got)
		}
		worst = max(worst, off(float64(got[at]), float64(want), mean))
	}
	if worst > tolerance {
		t.Errorf("%s is off by %.2g; the first numbers are %v, want %v", name, worst, got[:min(4, len(got))], samples[:min(4, len(samples))])
	}
	return worst
}

// off is the error of a number relative to itself or to scale, if that is larger.
func off(got, want, scale float64) float64 {
	d := math.Abs(got-want) / max(math.Abs(want), scale)
	if math.IsNaN(d) {
		return math.Inf(1)
	}
	return d
}

// The network that Go builds and the one that PyTorch trains have the same
// tensors.
func TestTensorNames(t *testing.T) {
	source := newRandom()
	newTestModel(t, testConfig(), source, scalar.New())
	var got []string
	for name, shape := range source.shapes {
		for _, n := range shape {
			name += " " + itoa(n)
		}
		got = append(got, name)
	}
	slices.Sort(got)
	want := strings.Split(string(readFixture(t, "network.safetensors").bytes(t, "names")), "\n")
	for _, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("Go asks for %q, which PyTorch does not have", name)
		}
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("PyTorch has %q, which Go does not ask for", name)
		}
	}
}

// worstErrors collects the largest errors by a short name, for a report.
type worstErrors map[string]float64

func (w worstErrors) add(name string, e float64) { w[name] = max(w[name], e) }

func (w worstErrors) log(t testing.TB) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w)) {
		t.Logf("%-16s off by %.1e", name, w[name])
	}
}
