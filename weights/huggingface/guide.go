package huggingface

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// trainedDir is the folder beside a checkpoint's files that has the prompt guidance
// trained with it: a checkpoint of ours as weights/train exports it, with the text
// encoder and the vocabulary that the prompts were read with.
const trainedDir = "pmp"

// addTrained adds the guidance in a checkpoint's folder, if it has any.
func addTrained(s *quantize.Source, dir string) error {
	dir = filepath.Join(dir, trainedDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	guidance, err := quantize.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the checkpoint's prompt guidance: %w", err)
	}
	var config map[string]any
	for _, part := range [][]byte{s.Config, guidance.Config} {
		if err := json.Unmarshal(part, &config); err != nil {
			return err
		}
	}
	s.Tensors, s.Parts, s.Vocabulary = append(s.Tensors, guidance.Tensors...), append(s.Parts, guidance.Parts...), guidance.Vocabulary
	s.Config, err = json.Marshal(config)
	return err
}

// ErrGuided says that a checkpoint has prompt guidance already.
var ErrGuided = errors.New("this checkpoint comes with prompt guidance that was trained; import it without -pmp")

// Guide adds prompt guidance to a source that has none: the text encoder
// and the vocabulary of reader, which are weights of ours, and in the mask decoder
// an attention from queries to prompts before the first layer and in each.
// Their last projections are zero, so that the network computes what it did, to
// the last bit, until they are trained. An FC-CLIP has a text encoder, whose
// embeddings of phrases are all that its guidance reads.
func Guide(s *quantize.Source, reader *weights.Manifest) error {
	var config map[string]any
	if err := json.Unmarshal(s.Config, &config); err != nil {
		return err
	}
	if config["clip"] != nil {
		return errors.New("prompt guidance cannot be added to a network whose proposals CLIP looks at: it would have to look anew at each question's")
	}
	if config["pmp"] != nil {
		return ErrGuided
	}
	var of struct {
		D, Layers int
	}
	if err := json.Unmarshal(s.Config, &of); err != nil {
		return err
	}
	config["pmp"] = true
	width, err := 0, error(nil)
	if s.Arch == fcclip {
		width = embeddingOf(s)
	} else {
		width, err = addReader(s, config, reader)
	}
	if err != nil {
		return err
	}

	s.Tensors = append(s.Tensors, random(textProjection+".weight", of.D, width), zeros(textProjection+".bias", of.D), random(nullKey, of.D))
	for _, step := range textSteps(of.Layers) {
		for _, part := range []string{".q", ".k", ".v"} {
			s.Tensors = append(s.Tensors, random(step+part+".weight", of.D, of.D), zeros(step+part+".bias", of.D))
		}
		s.Tensors = append(s.Tensors, zeros(step+".out.weight", of.D, of.D), zeros(step+".out.bias", of.D))
	}
	s.Config, err = json.Marshal(config)
	return err
}

const guidance, textProjection, nullKey = "decoder.", "decoder.text_proj", "decoder.null_key"

// textSteps are the attentions from queries to prompts: before the first layer, and in each.
func textSteps(layers int) []string {
	steps := []string{"decoder.text_first"}
	for i := range layers {
		steps = append(steps, fmt.Sprintf("decoder.layers.%d.text", i))
	}
	return steps
}

// trainedGuidance takes guidance that was trained with a network, from a file that has it
// by our own names.
func (x *converter) trainedGuidance(layers int) {
	x.linear(textProjection, textProjection)
	x.copy(nullKey, nullKey)
	for _, step := range textSteps(layers) {
		for _, part := range []string{".q", ".k", ".v", ".out"} {
			x.linear(step+part, step+part)
		}
	}
}

// addReader adds the text encoder of reader, and returns the width of what becomes of a phrase.
func addReader(s *quantize.Source, config map[string]any, reader *weights.Manifest) (width int, err error) {
	f := reader.Fields()
	text := f.Fields("text")
	config["templates"] = f.Texts("templates")
	config["text"] = map[string]int{"layers": text.Int("layers"), "heads": text.Int("heads"), "max_tokens": text.Int("max_tokens")}
	if err := f.Err(); err != nil {
		return 0, err
	}
	for _, name := range reader.Names() {
		if !strings.HasPrefix(name, "text.") {
			continue
		}
		t, err := reader.Tensor(name)
		if err != nil {
			return 0, err
		}
		x := quantize.Tensor{Name: name, Shape: t.Shape, Data: make([]float32, t.Len())}
		t.Float32(x.Data)
		s.Tensors = append(s.Tensors, x)
		if name == "text.center" {
			width = t.Len()
		}
	}
	if width == 0 {
		return 0, errors.New("the weights that prompts are read with have no text encoder")
	}
	s.Vocabulary = reader.Vocabulary()
	s.Parts = append(s.Parts, slices.DeleteFunc(slices.Clone(reader.Parts), func(p weights.Part) bool { return !strings.Contains(p.Name, "text") })...)
	return width, nil
}

func zeros(name string, shape ...int) quantize.Tensor {
	n := 1
	for _, s := range shape {
		n *= s
	}
	return quantize.Tensor{Name: name, Shape: shape, Data: make([]float32, n)}
}

// random is the usual start of a layer, with numbers that come from its name.
func random(name string, shape ...int) quantize.Tensor {
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(h.Sum64(), 0))
	t := zeros(name, shape...)
	sides := 0
	for _, s := range shape {
		sides += s
	}
	width := math.Sqrt(6 / float64(sides))
	for i := range t.Data {
		t.Data[i] = float32(width * (2*r.Float64() - 1))
	}
	return t
}
