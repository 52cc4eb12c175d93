package huggingface

import (
	"fmt"
	"strconv"
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
	return t
}

// layers are our names of a block's convolutions.
var layers = map[string][]string{"bottleneck": {"reduce", "conv", "expand"}, "basic": {"conv", "last"}}

func (r *resnet) convert(x *converter) {
	x.fold("trunk.stem", imageLevel+"embedder.embedder")
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
