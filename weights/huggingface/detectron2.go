package huggingface

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pmp-seg/pmp/weights/quantize"
)

// Beside is what lies beside a checkpoint of detectron2.
type Beside struct {
	Names    []string // of the classes; FC-CLIP's and OVSeg's of those that it was trained on
	Settings []byte   // JSON of Settings, or nil
	Merges   []byte   // of CLIP's tokenizer, for FC-CLIP and OVSeg
}

// Settings are what the tensors of a detectron2 checkpoint do not tell. Numbers are
// as detectron2's own configurations have them: pixels go from 0 to 255.
type Settings struct {
	Mean  [3]float64 `json:"mean"`
	Std   [3]float64 `json:"std"`
	Short int        `json:"short"`
	Long  int        `json:"long"`
	Heads int        `json:"heads"`         // of MaskFormer; Mask2Former's tensors tell
	Early bool       `json:"stride_in_1x1"` // where a block of the ResNet takes its stride

	// Grid is the dilation of each block of the ResNet's last stage; without it 1, 2 and 4
	// where three convolutions begin, as detectron2's DeepLab has it, and else 1.
	Grid []int `json:"res5_multi_grid"`

	// FC-CLIP
	Alpha     float64 `json:"alpha"`
	Beta      float64 `json:"beta"`
	TextHeads int     `json:"text_heads"` // 0: one for each 64 channels, as CLIP has them
	QuickGelu bool    `json:"quick_gelu"` // by default CLIP's ResNets have it, and its ConvNeXts do not

	// OVSeg, with its configuration's names in the end
	ClipHeads int      `json:"clip_heads"`     // of CLIP's image encoder, as TextHeads
	Threshold float64  `json:"mask_threshold"` // MASK_THR
	Weight    *float64 `json:"clip_weight"`    // CLIP_ENSEMBLE_WEIGHT
	Prompts   *bool    `json:"mask_prompts"`   // MASK_PROMPT_FWD
}

// Of ImageNet's pixels from 0 to 255.
var imageNetMean, imageNetStd = [3]float64{123.675, 116.28, 103.53}, [3]float64{58.395, 57.12, 57.375}

// detectron2Files are the endings of files that detectron2 writes.
var detectron2Files = []string{".pkl", ".pth"}

// detectron2In is the checkpoint of detectron2 that a path means, a file or a folder
// with one, and empty if there is none.
func detectron2In(path string) string {
	about, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if !about.IsDir() {
		return path
	}
	if _, err := os.Stat(filepath.Join(path, "config.json")); err == nil {
		return ""
	}
	var found []string
	for _, ending := range detectron2Files {
		some, _ := filepath.Glob(filepath.Join(path, "*"+ending)) // the pattern is well formed
		found = append(found, some...)
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// beside is the path of a file of the same name with another ending.
func beside(path, ending string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ending
}

// readDetectron2 reads a checkpoint, the names of its classes from the .txt of the
// same name beside it, a line each, which OVSeg need not have, Settings from the .json,
// if there is one, and merges.txt.
func readDetectron2(path string) (*quantize.Source, Report, error) {
	var with Beside
	var names []byte
	var err error
	for name, to := range map[string]*[]byte{beside(path, ".txt"): &names, beside(path, ".json"): &with.Settings, filepath.Join(filepath.Dir(path), "merges.txt"): &with.Merges} {
		if *to, err = os.ReadFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, Report{}, err
		}
	}
	tensors, others, err := read(path)
	if err != nil {
		return nil, Report{}, err
	}
	if names != nil {
		with.Names = lines(names)
	} else if !slices.ContainsFunc(tensors, func(t quantize.Tensor) bool { return t.Name == noObject }) {
		return nil, Report{}, fmt.Errorf("classes are only numbers in %s; write their names, a line each, to %s", path, beside(path, ".txt"))
	}
	source, report, err := ConvertDetectron2(with, tensors, others)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return source, report, err
}

// lines are those of a text without the spaces at their ends. Lists of names with
// synonyms are also common with numbers before the names, from 1 on, and one for what
// is no class.
func lines(text []byte) (all []string) {
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		line = numbered.ReplaceAllString(strings.TrimSpace(line), "")
		if line != "invalid_class_id" {
			all = append(all, line)
		}
	}
	return all
}

var numbered = regexp.MustCompile(`^\d+:`)

func readSettings(data []byte, s Settings) (Settings, error) {
	s.Heads, s.Alpha, s.Beta = 8, 0.4, 0.8
	if s.Short == 0 {
		s.Short, s.Long = 800, 1333
	}
	if data == nil {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("the settings in its .json: %w", err)
	}
	return s, nil
}

// picture is the manifest's part about pictures.
func (s Settings) picture() picture {
	p := picture{Short: s.Short, Long: s.Long}
	for i := range p.Mean {
		p.Mean[i], p.Std[i] = math.Round(s.Mean[i]/255*1e9)/1e9, math.Round(s.Std[i]/255*1e9)/1e9
	}
	return p
}

// ConvertDetectron2 makes weights of the tensors of a Mask2Former or a MaskFormer on
// a ResNet or a Swin Transformer, an FC-CLIP on a ConvNeXt or a ResNet of CLIP, or an
// OVSeg, as detectron2 saves them.
func ConvertDetectron2(with Beside, tensors []quantize.Tensor, others []string) (*quantize.Source, Report, error) {
	x, err := newConverter(tensors)
	if err != nil {
		return nil, Report{}, err
	}
	n := newDetectron2Names(x.from)
	switch {
	case n.has(clip):
		return x.fcclip(n, with, others)
	case n.has(noObject):
		return x.ovseg(n, with, others)
	}
	labels := with.Names
	s, c, err := n.settled(x, with, Settings{Mean: imageNetMean, Std: imageNetStd})
	if err != nil {
		return nil, Report{}, err
	}
	if err := n.encoder(x, c, s); err != nil {
		return nil, Report{}, err
	}
	if err := refused(refusal{n.has(predictor + "class_embed.layers."), "its classes are embeddings, not a list"}); err != nil {
		return nil, Report{}, err
	}
	if classes := x.size(n, "class_predictor.bias", 0) - 1; classes >= 0 && classes != len(labels) {
		return nil, Report{}, fmt.Errorf("it has %d classes and its .txt has %d names; every class needs a line, in the order of training", classes, len(labels))
	}
	for i, label := range labels {
		if label == "" {
			return nil, Report{}, fmt.Errorf("line %d of its .txt is empty", i+1)
		}
	}
	x.alias = n.of
	source, report, err := x.source(c, labels, s.picture(), others)
	if err == nil {
		source.Parts[0].Source = "a checkpoint of detectron2"
	}
	return source, report, err
}

// size is a side of a tensor, which is missing if it has none.
func (x *converter) size(n detectron2Names, name string, side int) int {
	theirs, _ := n.of(name)
	return x.side(theirs, side)
}

func (x *converter) side(theirs string, side int) int {
	t, ok := x.from[theirs]
	if !ok || len(t.Shape) <= side {
		x.miss(theirs)
		return 0
	}
	return t.Shape[side]
}

// has tells whether there is a tensor whose name begins so.
func (n detectron2Names) has(prefix string) bool {
	for name := range n.from {
		if strings.HasPrefix(n.newer(name), prefix) {
			return true
		}
	}
	return false
}

// refusal is a reason why a network cannot be imported, if it is true.
type refusal struct {
	is  bool
	why string
}

func refused(reasons ...refusal) error {
	for _, r := range reasons {
		if r.is {
			return errors.New("this network cannot be imported: " + r.why)
		}
	}
	return nil
}

// settled reads the settings beside the tensors, of which others are those without, and finds
// out what mask generator these are of.
func (n detectron2Names) settled(x *converter, with Beside, others Settings) (Settings, *config, error) {
	s, err := readSettings(with.Settings, others)
	if err != nil {
		return s, nil, err
	}
	c, err := n.config(x, s)
	return s, c, err
}

// config finds out what mask generator the tensors are of.
func (n detectron2Names) config(x *converter, s Settings) (*config, error) {
	const decoder = transformer + "decoder.layers."
	err := refused(
		refusal{!n.has(predictor + n.layers), "it is neither a Mask2Former nor a MaskFormer of detectron2"},
		refusal{n.has(predictor + "transformer.encoder."), "its transformer has an encoder"},
	)
	if err != nil {
		return nil, err
	}
	c := &config{ModelType: n.arch}
	c.MaskSize = x.size(n, pixelLevel+"decoder.mask_projection.weight", 0)
	queries, d := x.size(n, transformer+"queries_embedder.weight", 0), x.size(n, transformer+"queries_embedder.weight", 1)
	ffn, depth := x.size(n, decoder+"0.fc1.weight", 0), n.count(predictor+n.layers)
	if n.arch == "maskformer" {
		c.FPNSize = x.size(n, pixelLevel+"decoder.fpn.stem.0.weight", 0)
		c.Decoder.D, c.Decoder.Queries, c.Decoder.FFN, c.Decoder.Heads, c.Decoder.Layers = d, queries, ffn, s.Heads, depth
		return c, nil
	}
	const levels, points = 3, 4 // of multi-scale deformable attention
	c.Hidden, c.Queries, c.FFN, c.DecoderLayers = d, queries, ffn, depth+1
	c.Heads = x.size(n, pixelLevel+"decoder.encoder.layers.0.self_attn.attention_weights.bias", 0) / (levels * points)
	c.EncoderFFN = x.size(n, pixelLevel+"decoder.encoder.layers.0.fc1.weight", 0)
	c.EncoderLayers = n.count(pixelDecoder + "transformer.encoder.layers.")
	return c, nil
}

// encoder finds out what the image encoder is.
func (n detectron2Names) encoder(x *converter, c *config, s Settings) error {
	isSwin, grid := n.has("backbone.patch_embed."), true
	if isSwin {
		c.backbone = n.swin(x)
	} else {
		r := x.resNetOf(n, n.of)
		if r.Early, r.Grid = s.Early, s.Grid; r.Grid == nil && r.Deep {
			r.Grid = []int{1, 2, 4}
		}
		grid = r.Grid == nil || len(r.Grid) == r.Depths[3]
		c.backbone = r
	}
	return refused(
		refusal{!isSwin && !n.has("backbone.res2."), "its backbone is neither a ResNet nor a Swin Transformer"},
		refusal{!grid, "its last stage needs a dilation for each block, res5_multi_grid in its .json"},
		refusal{n.has("backbone.absolute_pos_embed"), "its Swin Transformer has absolute positions"},
	)
}

func (n detectron2Names) swin(x *converter) backbone {
	block := func(stage int) string { return fmt.Sprintf("%sencoder.layers.%d.blocks.0.", imageLevel, stage) }
	const bias = "attention.self.relative_position_bias_table"
	b := &swin{Width: x.size(n, imageLevel+"embeddings.norm.weight", 0)}
	b.Window = (int(math.Sqrt(float64(x.size(n, block(0)+bias, 0)))) + 1) / 2
	b.Ratio = float64(x.size(n, block(0)+"intermediate.dense.bias", 0)) / float64(max(b.Width, 1))
	for stage := range 4 {
		b.Depths = append(b.Depths, n.count(fmt.Sprintf("backbone.layers.%d.blocks.", stage)))
		b.Heads = append(b.Heads, x.size(n, block(stage)+bias, 1))
	}
	return b
}

// detectron2Names tells what a tensor of the transformers library is called in a
// checkpoint of detectron2.
type detectron2Names struct {
	from    map[string]quantize.Tensor
	arch    string
	layers  string            // how the names of the predictor's layers begin
	parts   *strings.Replacer // of the names of what is in a layer of the mask decoder
	renamed *strings.Replacer // parts of all other names
}

const (
	head         = "sem_seg_head."
	predictor    = head + "predictor."
	pixelDecoder = head + "pixel_decoder."
)

func newDetectron2Names(from map[string]quantize.Tensor) detectron2Names {
	n := detectron2Names{from: from, arch: "mask2former", layers: "transformer_cross_attention_layers."}
	norm := predictor + "decoder_norm."
	n.parts = strings.NewReplacer("self_attn.", "transformer_self_attention_layers.#.self_attn.", "self_attn_layer_norm.", "transformer_self_attention_layers.#.norm.",
		"cross_attn.", "transformer_cross_attention_layers.#.multihead_attn.", "cross_attn_layer_norm.", "transformer_cross_attention_layers.#.norm.",
		"fc1.", "transformer_ffn_layers.#.linear1.", "fc2.", "transformer_ffn_layers.#.linear2.", "final_layer_norm.", "transformer_ffn_layers.#.norm.")
	const detr = "transformer.decoder.layers."
	for name := range from {
		if strings.HasPrefix(name, predictor+detr) {
			n.arch, n.layers, norm = "maskformer", detr, predictor+"transformer.decoder.norm."
			n.parts = strings.NewReplacer("self_attn.", detr+"#.self_attn.", "self_attn_layer_norm.", detr+"#.norm1.",
				"encoder_attn.", detr+"#.multihead_attn.", "encoder_attn_layer_norm.", detr+"#.norm2.",
				"fc1.", detr+"#.linear1.", "fc2.", detr+"#.linear2.", "final_layer_norm.", detr+"#.norm3.")
			break
		}
	}
	const pixels = pixelLevel + "decoder."
	pairs := []string{
		transformer + "decoder.layernorm.", norm,
		transformer + "queries_embedder.", predictor + "query_embed.", transformer + "queries_features.", predictor + "query_feat.",
		transformer + "level_embed.", predictor + "level_embed.", transformer + "input_projection.", predictor + "input_proj.",
		transformer + "decoder.mask_predictor.", "", "class_predictor.", predictor + "class_embed.",

		stem[0] + ".", "backbone.stem.conv1.", stem[1] + ".", "backbone.stem.conv2.", stem[2] + ".", "backbone.stem.conv3.",
		imageLevel + "embeddings.patch_embeddings.projection.", "backbone.patch_embed.proj.", imageLevel + "embeddings.norm.", "backbone.patch_embed.norm.",
		imageLevel + "encoder.layers.", "backbone.layers.", "layernorm_before.", "norm1.", "layernorm_after.", "norm2.",
		"attention.self.", "attn.", "attention.output.dense.", "attn.proj.",
		"intermediate.dense.", "mlp.fc1.", "output.dense.", "mlp.fc2.",
		".layer.0.", ".conv1.", ".layer.1.", ".conv2.", ".layer.2.", ".conv3.", "convolution.", "", "normalization.", "norm.",

		pixels + "encoder.layers.", pixelDecoder + "transformer.encoder.layers.",
		"self_attn_layer_norm.", "norm1.", "final_layer_norm.", "norm2.", "fc1.", "linear1.", "fc2.", "linear2.",
		pixels + "level_embed", pixelDecoder + "transformer.level_embed",
		pixels + "input_projections.", pixelDecoder + "input_proj.",
		pixels + "mask_projection.", pixelDecoder + "mask_features.",
	}
	for stage := range 4 {
		pairs = append(pairs, fmt.Sprintf("%sencoder.encoder.stages.%d.layers.", pixelLevel, stage), fmt.Sprintf("backbone.res%d.", stage+2),
			fmt.Sprintf("%shidden_states_norms.stage%d.", imageLevel, stage+1), fmt.Sprintf("backbone.norm%d.", stage))
	}
	// A convolution and its norm are a Sequential there, and one layer with a norm here.
	normed := map[string]string{"adapter_1": "adapter_1", "layer_1": "layer_1", "fpn.stem": "layer_4"}
	for i := range 3 {
		normed[fmt.Sprintf("fpn.layers.%d.proj", i)] = fmt.Sprintf("adapter_%d", 3-i)
		normed[fmt.Sprintf("fpn.layers.%d.block", i)] = fmt.Sprintf("layer_%d", 3-i)
		pairs = append(pairs, fmt.Sprintf("mask_embedder.%d.0.", i), fmt.Sprintf("%smask_embed.layers.%d.", predictor, i))
	}
	for name, theirs := range normed {
		pairs = append(pairs, pixels+name+".0.", pixelDecoder+theirs+".", pixels+name+".1.", pixelDecoder+theirs+".norm.")
	}
	n.renamed = strings.NewReplacer(pairs...)
	return n
}

// count is how many parts there are in a row that begins with prefix, or that there
// should be if the last one is there.
func (n detectron2Names) count(prefix string) (parts int) {
	for name := range n.from {
		if rest, ok := strings.CutPrefix(n.newer(name), prefix); ok {
			number, _, _ := strings.Cut(rest, ".")
			if i, err := strconv.Atoi(number); err == nil && i < mostParts {
				parts = max(parts, i+1)
			}
		}
	}
	return parts
}

// mostParts is more than any network has in a row. A file that claims more would keep
// whoever lists what is missing busy for ever.
const mostParts = 1000

// The first versions of both had the pixel decoder's tensors beside the predictor's,
// and Mask2Former another name for the queries.
func (n detectron2Names) newer(name string) string {
	if rest, ok := strings.CutPrefix(name, head); ok && !strings.HasPrefix(name, predictor) && !strings.HasPrefix(name, pixelDecoder) {
		name = pixelDecoder + rest
	}
	return strings.Replace(name, "static_query", "query_feat", 1)
}

func (n detectron2Names) older(name string) string {
	return strings.Replace(strings.Replace(name, pixelDecoder, head, 1), "query_feat", "static_query", 1)
}

// of is the name of a tensor, and which third of it is meant, from 1 on; 0 is all of it.
func (n detectron2Names) of(name string) (theirs string, third int) {
	if found := layerName.FindStringSubmatch(name); found != nil {
		part := found[2]
		for i, projection := range []string{".q_proj.", ".k_proj.", ".v_proj."} {
			if strings.Contains(part, projection) {
				part, third = strings.Replace(part, projection, ".in_proj_", 1), i+1
			}
		}
		theirs = predictor + strings.Replace(n.parts.Replace(part), "#", found[1], 1)
	} else {
		for i, projection := range []string{".query.", ".key.", ".value."} {
			if strings.Contains(name, "attention.self"+projection) {
				name, third = strings.Replace(name, projection, ".qkv.", 1), i+1
			}
		}
		theirs = n.renamed.Replace(name)
	}
	if _, ok := n.from[theirs]; ok {
		return theirs, third
	}
	if old := n.older(theirs); n.from[old].Name != "" {
		return old, third
	}
	return theirs, third
}

// layerName is a tensor of a layer of the mask decoder.
var layerName = regexp.MustCompile(`^model\.transformer_module\.decoder\.layers\.(\d+)\.(.*)$`)
