// Package model is the network in Go: prompts and pictures become programs
// for a kernel.Device, and what the device computes becomes masks. Each file
// is one part of the network, written to be read beside its description.
package model

import (
	"errors"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model/token"
)

// Model is a network with its weights on a device. It is not safe for
// concurrent use.
type Model struct {
	Config Config
	// Labels are the names that the network knows, if it knows no others.
	Labels []string

	word      func(id int, dst []float32) // a row of wordTable
	device    kernel.Device
	tokenizer tokenizer

	trunk   trunk
	pixel   pixelDecoder
	decoder decoder
	second  secondStage
	text    textReader

	tau float32

	network network
	last    *Picture // a picture of the size that was last asked for, without a session
	encoder *phraseEncoder
	phrases map[string]*phrase
}

// New lays out the network of a configuration, checks that the source has
// all of its weights, and loads them on a device.
func New(c Config, source Source, vocabulary []byte, device kernel.Device, precision Precision) (*Model, error) {
	if !c.sensible() {
		return nil, ErrConfig
	}
	m := &Model{Config: c, device: device}
	m.network = &prompted{m}
	if err := m.readsWith(vocabulary, source); err != nil {
		return nil, err
	}
	l := &loader{source: source, constants: &kernel.Constants{}, precision: precision}
	m.layOut(l)
	if err := m.put(l); err != nil {
		return nil, err
	}
	m.tau = l.temperature()
	return m, nil
}

// put loads what was listed on the device, and prepares to read phrases if the network does.
func (m *Model) put(l *loader) (err error) {
	if l.err != nil {
		return l.err
	}
	if err = m.device.Load(l.constants); err == nil && m.text != nil {
		m.encoder, err = m.newPhraseEncoder()
	}
	return err
}

// layOut lists the parts of the network.
func (m *Model) layOut(l *loader) {
	c := m.Config
	m.trunk = l.trunk()
	m.pixel = l.pixelDecoder(c)
	m.decoder = l.decoder(c)
	m.second = l.secondStage(c)
	m.text = l.textEncoder(c.Text)
	l.check("decoder.logit_scale")
}

// readsWith prepares what the host does with words.
func (m *Model) readsWith(vocabulary []byte, source Source) error {
	t, err := token.New(vocabulary)
	if err != nil {
		return err
	}
	if t.Len() > m.Config.Text.Vocab {
		return ErrConfig // it would name rows that word_u does not have
	}
	m.reads(t, source)
	return nil
}

func (m *Model) reads(t tokenizer, source Source) {
	m.tokenizer, m.phrases = t, map[string]*phrase{}
	m.word = func(id int, dst []float32) { source.ReadRow(wordTable, id, dst) }
}

// tokenizer turns texts into numbers of pieces, at most most of them. The last one
// ends the text.
type tokenizer interface {
	Encode(text string, most int) []int32
}

// textReader embeds texts: a unit vector for each.
type textReader interface {
	run(g graph, in textInput, dst kernel.View)
}

// ErrConfig says that a manifest describes a network that cannot be built.
var ErrConfig = errors.New("the weights describe a network that this version cannot build; fetch weights and program of the same version")

// Device is what the model runs on.
func (m *Model) Device() kernel.Device { return m.device }

// Close frees the device.
func (m *Model) Close() error { return m.device.Close() }

// sensible tells whether the numbers lie where the network can be built.
// It keeps forged weights from asking for absurd sizes.
func (c Config) sensible() bool {
	return within(c.D, 16, 1024) && c.D%16 == 0 && within(c.DM, 8, 1024) && c.DM%8 == 0 &&
		within(c.Heads, 1, 64) && c.D%c.Heads == 0 && c.D/c.Heads%8 == 0 &&
		within(c.Queries, 8, 256) && c.Queries%8 == 0 && within(c.Layers, 1, 32) &&
		within(c.Size, cellSize, 2048) && c.Size%256 == 0 && c.Text.sensible() && multiple(c.Rank, 8, 4096, 8) &&
		multiple(c.Rows, 8, 1<<16, 8) && multiple(c.Space, 8, 4096, 8) && within(c.Trained, 1, 1<<16) && len(c.Templates) > 0 &&
		c.Cap > 0 && c.Cap <= 1 &&
		(c.Edges == 0 || c.Edges >= 1e-4 && c.Edges <= 1) // colours of float32 say nothing of smaller ones
}

func (c TextConfig) sensible() bool {
	return within(c.Width, 16, 4096) && c.Width%8 == 0 && within(c.Heads, 1, 64) && c.Width%c.Heads == 0 && c.Width/c.Heads%8 == 0 &&
		within(c.FFN, 8, kernel.MaxK8) && c.FFN%8 == 0 && within(c.Layers, 1, 48) &&
		within(c.Vocab, 1, 1<<20) && multiple(c.Rank, 8, 4096, 8) && multiple(c.Embedding, 8, 4096, 8) && within(c.MaxTokens, 4, 512)
}

func within(n, low, high int) bool { return low <= n && n <= high }

func multiple(n, low, high, of int) bool { return within(n, low, high) && n%of == 0 }

// itoa is strconv.Itoa for the small numbers in tensor names.
func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}
