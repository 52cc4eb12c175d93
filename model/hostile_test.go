package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// weightFiles are the files of weights by their names, the manifest among them.
type weightFiles map[string][]byte

var randomFiles weightFiles

// newWeightFiles writes the random network as pmp import does. The files are
// shared: replace them, do not change them.
func newWeightFiles(t testing.TB) weightFiles {
	t.Helper()
	if randomFiles == nil {
		source := newRandom()
		c := testConfig()
		newTestModel(t, c, source, scalar.New())
		config, err := json.Marshal(map[string]any{"d": c.D, "dm": c.DM, "heads": c.Heads, "queries": c.Queries, "layers": c.Layers, "size": c.Size,
			"pmp": c.PMP, "alpha": c.Alpha, "beta": c.Beta, "keep": c.Keep, "kappa": c.Kappa, "b0": c.B0, "seen_hi": c.SeenHi, "seen_lo": c.SeenLo, "theta": c.Theta,
			"templates": c.Templates, "presence": map[string]any{"bias": -5, "logit": 0.8, "peak": 0.4, "prompts": -0.2, "contrast": 0.1, "share": 2},
			"contrast": map[string]any{"names": []string{"sky", "road"}, "below": 0.9, "most": 2},
			"edges":    map[string]any{"epsilon": 0.001},
			"text":     map[string]any{"layers": c.Text.Layers, "heads": c.Text.Heads, "max_tokens": c.Text.MaxTokens}})
		must(t, err)
		s := quantize.Source{Arch: "pmp-s", Config: config, Vocabulary: testVocabulary(t)}
		for name, shape := range source.shapes {
			n := 1
			for _, d := range shape {
				n *= d
			}
			x := quantize.Tensor{Name: name, Shape: shape, Data: make([]float32, n)}
			source.Read(name, x.Data)
			s.Tensors = append(s.Tensors, x)
		}
		files, err := s.Files()
		must(t, err)
		randomFiles = weightFiles{}
		for _, f := range files {
			randomFiles[f.Name] = f.Data
		}
	}
	return maps.Clone(randomFiles)
}

func (w weightFiles) shards() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w)), func(name string) bool { return !strings.HasSuffix(name, ".safetensors") })
}

// edit changes the manifest.
func (w weightFiles) edit(t testing.TB, change func(manifest map[string]any)) {
	t.Helper()
	var manifest map[string]any
	must(t, json.Unmarshal(w["manifest.json"], &manifest))
	change(manifest)
	data, err := json.Marshal(manifest)
	must(t, err)
	w["manifest.json"] = data
}

// header changes the header of a shard.
func (w weightFiles) header(t testing.TB, name string, change func(tensors map[string]map[string]any)) {
	t.Helper()
	n := 8 + binary.LittleEndian.Uint64(w[name])
	var tensors map[string]map[string]any
	must(t, json.Unmarshal(w[name][8:n], &tensors))
	change(tensors)
	data, err := json.Marshal(tensors)
	must(t, err)
	w[name] = slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(data))), data, w[name][n:])
}

// run seals the files, so that sizes and hashes are right, and does with them
// all that a page does. The scalar device reaches the arena and the constants
// only through slices of one buffer each: whatever would read or write beside
// one panics. It returns what refused the files, nil if all was run.
func (w weightFiles) run(t testing.TB) error {
	t.Helper()
	w.edit(t, func(manifest map[string]any) {
		for _, s := range manifest["shards"].([]any) {
			shard := s.(map[string]any)
			data := w[shard["file"].(string)]
			sum := sha256.Sum256(data)
			shard["size"], shard["sha256"] = len(data), hex.EncodeToString(sum[:])
		}
	})
	m, err := weights.Load(func(name string) ([]byte, error) { return w[name], nil })
	if err != nil {
		return err
	}
	loaded, err := Load(m, scalar.New(), Int8)
	if err != nil {
		return err
	}
	defer loaded.Close()
	const width, height = 50, 3 // encoded with 256 × 32 pixels
	p, err := loaded.NewPicture(width, height)
	must(t, err)
	defer p.Close()
	must(t, p.Write(testPixels("hostile", width, height)))
	must(t, p.Encode())
	r, err := p.Segment([]string{"dog", "sofa, couch"}, Options{Presence: -1})
	must(t, err)
	label := make([]byte, width*height)
	must(t, r.LabelMap(label))
	for _, l := range label {
		if l != NoLabel && l > 1 {
			t.Errorf("a pixel has label %d of 2", l)
		}
	}
	must(t, r.Masks(1, func(_ int, mask []byte) error { return onlyBits(t, mask) }))
	must(t, p.Proposals(func(mask []byte) error { return onlyBits(t, mask) }))
	return nil
}

func onlyBits(t testing.TB, mask []byte) error {
	if slices.ContainsFunc(mask, func(b byte) bool { return b > 1 }) {
		t.Error("a mask has a pixel that is neither 0 nor 1")
	}
	return nil
}

// Weights that were forged, with hashes that are right, are refused or run;
// they read and write nothing beside their own buffers.
func TestHostileWeights(t *testing.T) {
	config := func(key string, value any) func(w weightFiles) {
		return func(w weightFiles) {
			w.edit(t, func(manifest map[string]any) { manifest["config"].(map[string]any)[key] = value })
		}
	}
	text := func(key string, value any) func(w weightFiles) {
		return func(w weightFiles) {
			w.edit(t, func(manifest map[string]any) {
				manifest["config"].(map[string]any)["text"].(map[string]any)[key] = value
			})
		}
	}
	// fill overwrites a share of all numbers with a pattern.
	fill := func(share float64, pattern ...byte) func(w weightFiles) {
		return func(w weightFiles) {
			r := rand.New(rand.NewPCG(1, 2))
			for _, name := range w.shards() {
				data := slices.Clone(w[name])
				n := 8 + int(binary.LittleEndian.Uint64(data))
				for i := n &^ 7; i+8 <= len(data); i += 8 {
					if i >= n && r.Float64() < share {
						for j := range 8 {
							data[i+j] = pattern[j%len(pattern)]
						}
					}
				}
				w[name] = data
			}
		}
	}
	// tensors changes what the headers say of tensors.
	tensors := func(change func(name string, about map[string]any)) func(w weightFiles) {
		return func(w weightFiles) {
			for _, shard := range w.shards() {
				w.header(t, shard, func(all map[string]map[string]any) {
					for name, about := range all {
						change(name, about)
					}
				})
			}
		}
	}
	// set overwrites the numbers of tensors that are stored in two bytes each.
	set := func(what func(name string) bool, low, high byte) func(w weightFiles) {
		return func(w weightFiles) {
			for _, shard := range w.shards() {
				data := slices.Clone(w[shard])
				n := 8 + int(binary.LittleEndian.Uint64(data))
				w.header(t, shard, func(all map[string]map[string]any) {
					for name, about := range all {
						if at := about["data_offsets"].([]any); about["dtype"] == "F16" && what(name) {
							for i := n + int(at[0].(float64)); i < n+int(at[1].(float64)); i += 2 {
								data[i], data[i+1] = low, high
							}
						}
					}
				})
				w[shard] = data
			}
		}
	}
	scales := func(name string) bool { return strings.HasSuffix(name, weights.ScaleSuffix) }
	others := func(name string) bool { return !scales(name) }
	const runs, refused = true, false
	for _, test := range []struct {
		what   string
		change func(w weightFiles)
		want   bool
	}{
		{"as they are", func(w weightFiles) {}, runs},

		{"fewer layers", config("layers", 1), runs},
		{"more layers", config("layers", 4), refused},
		{"other heads", config("heads", 16), runs},
		{"heads of 4", config("heads", 32), refused},
		{"fewer queries", config("queries", 16), refused},
		{"narrow", config("d", 64), refused},
		{"few mask features", config("dm", 32), refused},
		{"larger pictures", config("size", 512), runs},
		{"odd size", config("size", 300), refused},
		{"huge size", config("size", 1<<30), refused},
		{"threshold", config("theta", 1e300), runs},
		{"kappa", config("kappa", -1e38), runs},
		{"share", config("alpha", 1e30), runs},
		{"keeps", config("keep", -1e30), runs},
		{"low cap", config("cap", 1e-9), runs},
		{"no cap", config("cap", 0), refused},
		{"high cap", config("cap", 1.5), refused},
		{"long templates", config("templates", []string{strings.Repeat("{}", 3000), ""}), runs},
		{"many contrasts", config("contrast", map[string]any{"names": slices.Repeat([]string{"a", ""}, 500), "below": 2, "most": 99}), runs},
		{"no edges", config("edges", map[string]any{}), refused},
		{"flat edges", config("edges", map[string]any{"epsilon": 0}), refused},
		{"narrow edges", config("edges", map[string]any{"epsilon": 1e-30}), refused},
		{"wide edges", config("edges", 1), refused},
		{"fewer text layers", text("layers", 1), runs},
		{"other text heads", text("heads", 4), runs},
		{"text heads", text("heads", 7), refused},
		{"few tokens", text("max_tokens", 4), refused},
		{"many tokens", text("max_tokens", 512), refused},

		{"short vocabulary", func(w weightFiles) { w["vocab.txt"] = []byte("[UNK]\n[CLS]\n[SEP]\n") }, runs},
		{"long vocabulary", func(w weightFiles) { w["vocab.txt"] = slices.Concat(w["vocab.txt"], []byte("zebra\n")) }, refused},

		{"turned matrices", tensors(func(_ string, about map[string]any) { slices.Reverse(about["shape"].([]any)) }), refused},
		{"flat", tensors(func(_ string, about map[string]any) {
			n := 1.0
			for _, d := range about["shape"].([]any) {
				n *= d.(float64)
			}
			about["shape"] = []float64{n}
		}), refused},
		{"words of another rank", tensors(func(name string, about map[string]any) {
			if shape := about["shape"].([]any); name == "text.word_u" {
				shape[0], shape[1] = shape[0].(float64)*2, shape[1].(float64)/2
			}
		}), refused},
		{"bfloat16", tensors(func(name string, about map[string]any) {
			if about["dtype"] == "F16" && others(name) {
				about["dtype"] = "BF16"
			}
		}), runs},
		{"bfloat16 scales", tensors(func(name string, about map[string]any) {
			if about["dtype"] == "F16" {
				about["dtype"] = "BF16"
			}
		}), refused},

		{"zeros", fill(1, 0), runs},
		{"ones", fill(1, 1), runs},
		{"not numbers", set(others, 0, 0x7E), runs},
		{"infinite", set(others, 0, 0x7C), runs},
		{"the largest", set(others, 0xFF, 0x7B), runs},
		{"the lowest", set(others, 0xFF, 0xFB), runs},
		{"scales that are no numbers", set(scales, 0, 0x7E), refused},
		{"negative scales", set(scales, 0, 0xBC), refused},
		{"large scales", set(scales, 0xFF, 0x7B), runs},
		{"small scales", set(scales, 1, 0), runs},
		{"a few of -1", fill(0.001, 0xFF), refused},
		{"some of 3", fill(0.1, 3), runs},
	} {
		w := newWeightFiles(t)
		test.change(w)
		err := w.run(t)
		if got := err == nil; got != test.want {
			t.Errorf("%s: runs %v, want %v: %v", test.what, got, test.want, err)
		}
	}
}

// FuzzWeights is TestHostileWeights with changes that nobody thought of: a
// value of the configuration and some bytes of the files.
func FuzzWeights(f *testing.F) {
	f.Add("heads", 16.0, uint32(0), []byte{})
	f.Add("theta", math.Inf(1), uint32(1<<20), []byte{0, 0x7E, 0, 0x7E})
	f.Add("layers", 2.0, uint32(100), []byte(`"shape":[8,8]`))
	f.Add("size", 256.0, uint32(1<<22), slices.Repeat([]byte{0x7B}, 64))
	f.Fuzz(func(t *testing.T, key string, value float64, at uint32, patch []byte) {
		w := newWeightFiles(t)
		w.edit(t, func(manifest map[string]any) {
			config := manifest["config"].(map[string]any)
			// A large picture is no danger but takes long.
			if _, ok := config[key].(float64); ok && (key != "size" || value <= 512) && !math.IsNaN(value) && !math.IsInf(value, 0) {
				config[key] = value
			}
		})
		names := append(w.shards(), "vocab.txt")
		for _, name := range names {
			if int(at) < len(w[name]) {
				w[name] = slices.Clone(w[name])
				copy(w[name][at:], patch)
				break
			}
			at -= uint32(len(w[name]))
		}
		w.run(t)
	})
}
