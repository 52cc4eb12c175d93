// Package huggingface turns public checkpoints into weights, those that the
// transformers library has saved and those of detectron2: names become ours, batch
// norms parts of the convolutions before them. It belongs to the command line; the browser's engine does not import it.
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
	"strings"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// Report says what became of a checkpoint's tensors.
type Report struct {
	Used    []string // by their names in the checkpoint
	Unused  []string
	Missing []string // that the network needs
}

// Is tells whether a path has a checkpoint that this package may read: a folder of
// the transformers library, or a file of detectron2, which may be alone in its folder.
func Is(path string) bool { return isDir(path) || detectron2In(path) != "" }

// Read reads what Is has found. The report is there even if an error is that tensors
// are missing.
func Read(path string) (*quantize.Source, Report, error) {
	if file := detectron2In(path); file != "" {
		return readDetectron2(file)
	}
	return ReadDir(path)
}

func isDir(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	var c struct {
		ModelType string `json:"model_type"`
	}
	return err == nil && json.Unmarshal(data, &c) == nil && c.ModelType != ""
}

// ReadDir reads a folder as save_pretrained leaves it: config.json, the tensors,
// preprocessor_config.json if it is there, and the prompt guidance that was
// trained with them, if there is a folder with it.
func ReadDir(dir string) (*quantize.Source, Report, error) {
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, Report{}, err
	}
	preprocessor, err := os.ReadFile(filepath.Join(dir, "preprocessor_config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, Report{}, err
	}
	tensors, others, err := readShards(dir)
	if err != nil {
		return nil, Report{}, err
	}
	s, report, err := Convert(config, preprocessor, tensors, others)
	if err == nil {
		err = addTrained(s, dir)
	}
	return s, report, err
}

// readShards reads the tensors of a folder.
func readShards(dir string) (tensors []quantize.Tensor, others []string, err error) {
	files, err := shards(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range files {
		some, more, err := read(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		tensors, others = append(tensors, some...), append(others, more...)
	}
	return tensors, others, nil
}

func read(path string) ([]quantize.Tensor, []string, error) {
	c, err := quantize.OpenCheckpoint(path)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	return c.Floats()
}

// shards are the names of a folder's files of tensors: one, or those that an
// index lists.
func shards(dir string) ([]string, error) {
	const newer, older = "model.safetensors", "pytorch_model.bin"
	for _, single := range []string{newer, older} {
		if _, err := os.Stat(filepath.Join(dir, single)); err == nil {
			return []string{single}, nil
		}
		name := single + ".index.json"
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var index struct {
			Files map[string]string `json:"weight_map"`
		}
		if err := json.Unmarshal(data, &index); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var names []string
		for _, file := range index.Files {
			if file != filepath.Base(file) {
				return nil, fmt.Errorf("%s names %q, which is not in its folder", name, file)
			}
			names = append(names, file)
		}
		slices.Sort(names)
		return slices.Compact(names), nil
	}
	return nil, fmt.Errorf("%s has neither %s nor %s", dir, newer, older)
}

// Convert makes weights of a checkpoint's config.json, preprocessor_config.json,
// which may be nil, and tensors; others are the names of those that have no floating
// point numbers.
func Convert(configJSON, preprocessorJSON []byte, tensors []quantize.Tensor, others []string) (*quantize.Source, Report, error) {
	c, err := readConfig(configJSON)
	if err != nil {
		return nil, Report{}, fmt.Errorf("config.json: %w", err)
	}
	labels, err := c.labels()
	if err != nil {
		return nil, Report{}, fmt.Errorf("config.json: %w", err)
	}
	pixels, err := readPreprocessor(preprocessorJSON)
	if err != nil {
		return nil, Report{}, fmt.Errorf("preprocessor_config.json: %w", err)
	}
	x, err := newConverter(tensors)
	if err != nil {
		return nil, Report{}, err
	}
	return x.source(c, labels, pixels, others)
}

// source takes what the network of a configuration needs.
func (x *converter) source(c *config, labels []string, pixels picture, others []string) (*quantize.Source, Report, error) {
	settings := x.generator(c, pixels)
	settings["labels"] = labels
	x.linear("class", "class_predictor")
	return x.finish(c.ModelType, settings, others)
}

// generator takes what makes masks, and returns the manifest's part about it.
func (x *converter) generator(c *config, pixels picture) map[string]any {
	settings := map[string]any{"picture": pixels, "dm": c.MaskSize, "trunk": c.backbone.trunk()}
	c.backbone.convert(x)
	if c.ModelType == "mask2former" {
		x.mask2former(c)
		settings["d"], settings["heads"], settings["ffn"], settings["queries"], settings["layers"] = c.Hidden, c.Heads, c.FFN, c.Queries, c.DecoderLayers-1
		settings["pixels"] = map[string]any{"layers": c.EncoderLayers, "ffn": c.EncoderFFN}
	} else {
		x.maskformer(c)
		d := c.Decoder
		settings["d"], settings["heads"], settings["ffn"], settings["queries"], settings["layers"] = d.D, d.Heads, d.FFN, d.Queries, d.Layers
		settings["pixels"] = map[string]any{"width": c.FPNSize}
	}
	return settings
}

// finish makes weights of what was taken.
func (x *converter) finish(arch string, settings map[string]any, others []string) (*quantize.Source, Report, error) {
	report := x.report(others)
	if x.err != nil {
		return nil, report, x.err
	}
	if n := len(report.Missing); n > 0 {
		return nil, report, fmt.Errorf("the checkpoint lacks %d tensors that the network needs, %q first; is a part of the download missing?", n, report.Missing[0])
	}
	out := &quantize.Source{Arch: arch, Tensors: x.tensors,
		Parts: []weights.Part{{Name: arch, Source: "a checkpoint of the transformers library", Note: "see there for its licence"}}}
	var err error
	out.Config, err = json.Marshal(settings)
	return out, report, err
}

// converter renames tensors. What is missing is noted and left out, so that all
// of it can be told at once.
type converter struct {
	from    map[string]quantize.Tensor
	used    map[string]bool
	missing []string
	tensors []quantize.Tensor
	err     error
	// alias, if it is there, tells what a tensor is called in the checkpoint, and
	// which third of that one it is, from 1 on; 0 is all of it.
	alias func(name string) (theirs string, third int)
}

func newConverter(tensors []quantize.Tensor) (*converter, error) {
	x := &converter{from: map[string]quantize.Tensor{}, used: map[string]bool{}}
	for _, t := range tensors {
		if _, ok := x.from[t.Name]; ok {
			return nil, fmt.Errorf("tensor %q is in two of the files", t.Name)
		}
		x.from[t.Name] = t
	}
	return x, nil
}

func (x *converter) report(others []string) Report {
	r := Report{Missing: x.missing, Unused: slices.Clone(others)}
	for name := range x.from {
		if x.used[name] {
			r.Used = append(r.Used, name)
		} else {
			r.Unused = append(r.Unused, name)
		}
	}
	slices.Sort(r.Used)
	slices.Sort(r.Unused)
	return r
}

func (x *converter) has(name string) bool {
	_, ok := x.from[name]
	return ok
}

// take finds a tensor of the checkpoint.
func (x *converter) take(name string) (quantize.Tensor, bool) {
	third := 0
	if x.alias != nil {
		name, third = x.alias(name)
	}
	t, ok := x.from[name]
	if !ok {
		x.miss(name)
		return t, false
	}
	x.used[name] = true
	if third > 0 {
		if len(t.Shape) == 0 || t.Shape[0]%3 != 0 {
			x.fail(name)
			return t, false
		}
		t.Shape = slices.Clone(t.Shape)
		t.Shape[0] /= 3
		n := len(t.Data) / 3
		t.Data = t.Data[(third-1)*n : third*n]
	}
	return t, true
}

func (x *converter) miss(name string) {
	if !slices.Contains(x.missing, name) {
		x.missing = append(x.missing, name)
	}
}

func (x *converter) put(name string, shape []int, data []float32) {
	x.tensors = append(x.tensors, quantize.Tensor{Name: name, Shape: shape, Data: data})
}

// copy takes a tensor as it is.
func (x *converter) copy(to, from string) {
	if t, ok := x.take(from); ok {
		x.put(to, t.Shape, t.Data)
	}
}

// linear takes a layer's weight and bias; norms have the same.
func (x *converter) linear(to, from string) {
	x.copy(to+".weight", from+".weight")
	x.copy(to+".bias", from+".bias")
}

// rows takes the rows of a tensor that is several in one, each under a name.
func (x *converter) rows(from string, to ...string) {
	t, ok := x.take(from)
	if !ok {
		return
	}
	if len(t.Shape) == 0 || t.Shape[0]%len(to) != 0 {
		x.fail(from)
		return
	}
	shape := slices.Clone(t.Shape)
	shape[0] /= len(to)
	if shape[0] == 1 {
		shape = shape[1:]
	}
	n := len(t.Data) / len(to)
	for i, name := range to {
		x.put(name, shape, t.Data[i*n:(i+1)*n])
	}
}

// join puts tensors below each other that lie apart in the checkpoint.
func (x *converter) join(to string, from ...string) {
	var all quantize.Tensor
	whole := true
	for i, name := range from {
		t, ok := x.take(name)
		whole = whole && ok
		switch {
		case !whole:
		case len(t.Shape) == 0 || i > 0 && !slices.Equal(t.Shape[1:], all.Shape[1:]):
			x.fail(name)
			return
		case i == 0:
			all.Shape = slices.Clone(t.Shape)
		default:
			all.Shape[0] += t.Shape[0]
		}
		all.Data = append(all.Data, t.Data...)
	}
	if whole {
		x.put(to, all.Shape, all.Data)
	}
}

func (x *converter) fail(name string) {
	if x.err == nil {
		x.err = fmt.Errorf("tensor %q does not have the shape that this network needs", name)
	}
}

// fold takes a convolution without a bias and the batch norm behind it. The
// statistics are those of training and do not change any more, so both are one
// convolution: w·s and β - μ·s, where s = γ/√(σ²+ε).
func (x *converter) fold(to, from string) {
	const epsilon = 1e-5
	w, ok := x.take(from + ".convolution.weight")
	var norm [4][]float32
	for i, part := range []string{"weight", "bias", "running_mean", "running_var"} {
		t, found := x.take(from + ".normalization." + part)
		ok, norm[i] = ok && found, t.Data
	}
	if !ok {
		return
	}
	if len(w.Shape) != 4 || slices.ContainsFunc(norm[:], func(n []float32) bool { return len(n) != w.Shape[0] }) {
		x.fail(from + ".convolution.weight")
		return
	}
	out := w.Shape[0]
	width := len(w.Data) / out
	folded, bias := make([]float32, len(w.Data)), make([]float32, out)
	for n := range out {
		s := float64(norm[0][n]) / math.Sqrt(float64(norm[3][n])+epsilon)
		bias[n] = float32(float64(norm[1][n]) - float64(norm[2][n])*s)
		for i := n * width; i < (n+1)*width; i++ {
			folded[i] = float32(float64(w.Data[i]) * s)
		}
	}
	x.put(to+".weight", w.Shape, folded)
	x.put(to+".bias", []int{out}, bias)
}

// normed takes a convolution and the group norm behind it, the two parts of a
// Sequential. With a bias or not, as the checkpoint has it.
func (x *converter) normed(to, from string, bias bool) {
	x.copy(to+".weight", from+".0.weight")
	if bias {
		x.copy(to+".bias", from+".0.bias")
	}
	x.linear(to+".norm", from+".1")
}

const (
	pixelLevel  = "model.pixel_level_module."
	imageLevel  = pixelLevel + "encoder."
	transformer = "model.transformer_module."
)

func (x *converter) mask2former(c *config) {
	const pixels, decoder = pixelLevel + "decoder.", transformer + "decoder."
	x.rows(pixels+"level_embed", "pixel.level.0", "pixel.level.1", "pixel.level.2")
	for i := range 3 {
		x.normed(fmt.Sprintf("pixel.project.%d", i), fmt.Sprintf("%sinput_projections.%d", pixels, i), true)
	}
	for i := range c.EncoderLayers {
		to, from := fmt.Sprintf("pixel.layers.%d.", i), fmt.Sprintf("%sencoder.layers.%d.", pixels, i)
		for ours, theirs := range map[string]string{"offset": "self_attn.sampling_offsets", "weight": "self_attn.attention_weights",
			"value": "self_attn.value_proj", "out": "self_attn.output_proj", "norm1": "self_attn_layer_norm", "linear1": "fc1",
			"linear2": "fc2", "norm2": "final_layer_norm"} {
			x.linear(to+ours, from+theirs)
		}
	}
	x.normed("pixel.lateral4", pixels+"adapter_1", false)
	x.normed("pixel.out4", pixels+"layer_1", false)
	x.linear("pixel.mask", pixels+"mask_projection")

	x.copy("decoder.query_feat", transformer+"queries_features.weight")
	x.copy("decoder.query_pos", transformer+"queries_embedder.weight")
	x.rows(transformer+"level_embed.weight", "decoder.level.0", "decoder.level.1", "decoder.level.2")
	for i := range c.DecoderLayers - 1 {
		to, from := fmt.Sprintf("decoder.layers.%d.", i), fmt.Sprintf("%slayers.%d.", decoder, i)
		for _, part := range []string{"weight", "bias"} {
			x.rows(from+"cross_attn.in_proj_"+part, to+"image.q."+part, to+"image.k."+part, to+"image.v."+part)
		}
		x.linear(to+"image.out", from+"cross_attn.out_proj")
		x.linear(to+"norm_image", from+"cross_attn_layer_norm")
		x.decoderLayer(to, from)
	}
	x.linear("decoder.norm", decoder+"layernorm")
	x.maskMLP(decoder + "mask_predictor.mask_embedder")
}

func (x *converter) maskformer(c *config) {
	const pixels, decoder = pixelLevel + "decoder.", transformer + "decoder."
	x.normed("pixel.top", pixels+"fpn.stem", false)
	for i := range 3 {
		x.normed(fmt.Sprintf("pixel.lateral.%d", i), fmt.Sprintf("%sfpn.layers.%d.proj", pixels, i), false)
		x.normed(fmt.Sprintf("pixel.out.%d", i), fmt.Sprintf("%sfpn.layers.%d.block", pixels, i), false)
	}
	x.linear("pixel.mask", pixels+"mask_projection")

	x.copy("decoder.query_pos", transformer+"queries_embedder.weight")
	x.linear("decoder.memory", transformer+"input_projection")
	for i := range c.Decoder.Layers {
		to, from := fmt.Sprintf("decoder.layers.%d.", i), fmt.Sprintf("%slayers.%d.", decoder, i)
		x.attention(to+"image", from+"encoder_attn")
		x.linear(to+"norm_image", from+"encoder_attn_layer_norm")
		x.decoderLayer(to, from)
	}
	x.linear("decoder.norm", decoder+"layernorm")
	x.maskMLP("mask_embedder")
}

// decoderLayer takes what the layers of both decoders have.
func (x *converter) decoderLayer(to, from string) {
	x.attention(to+"self", from+"self_attn")
	x.linear(to+"norm_self", from+"self_attn_layer_norm")
	x.linear(to+"linear1", from+"fc1")
	x.linear(to+"linear2", from+"fc2")
	x.linear(to+"norm_ffn", from+"final_layer_norm")
}

func (x *converter) attention(to, from string) {
	for ours, theirs := range map[string]string{".q": ".q_proj", ".k": ".k_proj", ".v": ".v_proj", ".out": ".out_proj"} {
		x.linear(to+ours, from+theirs)
	}
}

func (x *converter) maskMLP(from string) {
	for i := range 3 {
		x.linear(fmt.Sprintf("decoder.mask_mlp.%d", i), fmt.Sprintf("%s.%d.0", from, i))
	}
}

// Ignored tells of an unused tensor whether it is one that only training or a
// classifier needs, or that follows from config.json.
func Ignored(name string) bool {
	return strings.HasSuffix(name, ".num_batches_tracked") || strings.HasPrefix(name, "criterion.") || strings.HasPrefix(name, "fc.") ||
		strings.HasSuffix(name, ".relative_position_index") || strings.HasSuffix(name, ".position_ids") ||
		strings.HasPrefix(name, clipAdapter+"pixel_") || name == ovsegClip+"logit_scale" || // OVSeg's own numbers stand for these
		strings.HasPrefix(name, imageLevel) && strings.Contains(name, ".layernorm.")
}
