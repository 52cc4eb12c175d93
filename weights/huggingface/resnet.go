package huggingface

import (
	"fmt"
	"strconv"
	"strings"
)

// resnet is a ResNet.
type resnet struct {
	Channels    int    `json:"num_channels"`
	Stem        int    `json:"embedding_size"`
	Widths      []int  `json:"hidden_sizes"`
	Depths      []int  `json:"depths"`
	LayerType   string `json:"layer_type"`
	Activation  string `json:"hidden_act"`
	StemStrides bool   `json:"downsample_in_first_stage"`
	Early       bool   `json:"downsample_in_bottleneck"`

	// Not in the transformers library
	Deep    bool  `json:"-"` // the stem is three convolutions
	Average bool  `json:"-"` // strides are means of cells, as CLIP has them
	Grid    []int `json:"-"` // dilations in the last stage, a number for each block, or none
}

func newResNet() *resnet {
	return &resnet{Channels: 3, Stem: 64, LayerType: "bottleneck", Activation: "relu",
		Widths: []int{256, 512, 1024, 2048}, Depths: []int{3, 4, 6, 3}}
}

func (r *resnet) problem() string {
	switch {
	case layers[r.LayerType] == nil:
		return "its backbone has layers of type " + strconv.Quote(r.LayerType) + ", not bottleneck or basic"
	case r.Channels != 3 || r.Activation != "relu" || r.StemStrides || len(r.Widths) != 4 || len(r.Depths) != 4:
		return "its ResNet is not one of four stages with ReLU"
	}
	return ""
}

func (r *resnet) trunk() map[string]any {
	t := map[string]any{"kind": "resnet", "stem": r.Stem, "widths": r.Widths, "depths": r.Depths, "early": r.Early}
	if r.LayerType == "basic" {
		t["basic"] = true
	}
	if r.Deep {
		t["deep"] = true
	}
	if r.Average {
		t["average"] = true
	}
	if r.Grid != nil {
		t["dilations"] = r.Grid
	}
	return t
}

// layers are our names of a block's convolutions.
var layers = map[string][]string{"bottleneck": {"reduce", "conv", "expand"}, "basic": {"conv", "last"}}

// stem are names of the stem's convolutions as the transformers library would have
// them; it has the first one only.
var stem = []string{imageLevel + "embedder.embedder", imageLevel + "embedder.second", imageLevel + "embedder.third"}

func (r *resnet) convert(x *converter) {
	if r.Deep {
		for i, name := range stem {
			x.fold(fmt.Sprintf("trunk.stem.%d", i), name)
		}
	} else {
		x.fold("trunk.stem", stem[0])
	}
	in := r.Stem
	for stage, depth := range r.Depths {
		for i := range depth {
			to, layer := fmt.Sprintf("trunk.stages.%d.%d", stage, i), fmt.Sprintf("%sencoder.stages.%d.layers.%d", imageLevel, stage, i)
			for j, part := range layers[r.LayerType] {
				x.fold(to+"."+part, fmt.Sprintf("%s.layer.%d", layer, j))
			}
			if out := r.Widths[stage]; i == 0 && (stage > 0 || in != out) {
				x.fold(to+".shortcut", layer+".shortcut")
			}
		}
		in = r.Widths[stage]
	}
}

// torchNames are the names that torchvision and CLIP have for a ResNet's tensors, behind
// a prefix, for those of the transformers library.
func torchNames(prefix string) func(name string) (theirs string, third int) {
	pairs := []string{".shortcut.convolution.", ".downsample.0.", ".shortcut.normalization.", ".downsample.1."}
	for i, name := range stem {
		pairs = append(pairs, name+".convolution.", fmt.Sprintf("%sconv%d.", prefix, i+1), name+".normalization.", fmt.Sprintf("%sbn%d.", prefix, i+1),
			fmt.Sprintf(".layer.%d.convolution.", i), fmt.Sprintf(".conv%d.", i+1), fmt.Sprintf(".layer.%d.normalization.", i), fmt.Sprintf(".bn%d.", i+1))
	}
	for stage := range 4 {
		pairs = append(pairs, fmt.Sprintf("%sencoder.stages.%d.layers.", imageLevel, stage), fmt.Sprintf("%slayer%d.", prefix, stage+1))
	}
	r := strings.NewReplacer(pairs...)
	return func(name string) (string, int) { return r.Replace(name), 0 }
}

// resNetOf finds out what ResNet the tensors are of that have names for those of the
// transformers library.
func (x *converter) resNetOf(n detectron2Names, names func(name string) (theirs string, third int)) *resnet {
	side := func(name string) int {
		theirs, _ := names(name)
		return x.side(theirs, 0)
	}
	has := func(layer string) bool { // its convolution or its norm
		convolution, _ := names(layer + ".convolution.")
		norm, _ := names(layer + ".normalization.")
		return n.has(convolution) || n.has(norm)
	}
	r, last := &resnet{LayerType: "basic", Deep: has(stem[1])}, stem[0]
	if has(imageLevel + "encoder.stages.0.layers.0.layer.2") {
		r.LayerType = "bottleneck"
	}
	if r.Deep {
		last = stem[2]
	}
	r.Stem = side(last + ".convolution.weight")
	for stage := range 4 {
		blocks := fmt.Sprintf("%sencoder.stages.%d.layers.", imageLevel, stage)
		r.Widths = append(r.Widths, side(fmt.Sprintf("%s0.layer.%d.convolution.weight", blocks, len(layers[r.LayerType])-1)))
		theirs, _ := names(blocks)
		r.Depths = append(r.Depths, n.count(theirs))
	}
	return r
}
