// Package quantize turns a checkpoint of floating point numbers into the
// weights that package weights reads, and says what is in them. It belongs to
// the command line; the browser's engine does not import it.
package quantize

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/x448/float16"

	"github.com/pmp-seg/pmp/weights"
)

// Tensor is a tensor in full precision.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// Source is what weights are made from.
type Source struct {
	Arch         string
	Release      string          // which version of its model this is, empty if it does not say
	Config       json.RawMessage // an object
	Vocabulary   []byte
	Tensors      []Tensor
	Others       []string // tensors of the checkpoint that have no floating point numbers, such as counters
	Parts        []weights.Part
	TrainedNames []string
	// Store is the type in which all tensors are stored; without one each has
	// that of Precision.
	Store weights.DType
}

// ReadDir reads a folder as training leaves it:
//
//	model.safetensors   the tensors, of any floating point type; or model.pth, model.pt or
//	                    model.pkl, see OpenCheckpoint
//	config.json         an object; its members "arch", "release", "parts" and
//	                    "trained_names", where there are any, go into the manifest itself
//	vocab.txt           the tokenizer's vocabulary
//	parts.json          optional: a list of {"name", "source", "licence", "note"}
func ReadDir(dir string) (*Source, error) {
	s := &Source{}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	if err := s.readConfig(data); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "config.json"), err)
	}
	data, err = os.ReadFile(filepath.Join(dir, "parts.json"))
	if err == nil {
		err = json.Unmarshal(data, &s.Parts)
		if err != nil {
			err = fmt.Errorf("%s: %w", filepath.Join(dir, "parts.json"), err)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.Vocabulary, err = os.ReadFile(filepath.Join(dir, "vocab.txt")); err != nil {
		return nil, err
	}
	path, err := checkpointIn(dir)
	if err != nil {
		return nil, err
	}
	c, err := OpenCheckpoint(path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s.Tensors, s.Others, err = c.Floats()
	return s, err
}

func (s *Source) readConfig(data []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return err
	}
	for key, dst := range map[string]any{"arch": &s.Arch, "release": &s.Release, "parts": &s.Parts, "trained_names": &s.TrainedNames} {
		if value, ok := members[key]; ok {
			if err := json.Unmarshal(value, dst); err != nil {
				return fmt.Errorf("member %q: %w", key, err)
			}
			delete(members, key)
		}
	}
	if s.Arch == "" {
		return errors.New(`there is no member "arch"; say which architecture this is, for example "arch": "pmp-s"`)
	}
	var err error
	s.Config, err = json.Marshal(members)
	return err
}

// float32s converts floating point numbers.
func float32s(e weights.Entry) []float32 {
	width := e.DType.Size()
	out := make([]float32, len(e.Data)/width)
	for i := range out {
		var bits uint64
		for j := range width {
			bits |= uint64(e.Data[i*width+j]) << (8 * j)
		}
		switch e.DType {
		case weights.F32:
			out[i] = math.Float32frombits(uint32(bits))
		case weights.F16:
			out[i] = float16.Frombits(uint16(bits)).Float32()
		case weights.BF16:
			out[i] = math.Float32frombits(uint32(bits) << 16)
		case "F64":
			out[i] = float32(math.Float64frombits(bits))
		default:
			panic("quantize: not floating point numbers")
		}
	}
	return out
}
