package huggingface

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// ReadBackbone puts the ResNet of a file, the state dict of a classifier of torchvision,
// in the place of a source's ResNet. They must have the same shape.
func ReadBackbone(s *quantize.Source, path string) (Report, error) {
	tensors, others, err := read(path)
	if err != nil {
		return Report{}, err
	}
	report, err := replaceBackbone(s, tensors, others)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return report, err
}

func replaceBackbone(s *quantize.Source, tensors []quantize.Tensor, others []string) (Report, error) {
	var config map[string]any
	var base struct {
		Trunk struct {
			Kind           string
			Stem           int
			Widths, Depths []int
			Basic          bool
			Deep           bool
		}
	}
	if err := errors.Join(json.Unmarshal(s.Config, &config), json.Unmarshal(s.Config, &base)); err != nil {
		return Report{}, err
	}
	want := base.Trunk
	if want.Kind != "resnet" || want.Deep {
		return Report{}, fmt.Errorf("the checkpoint's image encoder is not a ResNet that begins with one convolution, as torchvision's do; its ResNet cannot take that place")
	}
	x, err := newConverter(tensors)
	if err != nil {
		return Report{}, err
	}
	x.alias = torchNames("")
	r := x.resNetOf(detectron2Names{from: x.from}, x.alias)
	if slices.Contains(x.missing, "conv1.weight") || slices.Contains(r.Depths, 0) {
		return x.report(others), errors.New(`this is not a ResNet as torchvision saves it, with tensors from "conv1.weight" to "layer4.0.conv1.weight"`)
	}
	kind := map[bool]string{true: "basic blocks", false: "bottlenecks"}
	for _, c := range []struct {
		what          string
		theirs, bases any
	}{
		{"blocks in its stages", r.Depths, want.Depths},
		{"blocks of the kind", kind[r.LayerType == "basic"], kind[want.Basic]},
		{"channels behind its stages", r.Widths, want.Widths},
		{"channels behind its first convolution", r.Stem, want.Stem},
	} {
		if theirs, bases := fmt.Sprint(c.theirs), fmt.Sprint(c.bases); theirs != bases {
			return x.report(others), fmt.Errorf("this ResNet has another shape than the checkpoint's: %s: %s and not %s", c.what, theirs, bases)
		}
	}
	r.convert(x)
	report := x.report(others)
	if x.err != nil {
		return report, x.err
	}
	if n := len(report.Missing); n > 0 {
		return report, fmt.Errorf("this ResNet lacks %d tensors, %q first", n, report.Missing[0])
	}
	place := map[string]int{}
	for i, t := range s.Tensors {
		if strings.HasPrefix(t.Name, "trunk.") {
			place[t.Name] = i
		}
	}
	for _, t := range x.tensors {
		i, ok := place[t.Name]
		if !ok || !slices.Equal(t.Shape, s.Tensors[i].Shape) {
			return report, fmt.Errorf("this ResNet has another shape than the checkpoint's, with %v for %s; it must be neither a wide one nor a ResNeXt", t.Shape, t.Name)
		}
		delete(place, t.Name)
		s.Tensors[i] = t
	}
	if len(place) > 0 {
		return report, fmt.Errorf("this ResNet has nothing in the place of %q", slices.Sorted(maps.Keys(place)))
	}
	// Where a bottleneck takes its stride is a matter of the ResNet.
	config["trunk"].(map[string]any)["early"] = false
	s.Parts = append(s.Parts, weights.Part{Name: "trunk", Source: "a classifier of torchvision", Note: "see there for its licence"})
	s.Config, err = json.Marshal(config)
	return report, err
}
