package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/internal/engine"
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
