package model

import (
	"math"
	"slices"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model/token"
	"github.com/pmp-seg/pmp/weights"
)

// OpenConfig is what FC-CLIP has in place of a list of labels.
type OpenConfig struct {
	// Alpha and Beta are CLIP's share in what a proposal is: for names that the
	// decoder was trained with, and for others.
	Alpha, Beta float64
	Trained     []string // the names, of which each may list several
	Hidden      int      // width of the middle of CLIP's image head, 0 if it is one layer
	Pool        int      // side of the map that CLIP's attention pool has positions for, 0 if there is none
}

// openHead names proposals by CLIP: once by an embedding of the query that was trained
// on a list of names, once by CLIP's own features under the mask.
type openHead struct {
	OpenConfig
	poolNorm layerNorm // of what lies under a mask in the mask features
	poolProj linear
	class    [3]linear
	clipNorm layerNorm // of what lies under it in the trunk
	clip     []linear
	pool     *attentionPool // in place of both, where CLIP is a ResNet
	void     []float32      // unit
	scales   [2]float64
	trained  map[string]bool
	e        int
}

func (l *loader) openHead(c OpenConfig, s decoderShape, trunk int) *openHead {
	h := &openHead{OpenConfig: c, e: s.e, trained: map[string]bool{}}
	h.poolNorm, h.poolProj = l.layerNorm("class.pool_norm", s.dm, layerNormEps), l.linear("class.pool_proj", s.dm, s.d)
	h.class = [3]linear{l.linear("class.mlp.0", s.d, s.d), l.linear("class.mlp.1", s.d, s.d), l.linear("class.mlp.2", s.d, s.e)}
	if c.Pool > 0 {
		h.pool = l.attentionPool("clip.pool", c.Pool, trunk, s.e)
	} else {
		h.clipNorm = l.layerNorm("clip.norm", trunk, convNeXtEps)
		if c.Hidden > 0 {
			h.clip = append(h.clip, l.linear("clip.head.0", trunk, c.Hidden))
			trunk = c.Hidden
		}
		h.clip = append(h.clip, l.linear("clip.head."+itoa(len(h.clip)), trunk, s.e))
	}
	h.void = l.numbers("class.void", s.e)
	normalise(h.void)
	// Both are learned as logarithms, and 100 is the most.
	for i, name := range []string{"class.scale", "clip.scale"} {
		h.scales[i] = min(math.Exp(float64(l.numbers(name, 1)[0])), 100)
	}
	for _, names := range c.Trained {
		for _, name := range token.Phrases(names) {
			h.trained[name] = true
		}
	}
	return h
}

// width is how many numbers run leaves for each proposal.
func (h *openHead) width() int {
	if h.pool != nil {
		return 2*h.e + kernel.Panel
	}
	return 2 * h.e
}

// sight is what may lie under masks of a picture.
type sight struct {
	features, coarse grid // the mask features, and the trunk's last map
	pooled
}

// remember computes it; later stages can read what is kept.
func (h *openHead) remember(g graph, image imageMemory, maps pyramid, f features, q int, kept bool) sight {
	s, keep := sight{features: maps.mask[4], coarse: f.f32}, g.Temp
	if kept {
		keep = g.Keep
		s.features = g.copied(s.features, keep)
	}
	switch {
	case h.pool != nil:
		s.pooled = h.pool.remember(g, f.f32, q, image.mask[cellSize].n, keep)
	case kept:
		s.coarse = g.copied(s.coarse, keep)
	}
	return s
}

func (g graph) copied(x grid, keep func(int) kernel.View) grid {
	n := x.cells() * x.c
	y := grid{keep(n), x.h, x.w, x.c}
	g.Do(kernel.Activate{Dst: y.View, A: x.View, N: n})
	return y
}

// run records what becomes of proposals: two rows of embeddings for each in dst, those
// of all queries and then those of CLIP, and behind them what an attention pool says of
// masks. z are the queries behind the decoder.
func (h *openHead) run(g graph, dst, z, embedding kernel.View, image imageMemory, seen sight, s decoderShape) {
	none := kernel.View{}
	mean := g.norm(g.under(embedding, s.q, image.mask[4], seen.features), none, s.q, h.poolNorm)
	x := g.Temp(s.q * s.d)
	g.linearTo(x, mean, s.q, h.poolProj, kernel.ActNone, z)
	x = g.linear(g.linear(x, s.q, h.class[0], kernel.ActReLU), s.q, h.class[1], kernel.ActReLU)
	g.linearTo(dst, x, s.q, h.class[2], kernel.ActNone, none)

	if h.pool != nil {
		h.pool.run(g, dst.At(s.q*h.e), dst.At(2*s.q*h.e), embedding, s.q, image.mask[cellSize], seen.pooled)
		return
	}
	x = g.norm(g.under(embedding, s.q, image.mask[cellSize], seen.coarse), none, s.q, h.clipNorm)
	if len(h.clip) > 1 {
		x = g.linear(x, s.q, h.clip[0], kernel.ActGelu)
	}
	g.linearTo(dst.At(s.q*h.e), x, s.q, h.clip[len(h.clip)-1], kernel.ActNone, none)
}

// under is the mean of x in the cells of each of q masks, and zero for a mask without
// cells. A mask is where a logit is above zero: so large, all such logits are 6 behind
// a ReLU6, and the sum of a row takes that out again.
func (g graph) under(embedding kernel.View, q int, mask matrix, x grid) kernel.View {
	large := g.Temp(q * mask.k)
	g.Do(kernel.L2Norm{Dst: large, A: embedding, M: q, N: mask.k, Scale: 0x1p100})
	w, y := g.times(large, q, mask, kernel.ActReLU6), g.Temp(q*x.c)
	g.Do(kernel.L1Norm{Dst: w, A: w, M: q, N: mask.n})
	g.Do(kernel.MatMul{Dst: y, A: w, LDA: mask.n, B: x.View, LDB: x.c, M: q, N: x.c, K: x.cells()})
	return y
}

// probabilities are P of prompts, a row of Q for each, from what run has left.
func (h *openHead) probabilities(said []float32, names []string, phrases []*phrase, owner []int32, prompts int) []float32 {
	q := len(said) / h.width()
	// A prompt is known if one of its names is; the network has seen those in training.
	known, p := make([]bool, prompts), make([]float32, prompts*q)
	for i, name := range names {
		known[owner[i]] = known[owner[i]] || h.trained[name]
	}
	for i := range q {
		var logits [2][]float64
		void := 0.0
		for branch := range logits {
			x := said[(branch*q+i)*h.e:][:h.e]
			normalise(x)
			logits[branch] = promptLogits(x, h.scales[branch], phrases, owner, prompts)
			if branch == 0 {
				void = h.scales[0] * dot(x, h.void)
			}
		}
		alpha, beta := h.Alpha, h.Beta
		if h.pool != nil && said[2*q*h.e+i*kernel.Panel] <= 0 {
			alpha, beta = 0, 0 // nothing lies under its mask
		}
		for t, v := range ensemble(logits[0], logits[1], void, known, alpha, beta) {
			p[t*q+i] = float32(v)
		}
	}
	return p
}

// promptLogits are the logits of prompts for a unit vector: those of the best phrase of each.
func promptLogits(x []float32, scale float64, phrases []*phrase, owner []int32, prompts int) []float64 {
	logits := slices.Repeat([]float64{math.Inf(-1)}, prompts)
	for i, ph := range phrases {
		logits[owner[i]] = max(logits[owner[i]], scale*dot(x, ph.embedding))
	}
	return logits
}

// ensemble joins what two branches say of some prompts: the geometric mean of their
// probabilities, in which the second one has a share of alpha for known prompts and of
// beta for others. Void, which only the first one knows, takes its part of each.
func ensemble(first, second []float64, void float64, known []bool, alpha, beta float64) []float64 {
	in, out := logSoftmax(first), logSoftmax(second)
	joined := make([]float64, len(first))
	for t := range joined {
		share := beta
		if known[t] {
			share = alpha
		}
		joined[t] = (1-share)*in[t] + share*out[t]
	}
	joined = logSoftmax(joined)
	all := logSoftmax(append(slices.Clone(first), void))
	there := 1 - math.Exp(all[len(first)])
	// As the network's own code has it, probabilities of zero are not quite zero.
	const least = 1e-8
	for t := range joined {
		joined[t] = (math.Exp(joined[t])*there + least) / (1 + least*float64(len(all)))
	}
	return joined
}

func logSoftmax(x []float64) []float64 {
	top, sum := slices.Max(x), 0.0
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v - top - math.Log(sum)
	}
	return y
}

func dot(a, b []float32) (s float64) {
	for i, v := range a {
		s += float64(v) * float64(b[i])
	}
	return s
}

// read reads what FC-CLIP's manifest says beside the mask generator's part.
func (c *OpenConfig) read(m *weights.Manifest) error {
	f := m.Fields()
	c.Alpha, c.Beta, c.Trained = f.Float("alpha"), f.Float("beta"), m.TrainedNames
	if err := f.Err(); err != nil {
		return err
	}
	names := m.Names()
	if slices.Contains(names, "clip.head.1.weight") {
		var in int
		if err := sides(m, "clip.head.0.weight", &c.Hidden, &in); err != nil {
			return err
		}
	}
	if slices.Contains(names, poolPosition) {
		var rows, channels int
		if err := sides(m, poolPosition, &rows, &channels); err != nil {
			return err
		}
		for c.Pool = 1; c.Pool < 64 && c.Pool*c.Pool+1 < rows; c.Pool++ {
		}
	}
	return nil
}

func (c OpenConfig) sensible(trunk int) bool {
	return (c.Pool == 0 || trunk%poolHead == 0) && c.Alpha >= 0 && c.Alpha <= 1 && c.Beta >= 0 && c.Beta <= 1 && (c.Hidden == 0 || multiple(c.Hidden, 8, kernel.MaxK8, 8))
}
