package huggingface

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/weights/quantize"
)

// asTorchvision is the ResNet of a fixture's checkpoint under torchvision's names, which
// are written here as they stand in its files, with the classifier behind it.
func asTorchvision(t *testing.T, arch string) (theirs []quantize.Tensor) {
	t.Helper()
	_, tensors, _ := checkpoint(t, arch)
	replace := strings.NewReplacer(
		"embedder.embedder.convolution.", "conv1.", "embedder.embedder.normalization.", "bn1.",
		"encoder.stages.0.layers.", "layer1.", "encoder.stages.1.layers.", "layer2.", "encoder.stages.2.layers.", "layer3.", "encoder.stages.3.layers.", "layer4.",
		".layer.0.convolution.", ".conv1.", ".layer.1.convolution.", ".conv2.", ".layer.2.convolution.", ".conv3.",
		".layer.0.normalization.", ".bn1.", ".layer.1.normalization.", ".bn2.", ".layer.2.normalization.", ".bn3.",
		".shortcut.convolution.", ".downsample.0.", ".shortcut.normalization.", ".downsample.1.")
	for _, x := range tensors {
		if name, ok := strings.CutPrefix(x.Name, "model.pixel_level_module.encoder."); ok {
			theirs = append(theirs, quantize.Tensor{Name: replace.Replace(name), Shape: x.Shape, Data: x.Data})
		}
	}
	return append(theirs, tensor("fc.weight", []int{1, 2}, 1, 2), tensor("fc.bias", []int{1}, 3))
}

func named(source *quantize.Source) map[string]quantize.Tensor {
	all := map[string]quantize.Tensor{}
	for _, x := range source.Tensors {
		all[x.Name] = x
	}
	return all
}

// A ResNet that is another one's twin takes its place, and nothing else changes, whatever
// library the checkpoint is of.
func TestReplaceBackbone(t *testing.T) {
	for _, arch := range []string{"mask2former", "maskformer", "maskformer-basic"} {
		labels, settings, older, want := detectron2(t, arch)
		twin := asTorchvision(t, arch)
		for _, name := range []string{"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias", "layer4.0.conv2.weight", "layer2.0.bn1.running_mean"} {
			if !slices.ContainsFunc(twin, func(x quantize.Tensor) bool { return x.Name == name }) {
				t.Fatalf("%s: the twin has no %q", arch, name)
			}
		}
		var blank []quantize.Tensor // the same checkpoint with a ResNet of ones
		for _, x := range older {
			if strings.HasPrefix(x.Name, "backbone.") {
				x.Data = slices.Repeat([]float32{1}, len(x.Data))
			}
			blank = append(blank, x)
		}
		source, _, err := ConvertDetectron2(Beside{Names: labels, Settings: settings}, blank, nil)
		if err != nil {
			t.Fatal(err)
		}
		report, err := replaceBackbone(source, twin, []string{"bn1.num_batches_tracked"})
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Used) != len(twin)-2 || !slices.Equal(report.Unused, []string{"bn1.num_batches_tracked", "fc.bias", "fc.weight"}) || slices.ContainsFunc(report.Unused, func(s string) bool { return !Ignored(s) }) {
			t.Errorf("%s: used %d of %d, unused %q", arch, len(report.Used), len(twin), report.Unused)
		}
		if !reflect.DeepEqual(named(source), named(want)) {
			t.Errorf("%s: the tensors are not those of the twin", arch)
		}
		if got := strings.Contains(string(source.Config), `"early":false`); !got {
			t.Errorf("%s: the stride of a block is not where torchvision has it: %s", arch, source.Config)
		}
		if len(source.Parts) != 2 {
			t.Errorf("%s: the parts are %v", arch, source.Parts)
		}
	}
}

func TestReplaceBackboneRefuses(t *testing.T) {
	basic, bottleneck := asTorchvision(t, "maskformer-basic"), asTorchvision(t, "mask2former")
	drop := func(from []quantize.Tensor, prefix string) []quantize.Tensor {
		return slices.DeleteFunc(slices.Clone(from), func(x quantize.Tensor) bool { return strings.HasPrefix(x.Name, prefix) })
	}
	double := func(part string) (all []quantize.Tensor) { // the tensors with part in their names have twice the rows
		for _, x := range bottleneck {
			if strings.HasPrefix(x.Name, part) {
				x.Shape = slices.Clone(x.Shape)
				x.Shape[0] *= 2
				x.Data = append(slices.Clone(x.Data), x.Data...)
			}
			all = append(all, x)
		}
		return all
	}
	for _, c := range []struct {
		arch    string
		tensors []quantize.Tensor
		want    string
	}{
		{"mask2former", basic, "basic blocks and not bottlenecks"},
		{"maskformer-basic", bottleneck, "bottlenecks and not basic blocks"},
		{"mask2former", drop(bottleneck, "layer1.1."), "[1 1 2 1] and not [2 1 2 1]"},
		{"mask2former", drop(bottleneck, "layer4."), "not a ResNet as torchvision saves it"},
		{"mask2former", drop(bottleneck, "conv1."), "not a ResNet as torchvision saves it"},
		{"mask2former", drop(bottleneck, "layer2.0.bn2.bias"), `lacks 1 tensors, "layer2.0.bn2.bias"`},
		{"mask2former", double("layer3.0.conv3"), "[32 64 192 160] and not [32 64 96 160]"},
		{"mask2former", double("conv1"), "first convolution: 32 and not 16"},
		{"mask2former", double("layer1.0.conv2"), "shape"},
		{"mask2former", append(slices.Clone(bottleneck), tensor("layer4.9.conv1.weight", []int{1}, 0)), "[2 1 2 10] and not"},
		{"mask2former-swin", bottleneck, "not a ResNet that begins"},
	} {
		config, tensors, others := checkpoint(t, c.arch)
		source, _, err := Convert(config, nil, tensors, others)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := replaceBackbone(source, c.tensors, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

func TestReadBackbone(t *testing.T) {
	config, tensors, others := checkpoint(t, "mask2former")
	source, _, err := Convert(config, nil, tensors, others)
	if err != nil {
		t.Fatal(err)
	}
	want := named(source)
	path := filepath.Join(t.TempDir(), "resnet50.safetensors")
	if err := os.WriteFile(path, file(asTorchvision(t, "mask2former")), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBackbone(source, path); err != nil || !reflect.DeepEqual(named(source), want) {
		t.Errorf("a twin's file changes the tensors: %v", err)
	}
	if _, err := ReadBackbone(source, path+".pth"); err == nil {
		t.Error("a file that is not there: no error")
	}
}
