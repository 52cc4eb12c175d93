package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/weights"
)

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

func TestPictureSizes(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		for _, c := range []struct {
			width, height int
			want          error
		}{
			{0, 0, ErrEmptyPicture}, {0, 5, ErrEmptyPicture}, {5, 0, ErrEmptyPicture}, {-1, 5, ErrEmptyPicture}, {-5, -5, ErrEmptyPicture},
			{math.MinInt, math.MinInt, ErrEmptyPicture},
			{8000, 8000, ErrLargePicture}, {50_000_001, 1, ErrLargePicture}, {1 << 32, 1 << 32, ErrLargePicture}, {math.MaxInt, 2, ErrLargePicture},
			{50_000_000, 1, ErrLongPicture}, {1, 65536, ErrLongPicture},
		} {
			p, err := m.NewPicture(c.width, c.height)
			wantError(t, fmt.Sprint(c.width, "×", c.height), err, c.want)
			if p != nil {
				t.Errorf("%d×%d gives a picture and an error", c.width, c.height)
			}
		}
		for _, c := range [][2]int{{1, 1}, {20000, 3}, {2, 999}} {
			p := newEncoded(t, m, "odd", c[0], c[1])
			if got := len(whole(t, p, "dog")); got == 0 {
				t.Errorf("%d×%d has no answer", c[0], c[1])
			}
			for _, x := range segmented(t, p, "dog").maps[0] {
				if !inMap(m, x) {
					t.Fatalf("%d×%d: a map has the number %v", c[0], c[1], x)
				}
			}
			must(t, p.Close())
		}
	})
}

// inMap tells whether a number can be in a map: each query adds 0 to 1.
func inMap(m *Model, x float32) bool { return x >= 0 && x <= float32(m.decoder.q) }

func TestPixels(t *testing.T) {
	m := testModel(t)
	p, err := m.NewPicture(7, 5)
	must(t, err)
	defer p.Close()
	for _, n := range []int{0, 1, 7 * 5 * 3, 7*5*4 - 1, 7*5*4 + 1} {
		wantError(t, "wrong number of bytes", p.Write(make([]byte, n)), ErrPixels)
	}
	wantError(t, "nil", p.Write(nil), ErrPixels)
	must(t, p.Write(make([]byte, 7*5*4)))
}

func TestOrderOfCalls(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p, err := m.NewPicture(7, 5)
		must(t, err)
		_, err = p.Segment([]string{"dog"}, Options{})
		wantError(t, "segment before encode", err, ErrNotEncoded)
		nothing := func([]byte) error { return nil }
		wantError(t, "proposals before encode", p.Proposals(nothing), ErrNotEncoded)
		must(t, p.Write(make([]byte, 7*5*4)))
		must(t, p.Encode())
		r, err := p.Segment([]string{"dog"}, Options{})
		must(t, err)
		stop := errors.New("enough")
		wantError(t, "proposals stopped", p.Proposals(func([]byte) error { return stop }), stop)
		must(t, p.Close())
		must(t, p.Close()) // again is no error

		wantError(t, "write after close", p.Write(make([]byte, 7*5*4)), ErrPictureClosed)
		wantError(t, "encode after close", p.Encode(), ErrPictureClosed)
		_, err = p.Segment([]string{"dog"}, Options{})
		wantError(t, "segment after close", err, ErrPictureClosed)
		wantError(t, "mask after close", r.Mask(0, make([]byte, 35)), ErrPictureClosed)
		wantError(t, "label map after close", r.LabelMap(make([]byte, 35)), ErrPictureClosed)
		wantError(t, "proposals after close", p.Proposals(nothing), ErrPictureClosed)
		// Maps and scores belong to the result.
		if s, _ := r.Map(0); len(s) == 0 || r.Prompts[0].Text != "dog" {
			t.Error("a result lost its maps when the picture was closed")
		}
	})
}

func TestClosedModel(t *testing.T) {
	for _, d := range devices {
		device, err := d.open()
		must(t, err)
		m := newTestModel(t, testConfig(), newRandom(), device)
		p := newEncoded(t, m, "law", 9, 9)
		must(t, m.Close())
		if _, err := m.NewPicture(9, 9); err == nil {
			t.Error("a closed model takes a picture")
		}
		if _, err := p.Segment([]string{"dog"}, Options{}); err == nil {
			t.Error("a closed model segments")
		}
	}
}

func TestPromptErrors(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		many := func(n int) []string { return slices.Repeat([]string{"dog"}, n) }
		for _, c := range []struct {
			what    string
			prompts []string
			want    error
		}{
			{"no prompts", nil, ErrNoPrompt}, {"no prompts", []string{}, ErrNoPrompt},
			{"empty", []string{""}, ErrEmptyPrompt}, {"spaces", []string{"dog", " \t\n "}, ErrEmptyPrompt},
			{"commas", []string{" , ,,"}, ErrEmptyPrompt},
			{"300 prompts", many(300), ErrManyPrompts}, {"256 prompts", many(256), ErrManyPrompts},
			{"257 phrases", []string{strings.Repeat("dog,", 257)}, ErrManyPhrases},
		} {
			_, err := p.Segment(c.prompts, Options{})
			wantError(t, c.what, err, c.want)
		}
		nan := float32(math.NaN())
		for _, theta := range []float32{nan, -0.1, 1, 2, float32(math.Inf(1)), float32(math.Inf(-1))} {
			_, err := p.Segment([]string{"dog"}, Options{Threshold: theta})
			wantError(t, "threshold", err, ErrThreshold)
		}
		r, err := p.Segment([]string{"dog"}, Options{Presence: nan})
		must(t, err)
		must(t, r.LabelMap(make([]byte, p.Width*p.Height)))
		// The most that is allowed works.
		r, err = p.Segment(many(255), Options{Presence: -1})
		must(t, err)
		label := make([]byte, p.Width*p.Height)
		must(t, r.Mask(254, label))
		r, err = p.Segment([]string{strings.Repeat("dog,", 256)}, Options{})
		must(t, err)
		if len(r.Prompts) != 1 {
			t.Errorf("one prompt has %d answers", len(r.Prompts))
		}
	})
}

// Long and strange prompts are cut and answered, never a panic or a NaN.
func TestHostilePrompts(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		for _, prompt := range []string{
			strings.Repeat("dog ", 2500), strings.Repeat("a", 10000), strings.Repeat("#", 10000), strings.Repeat("\U0001F600", 10000),
			strings.Repeat("\xff", 10000), strings.Repeat("[SEP]", 2000), strings.Repeat("{}", 5000), "[PAD]", "[CLS][MASK]",
			strings.Repeat("e\u0301", 5000), "\x00\x01\x02", "\u202e\u200b", "</script>",
		} {
			r, err := p.Segment([]string{prompt, "dog"}, Options{})
			must(t, err)
			for i, a := range r.Prompts {
				s, _ := r.Map(i)
				if !(a.Score >= 0 && a.Score <= 1) || slices.ContainsFunc(s, func(x float32) bool { return !inMap(p.model, x) }) {
					t.Errorf("%.20q…: score %v or a map is out of range", prompt, a.Score)
				}
			}
		}
	})
}

// Whatever a page sends as prompts, it gets the error that says what is wrong
// with them, or an answer for each of them, in their order.
func FuzzPrompts(f *testing.F) {
	for _, text := range []string{
		"dog\xffa red ball", "sofa, couch\xffDog", "a,b;c", "\x00", "do\x00g\xff\x00", "\xed\xa0\x80", "\xed\xa0\xbd \xed\xb8\x80\xffdog", "\U0001F600\U0001F1E9\U0001F1EA",
		"\U0001F469\u200d\U0001F680\xff\u0645\u0631\u062d\u0628\u0627\xff\u202eabc", "", " ", "\xff", "dog\xff \t\r\n\u00a0\u0085\u3000", ",", " , ,\xffdog", "\ufeff", "[CLS]\xff[MASK],[PAD]",
		"{}\xff{}{}", "##dog", "e\u0301\xff\u0130", "\ud55c\uae00\xff\u4e2d\u6587",
	} {
		f.Add(text, uint16(1), uint16(1))
	}
	f.Add("dog", uint16(255), uint16(1))
	f.Add("dog", uint16(256), uint16(1))
	f.Add("dog", uint16(5000), uint16(1))
	f.Add("dog,", uint16(1), uint16(256))
	f.Add("dog,", uint16(1), uint16(257))
	f.Add("sofa, couch", uint16(200), uint16(1))
	f.Add("a long walk ", uint16(1), uint16(60000))
	f.Add("\U0001F600\xff\x00\xff[", uint16(1), uint16(60000))
	m := sharedModel(f, 1)
	p := lawPicture(f, m)
	label := make([]byte, p.Width*p.Height)
	f.Fuzz(func(t *testing.T, text string, times, longer uint16) {
		// 0xFF, which is in no text, parts the prompts.
		if len(text)*int(times)*int(longer) > 1<<20 {
			return
		}
		var list []string
		if times > 0 {
			for prompt := range strings.SplitSeq(text, "\xff") {
				list = append(list, strings.Repeat(prompt, int(longer)))
			}
		}
		list = slices.Repeat(list, int(times))

		var want error
		phrases := 0
		for _, prompt := range list {
			before := phrases
			for _, phrase := range strings.FieldsFunc(prompt, func(r rune) bool { return r == ',' }) {
				if strings.ContainsFunc(phrase, func(r rune) bool { return !unicode.IsSpace(r) }) {
					phrases++
				}
			}
			if want == nil && phrases == before {
				want = ErrEmptyPrompt
			}
			if want == nil && phrases > 256 {
				want = ErrManyPhrases
			}
		}
		switch {
		case len(list) == 0:
			want = ErrNoPrompt
		case len(list) > 255:
			want = ErrManyPrompts
		}
		r, err := p.Segment(list, Options{})
		if err != want {
			t.Fatalf("%q: error %v, want %v", list, err, want)
		}
		if err != nil {
			return
		}
		scores := map[string]float32{}
		if len(r.Prompts) != len(list) {
			t.Fatalf("%d prompts have %d answers", len(list), len(r.Prompts))
		}
		for i, a := range r.Prompts {
			if before, ok := scores[a.Text]; a.Text != list[i] || !(a.Score >= 0 && a.Score <= 1) || ok && before != a.Score {
				t.Errorf("%q: prompt %d is answered as %q with %v, before with %v", list, i, a.Text, a.Score, before)
			}
			scores[a.Text] = a.Score
		}
		must(t, r.LabelMap(label))
		for _, l := range label {
			if l != NoLabel && int(l) >= len(list) {
				t.Fatalf("a pixel has label %d of %d", l, len(list))
			}
		}
		r.Release()
	})
}

// The cache of phrases starts anew when it is full, so that it cannot grow
// for ever.
func TestPhraseCache(t *testing.T) {
	m := testModel(t)
	embed := func(text string) *phrase {
		p, err := m.embed([]string{"dog", text})
		must(t, err)
		return p[1]
	}
	a := embed("dog")
	if embed("dog") != a {
		t.Error("a known phrase was computed again")
	}
	for i := 0; len(m.phrases) < maxPhrases; i++ {
		m.phrases["made up "+itoa(i)] = a
	}
	if embed("a new one") == a || len(m.phrases) > maxPhrases {
		t.Errorf("the full cache holds %d phrases", len(m.phrases))
	}
	long := strings.Repeat("a long walk ", 1000)
	if embed(long); m.phrases[long] != nil {
		t.Error("a long text is kept")
	}
}

// strict is a random source that has only the tensors of the test's
// configuration.
type strict struct{ random }

var errShape = errors.New("no such tensor")

func (s strict) Check(name string, shape ...int) error {
	if have, ok := s.shapes[name]; !ok || !slices.Equal(have, shape) {
		return errShape
	}
	return nil
}

// Forged configurations are refused: those that make no sense before
// anything is built, the others because their tensors are not there.
func TestForgedConfig(t *testing.T) {
	seen := newRandom()
	newTestModel(t, testConfig(), seen, scalar.New())
	vocabulary := testVocabulary(t)
	fields := map[string]func(c *Config) *int{
		"D": func(c *Config) *int { return &c.D }, "DM": func(c *Config) *int { return &c.DM },
		"Heads": func(c *Config) *int { return &c.Heads }, "Queries": func(c *Config) *int { return &c.Queries },
		"Layers": func(c *Config) *int { return &c.Layers }, "Size": func(c *Config) *int { return &c.Size },
		"Rows": func(c *Config) *int { return &c.Rows }, "Space": func(c *Config) *int { return &c.Space }, "Rank": func(c *Config) *int { return &c.Rank },
		"Trained": func(c *Config) *int { return &c.Trained }, "Text.Width": func(c *Config) *int { return &c.Text.Width },
		"Text.Heads": func(c *Config) *int { return &c.Text.Heads }, "Text.FFN": func(c *Config) *int { return &c.Text.FFN },
		"Text.Layers": func(c *Config) *int { return &c.Text.Layers }, "Text.Vocab": func(c *Config) *int { return &c.Text.Vocab },
		"Text.Rank": func(c *Config) *int { return &c.Text.Rank }, "Text.MaxTokens": func(c *Config) *int { return &c.Text.MaxTokens },
	}
	// Numbers that no tensor's shape depends on.
	free := map[string]bool{"Heads": true, "Size": true, "Text.Heads": true}
	base := testConfig()
	for name, field := range fields {
		for _, n := range []int{math.MinInt, -8, -1, 0, 1, 3, 7, 8, 12, 16, 24, 100, 1000, 1024, 4096, 1 << 20, 1 << 31, math.MaxInt} {
			c := testConfig()
			if *field(&c) == n {
				continue
			}
			*field(&c) = n
			_, err := New(c, strict{seen}, vocabulary, scalar.New(), Float32)
			// A network with fewer layers is one, of the first layers.
			fewer := strings.HasSuffix(name, "Layers") && n > 0 && n < *field(&base)
			if err == nil && !free[name] && !fewer {
				t.Errorf("%s = %d is accepted", name, n)
			}
			if err == nil && !c.sensible() {
				t.Errorf("%s = %d makes no sense and is accepted", name, n)
			}
		}
	}
	for _, x := range []float64{-0.001, 1e-9, 1.5, math.NaN(), math.Inf(1)} {
		c := testConfig()
		c.Edges = float32(x)
		_, err := New(c, strict{seen}, vocabulary, scalar.New(), Float32)
		wantError(t, "edges", err, ErrConfig)
	}
	c := testConfig()
	c.Templates = nil
	_, err := New(c, strict{seen}, vocabulary, scalar.New(), Float32)
	wantError(t, "no templates", err, ErrConfig)
	_, err = New(testConfig(), strict{random{shapes: map[string][]int{}}}, vocabulary, scalar.New(), Float32)
	wantError(t, "no tensors", err, errShape)
	// A vocabulary with more pieces than there are word embeddings would
	// make the tokenizer name rows that are not there.
	_, err = New(testConfig(), strict{seen}, append(slices.Clone(vocabulary), "zebra\n"...), scalar.New(), Float32)
	wantError(t, "too many pieces", err, ErrConfig)
	for _, bad := range []string{"", "\n\n", "dog\n", "\xff\xfe"} {
		if _, err := New(testConfig(), strict{seen}, []byte(bad), scalar.New(), Float32); err == nil {
			t.Errorf("the vocabulary %q is accepted", bad)
		}
	}
}

// forged makes weights of a configuration and some tensors of zeros.
func forged(t *testing.T, config map[string]any, shapes map[string][]int) (*weights.Manifest, error) {
	t.Helper()
	header, data := map[string]any{}, []byte{}
	for name, shape := range shapes {
		n := 4
		for _, s := range shape {
			n *= s
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{len(data), len(data) + n}}
		data = append(data, make([]byte, n)...)
	}
	head, err := json.Marshal(header)
	must(t, err)
	shard := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head, data)
	files := map[string][]byte{"w.safetensors": shard, "vocab.txt": testVocabulary(t)}
	var shards []any
	for name, data := range files {
		sum := sha256.Sum256(data)
		shards = append(shards, map[string]any{"file": name, "size": len(data), "sha256": hex.EncodeToString(sum[:])})
	}
	manifest, err := json.Marshal(map[string]any{"format": weights.Format, "version": weights.Version, "arch": "pmp-s",
		"config": config, "tokenizer": "vocab.txt", "shards": shards})
	must(t, err)
	return weights.Load(func(name string) ([]byte, error) {
		if name == "manifest.json" {
			return manifest, nil
		}
		return files[name], nil
	})
}

// Weights whose manifest is forged are refused by Load with an error.
func TestForgedManifest(t *testing.T) {
	config := func() map[string]any {
		return map[string]any{"d": 128, "dm": 64, "heads": 8, "queries": 24, "layers": 3, "size": 256, "pmp": true,
			"alpha": 0, "beta": 0.8, "kappa": 12, "b0": 0, "seen_hi": 0.95, "seen_lo": 0.6, "theta": 0.5, "templates": []string{"{}"},
			"presence": map[string]any{"bias": 0, "logit": 1, "peak": 0, "prompts": 0},
			"text":     map[string]any{"layers": 2, "heads": 12, "max_tokens": 64}}
	}
	shapes := func() map[string][]int {
		return map[string][]int{"text.word_u": {113, 128}, "text.layers.0.linear1.weight": {1536, 384}, "stage2.names": {48, 384},
			"stage2.coef_v": {16, 1280}, "stage2.trained": {5, 384}}
	}
	m, err := forged(t, config(), shapes())
	must(t, err)
	c, err := readConfig(m)
	must(t, err)
	if c.Text.Vocab != 113 || c.Text.Rank != 128 || c.Text.FFN != 1536 || c.Text.Width != 384 || c.Rows != 48 || c.Space != 384 || c.Rank != 16 || c.Trained != 5 || !c.sensible() {
		t.Errorf("the configuration is read as %+v", c)
	}
	if _, err := Load(m, scalar.New(), Float32); err == nil {
		t.Error("weights without most tensors are accepted")
	}
	refused := func(what string, config map[string]any, shapes map[string][]int) {
		t.Helper()
		m, err := forged(t, config, shapes)
		if err != nil {
			return // package weights saw it
		}
		if _, err := Load(m, scalar.New(), Float32); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	for key := range config() {
		for _, bad := range []any{nil, "x", -1, 0.5, 1e300, math.MaxInt, []any{}, map[string]any{}, []any{1, 2}} {
			c := config()
			c[key] = bad
			refused(key, c, shapes())
		}
		c := config()
		delete(c, key)
		refused("without "+key, c, shapes())
	}
	for name := range shapes() {
		for _, bad := range [][]int{{}, {1}, {1, 1}, {1, 1, 1}, {8, 8, 8, 8}} {
			s := shapes()
			s[name] = bad
			refused(name, config(), s)
		}
		s := shapes()
		delete(s, name)
		refused("without "+name, config(), s)
	}
}
