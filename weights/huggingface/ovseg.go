package huggingface

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// OVSeg is a MaskFormer whose class head makes embeddings, and a CLIP of OpenAI that
// looks at what lies under each mask.
const (
	clipAdapter = "clip_adapter."
	ovsegClip   = clipAdapter + "clip_model."
	noObject    = clipAdapter + "non_object_embedding"
)

// crops is the manifest's part about CLIP's image encoder.
type crops struct {
	Layers    int        `json:"layers"`
	Heads     int        `json:"heads"`
	QuickGelu bool       `json:"quick_gelu"`
	Prompts   int        `json:"prompts"`
	Mean      [3]float64 `json:"mean"`
	Std       [3]float64 `json:"std"`
	Threshold float64    `json:"threshold"`
	Scale     float64    `json:"scale"`
	Share     *float64   `json:"share,omitempty"`
}

// Of the pixels from 0 to 1 that CLIP sees.
var clipMean, clipStd = [3]float64{0.48145466, 0.4578275, 0.40821073}, [3]float64{0.26862954, 0.26130258, 0.27577711}

// times255 makes numbers for pixels from 0 to 255 of them.
func times255(x [3]float64) [3]float64 { return [3]float64{255 * x[0], 255 * x[1], 255 * x[2]} }

func (x *converter) ovseg(n detectron2Names, with Beside, others []string) (*quantize.Source, Report, error) {
	if with.Merges == nil {
		return nil, Report{}, errMerges
	}
	weight, prompts := 0.7, true
	s, c, err := n.settled(x, with, Settings{Mean: imageNetMean, Std: imageNetStd, Short: 640, Long: 2560, QuickGelu: true,
		Threshold: 0.4, Weight: &weight, Prompts: &prompts})
	if err != nil {
		return nil, Report{}, err
	}
	if err := n.encoder(x, c, s); err != nil {
		return nil, Report{}, err
	}
	if err := refused(refusal{n.has(ovsegClip + "visual.layer1."), "its CLIP has a ResNet, not a vision transformer"}); err != nil {
		return nil, Report{}, err
	}
	const vision, perHead = ovsegClip + "visual.", 64
	head := crops{QuickGelu: s.QuickGelu, Mean: clipMean, Std: clipStd, Threshold: s.Threshold, Scale: 100, Share: s.Weight}
	width, layers := x.clipText(n, ovsegClip)
	x.copy("vit.patch.weight", vision+"conv1.weight")
	patches := x.tokens(vision+"class_embedding", vision+"positional_embedding")
	x.linear("vit.norm_before", vision+"ln_pre")
	x.linear("vit.norm_after", vision+"ln_post")
	head.Layers = x.clipLayers(n, "vit.layers", vision+"transformer.resblocks.")
	head.Heads = max(x.turned("vit.projection", vision+"proj")/perHead, 1)
	if *s.Prompts && n.has(vision+"mask_embedding") {
		head.Prompts = x.maskPrompts(vision+"mask_embedding", patches)
	}
	if s.ClipHeads > 0 {
		head.Heads = s.ClipHeads
	}
	if s.TextHeads == 0 {
		s.TextHeads = max(width/perHead, 1)
	}
	for i := range 2 {
		x.linear(fmt.Sprintf("class.mlp.%d", i), fmt.Sprintf("%sclass_embed.layers.%d", predictor, i))
	}
	x.rows(noObject, "class.void")
	x.alias = n.of
	settings := x.generator(c, s.picture())
	settings["clip"], settings["templates"] = head, vild
	settings["text"] = map[string]any{"layers": layers, "heads": s.TextHeads, "quick_gelu": s.QuickGelu}
	source, report, err := x.finish(c.ModelType, settings, others)
	if err != nil {
		return nil, report, err
	}
	source.Vocabulary, source.TrainedNames = with.Merges, with.Names
	source.Parts[0].Source = "a checkpoint of OVSeg"
	return source, report, nil
}

// tokens takes the positions of CLIP's tokens, with the first token itself in the first
// of them, and returns how many there are of patches.
func (x *converter) tokens(first, positions string) (patches int) {
	token, ok := x.take(first)
	p, found := x.take(positions)
	if !ok || !found {
		return 0
	}
	if len(p.Shape) != 2 || p.Shape[0] < 2 || len(token.Data) != p.Shape[1] {
		x.fail(positions)
		return 0
	}
	data := slices.Clone(p.Data)
	for i, v := range token.Data {
		data[i] += v
	}
	x.put("vit.position", p.Shape, data)
	return p.Shape[0] - 1
}

// maskPrompts takes what replaces patches outside of masks, and returns before how many
// layers. There may be one row for all patches.
func (x *converter) maskPrompts(from string, patches int) (layers int) {
	t, ok := x.take(from)
	if !ok || patches == 0 {
		return 0
	}
	if len(t.Shape) != 3 || t.Shape[0] > mostParts || t.Shape[1] != 1 && t.Shape[1] != patches {
		x.fail(from)
		return 0
	}
	n := t.Shape[1] * t.Shape[2]
	for i := range t.Shape[0] {
		x.put(fmt.Sprintf("vit.masked.%d", i), []int{patches, t.Shape[2]}, slices.Repeat(t.Data[i*n:(i+1)*n], patches/t.Shape[1]))
	}
	return t.Shape[0]
}

// CLIP is a CLIP as the transformers library saves it.
type CLIP struct {
	Config       []byte // config.json
	Preprocessor []byte // preprocessor_config.json, or nil
	Merges       []byte // merges.txt
	Tensors      []quantize.Tensor
	Others       []string // tensors that have no floating point numbers
}

// ReadCLIP reads a folder of the transformers library.
func ReadCLIP(dir string) (CLIP, error) {
	var c CLIP
	for name, to := range map[string]*[]byte{"config.json": &c.Config, "preprocessor_config.json": &c.Preprocessor, "merges.txt": &c.Merges} {
		var err error
		if *to, err = os.ReadFile(filepath.Join(dir, name)); err != nil && (name == "config.json" || !errors.Is(err, fs.ErrNotExist)) {
			return c, err
		}
	}
	var err error
	c.Tensors, c.Others, err = readShards(dir)
	return c, err
}

// clipEncoder is what a CLIP's config.json says of one of its encoders.
type clipEncoder struct {
	Layers     int     `json:"num_hidden_layers"`
	Heads      int     `json:"num_attention_heads"`
	Activation string  `json:"hidden_act"`
	Epsilon    float64 `json:"layer_norm_eps"`
}

// AddCLIP makes CLIP name the proposals of a network that has a list of labels: of its
// own class head only what it says of void remains.
func AddCLIP(s *quantize.Source, clip CLIP) (Report, error) {
	var settings map[string]any
	if err := json.Unmarshal(s.Config, &settings); err != nil {
		return Report{}, err
	}
	switch {
	case settings["labels"] == nil || settings["clip"] != nil:
		return Report{}, errors.New("-clip is for a MaskFormer or a Mask2Former with a list of labels; this network has a CLIP of its own")
	case settings["pmp"] != nil:
		return Report{}, errors.New("-clip cannot be added to a network with prompt guidance: proposals that depend on prompts would have to be looked at anew for each question")
	}
	text := clipEncoder{Layers: 12, Heads: 8, Activation: "quick_gelu", Epsilon: 1e-5}
	vision := clipEncoder{Layers: 12, Heads: 12, Activation: "quick_gelu", Epsilon: 1e-5}
	var c struct {
		ModelType string          `json:"model_type"`
		Text      json.RawMessage `json:"text_config"`
		Vision    json.RawMessage `json:"vision_config"`
		// Older files have what differs from the library's own values here.
		OldText   json.RawMessage `json:"text_config_dict"`
		OldVision json.RawMessage `json:"vision_config_dict"`
	}
	err := json.Unmarshal(clip.Config, &c)
	for _, part := range []struct {
		data json.RawMessage
		to   *clipEncoder
	}{{c.Text, &text}, {c.OldText, &text}, {c.Vision, &vision}, {c.OldVision, &vision}} {
		if err == nil && part.data != nil {
			err = json.Unmarshal(part.data, part.to)
		}
	}
	if err != nil {
		return Report{}, fmt.Errorf("CLIP's config.json: %w", err)
	}
	mean := preprocessor{Mean: clipMean, Std: clipStd}
	if clip.Preprocessor != nil {
		if err := json.Unmarshal(clip.Preprocessor, &mean); err != nil {
			return Report{}, fmt.Errorf("CLIP's preprocessor_config.json: %w", err)
		}
	}
	reasons := []refusal{{c.ModelType != "clip", fmt.Sprintf("the model_type of its CLIP is %q, not clip", c.ModelType)}}
	for _, e := range []clipEncoder{text, vision} {
		reasons = append(reasons, refusal{e.Activation != "gelu" && e.Activation != "quick_gelu" || e.Epsilon != 1e-5 || e.Layers < 1 || e.Layers > mostParts,
			"its CLIP has another activation than GELU, another epsilon of norms than 1e-5, or no layers"})
	}
	if err := refused(reasons...); err != nil {
		return Report{}, err
	}
	if clip.Merges == nil {
		return Report{}, errors.New("CLIP's tokenizer is missing; put its merges.txt beside its config.json")
	}
	x, err := newConverter(clip.Tensors)
	if err != nil {
		return Report{}, err
	}
	const words, pictures = "text_model.", "vision_model."
	x.copy("text.word_u", words+"embeddings.token_embedding.weight")
	x.copy("text.position", words+"embeddings.position_embedding.weight")
	x.linear("text.norm", words+"final_layer_norm")
	x.copy("text.projection", "text_projection.weight")
	x.copy("vit.patch.weight", pictures+"embeddings.patch_embedding.weight")
	x.tokens(pictures+"embeddings.class_embedding", pictures+"embeddings.position_embedding.weight")
	x.linear("vit.norm_before", pictures+"pre_layrnorm") // the library's own spelling
	x.linear("vit.norm_after", pictures+"post_layernorm")
	x.copy("vit.projection", "visual_projection.weight")
	for _, encoder := range []struct {
		to, from string
		layers   int
	}{{"text.layers", words, text.Layers}, {"vit.layers", pictures, vision.Layers}} {
		for i := range encoder.layers {
			to, from := fmt.Sprintf("%s.%d.", encoder.to, i), fmt.Sprintf("%sencoder.layers.%d.", encoder.from, i)
			x.attention(to+"attention", from+"self_attn")
			for _, name := range [][2]string{{"norm1", "layer_norm1"}, {"norm2", "layer_norm2"}, {"linear1", "mlp.fc1"}, {"linear2", "mlp.fc2"}} {
				x.linear(to+name[0], from+name[1])
			}
		}
	}
	head := crops{Layers: vision.Layers, Heads: vision.Heads, QuickGelu: vision.Activation == "quick_gelu", Mean: mean.Mean, Std: mean.Std, Threshold: 0.5}
	if t, ok := x.take("logit_scale"); ok && len(t.Data) == 1 {
		head.Scale = min(math.Exp(float64(t.Data[0])), 100)
	}
	delete(settings, "labels")
	settings["clip"], settings["templates"] = head, vild
	settings["text"] = map[string]any{"layers": text.Layers, "heads": text.Heads, "quick_gelu": text.Activation == "quick_gelu"}
	added, report, err := x.finish("clip", settings, clip.Others)
	if err != nil {
		return report, fmt.Errorf("CLIP: %w", err)
	}
	s.Config, s.Vocabulary = added.Config, clip.Merges
	s.Tensors, s.Parts = append(s.Tensors, added.Tensors...), append(s.Parts, weights.Part{Name: "clip", Source: "a CLIP of the transformers library", Note: "see there for its licence"})
	return report, nil
}
