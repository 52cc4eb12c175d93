package huggingface

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// ReaderOf is the part of a network with CLIP's text encoder that reads.
func ReaderOf(s *quantize.Source) (*quantize.Source, error) {
	r := &quantize.Source{Arch: s.Arch, Config: s.Config, Vocabulary: s.Vocabulary, Store: weights.F32}
	for _, t := range s.Tensors {
		if isText(t) {
			r.Tensors = append(r.Tensors, t)
		}
	}
	if embeddingOf(r) == 0 {
		return nil, errors.New("a vocabulary can only be given to an FC-CLIP, to an OVSeg or with -clip, where CLIP's text encoder reads it; other networks have names of their own")
	}
	return r, nil
}

// embeddingOf is the width of CLIP's embeddings, 0 if there is no text encoder of CLIP.
func embeddingOf(s *quantize.Source) int {
	i := slices.IndexFunc(s.Tensors, func(t quantize.Tensor) bool { return t.Name == "text.projection" })
	if i < 0 {
		return 0
	}
	return s.Tensors[i].Shape[0]
}

func isText(t quantize.Tensor) bool { return strings.HasPrefix(t.Name, "text.") }

// Names are those of a list: a line each, with or without numbers in front.
func Names(list []byte) ([]string, error) {
	names := lines(list)
	if len(names) == 0 {
		return nil, errors.New("it has no names")
	}
	for i, name := range names {
		if strings.Trim(name, ", ") == "" {
			return nil, fmt.Errorf("name %d is empty", i+1)
		}
	}
	return names, nil
}

// Limit gives a network a list of names in place of CLIP's text encoder. Each may have
// synonyms, separated by commas; embeddings are what model.Embeddings makes of all of these.
func Limit(s *quantize.Source, names []string, embeddings []float32) error {
	var config map[string]any
	if err := json.Unmarshal(s.Config, &config); err != nil {
		return err
	}
	delete(config, "text")
	delete(config, "templates")
	config["labels"] = names
	e := embeddingOf(s)
	s.Tensors = append(slices.DeleteFunc(slices.Clone(s.Tensors), isText), quantize.Tensor{Name: "labels.embedding", Shape: []int{len(embeddings) / e, e}, Data: embeddings})
	s.Vocabulary = nil
	var err error
	s.Config, err = json.Marshal(config)
	return err
}
