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
	"github.com/pmp-seg/pmp/weights/quantize"
)

// What is used is needed, and told by its name.
func TestOVSegReport(t *testing.T) {
	_, tensors, _ := checkpoint(t, "ovseg")
	with := Beside{Merges: openBeside.Merges}
	needless := []string{"clip_adapter.clip_model.logit_scale", "clip_adapter.pixel_mean", "clip_adapter.pixel_std", "criterion.empty_weight"}
	more := slices.Clone(tensors)
	for _, name := range needless {
		more = append(more, tensor(name, []int{1}, 0))
	}
	source, report, err := ConvertDetectron2(with, more, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Used) != len(tensors) || !slices.Equal(report.Unused, needless) || len(report.Missing) > 0 || !slices.ContainsFunc(needless, Ignored) {
		t.Errorf("%d of %d are used; unused %v, missing %v", len(report.Used), len(tensors), report.Unused, report.Missing)
	}
	for _, name := range needless {
		if !Ignored(name) {
			t.Errorf("%q is not told to be needless", name)
		}
	}
	if source.Arch != "maskformer" || string(source.Vocabulary) != string(with.Merges) {
		t.Errorf("the network is a %s, the merges %q", source.Arch, source.Vocabulary)
	}
	for i, x := range tensors {
		_, report, err := ConvertDetectron2(with, slices.Delete(slices.Clone(tensors), i, i+1), nil)
		switch {
		case strings.HasSuffix(x.Name, "visual.mask_embedding"): // without it there are no mask prompts
			if err != nil {
				t.Errorf("without %q: %v", x.Name, err)
			}
		case err == nil || len(report.Missing) > 0 && !slices.Equal(report.Missing, []string{x.Name}):
			t.Errorf("without %q: missing %v, %v", x.Name, report.Missing, err)
		}
	}
	for _, part := range []string{"visual.positional_embedding", "visual.class_embedding", "visual.mask_embedding", "visual.proj", "in_proj_bias"} {
		i := slices.IndexFunc(tensors, func(x quantize.Tensor) bool { return strings.HasSuffix(x.Name, part) })
		short := slices.Clone(tensors)
		short[i] = tensor(short[i].Name, []int{7}, make([]float32, 7)...)
		if _, _, err := ConvertDetectron2(with, short, nil); err == nil || !strings.Contains(err.Error(), "shape") {
			t.Errorf("a short %s: %v", short[i].Name, err)
		}
	}
	if _, _, err := ConvertDetectron2(with, append(slices.Clone(tensors), tensor("clip_adapter.clip_model.visual.layer1.0.conv1.weight", []int{1}, 0)), nil); err == nil || !strings.Contains(err.Error(), "ResNet") {
		t.Errorf("a ResNet of CLIP: %v", err)
	}
}

// The whole picture's token is part of the first position; one mask prompt may stand for
// all patches; what is told beside the tensors counts.
func TestOVSegTensors(t *testing.T) {
	_, tensors, _ := checkpoint(t, "ovseg")
	find := func(list []quantize.Tensor, name string) quantize.Tensor {
		t.Helper()
		i := slices.IndexFunc(list, func(x quantize.Tensor) bool { return x.Name == name })
		if i < 0 {
			t.Fatalf("there is no %q", name)
		}
		return list[i]
	}
	const visual = "clip_adapter.clip_model.visual."
	first, positions := find(tensors, visual+"class_embedding"), find(tensors, visual+"positional_embedding")
	i := slices.IndexFunc(tensors, func(x quantize.Tensor) bool { return x.Name == visual+"mask_embedding" })
	d := tensors[i].Shape[2]
	tensors[i] = quantize.Tensor{Name: tensors[i].Name, Shape: []int{2, 1, d}, Data: tensors[i].Data[:2*d]}
	type settings struct {
		Clip struct {
			Prompts, Heads   int
			Threshold, Share float64
		}
		Picture struct{ Short, Long int }
		Text    struct {
			Heads int
			Quick bool `json:"quick_gelu"`
		}
	}
	convert := func(beside string) (source *quantize.Source, s settings) {
		t.Helper()
		with := Beside{Merges: openBeside.Merges}
		if beside != "" {
			with.Settings = []byte(beside)
		}
		source, _, err := ConvertDetectron2(with, tensors, nil)
		if err == nil {
			err = json.Unmarshal(source.Config, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return source, s
	}
	source, s := convert("")
	if s.Clip.Prompts != 2 || s.Clip.Heads != 2 || s.Clip.Threshold != 0.4 || s.Clip.Share != 0.7 || s.Picture.Short != 640 || s.Picture.Long != 2560 || s.Text.Heads != 2 || !s.Text.Quick {
		t.Errorf("by default: %+v", s)
	}
	for i, v := range find(source.Tensors, "vit.position").Data {
		want := positions.Data[i]
		if i < d {
			want += first.Data[i]
		}
		if v != want {
			t.Fatalf("number %d of the positions is %v, want %v", i, v, want)
		}
	}
	masked := find(source.Tensors, "vit.masked.1")
	if patches := positions.Shape[0] - 1; !slices.Equal(masked.Shape, []int{patches, d}) || !slices.Equal(masked.Data[(patches-1)*d:], tensors[i].Data[d:]) {
		t.Errorf("the second mask prompt of all patches has the shape %v", masked.Shape)
	}
	if _, s = convert(`{"mask_threshold":0.5,"clip_weight":0,"mask_prompts":false,"clip_heads":4,"text_heads":4,"quick_gelu":false,"short":512,"long":2048}`); s.Clip.Prompts != 0 ||
		s.Clip.Heads != 4 || s.Clip.Threshold != 0.5 || s.Clip.Share != 0 || s.Picture.Short != 512 || s.Picture.Long != 2048 || s.Text.Heads != 4 || s.Text.Quick {
		t.Errorf("as it is told: %+v", s)
	}
}

// OVSeg needs no names, but CLIP's merges.
func TestReadOVSeg(t *testing.T) {
	_, tensors, _ := checkpoint(t, "ovseg")
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("ovseg.pth", file(tensors))
	if _, _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "merges.txt") {
		t.Errorf("without merges: %v", err)
	}
	write("merges.txt", openBeside.Merges)
	source, _, err := Read(dir)
	if err != nil || source.TrainedNames != nil {
		t.Fatal(source, err)
	}
	write("ovseg.txt", []byte("dog\nsofa, couch\n"))
	if source, _, err = Read(dir); err != nil || !slices.Equal(source.TrainedNames, openBeside.Names) {
		t.Fatal(source, err)
	}
	if err := Guide(source, nil); err == nil {
		t.Error("guidance is added to an OVSeg")
	}
}

// readCLIP returns the fixture's CLIP, and a network to add it to.
func readCLIP(t *testing.T) (CLIP, func() *quantize.Source) {
	t.Helper()
	config, tensors, others := checkpoint(t, "clip")
	base, all, rest := checkpoint(t, "mask2former")
	return CLIP{Config: config, Merges: checkpointtest.Bytes(t, "../../model/testdata/clip.safetensors", "merges"), Tensors: tensors, Others: others}, func() *quantize.Source {
		source, _, err := Convert(base, nil, all, rest)
		if err != nil {
			t.Fatal(err)
		}
		return source
	}
}

func TestAddCLIP(t *testing.T) {
	clip, source := readCLIP(t)
	s := source()
	report, err := AddCLIP(s, clip)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Used) != len(clip.Tensors) || len(report.Unused) > 0 {
		t.Errorf("%d of %d are used; unused %v", len(report.Used), len(clip.Tensors), report.Unused)
	}
	var got struct {
		Labels []string
		Clip   struct {
			Scale, Threshold float64
			Mean             []float64
		}
	}
	if err := json.Unmarshal(s.Config, &got); err != nil {
		t.Fatal(err)
	}
	scale := clip.Tensors[slices.IndexFunc(clip.Tensors, func(x quantize.Tensor) bool { return x.Name == "logit_scale" })].Data[0]
	if got.Labels != nil || math.Abs(got.Clip.Scale-math.Exp(float64(scale))) > 1e-9 || got.Clip.Mean[0] != clipMean[0] || got.Clip.Threshold != 0.5 {
		t.Errorf("the configuration is %+v", got)
	}
	if _, err := AddCLIP(s, clip); err == nil {
		t.Error("a second CLIP is added")
	}
	if err := Guide(s, nil); err == nil {
		t.Error("guidance is added to a network with a CLIP")
	}
	for i, x := range clip.Tensors {
		short := clip
		short.Tensors = slices.Delete(slices.Clone(clip.Tensors), i, i+1)
		s := source()
		before := len(s.Tensors)
		report, err := AddCLIP(s, short)
		if err == nil || !slices.Equal(report.Missing, []string{x.Name}) || len(s.Tensors) != before {
			t.Errorf("without %q: missing %v, %v", x.Name, report.Missing, err)
		}
	}
}

func TestAddCLIPRefuses(t *testing.T) {
	clip, source := readCLIP(t)
	for _, c := range []struct{ old, new, want string }{
		{`"model_type": "clip",`, `"model_type": "siglip",`, "siglip"}, {`"hidden_act": "gelu"`, `"hidden_act": "relu"`, "activation"},
		{`"layer_norm_eps": 1e-05`, `"layer_norm_eps": 1e-06`, "epsilon"}, {`"num_hidden_layers": 4`, `"num_hidden_layers": 100000000`, "layers"},
		{`"num_hidden_layers": 4`, `"num_hidden_layers": "4"`, "config.json"},
	} {
		other := clip
		other.Config = []byte(strings.Replace(string(clip.Config), c.old, c.new, 1))
		if string(other.Config) == string(clip.Config) {
			t.Fatalf("the configuration has no %s: %s", c.old, clip.Config)
		}
		if _, err := AddCLIP(source(), other); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	// Older files say twice what their encoders are.
	older := clip
	older.Config = []byte(strings.Replace(string(clip.Config), `"model_type": "clip",`, `"model_type": "clip", "text_config_dict": null, "vision_config_dict": {"num_hidden_layers": 5},`, 1))
	if _, err := AddCLIP(source(), older); err == nil || !strings.Contains(err.Error(), "lacks 16 tensors") {
		t.Errorf("a layer that is not there: %v", err)
	}
	without := clip
	without.Merges = nil
	if _, err := AddCLIP(source(), without); err == nil || !strings.Contains(err.Error(), "merges.txt") {
		t.Errorf("without merges: %v", err)
	}
	if _, err := ReadCLIP(t.TempDir()); err == nil {
		t.Error("an empty folder is a CLIP")
	}
}
