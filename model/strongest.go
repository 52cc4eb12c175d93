package model

import (
	"slices"

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

// SegmentGroups asks for any number of prompts, in Groups, and calls each with every
// answer; the next question replaces what it is made of. Where proposals depend on no
// prompt and a softmax over the prompts names them, it is one over all prompts. Where
// the mask decoder or the class head reads the prompts each group has its own.
func (p *Picture) SegmentGroups(prompts []string, o Options, each func(*Result) error) error {
	groups := Groups(prompts)
	var named []float32
	if n, ok := p.model.network.(interface {
		among(p *Picture, prompts []string) ([]float32, error)
	}); ok && len(groups) > 1 && p.session != nil && p.encoded {
		var err error
		if named, err = n.among(p, prompts); err != nil {
			return err
		}
	}
	for _, group := range groups {
		if named != nil {
			n := len(group) * p.model.decoder.q
			o.named, named = named[:n], named[n:]
		}
		r, err := p.Segment(group, o)
		if err != nil {
			return err
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// Strongest joins the answers to several questions about a picture, which
// together may have more prompts than one label map has labels for. It does
// on the host what LabelMap does on the device, but for tidying: the maps S at
// stride 4 are resized to the picture's pixels, and only then the highest one
// is taken.
type Strongest struct {
	// Labels has the number of the strongest prompt for each of Width × Height
	// pixels, None where no map reached the threshold. Numbers count through
	// the questions in the order in which they were added.
	Labels []uint16

	best         []float32 // how far the strongest prompt is above the threshold
	tapsY, tapsX kernel.TapTable
	pixels       []byte // of the picture, if masks follow its edges
	count        int
}

// None marks pixels that belong to no prompt.
const None = 0xFFFF

// Add adds an answer. It fails with ErrReleased if the answer's maps are gone.
func (s *Strongest) Add(r *Result) error {
	p := r.picture
	if err := r.usable(); err != nil {
		return err
	}
	guided := p.guide.Valid()
	if s.Labels == nil {
		n := p.model.network
		w, h := n.fit(p.Width, p.Height)
		s.begin(n.taps(p.map4.h, p.Height, h), n.taps(p.map4.w, p.Width, w))
		if guided {
			s.pixels = make([]byte, 4*p.Width*p.Height)
			if err := p.session.Read(p.smooth, s.pixels); err != nil {
				return err
			}
		}
	}
	size := r.cells
	if guided {
		size *= 4
	}
	m, stage := make([]float32, size), p.paint.cut
	if r.Theta == 0 {
		stage = p.paint.all
	}
	for i, a := range r.Prompts {
		if a.Present {
			if err := r.prepare(i/mapsAtOnce, stage); err != nil {
				return err
			}
			if err := p.session.Read(p.paint.fits.At(i%mapsAtOnce*size), kernel.Bytes(m)); err != nil {
				return err
			}
			s.add(m, p.map4.w, uint16(s.count+i))
		}
	}
	s.count += len(r.Prompts)
	return nil
}

// begin starts with the taps that resize maps.
func (s *Strongest) begin(tapsY, tapsX kernel.TapTable) {
	s.tapsY, s.tapsX = tapsY, tapsX
	s.Labels, s.best = slices.Repeat([]uint16{None}, tapsY.N*tapsX.N), make([]float32, tapsY.N*tapsX.N)
}

// add takes the pixels at which a map is above what was strongest there. Of a
// guided one, cells have four numbers, see kernel.Guided.
func (s *Strongest) add(m []float32, columns int, label uint16) {
	numbers := 1
	if s.pixels != nil {
		numbers = 4
	}
	row, tops := make([]float32, columns*numbers), make([]float32, columns)
	for y := range s.tapsY.N {
		// Rows first, so that a pixel takes two products instead of four.
		upper := m[int(s.tapsY.First[y])*len(row):][:len(row)]
		copy(row, upper)
		if s.tapsY.Count[y] == 2 {
			lower, wu, wl := m[(int(s.tapsY.First[y])+1)*len(row):][:len(row)], s.tapsY.Weights[2*y], s.tapsY.Weights[2*y+1]
			for x := range row {
				row[x] = wu*upper[x] + wl*lower[x]
			}
		}
		// What the map is at most there, in whatever colour.
		for i := range tops {
			tops[i] = row[(i+1)*numbers-1]
			for _, v := range row[i*numbers : (i+1)*numbers-1] {
				tops[i] += 255 * max(v, 0)
			}
		}
		best, labels := s.best[y*s.tapsX.N:][:s.tapsX.N], s.Labels[y*s.tapsX.N:][:s.tapsX.N]
		for x := range best {
			at, w := int(s.tapsX.First[x]), s.tapsX.Weights[2*x:][:s.tapsX.Count[x]]
			if tops[at] <= best[x] && tops[at+len(w)-1] <= best[x] {
				continue
			}
			var v float32
			for i, w := range w {
				f := row[(at+i)*numbers:][:numbers]
				u := f[numbers-1]
				if s.pixels != nil {
					p := s.pixels[4*(y*s.tapsX.N+x):][:3]
					u += f[0]*float32(p[0]) + f[1]*float32(p[1]) + f[2]*float32(p[2])
				}
				v += w * u
			}
			if v > best[x] {
				best[x], labels[x] = v, label
			}
		}
	}
}
