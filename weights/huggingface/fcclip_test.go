package huggingface

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/weights/quantize"
)

var openBeside = Beside{Names: []string{"dog", "sofa, couch"}, Merges: []byte("#version: 0.2\n")}

// What is used is needed, and told by its name.
func TestFCCLIPReport(t *testing.T) {
	for _, name := range []string{"fcclip", "fcclip-attention"} {
		t.Run(name, func(t *testing.T) { reportsFCCLIP(t, name) })
	}
}

func reportsFCCLIP(t *testing.T, name string) {
	_, tensors, _ := checkpoint(t, name)
	source, report, err := ConvertDetectron2(openBeside, append(tensors, tensor("criterion.empty_weight", []int{1}, 0)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Used) != len(tensors) || !slices.Equal(report.Unused, []string{"criterion.empty_weight"}) || len(report.Missing) > 0 {
		t.Errorf("%d of %d are used; unused %v, missing %v", len(report.Used), len(tensors), report.Unused, report.Missing)
	}
	if !slices.Equal(source.TrainedNames, openBeside.Names) || string(source.Vocabulary) != string(openBeside.Merges) {
		t.Errorf("the names are %q, the merges %q", source.TrainedNames, source.Vocabulary)
	}
	for i, x := range tensors {
		_, report, err := ConvertDetectron2(openBeside, slices.Delete(slices.Clone(tensors), i, i+1), nil)
		switch {
		case strings.HasSuffix(x.Name, "visual.head.mlp.fc1.bias"): // a layer need not have one
			if err != nil {
				t.Errorf("without %q: %v", x.Name, err)
			}
		case err == nil || len(report.Missing) > 0 && !slices.Equal(report.Missing, []string{x.Name}):
			t.Errorf("without %q: missing %v, %v", x.Name, report.Missing, err)
		}
	}
	for _, part := range []string{"blocks.0.mlp.fc2.weight", "blocks.0.mlp.fc2.bias", "text_projection", "in_proj_bias", "layer1.0.conv2.weight", "layer1.0.downsample.1.running_mean"} {
		i := slices.IndexFunc(tensors, func(x quantize.Tensor) bool { return strings.HasSuffix(x.Name, part) })
		if i < 0 {
			continue
		}
		short := slices.Clone(tensors)
		short[i] = tensor(short[i].Name, []int{7}, make([]float32, 7)...)
		if _, _, err := ConvertDetectron2(openBeside, short, nil); err == nil || !strings.Contains(err.Error(), "shape") {
			t.Errorf("a short %s: %v", short[i].Name, err)
		}
	}
}

// What CLIP's image encoder is its tensors say.
func TestFCCLIPEncoder(t *testing.T) {
	_, tensors, _ := checkpoint(t, "fcclip-attention")
	source, _, err := ConvertDetectron2(openBeside, tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"trunk":{"average":true,"deep":true,"depths":[1,1,1,2],"early":false,"kind":"resnet","stem":16,"widths":[64,128,256,512]}`, `"quick_gelu":true`, `"heads":2,"layers":2`} {
		if !strings.Contains(string(source.Config), part) {
			t.Errorf("the configuration has no %s: %s", part, source.Config)
		}
	}
	with := openBeside
	with.Settings = []byte(`{"quick_gelu": false}`)
	if source, _, err = ConvertDetectron2(with, tensors, nil); err != nil || !strings.Contains(string(source.Config), `"quick_gelu":false`) {
		t.Errorf("quick_gelu stays: %v", err)
	}
	for i := range tensors {
		tensors[i].Name = strings.Replace(tensors[i].Name, visual, visual+"transformer.", 1)
	}
	if _, _, err := ConvertDetectron2(openBeside, tensors, nil); err == nil || !strings.Contains(err.Error(), "neither a ConvNeXt nor a ResNet") {
		t.Errorf("another encoder: %v", err)
	}
}

// CLIP's image head may be one layer without a bias.
func TestFCCLIPSingleHead(t *testing.T) {
	_, tensors, _ := checkpoint(t, "fcclip")
	tensors = slices.DeleteFunc(tensors, func(x quantize.Tensor) bool { return strings.Contains(x.Name, "visual.head.mlp") })
	tensors = append(tensors, tensor(clipHead+"proj.weight", []int{2, 1}, 3, 5))
	source, _, err := ConvertDetectron2(openBeside, tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]float32{}
	for _, x := range source.Tensors {
		if strings.HasPrefix(x.Name, "clip.head.") {
			found[x.Name] = x.Data
		}
	}
	if len(found) != 2 || !slices.Equal(found["clip.head.0.weight"], []float32{3, 5}) || !slices.Equal(found["clip.head.0.bias"], []float32{0, 0}) {
		t.Errorf("the head is %v", found)
	}
}

func TestReadFCCLIP(t *testing.T) {
	_, tensors, _ := checkpoint(t, "fcclip")
	dir := t.TempDir()
	for name, data := range map[string][]byte{"fcclip.pth": file(tensors), "fcclip.txt": []byte("dog\nsofa, couch\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "merges.txt") {
		t.Errorf("without merges: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "merges.txt"), openBeside.Merges, 0o666); err != nil {
		t.Fatal(err)
	}
	source, _, err := Read(dir)
	if err != nil || source.Arch != fcclip || !slices.Equal(source.TrainedNames, openBeside.Names) {
		t.Fatal(source, err)
	}
	if err := Guide(source, nil); err != nil {
		t.Fatal(err)
	}
	if err := Guide(source, nil); err != ErrGuided {
		t.Errorf("guidance beside guidance: %v", err)
	}
}

// Guidance that was trained is in the file itself.
func TestFCCLIPGuidance(t *testing.T) {
	_, tensors, _ := checkpoint(t, "fcclip")
	source, _, err := ConvertDetectron2(openBeside, tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := len(source.Tensors)
	if err := Guide(source, nil); err != nil {
		t.Fatal(err)
	}
	added := source.Tensors[plain:]
	for i, x := range added {
		for j := range x.Data {
			x.Data[j] += float32(i) + 0.5
		}
	}
	got, report, err := ConvertDetectron2(openBeside, slices.Concat(tensors, added), nil)
	if err != nil || len(report.Unused) > 0 || !strings.Contains(string(got.Config), `"pmp":true`) || len(got.Tensors) != len(source.Tensors) {
		t.Fatalf("unused %v, %v", report.Unused, err)
	}
	for _, want := range added {
		i := slices.IndexFunc(got.Tensors, func(x quantize.Tensor) bool { return x.Name == want.Name })
		if i < 0 || !slices.Equal(got.Tensors[i].Data, want.Data) {
			t.Errorf("%s is not what was trained", want.Name)
		}
	}
	if err := Guide(got, nil); err != ErrGuided {
		t.Errorf("more guidance: %v", err)
	}
	for i, x := range added {
		_, report, err := ConvertDetectron2(openBeside, slices.Concat(tensors, slices.Delete(slices.Clone(added), i, i+1)), nil)
		if err == nil || !slices.Equal(report.Missing, []string{x.Name}) {
			t.Errorf("without %s: missing %v, %v", x.Name, report.Missing, err)
		}
	}
}
