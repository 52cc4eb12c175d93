package quantize

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/x448/float16"

	"github.com/pmp-seg/pmp/weights"
)

func random(name string, scale float64, shape ...int) Tensor {
	r := rand.New(rand.NewPCG(uint64(len(name)), 7))
	n := 1
	for _, d := range shape {
		n *= d
	}
	t := Tensor{name, shape, make([]float32, n)}
	for i := range t.Data {
		t.Data[i] = float32(r.NormFloat64() * scale)
	}
	return t
}

func source() *Source {
	s := &Source{
		Arch: "pmp-test", Release: "3", Config: []byte(`{"d":16,"stages":[[3,1],[5,2]]}`), Vocabulary: []byte("[PAD]\n[UNK]\n"),
		Tensors: []Tensor{
			random("trunk.stem.weight", 0.3, 64, 3, 3, 3),
			random("decoder.linear1.weight", 0.02, 64, 32),
			random("decoder.linear1.bias", 0.1, 64),
			random("decoder.query_feat", 1, 48, 128),
			random("text.position", 1, 64, 32),
			random("labels.embedding", 1, 40, 64),
			random("tiny.weight", 1, 4, 4),
			random("pointwise.weight", 1, 40, 64, 1, 1),
			random("small numbers", 1e-7, 64, 32),
			random("large numbers", 1e5, 64, 32),
			{"decoder.logit_scale", nil, []float32{2.4849067}},
			{"beyond.bias", []int{9}, []float32{1e6, 0, 0, 0, 0, 0, 0, 0, 1}},
			{"zeros.weight", []int{64, 32}, make([]float32, 2048)},
		},
		Parts:        []weights.Part{{Name: "trunk", Source: "a package", Licence: "Apache-2.0", Note: "a & b"}},
		TrainedNames: []string{"dog", "cat"},
	}
	return s
}

func TestPrecision(t *testing.T) {
	want := map[string]weights.DType{
		"trunk.stem.weight": weights.I8, "decoder.linear1.weight": weights.I8, "decoder.linear1.bias": weights.F16,
		"decoder.query_feat": weights.F16, "pointwise.weight": weights.I8, "text.position": weights.F16, "labels.embedding": weights.F16, "tiny.weight": weights.F16,
		"small numbers": weights.I8, "large numbers": weights.F32, "decoder.logit_scale": weights.F32,
		"beyond.bias": weights.F32, "zeros.weight": weights.I8,
	}
	for _, x := range source().Tensors {
		if got := Precision(x); got != want[x.Name] {
			t.Errorf("%s: got %s, want %s", x.Name, got, want[x.Name])
		}
	}
}

func write(s *Source, dir string) error {
	files, err := s.Files()
	if err != nil {
		return err
	}
	return files.Write(dir)
}

func open(dir string) (*weights.Manifest, error) {
	return weights.Load(func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := source()
	if err := write(s, dir); err != nil {
		t.Fatal(err)
	}
	m, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Arch != s.Arch || m.Release != s.Release || !slices.Equal(m.TrainedNames, s.TrainedNames) || !slices.Equal(m.Parts, s.Parts) ||
		!bytes.Equal(m.Vocabulary(), s.Vocabulary) || m.Fields().Int("d") != 16 || len(m.Fields().List("stages")) != 2 {
		t.Errorf("the manifest came back as %+v", m)
	}
	if got := len(m.Names()); got != len(s.Tensors) {
		t.Errorf("%d of %d tensors came back", got, len(s.Tensors))
	}
	for _, x := range s.Tensors {
		y, err := m.Tensor(x.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		want := x.Shape
		if x.Name == "pointwise.weight" {
			want = x.Shape[:2] // the matrix that a 1×1 convolution is
		}
		if !slices.Equal(y.Shape, want) {
			t.Errorf("%s: shape %v came back as %v", x.Name, x.Shape, y.Shape)
			continue
		}
		if matrix := x.Name == "pointwise.weight" || x.Name == "decoder.linear1.weight" || x.Name == "zeros.weight"; y.Panels != matrix {
			t.Errorf("%s: stored in panels: %v", x.Name, y.Panels)
		}
		got := make([]float32, y.Len())
		y.Float32(got)
		for i, want := range x.Data {
			var most float64
			switch y.DType {
			case weights.I8: // half a step; nothing is clipped
				most = float64(y.Scale(i/y.Width())) * 0.50001
			case weights.F16: // half a unit in the last of 11 bits, or of the smallest number
				most = max(math.Abs(float64(want))/2048, smallestHalf/2)
			}
			if d := math.Abs(float64(got[i] - want)); d > most {
				t.Errorf("%s[%d]: %v came back as %v, %v apart and not at most %v", x.Name, i, want, got[i], d, most)
				break
			}
		}
	}
}

func TestScale(t *testing.T) {
	for _, most := range []float32{1e-12, 1e-7, 3e-5, 1e-3, 0.1, 1, 12.7, 1000, 65504} {
		for i := range 50 {
			x := most * (1 - float32(i)/97)
			scale := scaleFor([]float32{0, -x}).Float32()
			if scale*127 < x {
				t.Errorf("%v: scale %v clips", x, scale)
			}
			if below := float16.Fromfloat32(scale) - 1; scale > smallestHalf && below.Float32()*127 >= x {
				t.Errorf("%v: scale %v is not the smallest", x, scale)
			}
		}
	}
}

// A network that reads no text has no vocabulary, and all tensors may be stored
// in one type, but for those that it cannot hold and single numbers.
func TestStore(t *testing.T) {
	for _, store := range []weights.DType{weights.F32, weights.F16} {
		s := source()
		s.Vocabulary, s.Store = nil, store
		files, err := s.Files()
		if err != nil {
			t.Fatal(err)
		}
		m, err := files.Open()
		if err != nil {
			t.Fatal(err)
		}
		if m.Tokenizer != "" || m.Vocabulary() != nil {
			t.Errorf("there is a vocabulary: %q", m.Tokenizer)
		}
		for _, x := range s.Tensors {
			y, err := m.Tensor(x.Name)
			if err != nil {
				t.Fatal(err)
			}
			want := store
			if x.Name == "large numbers" || x.Name == "beyond.bias" || len(x.Data) <= 8 {
				want = weights.F32
			}
			if y.DType != want {
				t.Errorf("%s is stored as %s, not %s", x.Name, y.DType, want)
			}
		}
	}
}

func TestWriteTwice(t *testing.T) {
	s := source()
	first, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	// The order of the tensors must not matter.
	slices.Reverse(s.Tensors)
	second, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(first, second, func(a, b File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
		t.Error("the same source gave other files")
	}

	// Another source in the same folder replaces the shards.
	dir := t.TempDir()
	if err := write(s, dir); err != nil {
		t.Fatal(err)
	}
	s.Tensors[0].Data[0]++
	if err := write(s, dir); err != nil {
		t.Fatal(err)
	}
	m, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(m.Files)+1 {
		t.Errorf("%d files lie in the folder; the manifest lists %d", len(entries), len(m.Files))
	}
}

func TestShards(t *testing.T) {
	s := &Source{}
	for i := range 40 {
		s.Tensors = append(s.Tensors, random("layer."+strings.Repeat("x", i), 1, 50, 40))
	}
	s.Tensors = append(s.Tensors, random("huge", 1, 300, 100))
	const size = 10_000
	files, err := s.shards(size)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, f := range files {
		entries, err := weights.ReadSafetensors(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(f) > size && !(len(entries) == 2 && entries[1].Name == "huge") {
			t.Errorf("file %d has %d bytes", i, len(f))
		}
		for _, e := range entries {
			names = append(names, e.Name)
			offset := len(f) - len(e.Data)
			for _, later := range entries[slices.IndexFunc(entries, func(x weights.Entry) bool { return x.Name == e.Name })+1:] {
				offset -= len(later.Data)
			}
			if offset%e.DType.Size() != 0 {
				t.Errorf("%s is not aligned", e.Name)
			}
		}
	}
	if len(names) != 82 {
		t.Errorf("%d tensors and scales were written, not 82", len(names))
	}
}

func TestRefuses(t *testing.T) {
	for name, change := range map[string]func(s *Source){
		"NaN":    func(s *Source) { s.Tensors[0].Data[5] = float32(math.NaN()) },
		"Inf":    func(s *Source) { s.Tensors[0].Data[5] = float32(math.Inf(-1)) },
		"shape":  func(s *Source) { s.Tensors[0].Shape = []int{3} },
		"twice":  func(s *Source) { s.Tensors = append(s.Tensors, s.Tensors[0]) },
		"none":   func(s *Source) { s.Tensors = nil },
		"arch":   func(s *Source) { s.Arch = "../x" },
		"config": func(s *Source) { s.Config = []byte("[]") },
		"vocab":  func(s *Source) { s.Vocabulary = []byte{} },
	} {
		s := source()
		change(s)
		if _, err := s.Files(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) { writeFile(t, dir, name, data) }
	write("config.json", []byte(`{"arch":"pmp-s","release":"3","d":128,"trained_names":["a"],"parts":[{"name":"n","licence":"MIT"}]}`))
	write("vocab.txt", []byte("[PAD]\n"))
	write("model.safetensors", Safetensors([]weights.Entry{
		{Name: "x", DType: weights.F32, Shape: []int{2}, Data: []byte{0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0}},
		{Name: "y", DType: weights.BF16, Shape: []int{1}, Data: []byte{0x80, 0x3F}},
		{Name: "z", DType: "F64", Shape: nil, Data: []byte{0, 0, 0, 0, 0, 0, 0xF8, 0x3F}},
		{Name: "h", DType: weights.F16, Shape: []int{1}, Data: []byte{0, 0x3C}},
	}))
	s, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Arch != "pmp-s" || s.Release != "3" || string(s.Config) != `{"d":128}` || !slices.Equal(s.TrainedNames, []string{"a"}) ||
		len(s.Parts) != 1 || s.Parts[0] != (weights.Part{Name: "n", Licence: "MIT"}) {
		t.Errorf("the config was read as %+v", s)
	}
	for i, want := range []Tensor{{"z", nil, []float32{1.5}}, {"x", []int{2}, []float32{1, -2}}, {"h", []int{1}, []float32{1}}, {"y", []int{1}, []float32{1}}} {
		if got := s.Tensors[i]; got.Name != want.Name || !slices.Equal(got.Data, want.Data) || !slices.Equal(got.Shape, want.Shape) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	write("parts.json", []byte(`[{"name":"other"}]`))
	if s, err = ReadDir(dir); err != nil || s.Parts[0].Name != "other" {
		t.Errorf("with parts.json: %v, %v", s, err)
	}
	write("config.json", []byte(`{}`))
	if _, err = ReadDir(dir); err == nil || !strings.Contains(err.Error(), `no member "arch"`) {
		t.Errorf("without an architecture: %v", err)
	}
}

// writeFile writes a file to a folder and returns its path.
func writeFile(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func fixture(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../torch/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Whatever a file is called, the same tensors come out of it as out of a
// safetensors file with what make.py says is in it.
func TestCheckpoints(t *testing.T) {
	var truth map[string]map[string][3]any
	if err := json.Unmarshal(fixture(t, "truth.json"), &truth); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, as string }{
		{"zip4.pth", "model.pth"}, {"legacy4.pth", "model.pt"}, {"zip5.pth", "model.safetensors"}, {"legacy3.pth", "model.pkl"},
	} {
		var entries []weights.Entry
		for name, x := range truth[test.name] {
			e := weights.Entry{Name: name, DType: weights.DType(x[0].(string))}
			for _, n := range x[1].([]any) {
				e.Shape = append(e.Shape, int(n.(float64)))
			}
			var err error
			if e.Data, err = hex.DecodeString(x[2].(string)); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		var files [2]Files
		for i, checkpoint := range []struct {
			name string
			data []byte
		}{{test.as, fixture(t, test.name)}, {"model.pkl", Safetensors(entries)}} {
			dir := t.TempDir()
			writeFile(t, dir, "config.json", []byte(`{"arch":"pmp-s"}`))
			writeFile(t, dir, "vocab.txt", []byte("[PAD]\n"))
			writeFile(t, dir, checkpoint.name, checkpoint.data)
			s, err := ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if files[i], err = s.Files(); err != nil {
				t.Fatal(err)
			}
		}
		if len(entries) < 5 || !slices.EqualFunc(files[0], files[1], func(a, b File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
			t.Errorf("%s gives other weights than the safetensors file with the same numbers", test.name)
		}
	}
}

func TestCheckpointRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		what string
		data []byte
		want string
	}{
		{"evil", fixture(t, "evil.pth"), "may run code"},
		{"cut off", fixture(t, "zip4.pth")[:2000], "fetch it again"},
		{"cut safetensors", []byte("\x80\x02\x00\x00\x00\x00\x00\x00{"), "header does not fit"},
		{"empty", nil, "ends too early"},
	} {
		path := writeFile(t, dir, "model.pth", test.data)
		c, err := OpenCheckpoint(path)
		if err == nil {
			_, _, err = c.Floats()
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: got %v, want an error with %q", test.what, err, test.want)
		}
	}
	writeFile(t, dir, "config.json", []byte(`{"arch":"pmp-s"}`))
	writeFile(t, dir, "vocab.txt", []byte("[PAD]\n"))
	writeFile(t, dir, "model.pkl", nil)
	if _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "keep the one") {
		t.Errorf("two checkpoints: %v", err)
	}
	for _, name := range []string{"model.pkl", "model.pth"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "model.safetensors, model.pth") {
		t.Errorf("no checkpoint: %v", err)
	}
}

// Integers are left out, and named.
func TestOthers(t *testing.T) {
	c, err := OpenCheckpoint("../torch/testdata/zip.pth")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tensors, others, err := c.Floats()
	if want := []string{"int64", "int32", "uint8", "int8", "bool", "int16"}; err != nil || !slices.Equal(others, want) || len(tensors) != 14 {
		t.Errorf("%d tensors and %q, %v", len(tensors), others, err)
	}
}

func TestInspectCheckpoint(t *testing.T) {
	c, err := OpenCheckpoint("../torch/testdata/zip.pth")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out strings.Builder
	if err := c.Inspect(&out); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(" +").ReplaceAllString(out.String(), " ")
	for _, want := range []string{"float32 float32 3×4×2 96\n", "bfloat16 bfloat16 3 6\n", "int64 int64 1 8\n", "bool bool 2×1 2\n",
		"empty float32 0×3 0\n", "block.0.weight float32 1×2 8\n", "\nuint8 1 2 2\n", "\nall 20 "} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	if err := write(source(), dir); err != nil {
		t.Fatal(err)
	}
	m, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Inspect(m, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pmp-test", "decoder.linear1.weight  int8 × float16  64×32", "Apache-2.0", "decoder.logit_scale", "float32"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
}
