package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model/mask"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
	"github.com/pmp-seg/pmp/weights/quantize"
)

const cat = "../../site/examples/cat.jpg"

// pmp runs a command and returns what it prints.
func pmp(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, &out); err != nil {
		t.Fatalf("pmp %s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

func TestSegment(t *testing.T) {
	dir := t.TempDir()
	overlay, masks := filepath.Join(dir, "overlay.png"), filepath.Join(dir, "masks")
	// Flags may stand between and behind the prompts.
	out := pmp(t, "segment", cat, "cat, kitten", "-o", overlay, "helicopter", "-masks", masks, "-json")
	var a engine.Answer
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatal(err)
	}
	img, err := photo.Read(cat)
	if err != nil {
		t.Fatal(err)
	}
	if a.Width != img.Rect.Dx() || a.Height != img.Rect.Dy() || len(a.Masks) != 2 {
		t.Fatalf("%d × %d with %d masks", a.Width, a.Height, len(a.Masks))
	}
	found, absent := a.Masks[0], a.Masks[1]
	if found.Text != "cat, kitten" || !found.Present || found.Score < 0.5 {
		t.Errorf("the cat: %q, present %v, score %v", found.Text, found.Present, found.Score)
	}
	if absent.Present || absent.Area != 0 || absent.Score >= 0.5 {
		t.Errorf("the helicopter: present %v, area %d, score %v", absent.Present, absent.Area, absent.Score)
	}
	pixels, err := mask.FromRLE(found.RLE.Counts, a.Width, a.Height)
	if err != nil {
		t.Fatal(err)
	}
	if n := mask.Area(pixels); n != found.Area || n < len(pixels)/10 {
		t.Errorf("the run lengths cover %d pixels, the area is %d of %d", n, found.Area, len(pixels))
	}

	painted := decodePNG(t, overlay)
	if painted.Bounds() != img.Rect {
		t.Errorf("the overlay is %v", painted.Bounds())
	}
	files, err := os.ReadDir(masks)
	if err != nil || len(files) != 2 {
		t.Fatalf("%d masks written, error %v", len(files), err)
	}
	written := decodePNG(t, filepath.Join(masks, files[0].Name()))
	for i, p := range pixels {
		if white := written.(*image.Paletted).Pix[i] != 0; white != (p != 0) {
			t.Fatalf("pixel %d of the written mask differs from the run lengths", i)
		}
	}
}

func TestTold(t *testing.T) {
	for _, test := range []struct {
		mask engine.Mask
		want string
	}{
		{engine.Mask{Text: "dog", Score: 0.02}, "dog                      not in this picture (0.02)"},
		{engine.Mask{Text: "tower", Score: 0.59, Present: true}, "tower                    0.59  unsure where"},
		{engine.Mask{Text: "cat", Score: 0.99, Present: true, Area: 50, BBox: [4]int{1, 2, 5, 10}}, "cat                      0.99   25.0 % of the picture, x 1 y 2, 5 × 10"},
	} {
		if got := told(test.mask, 200); got != test.want {
			t.Errorf("it says %q, not %q", got, test.want)
		}
	}
}

func decodePNG(t *testing.T, name string) image.Image {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// copyWeights writes the shipped weights to a folder, with one file changed.
func copyWeights(t *testing.T, change func(name string, data []byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	files, err := shipped.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := shipped.FS.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), change(f.Name(), data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	corrupt := filepath.Join(dir, "corrupt.jpg")
	data, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(corrupt, data[:300], 0o666); err != nil {
		t.Fatal(err)
	}
	truncated := copyWeights(t, func(name string, data []byte) []byte {
		if strings.HasSuffix(name, ".safetensors") {
			return data[:len(data)-1]
		}
		return data
	})
	flipped := copyWeights(t, func(name string, data []byte) []byte {
		if strings.HasSuffix(name, ".safetensors") {
			data = bytes.Clone(data)
			data[len(data)/2] ^= 1
		}
		return data
	})
	many := []string{"segment", cat}
	for range 300 {
		many = append(many, "dog")
	}
	for _, test := range []struct {
		about string
		args  []string
		want  string
	}{
		{"unknown command", []string{"segmant"}, "no command"},
		{"no prompt", []string{"segment", cat}, "at least one prompt"},
		{"empty prompt", []string{"segment", cat, " , "}, "prompt is empty"},
		{"300 prompts", many, "more than 255 prompts"},
		{"no photo", []string{"segment", filepath.Join(dir, "none.jpg"), "dog"}, "no such file"},
		{"corrupt photo", []string{"segment", corrupt, "dog"}, "corrupt.jpg"},
		{"unknown device", []string{"segment", cat, "dog", "-device", "abacus"}, "no device"},
		{"threshold", []string{"segment", cat, "dog", "-threshold", "7"}, "threshold"},
		{"truncated shard", []string{"segment", cat, "dog", "-weights", truncated}, "fetch it again"},
		{"flipped bit", []string{"segment", cat, "dog", "-weights", flipped}, "SHA-256"},
		{"no weights", []string{"segment", cat, "dog", "-weights", dir}, "manifest"},
		{"no data", []string{"eval"}, "-data"},
		{"no checkpoint", []string{"import", dir, "-o", dir}, "config.json"},
		{"no output", []string{"import", dir}, "-o"},
		{"evil checkpoint", []string{"inspect", "../../weights/torch/testdata/evil4.pkl"}, "may run code"},
		{"no page", []string{"serve", dir}, "build.sh"},
	} {
		err := run(test.args, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", test.about, err, test.want)
		}
	}
}

func TestInspect(t *testing.T) {
	out := pmp(t, "inspect")
	for _, want := range []string{"decoder.null_key", "text.word_u", "Apache-2.0"} {
		if !strings.Contains(out, want) {
			t.Errorf("inspect does not mention %q", want)
		}
	}
	if out := pmp(t, "inspect", "../../weights/torch/testdata/legacy.pth"); !strings.Contains(out, "bfloat16  1        3        6\n") {
		t.Errorf("inspect says of a checkpoint\n%s", out)
	}
}

// checkpoint writes the shipped weights as the checkpoint that training leaves.
func checkpoint(t *testing.T, change func([]weights.Entry) []weights.Entry) (dir string) {
	t.Helper()
	m, err := weights.Load(shipped.FS.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	var entries []weights.Entry
	for _, name := range m.Names() {
		x, err := m.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		f := make([]float32, x.Len())
		x.Float32(f)
		entries = append(entries, checkpointtest.Entries(quantize.Tensor{Name: name, Shape: x.Shape, Data: f})...)
	}
	manifest, err := shipped.FS.ReadFile("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(manifest, &all); err != nil {
		t.Fatal(err)
	}
	config := all["config"].(map[string]any)
	config["arch"], config["trained_names"] = all["arch"], all["trained_names"]
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := json.Marshal(all["parts"])
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for name, data := range map[string][]byte{"config.json": text, "parts.json": parts,
		"model.safetensors": quantize.Safetensors(change(entries)), "vocab.txt": m.Vocabulary()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestImport turns the shipped weights back into a checkpoint, imports it and
// expects the same numbers to within the rounding of int8. What the network
// does not have is left out.
func TestImport(t *testing.T) {
	m, err := weights.Load(shipped.FS.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	source := checkpoint(t, func(e []weights.Entry) []weights.Entry {
		return append(e, weights.Entry{Name: "training.head", DType: weights.F32, Shape: []int{1}, Data: make([]byte, 4)},
			weights.Entry{Name: "training.steps", DType: "I64", Shape: []int{1}, Data: make([]byte, 8)})
	})
	target := t.TempDir()
	if out := pmp(t, "import", source, "-o", target); !strings.Contains(out, "left out, since this network does not have them: training.head, training.steps\n") {
		t.Errorf("import says %q", out)
	}
	n, err := engine.ReadWeights(target)
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Names()) != len(m.Names()) {
		t.Errorf("%d tensors became %d", len(m.Names()), len(n.Names()))
	}
	for _, name := range m.Names() {
		before, err := m.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		after, err := n.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before.Shape, after.Shape) {
			t.Fatalf("%s had shape %v and has %v", name, before.Shape, after.Shape)
		}
		if _, quantized := before.Int8(); !quantized {
			continue
		}
		x, y := make([]float32, before.Len()), make([]float32, after.Len())
		before.Float32(x)
		after.Float32(y)
		for i := range x {
			if step := after.Scale(i / after.Width()); math.Abs(float64(x[i]-y[i])) > 0.51*float64(step) {
				t.Fatalf("%s[%d] was %v and is %v, more than half a step of %v away", name, i, x[i], y[i], step)
			}
		}
	}
}

// A checkpoint that is damaged or of another network leaves nothing behind.
func TestImportRefuses(t *testing.T) {
	replace := func(name, from string) func(dir string) {
		return func(dir string) {
			data, err := os.ReadFile("../../weights/torch/testdata/" + from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	truncate := func(dir string) {
		path := filepath.Join(dir, "model.safetensors")
		about, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, about.Size()/2); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(string) {}
	all := func(e []weights.Entry) []weights.Entry { return e }
	dir := ""
	for _, test := range []struct {
		what   string
		change func([]weights.Entry) []weights.Entry // of a new checkpoint, nil for the one before
		spoil  func(dir string)
		want   string
	}{
		{"missing", func(e []weights.Entry) []weights.Entry {
			return slices.DeleteFunc(e, func(e weights.Entry) bool { return strings.HasPrefix(e.Name, "trunk.") })
		}, nothing, "lacks tensors of this network: trunk.stem.weight, trunk.stem.bias, trunk.blocks.0.depthwise.weight,"},
		{"shape", func(e []weights.Entry) []weights.Entry {
			i := slices.IndexFunc(e, func(e weights.Entry) bool { return e.Name == "decoder.norm.bias" })
			e[i].Shape, e[i].Data = []int{1}, e[i].Data[:4]
			return e
		}, nothing, `"decoder.norm.bias" does not have the shape`},
		{"truncated", all, truncate, "not a safetensors file"},
		{"of another network", nil, replace("model.safetensors", "legacy4.pth"), `no tensor "text.word_u"`},
		{"evil", nil, replace("model.safetensors", "evil.pth"), `"__builtin__.eval"`},
	} {
		if test.change != nil {
			dir = checkpoint(t, test.change)
		}
		test.spoil(dir)
		target := filepath.Join(t.TempDir(), "new")
		err := run([]string{"import", dir, "-o", target}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.what, err, test.want)
		}
		if _, err := os.Stat(target); !os.IsNotExist(err) {
			t.Errorf("%s: import left a folder behind", test.what)
		}
	}
}

// catData is a data set of one photo, whose truth is what the model says.
func catData(t *testing.T) (dir string) {
	t.Helper()
	var a engine.Answer
	if err := json.Unmarshal([]byte(pmp(t, "segment", cat, "cat", "-json")), &a); err != nil {
		t.Fatal(err)
	}
	pixels, err := mask.FromRLE(a.Masks[0].RLE.Counts, a.Width, a.Height)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, sub := range []string{"images", "masks"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	truth := image.NewGray(image.Rect(0, 0, a.Width, a.Height))
	for i, p := range pixels {
		truth.SetGray(i%a.Width, i/a.Width, color.Gray{Y: 8 * p})
	}
	if err := writePNG(filepath.Join(dir, "masks", "one.png"), truth); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"images/one.jpg": data, "classes.json": []byte(`{"8": "cat", "9": "helicopter"}`),
		"dataset.json": []byte(`{"background": 0}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEval measures the model on one photo whose truth is the model's own
// mask, so that every figure must be (nearly) perfect.
func TestEval(t *testing.T) {
	dir := catData(t)
	for prompts, figures := range map[string][]string{"single": {"single_iou"}, "present": {"miou_foreground"},
		"all": {"presence_auc"}} {
		var got map[string]any
		out := pmp(t, "eval", "-data", dir, "-prompts", prompts, "-json")
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		for _, f := range figures {
			if v, ok := got[f].(float64); !ok || v < 0.999 {
				t.Errorf("prompts %s: %s is %v, want 1", prompts, f, got[f])
			}
		}
	}
}
