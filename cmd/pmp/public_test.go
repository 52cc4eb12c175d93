package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// TestImportPublic imports a small checkpoint in the layout of the transformers
// library, and takes it to a photo. That its numbers are right is tested in
// package model.
func TestImportPublic(t *testing.T) {
	config, all, _ := checkpointtest.Read(t, "../../model/testdata/mask2former.safetensors")
	entries := checkpointtest.Entries(all...)
	source := t.TempDir()
	tensors := quantize.Safetensors(entries)
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", config)
	write("preprocessor_config.json", []byte(`{"size":{"width":64,"height":96}}`))

	// What cannot be used leaves nothing behind.
	target := filepath.Join(t.TempDir(), "weights")
	for about, data := range map[string][]byte{
		"truncated":     tensors[:len(tensors)-1000],
		"empty":         {},
		"not a tensor":  tensors[8:],
		"a part":        quantize.Safetensors(entries[:len(entries)-3]),
		"another shape": quantize.Safetensors(append(entries[1:len(entries):len(entries)], weights.Entry{Name: entries[0].Name, DType: weights.F32, Shape: []int{3}, Data: make([]byte, 12)})),
	} {
		write("model.safetensors", data)
		if err := run([]string{"import", source, "-o", target}, &bytes.Buffer{}); err == nil {
			t.Errorf("%s: no error", about)
		}
		if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: there is a folder: %v", about, err)
		}
	}

	write("model.safetensors", tensors)
	sizes := map[string]int{}
	for _, store := range []string{"f32", "int8", "f16"} {
		out := pmp(t, "import", source, "-o", target, "-store", store)
		if !strings.Contains(out, "0 are not") {
			t.Errorf("the report is %q", out)
		}
		m, err := engine.ReadWeights(target)
		if err != nil {
			t.Fatal(err)
		}
		sizes[store] = m.Size()
	}
	if !(2*sizes["int8"] < sizes["f32"] && sizes["f16"] < sizes["f32"]*6/10) {
		t.Errorf("the sizes are %v", sizes)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	pmp(t, "import", source, "-o", plain)
	pmp(t, "import", source, "-o", target, "-pmp")
	photo := "../../site/examples/cat.jpg"
	ask := func(dir string) string {
		return pmp(t, "segment", photo, "dog", "sky, grass", "-weights", dir, "-json")
	}
	if ask(plain) != ask(target) {
		t.Error("guidance that was not trained changes the answer")
	}
	var got engine.Answer
	if err := json.Unmarshal([]byte(ask(target)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Masks) != 2 || got.Masks[1].Text != "sky, grass" {
		t.Errorf("the answer is %+v", got)
	}
	err := run([]string{"segment", photo, "unicorn", "-weights", target}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "potted plant") {
		t.Errorf("a name that is not a label: %v", err)
	}
}

// A ResNet of torchvision takes the place of the checkpoint's, and the answer with it is
// another one; its own ResNet under torchvision's names changes nothing.
func TestImportBackbone(t *testing.T) {
	config, all, _ := checkpointtest.Read(t, "../../model/testdata/mask2former.safetensors")
	base := t.TempDir()
	write := func(dir, name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(base, "config.json", config)
	write(base, "preprocessor_config.json", []byte(`{"size":{"width":64,"height":96}}`))
	write(base, "model.safetensors", quantize.Safetensors(checkpointtest.Entries(all...)))
	replace := strings.NewReplacer("embedder.embedder.convolution", "conv1", "embedder.embedder.normalization", "bn1",
		"encoder.stages.0.layers", "layer1", "encoder.stages.1.layers", "layer2", "encoder.stages.2.layers", "layer3", "encoder.stages.3.layers", "layer4",
		"layer.0.convolution", "conv1", "layer.1.convolution", "conv2", "layer.2.convolution", "conv3", "layer.0.normalization", "bn1", "layer.1.normalization", "bn2",
		"layer.2.normalization", "bn3", "shortcut.convolution", "downsample.0", "shortcut.normalization", "downsample.1")
	var twin, other []quantize.Tensor
	for _, x := range all {
		if name, ok := strings.CutPrefix(x.Name, "model.pixel_level_module.encoder."); ok {
			x.Name = replace.Replace(name)
			twin = append(twin, x)
			x.Data = slices.Clone(x.Data)
			slices.Reverse(x.Data)
			other = append(other, x)
		}
	}
	answer := func(backbone []quantize.Tensor) string {
		args, dir := []string{"import", base, "-o", filepath.Join(t.TempDir(), "weights")}, t.TempDir()
		if backbone != nil {
			args = append(args, "-backbone", write(dir, "resnet.safetensors", quantize.Safetensors(checkpointtest.Entries(backbone...))))
		}
		if out := pmp(t, args...); strings.Contains(out, "unused") {
			t.Errorf("the report is %q", out)
		}
		return pmp(t, "segment", "../../site/examples/cat.jpg", "dog", "-weights", args[3], "-json")
	}
	own := answer(nil)
	if answer(twin) != own {
		t.Error("a twin changes the answer")
	}
	if answer(other) == own {
		t.Error("another ResNet changes nothing")
	}
	short := write(t.TempDir(), "short.safetensors", quantize.Safetensors(checkpointtest.Entries(twin[:9]...)))
	for want, args := range map[string][]string{
		"not a ResNet as torchvision": {base, "-backbone", short},
		"public checkpoints":          {t.TempDir(), "-backbone", short},
	} {
		if err := run(append([]string{"import", "-o", filepath.Join(t.TempDir(), "weights")}, args...), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestImportVocabulary gives networks a list of names in place of CLIP's text encoder.
func TestImportVocabulary(t *testing.T) {
	source := t.TempDir()
	for _, name := range []string{"ovseg", "fcclip"} {
		t.Run(name, func(t *testing.T) { importVocabulary(t, name, filepath.Join(source, name)) })
	}
	source = filepath.Join(source, "fcclip")
	closed, ours := t.TempDir(), checkpoint(t, func(e []weights.Entry) []weights.Entry { return e })
	config, tensors, _ := checkpointtest.Read(t, "../../model/testdata/mask2former.safetensors")
	for name, data := range map[string][]byte{"config.json": config, "model.safetensors": quantize.Safetensors(checkpointtest.Entries(tensors...))} {
		if err := os.WriteFile(filepath.Join(closed, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ from, names, want string }{
		{source, "hole", "name 2 is empty"}, {source, "empty", "name 1 is empty"}, {source, "void", "no names"}, {source, "many", "at most 16384"}, {source, "missing", "missing"},
		{closed, "names", "names of their own"}, {ours, "names", "small text encoder"},
	} {
		target := filepath.Join(t.TempDir(), "weights")
		err := run([]string{"import", c.from, "-o", target, "-vocabulary", filepath.Join(source, c.names)}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("-vocabulary %s: %v, want %q", c.names, err, c.want)
		}
		if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("-vocabulary %s: there is a folder: %v", c.names, err)
		}
	}
}

// importVocabulary does that to the fixture of a network, in a folder for it.
func importVocabulary(t *testing.T, network, source string) {
	fixture := "../../model/testdata/" + network + ".safetensors"
	_, tensors, _ := checkpointtest.Read(t, fixture)
	if err := os.Mkdir(source, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		network + ".pth": quantize.Safetensors(checkpointtest.Entries(tensors...)), network + ".txt": []byte("dog"), network + ".json": []byte(`{"short":64,"long":640,"heads":4}`),
		"merges.txt": checkpointtest.Bytes(t, fixture, "merges"), "names": []byte("0:invalid_class_id\n1:dog,puppy\n2:sky\n"),
		"hole": []byte("dog\n, \nsky\n"), "empty": nil, "void": []byte("0:invalid_class_id\n"), "many": []byte(strings.Repeat("dog\n", model.MaxLabels+1)),
	} {
		if err := os.WriteFile(filepath.Join(source, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	sizes := map[string]int{}
	for _, more := range [][]string{nil, {"-vocabulary", filepath.Join(source, "names")}} {
		target := filepath.Join(t.TempDir(), "weights")
		out := pmp(t, append([]string{"import", source, "-o", target, "-store", "int8"}, more...)...)
		if got := strings.Contains(out, "2 names with 3 phrases take"); got != (more != nil) {
			t.Errorf("import with %q prints %q", more, out)
		}
		pmp(t, "segment", "../../site/examples/cat.jpg", "puppy", "sky", "-weights", target)
		m, err := engine.ReadWeights(target)
		if err != nil {
			t.Fatal(err)
		}
		sizes[m.Tokenizer] = m.Size()
		if left := slices.ContainsFunc(m.Names(), func(name string) bool { return strings.HasPrefix(name, "text.") }); left != (more == nil) {
			t.Errorf("a text encoder with %q: %v", more, left)
		}
		err = run([]string{"segment", "../../site/examples/cat.jpg", "unicorn", "-weights", target}, &bytes.Buffer{})
		if known := err != nil && strings.Contains(err.Error(), "knows 2 names"); known != (more != nil) {
			t.Errorf("another name with %q: %v", more, err)
		}
	}
	if len(sizes) != 2 || sizes[""] == 0 || sizes[""] >= sizes["vocab.txt"] {
		t.Errorf("sizes by tokenizer: %v", sizes)
	}
}

// A CLIP names what a Mask2Former proposes, and OVSeg what it does; prompts are any. What
// cannot be used leaves nothing behind.
func TestImportCLIP(t *testing.T) {
	const photo, testdata = "../../site/examples/cat.jpg", "../../model/testdata/"
	write := func(dir, name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	folder := func(name string) (dir string) {
		dir = t.TempDir()
		config, all, _ := checkpointtest.Read(t, testdata+name+".safetensors")
		write(dir, "model.safetensors", quantize.Safetensors(checkpointtest.Entries(all...)))
		write(dir, "config.json", config)
		return dir
	}
	base, clip, ovseg, target := folder("mask2former"), folder("clip"), t.TempDir(), filepath.Join(t.TempDir(), "weights")
	write(base, "preprocessor_config.json", []byte(`{"size":{"width":64,"height":96}}`))
	refused := func(want string, args ...string) {
		t.Helper()
		if err := run(append([]string{"import", "-o", target}, args...), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", args, err, want)
		}
		if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: there is a folder: %v", args, err)
		}
	}
	refused("merges.txt", base, "-clip", clip)
	write(clip, "merges.txt", checkpointtest.Bytes(t, testdata+"clip.safetensors", "merges"))
	refused("public checkpoints", t.TempDir(), "-clip", clip)
	refused("prompt guidance", base, "-clip", clip, "-pmp")
	refused("model_type", base, "-clip", base)
	whole, err := os.ReadFile(filepath.Join(clip, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	write(clip, "model.safetensors", whole[:len(whole)-1000])
	refused("", base, "-clip", clip)
	write(clip, "model.safetensors", whole)

	data := catData(t)
	_, all, _ := checkpointtest.Read(t, testdata+"ovseg.safetensors")
	write(ovseg, "model.pth", quantize.Safetensors(checkpointtest.Entries(all...)))
	refused("merges.txt", ovseg)
	write(ovseg, "merges.txt", checkpointtest.Bytes(t, testdata+"ovseg.safetensors", "merges"))
	write(ovseg, "model.json", []byte(`{"short": 64, "long": 128, "heads": 4, "clip_weight": 1.5}`))
	refused("no network", ovseg)
	write(ovseg, "model.json", []byte(`{"short": 64, "long": 128, "heads": 4}`))
	for _, args := range [][]string{{base, "-clip", clip}, {ovseg}} {
		out := pmp(t, append([]string{"import", "-o", target}, args...)...)
		if strings.Contains(out, "unused") || !strings.Contains(out, "0 are not") {
			t.Errorf("the report is %q", out)
		}
		var got engine.Answer
		if err := json.Unmarshal([]byte(pmp(t, "segment", photo, "unicorn", "a red thing, dog", "-weights", target, "-json")), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Masks) != 2 || got.Masks[0].Text != "unicorn" || !(got.Masks[0].Score > 0) {
			t.Errorf("the answer is %+v", got)
		}
		var figures map[string]any
		if err := json.Unmarshal([]byte(pmp(t, "eval", "-data", data, "-prompts", "present", "-weights", target, "-json")), &figures); err != nil {
			t.Fatal(err)
		}
		if v, ok := figures["miou_foreground"].(float64); !ok || v < 0 || v > 1 {
			t.Errorf("the figures are %v", figures)
		}
	}
}
