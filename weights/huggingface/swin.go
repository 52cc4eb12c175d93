package huggingface

import "fmt"

// swin is a Swin Transformer.
type swin struct {
	Channels   int     `json:"num_channels"`
	Patch      int     `json:"patch_size"`
	Width      int     `json:"embed_dim"`
	Depths     []int   `json:"depths"`
	Heads      []int   `json:"num_heads"`
	Window     int     `json:"window_size"`
	Ratio      float64 `json:"mlp_ratio"`
	Bias       bool    `json:"qkv_bias"`
	Activation string  `json:"hidden_act"`
	Positions  bool    `json:"use_absolute_embeddings"`
	Epsilon    float64 `json:"layer_norm_eps"`
}

func newSwin() *swin {
	return &swin{Channels: 3, Patch: 4, Width: 96, Depths: []int{2, 2, 6, 2}, Heads: []int{3, 6, 12, 24}, Window: 7, Ratio: 4,
		Bias: true, Activation: "gelu", Epsilon: 1e-5}
}

func (s *swin) problem() string {
	if s.Channels != 3 || s.Patch != 4 || s.Activation != "gelu" || s.Positions || !s.Bias || s.Epsilon != 1e-5 || len(s.Depths) != 4 || len(s.Heads) != 4 {
		return "its Swin Transformer is not one of four stages with patches of four pixels, biases, GELU and no absolute positions"
	}
	return ""
}

func (s *swin) trunk() map[string]any {
	var widths, ffn []int
	for i := range s.Depths {
		widths = append(widths, s.Width<<i)
		ffn = append(ffn, int(s.Ratio*float64(widths[i])))
	}
	return map[string]any{"kind": "swin", "window": s.Window, "widths": widths, "depths": s.Depths, "heads": s.Heads, "ffn": ffn}
}

func (s *swin) convert(x *converter) {
	// MaskFormer's has a name of its own, and its norms have numbers.
	from, norm := imageLevel, imageLevel+"hidden_states_norms.stage%d"
	first := 1
	if x.has(imageLevel + "model.embeddings.norm.weight") {
		from, norm, first = imageLevel+"model.", imageLevel+"hidden_states_norms.%d", 0
	}
	x.linear("trunk.patch", from+"embeddings.patch_embeddings.projection")
	x.linear("trunk.norm", from+"embeddings.norm")
	for stage, depth := range s.Depths {
		to, layer := fmt.Sprintf("trunk.stages.%d", stage), fmt.Sprintf("%sencoder.layers.%d", from, stage)
		for i := range depth {
			to, block := fmt.Sprintf("%s.%d.", to, i), fmt.Sprintf("%s.blocks.%d.", layer, i)
			for _, part := range []string{".weight", ".bias"} {
				x.join(to+"qkv"+part, block+"attention.self.query"+part, block+"attention.self.key"+part, block+"attention.self.value"+part)
			}
			x.copy(to+"position", block+"attention.self.relative_position_bias_table")
			for ours, theirs := range map[string]string{"norm1": "layernorm_before", "out": "attention.output.dense",
				"norm2": "layernorm_after", "linear1": "intermediate.dense", "linear2": "output.dense"} {
				x.linear(to+ours, block+theirs)
			}
		}
		x.linear(to+".norm", fmt.Sprintf(norm, stage+first))
		if stage+1 < len(s.Depths) {
			x.linear(to+".merge.norm", layer+".downsample.norm")
			x.copy(to+".merge.weight", layer+".downsample.reduction.weight")
		}
	}
}
