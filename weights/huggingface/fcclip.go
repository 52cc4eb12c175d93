package huggingface

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pmp-seg/pmp/weights/quantize"
)

// FC-CLIP is a Mask2Former whose backbone is CLIP's own image encoder, with the names
// that open_clip, and of a ConvNeXt timm, have for it.
const (
	fcclip    = "fcclip"
	clip      = "backbone.clip_model."
	visual    = clip + "visual."
	clipTrunk = visual + "trunk."
	clipHead  = visual + "head."
)

// vild are the templates that FC-CLIP says names with.
var vild = []string{
	"a photo of a {}.", "This is a photo of a {}", "There is a {} in the scene", "There is the {} in the scene", "a photo of a {} in the scene",
	"a photo of a small {}.", "a photo of a medium {}.", "a photo of a large {}.",
	"This is a photo of a small {}.", "This is a photo of a medium {}.", "This is a photo of a large {}.",
	"There is a small {} in the scene.", "There is a medium {} in the scene.", "There is a large {} in the scene.",
}

var errMerges = errors.New("it reads prompts with CLIP's tokenizer; put its merges.txt into the same folder")

func (x *converter) fcclip(n detectron2Names, with Beside, others []string) (*quantize.Source, Report, error) {
	if with.Merges == nil {
		return nil, Report{}, errMerges
	}
	isResNet := n.has(visual + "attnpool.")
	s, c, err := n.settled(x, with, Settings{QuickGelu: isResNet, Mean: times255(clipMean), Std: times255(clipStd)})
	if err != nil {
		return nil, Report{}, err
	}
	err = refused(
		refusal{n.arch != "mask2former", "its decoder is not Mask2Former's"},
		refusal{!isResNet && !n.has(clipTrunk+"stages."), "its CLIP is neither a ConvNeXt nor a ResNet"},
	)
	if err != nil {
		return nil, Report{}, err
	}
	var trunk map[string]any
	if isResNet {
		trunk = x.clipResNet(n)
	} else {
		widths, depths := x.convNeXt(n)
		trunk = map[string]any{"kind": "convnext", "widths": widths, "depths": depths}
	}
	width, layers := x.clipText(n, clip)
	if s.TextHeads == 0 {
		s.TextHeads = max(width/64, 1)
	}
	x.openHead(isResNet)
	guided := n.has(guidance)
	if guided {
		x.trainedGuidance(c.DecoderLayers - 1)
	}
	x.alias = n.of
	x.mask2former(c)
	settings := map[string]any{
		"picture": s.picture(), "dm": c.MaskSize, "d": c.Hidden, "heads": c.Heads, "ffn": c.FFN, "queries": c.Queries, "layers": c.DecoderLayers - 1,
		"pixels": map[string]any{"layers": c.EncoderLayers, "ffn": c.EncoderFFN},
		"trunk":  trunk,
		"text":   map[string]any{"layers": layers, "heads": s.TextHeads, "quick_gelu": s.QuickGelu},
		"alpha":  s.Alpha, "beta": s.Beta, "templates": vild,
	}
	if guided {
		settings["pmp"] = true
	}
	source, report, err := x.finish(fcclip, settings, others)
	if err != nil {
		return nil, report, err
	}
	source.Vocabulary, source.TrainedNames = with.Merges, with.Names
	source.Parts[0].Source = "a checkpoint of FC-CLIP"
	return source, report, nil
}

func (x *converter) convNeXt(n detectron2Names) (widths, depths []int) {
	x.linear("trunk.stem", clipTrunk+"stem.0")
	x.linear("trunk.norm", clipTrunk+"stem.1")
	for i := range 4 {
		to, from := fmt.Sprintf("trunk.stages.%d", i), fmt.Sprintf("%sstages.%d.", clipTrunk, i)
		if i > 0 {
			x.linear(to+".norm", from+"downsample.0")
			x.linear(to+".down", from+"downsample.1")
		}
		widths, depths = append(widths, 0), append(depths, n.count(from+"blocks."))
		for j := range depths[i] {
			to, from := fmt.Sprintf("%s.%d", to, j), fmt.Sprintf("%sblocks.%d.", from, j)
			x.linear(to+".conv", from+"conv_dw")
			x.linear(to+".norm", from+"norm")
			x.linear(to+".linear1", from+"mlp.fc1")
			factor, ok := x.take(from + "gamma")
			widths[i] = len(factor.Data)
			for _, part := range []string{".weight", ".bias"} {
				t, found := x.take(from + "mlp.fc2" + part)
				if !ok || !found {
					continue
				}
				if len(factor.Data) == 0 || len(t.Data)%len(factor.Data) != 0 {
					x.fail(t.Name)
					continue
				}
				each := len(t.Data) / len(factor.Data)
				data := slices.Clone(t.Data)
				for k := range data {
					data[k] *= factor.Data[k/each]
				}
				x.put(to+".linear2"+part, t.Shape, data)
			}
		}
	}
	return widths, depths
}

// clipResNet takes a ResNet and the attention that pools its last map.
func (x *converter) clipResNet(n detectron2Names) map[string]any {
	x.alias = torchNames(visual)
	r := x.resNetOf(n, x.alias)
	r.Average = true
	r.convert(x)
	x.alias = nil
	x.copy("clip.pool.position", visual+"attnpool.positional_embedding")
	for ours, theirs := range map[string]string{"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "c_proj"} {
		x.linear("clip.pool."+ours, visual+"attnpool."+theirs)
	}
	return r.trunk()
}

// clipText takes CLIP's text encoder, whose names begin with clip.
func (x *converter) clipText(n detectron2Names, clip string) (width, layers int) {
	x.copy("text.word_u", clip+"token_embedding.weight")
	x.copy("text.position", clip+"positional_embedding")
	x.linear("text.norm", clip+"ln_final")
	layers = x.clipLayers(n, "text.layers", clip+"transformer.resblocks.")
	return x.turned("text.projection", clip+"text_projection"), layers
}

// clipLayers takes the layers of one of CLIP's encoders.
func (x *converter) clipLayers(n detectron2Names, to, from string) (layers int) {
	layers = n.count(from)
	for i := range layers {
		to, from := fmt.Sprintf("%s.%d.", to, i), fmt.Sprintf("%s%d.", from, i)
		for _, part := range []string{"weight", "bias"} {
			x.rows(from+"attn.in_proj_"+part, to+"attention.q."+part, to+"attention.k."+part, to+"attention.v."+part)
		}
		for _, name := range [][2]string{{"attention.out", "attn.out_proj"}, {"norm1", "ln_1"}, {"norm2", "ln_2"}, {"linear1", "mlp.c_fc"}, {"linear2", "mlp.c_proj"}} {
			x.linear(to+name[0], from+name[1])
		}
	}
	return layers
}

// turned takes a matrix that is multiplied from the right there, and returns how many
// rows it has there.
func (x *converter) turned(to, from string) int {
	t, ok := x.take(from)
	if !ok {
		return 0
	}
	if len(t.Shape) != 2 {
		x.fail(t.Name)
		return 0
	}
	rows, columns := t.Shape[0], t.Shape[1]
	data := make([]float32, len(t.Data))
	for i := range rows {
		for j := range columns {
			data[j*rows+i] = t.Data[i*columns+j]
		}
	}
	x.put(to, []int{columns, rows}, data)
	return rows
}

// openHead takes what names proposals.
func (x *converter) openHead(pooled bool) {
	if !pooled {
		x.linear("clip.norm", clipTrunk+"head.norm")
	}
	switch {
	case pooled:
	case x.has(clipHead + "proj.weight"):
		x.unbiased("clip.head.0", clipHead+"proj")
	default:
		x.unbiased("clip.head.0", clipHead+"mlp.fc1")
		x.unbiased("clip.head.1", clipHead+"mlp.fc2")
	}
	x.linear("class.pool_norm", predictor+"_mask_pooling_proj.0")
	x.linear("class.pool_proj", predictor+"_mask_pooling_proj.1")
	for i := range 3 {
		x.linear(fmt.Sprintf("class.mlp.%d", i), fmt.Sprintf("%sclass_embed.layers.%d", predictor, i))
	}
	x.rows("void_embedding.weight", "class.void")
	for to, from := range map[string]string{"class.scale": predictor + "logit_scale", "clip.scale": clip + "logit_scale"} {
		if t, ok := x.take(from); ok {
			x.put(to, []int{len(t.Data)}, t.Data)
		}
	}
}

// unbiased takes a layer that may lack a bias, which is zero then.
func (x *converter) unbiased(to, from string) {
	if _, ok := x.from[from+".bias"]; ok {
		x.linear(to, from)
		return
	}
	t, ok := x.take(from + ".weight")
	if !ok || len(t.Shape) == 0 {
		return
	}
	x.put(to+".weight", t.Shape, t.Data)
	x.tensors = append(x.tensors, zeros(to+".bias", t.Shape[0]))
}
