package model

import (
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model/token"
)

// Groups splits prompts, in their order, into as few questions as Segment can
// take: vocabularies of benchmarks have more phrases than one question holds.
// A prompt that no question can hold has one to itself, so that Segment tells
// what is wrong with it.
func Groups(prompts []string) [][]string {
	var groups [][]string
	first, phrases := 0, 0
	for i, p := range prompts {
		n := len(token.Phrases(p))
		if i > first && (i-first == MaxPrompts || phrases+n > maxPhrase) {
			groups = append(groups, prompts[first:i])
			first, phrases = i, 0
		}
		phrases += n
	}
	if first < len(prompts) {
		groups = append(groups, prompts[first:])
	}
	return groups
}

// Strongest joins the answers to several questions about a picture, which
// together may have more prompts than one label map has labels for. It does
// on the host what LabelMap does on the device, but for tidying: the maps S at
// stride 4 are resized bilinearly to the picture's pixels, and only then the
// highest one is taken.
type Strongest struct {
	// Labels has the number of the strongest prompt for each of Width × Height
	// pixels, None where no map reached the threshold. Numbers count through
	// the questions in the order in which they were added.
	Labels []uint16

	best  []float32
	count int
}

// None marks pixels that belong to no prompt.
const None = 0xFFFF

// Add adds an answer. It fails with ErrReleased if the answer's maps are gone.
func (s *Strongest) Add(r *Result) error {
	p := r.picture
	if s.Labels == nil {
		s.Labels, s.best = make([]uint16, p.Width*p.Height), make([]float32, p.Width*p.Height)
		for i := range s.Labels {
			s.Labels[i], s.best[i] = None, r.Theta
		}
	}
	w, h := fit(p.Width, p.Height, p.model.Config.Size)
	tapsY := kernel.PaintTaps(p.map4.h, p.Height, float64(h)/float64(p.Height), 4)
	tapsX := kernel.PaintTaps(p.map4.w, p.Width, float64(w)/float64(p.Width), 4)
	for i, a := range r.Prompts {
		if a.Present {
			m, columns := r.Map(i)
			if m == nil {
				return ErrReleased
			}
			s.add(m, columns, tapsY, tapsX, uint16(s.count+i))
		}
	}
	s.count += len(r.Prompts)
	return nil
}

// add takes the pixels at which a map, resized by the taps, is above what was
// strongest there.
func (s *Strongest) add(m []float32, columns int, tapsY, tapsX kernel.TapTable, label uint16) {
	row := make([]float32, columns)
	for y := range tapsY.N {
		// Rows first, so that a pixel takes two products instead of four.
		upper := m[int(tapsY.First[y])*columns:][:columns]
		copy(row, upper)
		if tapsY.Count[y] == 2 {
			lower, wu, wl := m[(int(tapsY.First[y])+1)*columns:][:columns], tapsY.Weights[2*y], tapsY.Weights[2*y+1]
			for x := range row {
				row[x] = wu*upper[x] + wl*lower[x]
			}
		}
		best, labels := s.best[y*tapsX.N:][:tapsX.N], s.Labels[y*tapsX.N:][:tapsX.N]
		for x := range best {
			at := int(tapsX.First[x])
			v := row[at]
			if tapsX.Count[x] == 2 {
				v = tapsX.Weights[2*x]*v + tapsX.Weights[2*x+1]*row[at+1]
			}
			if v > best[x] {
				best[x], labels[x] = v, label
			}
		}
	}
}
