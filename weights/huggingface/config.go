package huggingface

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// config is what of a checkpoint's config.json says which network it is. What
// transformers leaves out has its defaults.
type config struct {
	ModelType string            `json:"model_type"`
	Labels    map[string]string `json:"id2label"`
	Encoder   json.RawMessage   `json:"backbone_config"`
	backbone  backbone

	// Both
	MaskSize int `json:"mask_feature_size"`

	// Mask2Former
	FeatureSize   int    `json:"feature_size"`
	Hidden        int    `json:"hidden_dim"`
	EncoderFFN    int    `json:"encoder_feedforward_dim"`
	Activation    string `json:"activation_function"`
	EncoderLayers int    `json:"encoder_layers"`
	DecoderLayers int    `json:"decoder_layers"`
	Heads         int    `json:"num_attention_heads"`
	FFN           int    `json:"dim_feedforward"`
	PreNorm       bool   `json:"pre_norm"`
	Project       bool   `json:"enforce_input_projection"`
	Stride        int    `json:"common_stride"`
	Strides       []int  `json:"feature_strides"`
	Queries       int    `json:"num_queries"`

	// MaskFormer
	FPNSize int `json:"fpn_feature_size"`
	Decoder struct {
		ModelType  string `json:"model_type"`
		Activation string `json:"activation_function"`
		D          int    `json:"d_model"`
		Layers     int    `json:"decoder_layers"`
		Heads      int    `json:"decoder_attention_heads"`
		FFN        int    `json:"decoder_ffn_dim"`
		Queries    int    `json:"num_queries"`
		// With it the decoder's last norm comes behind every layer.
		Auxiliary bool `json:"auxiliary_loss"`
	} `json:"decoder_config"`
}

// preprocessor is what of preprocessor_config.json says how pictures are made
// ready.
type preprocessor struct {
	Size json.RawMessage `json:"size"`
	Max  int             `json:"max_size"`
	Mean [3]float64      `json:"image_mean"`
	Std  [3]float64      `json:"image_std"`
}

func readConfig(data []byte) (*config, error) {
	c := &config{MaskSize: 256, FeatureSize: 256, Hidden: 256, EncoderFFN: 1024, Activation: "relu", EncoderLayers: 6, DecoderLayers: 10,
		Heads: 8, FFN: 2048, Stride: 4, Strides: []int{4, 8, 16, 32}, Queries: 100, FPNSize: 256}
	d := &c.Decoder
	d.ModelType, d.Activation, d.D, d.Layers, d.Heads, d.FFN, d.Queries = "detr", "relu", 256, 6, 8, 2048, 100
	if err := json.Unmarshal(data, c); err != nil {
		return nil, err
	}
	var problem string
	var err error
	if c.backbone, problem, err = readBackbone(c.Encoder); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		bad bool
		why string
	}{
		{c.ModelType != "mask2former" && c.ModelType != "maskformer", fmt.Sprintf("its model_type is %q, not mask2former or maskformer", c.ModelType)},
		{problem != "", problem},
		{c.ModelType == "mask2former" && (c.PreNorm || c.Activation != "relu" || c.Project || c.FeatureSize != c.Hidden || c.Stride != 4 ||
			!slices.Equal(c.Strides, []int{4, 8, 16, 32})), "its decoder has a pre_norm, another activation than ReLU, strides other than 4 to 32, or two widths"},
		{c.ModelType == "maskformer" && (d.ModelType != "detr" || d.Activation != "relu" || d.Auxiliary), "its decoder is not DETR's with ReLU, without norms between the layers"},
		{len(c.Labels) == 0, "it has no id2label"},
	} {
		if x.bad {
			return nil, errors.New("this network cannot be imported: " + x.why)
		}
	}
	return c, nil
}

// backbone is what a config.json says of the image encoder.
type backbone interface {
	// problem says why it cannot be imported, if so.
	problem() string
	// trunk is the manifest's part about it.
	trunk() map[string]any
	convert(x *converter)
}

// readBackbone reads backbone_config; problem says why it cannot be imported.
func readBackbone(data []byte) (b backbone, problem string, err error) {
	var kind struct {
		ModelType string `json:"model_type"`
	}
	if data != nil {
		if err := json.Unmarshal(data, &kind); err != nil {
			return nil, "", err
		}
	}
	switch kind.ModelType {
	case "resnet":
		b = newResNet()
	case "swin", "maskformer-swin":
		b = newSwin()
	default:
		return nil, fmt.Sprintf("its backbone is of type %q; resnet and swin can be imported so far", kind.ModelType), nil
	}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, "", err
	}
	return b, b.problem(), nil
}

// labels are the names in the order of their numbers.
func (c *config) labels() ([]string, error) {
	names := make([]string, len(c.Labels))
	for i := range names {
		name, ok := c.Labels[strconv.Itoa(i)]
		if !ok {
			return nil, fmt.Errorf("id2label has %d names but none of number %d", len(names), i)
		}
		names[i] = name
	}
	return names, nil
}

// picture is the manifest's part about pictures.
type picture struct {
	Mean   [3]float64 `json:"mean"`
	Std    [3]float64 `json:"std"`
	Short  int        `json:"short,omitempty"`
	Long   int        `json:"long,omitempty"`
	Width  int        `json:"width,omitempty"`
	Height int        `json:"height,omitempty"`
}

// readPreprocessor reads how pictures are made ready; without a file as most
// checkpoints do it.
func readPreprocessor(data []byte) (picture, error) {
	p := preprocessor{Mean: [3]float64{0.485, 0.456, 0.406}, Std: [3]float64{0.229, 0.224, 0.225}, Max: 1333}
	if data != nil {
		if err := json.Unmarshal(data, &p); err != nil {
			return picture{}, err
		}
	}
	out := picture{Mean: p.Mean, Std: p.Std, Short: 800, Long: p.Max}
	if p.Size == nil {
		return out, nil
	}
	// Older files have the short side's length only, and max_size beside it.
	if json.Unmarshal(p.Size, &out.Short) == nil {
		return out, nil
	}
	var size struct {
		Short  int `json:"shortest_edge"`
		Long   int `json:"longest_edge"`
		Width  int `json:"width"`
		Height int `json:"height"`
	}
	if err := json.Unmarshal(p.Size, &size); err != nil {
		return picture{}, err
	}
	switch {
	case size.Width > 0 && size.Height > 0:
		out.Short, out.Long, out.Width, out.Height = 0, 0, size.Width, size.Height
	case size.Short > 0:
		out.Short = size.Short
		if size.Long > 0 {
			out.Long = size.Long
		}
		out.Long = max(out.Long, out.Short)
	default:
		return picture{}, errors.New("the preprocessor's size has neither a shortest_edge nor a width and a height")
	}
	return out, nil
}
