package huggingface

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// That names and numbers end up where they belong is tested in package model,
// where whole networks are compared with transformers.

func tensor(name string, shape []int, x ...float32) quantize.Tensor {
	return quantize.Tensor{Name: name, Shape: shape, Data: x}
}

// file is a safetensors file of some tensors.
func file(tensors []quantize.Tensor) []byte {
	return quantize.Safetensors(checkpointtest.Entries(tensors...))
}

func checkpoint(t *testing.T, name string) (config []byte, tensors []quantize.Tensor, others []string) {
	t.Helper()
	return checkpointtest.Read(t, "../../model/testdata/"+name+".safetensors")
}

// A folded batch norm does what both did one after the other.
func TestFold(t *testing.T) {
	const epsilon = 1e-5
	x := &converter{from: map[string]quantize.Tensor{}, used: map[string]bool{}}
	for _, e := range []quantize.Tensor{
		tensor("a.convolution.weight", []int{2, 1, 1, 2}, 1, 2, 3, 4),
		tensor("a.normalization.weight", []int{2}, 3, 1),
		tensor("a.normalization.bias", []int{2}, 5, -1),
		tensor("a.normalization.running_mean", []int{2}, 7, 2),
		tensor("a.normalization.running_var", []int{2}, 4-epsilon, 0.25-epsilon),
	} {
		x.from[e.Name] = e
	}
	x.fold("b", "a")
	if x.err != nil || len(x.tensors) != 2 {
		t.Fatal(x.tensors, x.err)
	}
	// 3/√4 and 1/√0.25 times the weights; 5 - 7·1.5 and -1 - 2·2.
	for i, want := range [][]float32{{1.5, 3, 6, 8}, {-5.5, -5}} {
		for j, got := range x.tensors[i].Data {
			if math.Abs(float64(got-want[j])) > 1e-5 {
				t.Errorf("%s is %v, want %v", x.tensors[i].Name, x.tensors[i].Data, want)
			}
		}
	}
}

func TestReport(t *testing.T) {
	for _, name := range checkpointtest.Bases(t, "../../model/testdata") {
		config, entries, others := checkpoint(t, name)
		_, report, err := Convert(config, nil, entries, others)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Used)+len(report.Unused) != len(entries)+len(others) || len(report.Missing) > 0 {
			t.Errorf("%s: %d used, %d unused and %d missing of %d", name, len(report.Used), len(report.Unused), len(report.Missing), len(entries)+len(others))
		}
		for _, unused := range report.Unused {
			if !Ignored(unused) {
				t.Errorf("%s: nothing takes %q", name, unused)
			}
		}
		// What is used is needed.
		for i := 0; i < len(entries); i += 29 {
			e := entries[i]
			if Ignored(e.Name) {
				continue
			}
			_, report, err := Convert(config, nil, slices.Delete(slices.Clone(entries), i, i+1), others)
			if err == nil || !slices.Equal(report.Missing, []string{e.Name}) {
				t.Errorf("%s without %q: missing %v, %v", name, e.Name, report.Missing, err)
			}
		}
		_, report, err = Convert(config, nil, append(entries, tensor("model.extra", []int{1}, 0)), others)
		if err != nil || !slices.Contains(report.Unused, "model.extra") {
			t.Errorf("%s with one more: unused %v, %v", name, report.Unused, err)
		}
		if _, _, err := Convert(config, nil, append(entries, entries[0]), others); err == nil {
			t.Errorf("%s with a tensor twice: no error", name)
		}
	}
}

func TestRefuses(t *testing.T) {
	for about, c := range map[string]struct{ name, old, new, want string }{
		"type":       {"mask2former", `"model_type": "mask2former"`, `"model_type": "detr"`, "model_type"},
		"backbone":   {"mask2former", `"model_type": "resnet"`, `"model_type": "focalnet"`, "focalnet"},
		"basic":      {"maskformer", `"layer_type": "bottleneck"`, `"layer_type": "deep"`, "deep"},
		"positions":  {"maskformer-swin", `"use_absolute_embeddings": false`, `"use_absolute_embeddings": true`, "positions"},
		"no biases":  {"mask2former-swin", `"qkv_bias": true`, `"qkv_bias": false`, "biases"},
		"stages":     {"mask2former-swin", `"num_heads": [`, `"num_heads": [1, `, "four stages"},
		"pre-norm":   {"mask2former", `"pre_norm": false`, `"pre_norm": true`, "pre_norm"},
		"widths":     {"mask2former", `"hidden_dim": 128`, `"hidden_dim": 64`, "two widths"},
		"activation": {"maskformer", `"activation_function": "relu"`, `"activation_function": "gelu"`, "DETR"},
		"labels":     {"maskformer", `"3": "potted plant"`, `"30": "potted plant"`, "number 3"},
		"JSON":       {"maskformer", `{`, `[`, "config.json"},
	} {
		config, entries, others := checkpoint(t, c.name)
		changed := strings.Replace(string(config), c.old, c.new, 1)
		if about == "activation" {
			changed = strings.ReplaceAll(string(config), c.old, c.new)
		}
		if changed == string(config) {
			t.Fatalf("%s: the configuration has no %s", about, c.old)
		}
		if _, _, err := Convert([]byte(changed), nil, entries, others); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", about, err, c.want)
		}
	}
	for _, name := range []string{"mask2former", "mask2former-swin"} {
		config, entries, others := checkpoint(t, name)
		for i, e := range entries {
			if !slices.ContainsFunc([]string{"running_var", "in_proj_bias", "key.weight"}, func(s string) bool { return strings.HasSuffix(e.Name, s) }) {
				continue
			}
			short := slices.Clone(entries)
			short[i] = tensor(e.Name, []int{7}, make([]float32, 7)...)
			if _, _, err := Convert(config, nil, short, others); err == nil || !strings.Contains(err.Error(), "shape") {
				t.Errorf("a short %s: %v", e.Name, err)
			}
		}
	}
}

func TestPreprocessor(t *testing.T) {
	for text, want := range map[string]picture{
		"":                             {Short: 800, Long: 1333},
		`{}`:                           {Short: 800, Long: 1333},
		`{"size":640,"max_size":2560}`: {Short: 640, Long: 2560},
		`{"size":{"shortest_edge":512,"longest_edge":2048}}`: {Short: 512, Long: 2048},
		`{"size":{"shortest_edge":1400}}`:                    {Short: 1400, Long: 1400},
		`{"size":{"height":384,"width":400}}`:                {Width: 400, Height: 384},
	} {
		data := []byte(text)
		if text == "" {
			data = nil
		}
		got, err := readPreprocessor(data)
		want.Mean, want.Std = [3]float64{0.485, 0.456, 0.406}, [3]float64{0.229, 0.224, 0.225}
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{`[]`, `{"size":{}}`, `{"size":"large"}`, `{"image_mean":0.5}`} {
		if got, err := readPreprocessor([]byte(text)); err == nil {
			t.Errorf("%s: got %+v and no error", text, got)
		}
	}
}

// Tensors may lie in several files.
func TestReadDir(t *testing.T) {
	config, entries, _ := checkpoint(t, "maskformer")
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if Is(dir) {
		t.Error("an empty folder has a checkpoint")
	}
	write("config.json", config)
	if !Is(dir) {
		t.Error("a checkpoint is not seen")
	}
	if _, _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("without tensors: %v", err)
	}
	write("model.safetensors", file(entries))
	whole, _, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	half := len(entries) / 2
	write("a.safetensors", file(entries[:half]))
	write("b.safetensors", file(entries[half:]))
	files := map[string]string{}
	for i, e := range entries {
		files[e.Name] = []string{"a.safetensors", "b.safetensors"}[i/half%2]
	}
	files[entries[len(entries)-1].Name] = "b.safetensors"
	index, err := json.Marshal(map[string]any{"weight_map": files})
	if err != nil {
		t.Fatal(err)
	}
	write("model.safetensors.index.json", index)
	if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	parts, _, err := ReadDir(dir)
	if err != nil || len(parts.Tensors) != len(whole.Tensors) {
		t.Errorf("%d tensors in two files, %v, want %d", len(parts.Tensors), err, len(whole.Tensors))
	}
	write("b.safetensors", file(entries[half:])[:5000])
	if _, _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "b.safetensors") {
		t.Errorf("a truncated file: %v", err)
	}
	write("model.safetensors.index.json", []byte(`{"weight_map":{"x":"../a.safetensors"}}`))
	if _, _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "not in its folder") {
		t.Errorf("a file elsewhere: %v", err)
	}
}

// Guidance that was trained lies in a folder beside the checkpoint's files, and
// replaces what Guide would begin with.
func TestTrainedGuidance(t *testing.T) {
	config, entries, others := checkpoint(t, "mask2former")
	want, _, err := Convert(config, nil, entries, others)
	must(t, err)
	base := len(want.Tensors)
	reader, err := weights.Load(shipped.FS.ReadFile)
	must(t, err)
	must(t, Guide(want, reader))
	guidance := want.Tensors[base:]
	for _, x := range guidance {
		x.Data[0]++
	}
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "pmp"), 0o777))
	write := func(name string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	write("config.json", config)
	write("model.safetensors", file(entries))
	write("pmp/config.json", []byte(`{"arch":"guidance","pmp":true,"text":{"layers":3,"heads":12,"max_tokens":64},"templates":["{}"],"parts":[{"name":"text"}]}`))
	write("pmp/model.safetensors", file(guidance))
	write("pmp/vocab.txt", []byte("a\nb\n"))
	got, _, err := ReadDir(dir)
	must(t, err)
	if string(got.Vocabulary) != "a\nb\n" || len(got.Parts) != 2 || got.Parts[1].Name != "text" {
		t.Errorf("the vocabulary is %q, the parts are %v", got.Vocabulary, got.Parts)
	}
	if string(got.Config) != string(want.Config) {
		t.Errorf("the configuration is\n%s, want\n%s", got.Config, want.Config)
	}
	found := map[string][]float32{}
	for _, x := range got.Tensors {
		found[x.Name] = x.Data
	}
	if len(found) != len(want.Tensors) {
		t.Errorf("%d tensors, want %d", len(found), len(want.Tensors))
	}
	for _, x := range want.Tensors {
		if !slices.Equal(found[x.Name], x.Data) {
			t.Errorf("%s differs", x.Name)
		}
	}
	if err := Guide(got, reader); err != ErrGuided {
		t.Errorf("more guidance: %v, want %v", err, ErrGuided)
	}
	must(t, os.Remove(filepath.Join(dir, "pmp/vocab.txt")))
	if _, _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), "guidance") {
		t.Errorf("half of the guidance: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
