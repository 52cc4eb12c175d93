package model

import (
	"math"
	"strings"

	"github.com/pmp-seg/pmp/kernel"
)

// phrase is what the network knows of a phrase, independent of any picture.
type phrase struct {
	embedding []float32 // E, unit
	row       []float32 // the second stage's classifier row, unit
	share     float32   // w: how much the second stage says
}

// maxPhrases bounds the cache of phrases; a page that makes up names for
// hours starts anew rather than growing for ever.
const maxPhrases = 8192

// phraseEncoder is the program that embeds phrases, one at a time: a stage
// for each number of token slots and one for the classifier row.
type phraseEncoder struct {
	session kernel.Session
	inputs  []textInput
	out     kernel.View // Width float32s
	rowIn   kernel.View
	rowOut  kernel.View
	rowRun  int
}

func (m *Model) newPhraseEncoder() (*phraseEncoder, error) {
	p := &kernel.Program{}
	g := graph{p}
	e := &phraseEncoder{out: p.Keep(m.text.c.Width), rowOut: p.Keep(trunkFeatures)}
	for slots := 8; ; slots *= 2 {
		slots = min(slots, m.text.c.MaxTokens)
		in := textInput{slots: slots, stage: p.Stage()}
		in.words = p.ScratchInput(4 * slots * m.text.c.Rank)
		in.count = p.ScratchInput(4)
		in.mean = p.ScratchInput(4 * slots)
		m.text.run(g, in, e.out)
		e.inputs = append(e.inputs, in)
		if slots == m.text.c.MaxTokens {
			break
		}
	}
	e.rowRun = p.Stage()
	e.rowIn = p.ScratchInput(4 * m.text.c.Width)
	m.second.row(g, e.rowIn, e.rowOut)
	p.Plan()
	var err error
	e.session, err = m.device.Open(p)
	return e, err
}

// embed returns what the network knows of a phrase.
func (m *Model) embed(text string) (*phrase, error) {
	if p := m.phrases[text]; p != nil {
		return p, nil
	}
	p := &phrase{embedding: make([]float32, m.text.c.Width), row: make([]float32, trunkFeatures)}
	e := make([]float32, m.text.c.Width)
	for _, template := range m.Config.Templates {
		if err := m.encodeText(strings.ReplaceAll(template, "{}", text), e); err != nil {
			return nil, err
		}
		for i, x := range e {
			p.embedding[i] += x
		}
	}
	normalise(p.embedding)
	s := m.encoder.session
	if err := s.Write(m.encoder.rowIn, kernel.Bytes(p.embedding)); err != nil {
		return nil, err
	}
	if err := s.Run(m.encoder.rowRun); err != nil {
		return nil, err
	}
	if err := s.Read(m.encoder.rowOut, kernel.Bytes(p.row)); err != nil {
		return nil, err
	}
	p.share = m.share(p.embedding)
	if len(m.phrases) >= maxPhrases {
		clear(m.phrases)
	}
	m.phrases[text] = p
	return p, nil
}

// encodeText runs the text encoder on one text.
func (m *Model) encodeText(text string, dst []float32) error {
	ids := m.tokenizer.Encode(text, m.text.c.MaxTokens)
	in := m.encoder.inputs[0]
	for _, in = range m.encoder.inputs {
		if in.slots >= len(ids) {
			break
		}
	}
	words := make([]float32, in.slots*m.text.c.Rank)
	mean := make([]float32, in.slots)
	for i, id := range ids {
		m.source.ReadRow("text.word_u", int(id), words[i*m.text.c.Rank:(i+1)*m.text.c.Rank])
		mean[i] = 1 / float32(len(ids))
	}
	s := m.encoder.session
	if err := s.Write(in.words, kernel.Bytes(words)); err != nil {
		return err
	}
	if err := s.Write(in.count, intBytes([]int32{int32(len(ids))})); err != nil {
		return err
	}
	if err := s.Write(in.mean, kernel.Bytes(mean)); err != nil {
		return err
	}
	if err := s.Run(in.stage); err != nil {
		return err
	}
	return s.Read(m.encoder.out, kernel.Bytes(dst))
}

// share is the second stage's weight for an embedding: alpha for the names
// that the decoder was trained on, beta for those far from all of them.
func (m *Model) share(e []float32) float32 {
	near := float32(-1)
	for _, row := range m.trained {
		var dot float32
		for i, x := range row {
			dot += x * e[i]
		}
		near = max(near, dot)
	}
	c := m.Config
	unseen := min(max((c.SeenHi-near)/max(c.SeenHi-c.SeenLo, 1e-6), 0), 1)
	return c.Alpha + (c.Beta-c.Alpha)*unseen
}

// temperature is τ, by which cosines with class embeddings are multiplied.
func (l *loader) temperature() float32 {
	var s [1]float32
	l.source.Read("decoder.logit_scale", s[:])
	return float32(math.Exp(float64(s[0])))
}
