// Package checkpointtest makes checkpoints for tests. The fixtures in
// model/testdata list the tensors of small ones that the transformers library has
// made: in each line a name, a type and the sides.
package checkpointtest

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// Bases are the names of the fixtures of MaskFormers and Mask2Formers in a folder.
func Bases(t testing.TB, dir string) (names []string) {
	t.Helper()
	const ending = ".safetensors"
	files, err := filepath.Glob(filepath.Join(dir, "mask*former*"+ending))
	if err != nil || len(files) == 0 {
		t.Fatal("no fixtures in "+dir, err)
	}
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ending))
	}
	return names
}

// Read returns config.json and the tensors of a fixture's checkpoint, with random
// numbers, and the names of those that are integers.
func Read(t testing.TB, path string) (config []byte, tensors []quantize.Tensor, others []string) {
	t.Helper()
	fixture := entries(t, path)
	random := rand.New(rand.NewPCG(1, 1))
	for _, f := range fixture {
		switch f.Name {
		case "config":
			config = f.Data
		case "names":
			tensors, others = Tensors(t, f.Data, func(x quantize.Tensor) {
				middle, width := Spread(x.Name, x.Shape)
				for i := range x.Data {
					x.Data[i] = float32(middle + width*(2*random.Float64()-1))
				}
			})
		}
	}
	return config, tensors, others
}

// Bytes returns what a fixture has under a name.
func Bytes(t testing.TB, path, name string) []byte {
	t.Helper()
	for _, f := range entries(t, path) {
		if f.Name == name {
			return f.Data
		}
	}
	t.Fatalf("%s has no %q", path, name)
	return nil
}

func entries(t testing.TB, path string) []weights.Entry {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fixture, err := weights.ReadSafetensors(data)
	if err != nil {
		t.Fatal(err)
	}
	return fixture
}

// Spread is the middle and half the width of a tensor's uniform
// distribution, the same as in model/testdata/base.py.
func Spread(name string, shape []int) (middle, width float64) {
	part := strings.Split(name, ".")
	last := part[len(part)-1]
	before := part[max(len(part)-2, 0)]
	fan := 1
	for _, n := range shape[min(len(shape), 1):] {
		fan *= n
	}
	switch {
	case slices.Contains(part, "criterion"):
		return 0, 0
	case last == "running_var":
		return 1, 0.5
	case last == "running_mean":
		return 0, 0.5
	case before == "sampling_offsets" && last == "bias":
		return 0, 4
	case strings.HasSuffix(last, "bias"):
		return 0, 0.2
	case len(shape) == 1:
		return 1, 0.3
	case last == "logit_scale":
		return math.Log(1 / 0.07), 0.2
	case slices.Contains(part, "level_embed") || slices.Contains([]string{"queries_embedder", "queries_features", "query_embed", "query_feat"}, before):
		return 0, math.Sqrt(3)
	case len(shape) == 4:
		return 0, math.Sqrt(3 * 2 / float64(fan))
	}
	return 0, math.Sqrt(3 / float64(fan))
}

// Tensors makes the tensors of a list, each with the numbers that fill writes
// into it, and returns the names of those that are integers.
func Tensors(t testing.TB, list []byte, fill func(x quantize.Tensor)) (tensors []quantize.Tensor, others []string) {
	t.Helper()
	for _, line := range strings.Split(string(list), "\n") {
		field := strings.Fields(line)
		if field[1] != "F32" {
			others = append(others, field[0])
			continue
		}
		x, n := quantize.Tensor{Name: field[0]}, 1
		for _, s := range field[2:] {
			size, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			x.Shape, n = append(x.Shape, size), n*size
		}
		x.Data = make([]float32, n)
		fill(x)
		tensors = append(tensors, x)
	}
	return tensors, others
}

// Entries are tensors as a safetensors file has them.
func Entries(tensors ...quantize.Tensor) []weights.Entry {
	entries := make([]weights.Entry, len(tensors))
	for i, t := range tensors {
		e := weights.Entry{Name: t.Name, DType: weights.F32, Shape: t.Shape}
		for _, v := range t.Data {
			b := math.Float32bits(v)
			e.Data = append(e.Data, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
		}
		entries[i] = e
	}
	return entries
}
