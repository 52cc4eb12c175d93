package model

import (
	"slices"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/weights"
)

// Load builds the model that a complete manifest describes on a device.
func Load(m *weights.Manifest, device kernel.Device, precision Precision) (*Model, error) {
	c, err := readConfig(m)
	if err != nil {
		return nil, err
	}
	loaded, err := New(c, stored{m}, m.Vocabulary(), device, precision)
	if err != nil {
		return nil, err
	}
	return loaded, loaded.keepWords(m)
}

// keepWords lets go of all files but the one that words are looked up in: the device
// has its own copy of everything else.
func (m *Model) keepWords(from *weights.Manifest) error {
	words, err := from.Tensor(wordTable)
	m.word = words.Row
	return err
}

// Tensors returns the names of all tensors that the network of a manifest is
// made of, whether the manifest's files have them or not.
func Tensors(m *weights.Manifest) ([]string, error) {
	c, err := readConfig(m)
	if err != nil {
		return nil, err
	}
	if !c.sensible() {
		return nil, ErrConfig
	}
	var names listed
	(&Model{Config: c}).layOut(&loader{source: &names, constants: &kernel.Constants{}, precision: Int8})
	return names, nil
}

// listed is a source that notes the names it is asked for. It has no numbers:
// they are read only when a device loads them.
type listed []string

func (l *listed) Check(name string, shape ...int) error {
	*l = append(*l, name)
	return nil
}

func (l *listed) Read(name string, dst []float32)           {}
func (l *listed) ReadRow(name string, i int, dst []float32) {}

// shippedArch is the name of this project's own network in manifests.
const shippedArch = "pmp-s"

// readConfig reads the manifest's configuration; sizes that the tensors
// themselves tell are taken from them.
func readConfig(m *weights.Manifest) (Config, error) {
	f := m.Fields()
	c := Config{
		D: f.Int("d"), DM: f.Int("dm"), Heads: f.Int("heads"), Queries: f.Int("queries"), Layers: f.Int("layers"),
		Size: f.Int("size"), PMP: f.Bool("pmp"),
		Alpha: float32(f.Float("alpha")), Beta: float32(f.Float("beta")),
		Kappa: float32(f.Float("kappa")), B0: float32(f.Float("b0")),
		SeenHi: float32(f.Float("seen_hi")), SeenLo: float32(f.Float("seen_lo")),
		Theta: float32(f.Float("theta")), Templates: f.Texts("templates"),
	}
	p := f.Fields("presence")
	c.Presence = Presence{Bias: float32(p.Float("bias")), Logit: float32(p.Float("logit")), Peak: float32(p.Float("peak")), Prompts: float32(p.Float("prompts"))}
	if p.Has("share") {
		c.Presence.Share = float32(p.Float("share"))
	}
	if f.Has("contrast") {
		t := f.Fields("contrast")
		c.Contrast = Contrast{Names: t.Texts("names"), Below: float32(t.Float("below")), Most: t.Int("most")}
		c.Presence.Contrast = float32(p.Float("contrast"))
	}
	if f.Has("keep") {
		c.Keep = float32(f.Float("keep"))
	}
	c.Cap = 1
	if f.Has("cap") {
		c.Cap = float32(f.Float("cap"))
	}
	edges := f.Has("edges")
	if edges {
		c.Edges = float32(f.Fields("edges").Float("epsilon"))
	}
	if err := f.Err(); err != nil {
		return c, err
	}
	if m.Arch != shippedArch || edges != (c.Edges != 0) {
		return c, ErrConfig
	}
	if err := c.Text.read(m); err != nil {
		return c, err
	}
	if err := sides(m, "stage2.names", &c.Rows, &c.Space); err != nil {
		return c, err
	}
	if err := sides(m, "stage2.coef_v", &c.Rank, new(int)); err != nil {
		return c, err
	}
	return c, sides(m, "stage2.trained", &c.Trained, new(int))
}

// read reads what the manifest says of the text encoder.
func (c *TextConfig) read(m *weights.Manifest) error {
	f := m.Fields().Fields("text")
	*c = TextConfig{Layers: f.Int("layers"), Heads: f.Int("heads"), MaxTokens: f.Int("max_tokens")}
	if err := f.Err(); err != nil {
		return err
	}
	if err := sides(m, wordTable, &c.Vocab, &c.Rank); err != nil {
		return err
	}
	err := sides(m, "text.layers.0.linear1.weight", &c.FFN, &c.Width)
	c.Embedding = c.Width
	return err
}

// sides are the two of a matrix.
func sides(m *weights.Manifest, name string, rows, columns *int) error {
	t, err := m.Tensor(name)
	if err != nil {
		return err
	}
	if len(t.Shape) != 2 {
		return ErrConfig
	}
	*rows, *columns = t.Shape[0], t.Shape[1]
	return nil
}

// stored reads weights from a manifest.
type stored struct{ *weights.Manifest }

func (s stored) Check(name string, shape ...int) error {
	t, err := s.Tensor(name)
	if err != nil {
		return err
	}
	for t.Panels && len(shape) > 2 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1] // a 1×1 convolution is kept as the matrix that it is
	}
	if !slices.Equal(t.Shape, shape) {
		return &weights.Error{Code: weights.CodeFormat, Text: "tensor \"" + name + "\" does not have the shape that this network needs; fetch weights and program of the same version"}
	}
	return nil
}

func (s stored) Read(name string, dst []float32) { s.mustTensor(name).Float32(dst) }

func (s stored) ReadRow(name string, i int, dst []float32) { s.mustTensor(name).Row(i, dst) }

func (s stored) Int8(name string) (m Int8Matrix, ok bool) {
	t := s.mustTensor(name)
	values, ok := t.Int8()
	return Int8Matrix{values, t.Scale, t.Panels}, ok
}

func (s stored) mustTensor(name string) weights.Tensor {
	t, err := s.Tensor(name)
	if err != nil {
		panic("model: tensor read before it was checked")
	}
	return t
}
