package model

import (
	"math"
	"slices"
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
// hours starts anew rather than growing for ever. Each takes 7 kB. A text that
// is longer than maxCached bytes is not kept.
const (
	maxPhrases = 2048
	maxCached  = 1 << 10
)

// phraseEncoder is the program that embeds phrases, many at a time, since
// most of its time goes into reading weights: a stage for each number of rows
// of tokens, and one for each number of phrases that the second stage
// describes.
type phraseEncoder struct {
	session  kernel.Session
	inputs   []textInput
	out      kernel.View // a row of Width for each text
	describe []description
	rows     kernel.View // a classifier row for each phrase
	likeness kernel.View // of each phrase to each trained name
}

// description is one recording of secondStage.describe.
type description struct {
	in           kernel.View
	phrases, run int
}

// described are the numbers of phrases that the second stage takes at once.
var described = [...]int{1, 8, 16, 24, 32}

// textRows are the numbers of tokens that are encoded at once, up to some
// phrases together or one long text. Time grows with them, so the steps are
// small.
func textRows(maxTokens int) []int {
	most := max(roundUp(maxTokens, 16), 128)
	var rows []int
	for n := 8; n < most; n += max(8, n/64*16) {
		rows = append(rows, n)
	}
	return append(rows, most)
}

func (m *Model) newPhraseEncoder() (*phraseEncoder, error) {
	p := &kernel.Program{}
	g := newGraph(p)
	c := m.Config.Text
	sizes := textRows(c.MaxTokens)
	e := &phraseEncoder{out: p.Keep(texts(slices.Max(sizes)) * c.Embedding)}
	for _, n := range sizes {
		in := textInput{rows: n, stage: p.Stage()}
		in.words, in.place = p.ScratchInput(4*n*c.Rank), p.ScratchInput(4*n*c.MaxTokens)
		in.mask, in.mean = p.ScratchInput(4*n*n), p.ScratchInput(4*texts(n)*n)
		m.text.run(g, in, e.out)
		e.inputs = append(e.inputs, in)
	}
	if m.second.known > 0 {
		m.recordDescriptions(g, e)
	}
	p.Plan()
	var err error
	e.session, err = m.device.Open(p)
	return e, err
}

// recordDescriptions is for networks that have a second stage.
func (m *Model) recordDescriptions(g graph, e *phraseEncoder) {
	most := described[len(described)-1]
	e.rows, e.likeness = g.Keep(most*trunkFeatures), g.Keep(most*m.second.columns())
	for _, n := range described {
		d := description{phrases: n, run: g.Stage()}
		d.in = g.ScratchInput(4 * n * m.Config.Text.Embedding)
		m.second.describe(g, d.in, e.rows, e.likeness, n)
		e.describe = append(e.describe, d)
	}
}

// embed returns what the network knows of each of some texts.
func (m *Model) embed(texts []string) ([]*phrase, error) {
	known := make([]*phrase, len(texts))
	fresh := map[string]*phrase{}
	var names []string
	for i, text := range texts {
		if known[i] = m.phrases[text]; known[i] != nil {
			continue
		}
		if fresh[text] == nil {
			fresh[text] = &phrase{embedding: make([]float32, m.Config.Text.Embedding)}
			names = append(names, text)
		}
		known[i] = fresh[text]
	}
	if len(names) == 0 {
		return known, nil
	}

	var wordings []string
	for _, template := range m.Config.Templates {
		for _, name := range names {
			wordings = append(wordings, strings.ReplaceAll(template, "{}", name))
		}
	}
	err := m.encodeTexts(wordings, func(i int, e []float32) {
		sum := fresh[names[i%len(names)]].embedding
		for j, x := range e {
			sum[j] += x
		}
	})
	if err != nil {
		return nil, err
	}
	var phrases []*phrase
	for _, name := range names {
		normalise(fresh[name].embedding)
		phrases = append(phrases, fresh[name])
	}
	if err := m.describe(phrases); err != nil {
		return nil, err
	}
	if len(m.phrases)+len(names) > maxPhrases {
		clear(m.phrases)
	}
	for i, name := range names {
		if len(name) <= maxCached {
			m.phrases[name] = phrases[i]
		}
	}
	return known, nil
}

// encodeTexts runs the text encoder and calls each with every text's
// embedding, which is only good during the call.
func (m *Model) encodeTexts(list []string, each func(i int, e []float32)) error {
	c, s := m.Config.Text, m.encoder.session
	largest := m.encoder.inputs[len(m.encoder.inputs)-1].rows
	for first := 0; first < len(list); {
		// As many texts as fit.
		var tokens [][]int32
		n := 0
		for _, text := range list[first:] {
			ids := m.tokenizer.Encode(text, c.MaxTokens)
			if n+len(ids) > largest {
				break
			}
			tokens, n = append(tokens, ids), n+len(ids)
		}
		in := m.encoder.inputs[slices.IndexFunc(m.encoder.inputs, func(in textInput) bool { return in.rows >= n })]
		words, place := make([]float32, in.rows*c.Rank), make([]float32, in.rows*c.MaxTokens)
		mask, mean := make([]float32, in.rows*in.rows), make([]float32, texts(in.rows)*in.rows)
		for i := range mask {
			mask[i] = -1
		}
		row := 0
		for i, ids := range tokens {
			for j, id := range ids {
				m.word(int(id), words[(row+j)*c.Rank:(row+j+1)*c.Rank])
				place[(row+j)*c.MaxTokens+j] = 1
				seen := len(ids)
				if c.CLIP {
					seen = j + 1
				} else {
					mean[i*in.rows+row+j] = 1 / float32(len(ids))
				}
				for k := range seen {
					mask[(row+j)*in.rows+row+k] = 1
				}
			}
			if c.CLIP {
				// A text may hold several ends; the first one counts.
				mean[i*in.rows+row+slices.Index(ids, ids[len(ids)-1])] = 1
			}
			row += len(ids)
		}
		out := make([]float32, len(tokens)*c.Embedding)
		for _, x := range []struct {
			view kernel.View
			data []float32
		}{{in.words, words}, {in.place, place}, {in.mask, mask}, {in.mean, mean}} {
			if err := s.Write(x.view, kernel.Bytes(x.data)); err != nil {
				return err
			}
		}
		if err := s.Run(in.stage); err != nil {
			return err
		}
		if err := s.Read(m.encoder.out, kernel.Bytes(out)); err != nil {
			return err
		}
		for i := range tokens {
			each(first+i, out[i*c.Embedding:(i+1)*c.Embedding])
		}
		first += len(tokens)
	}
	return nil
}

// describe fills in what the second stage says of phrases.
func (m *Model) describe(phrases []*phrase) error {
	s, e := m.encoder.session, m.encoder
	for len(phrases) > 0 && len(e.describe) > 0 {
		some := phrases[:min(len(phrases), described[len(described)-1])]
		phrases = phrases[len(some):]
		d := e.describe[slices.IndexFunc(e.describe, func(d description) bool { return d.phrases >= len(some) })]
		in := make([]float32, 0, d.phrases*m.Config.Text.Embedding)
		for _, p := range some {
			in = append(in, p.embedding...)
		}
		columns := m.second.columns()
		rows, likeness := make([]float32, len(some)*trunkFeatures), make([]float32, len(some)*columns)
		// Rows without a phrase are zeros.
		if err := s.Write(d.in, kernel.Bytes(in[:cap(in)])); err != nil {
			return err
		}
		if err := s.Run(d.run); err != nil {
			return err
		}
		if err := s.Read(e.rows, kernel.Bytes(rows)); err != nil {
			return err
		}
		if err := s.Read(e.likeness, kernel.Bytes(likeness)); err != nil {
			return err
		}
		for i, p := range some {
			p.row = rows[i*trunkFeatures : (i+1)*trunkFeatures : (i+1)*trunkFeatures]
			p.share = m.Config.share(slices.Max(likeness[i*columns:][:m.second.known]))
		}
	}
	return nil
}

// share is the second stage's weight for a phrase: alpha for the names that
// the decoder was trained on, beta for those far from all of them. Near is
// its cosine with the most similar trained name.
func (c Config) share(near float32) float32 {
	unseen := min(max((c.SeenHi-near)/max(c.SeenHi-c.SeenLo, 1e-6), 0), 1)
	return c.Alpha + (c.Beta-c.Alpha)*unseen
}

// unseen tells from the prompts' shares how far each is a name that was never
// trained, from 0 to 1. It is nil if none is, or if that makes no difference.
func (c Config) unseen(shares []float32) (unseen []float32) {
	if c.Cap >= 1 || c.Beta <= c.Alpha || len(shares) == 0 || slices.Max(shares) <= c.Alpha {
		return nil
	}
	for _, w := range shares {
		unseen = append(unseen, (w-c.Alpha)/(c.Beta-c.Alpha))
	}
	return unseen
}

// temperature is τ, by which cosines with class embeddings are multiplied.
func (l *loader) temperature() float32 {
	var s [1]float32
	l.source.Read("decoder.logit_scale", s[:])
	return float32(math.Exp(float64(s[0])))
}
