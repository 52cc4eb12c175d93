package model

import (
	"unsafe"

	"github.com/pmp-seg/pmp/kernel"
)

// Mask writes prompt i's mask at the picture's own resolution to dst, a byte
// a pixel, 0 or 1. The mask of a prompt that is not present is empty.
func (r *Result) Mask(i int, dst []byte) error {
	if r.picture.session == nil {
		return ErrPictureClosed
	}
	dst = dst[:r.picture.Width*r.picture.Height]
	if !r.Prompts[i].Present {
		clear(dst)
		return nil
	}
	if err := r.paint(i); err != nil {
		return err
	}
	return r.picture.session.Read(r.picture.paint.mask, dst)
}

// LabelMap writes the index of the strongest present prompt of each pixel to
// dst, kernel.NoLabel where none reaches the threshold.
func (r *Result) LabelMap(dst []byte) error {
	for i, a := range r.Prompts {
		// The first one starts the label map anew even if it is absent.
		if i == 0 || a.Present {
			if err := r.paint(i); err != nil {
				return err
			}
		}
	}
	return r.picture.session.Read(r.picture.paint.label, dst[:r.picture.Width*r.picture.Height])
}

func (r *Result) paint(i int) error {
	if !r.Prompts[i].Present {
		return r.picture.paintMap(i, make([]float32, r.cells), 1) // nothing reaches 1
	}
	if r.picture.session == nil {
		return ErrPictureClosed
	}
	s, columns := r.Map(i)
	if s == nil {
		return ErrReleased
	}
	tidy(s, columns, r.Theta)
	return r.picture.paintMap(i, s, r.Theta)
}

// paintMap resizes a map, which it spoils, to the picture's resolution and
// cuts it at theta.
func (p *Picture) paintMap(index int, s []float32, theta float32) error {
	if p.session == nil {
		return ErrPictureClosed
	}
	for i := range s {
		s[i] -= theta
	}
	if err := p.session.Write(p.paint.in, kernel.Bytes(s)); err != nil {
		return err
	}
	if err := p.session.Write(p.paint.index, intBytes([]int32{int32(index)})); err != nil {
		return err
	}
	return p.session.Run(p.paint.stage)
}

// Proposals returns the mask proposals behind a result, thresholded at 0.5
// at the picture's resolution, one after the other. It must be called before
// the picture is segmented again.
func (p *Picture) Proposals(each func(mask []byte) error) error {
	switch {
	case p.session == nil:
		return ErrPictureClosed
	case !p.encoded:
		return ErrNotEncoded
	}
	q, cells := p.model.decoder.q, p.map4.cells()
	masks, mask := make([]float32, mapsAtOnce*cells), make([]byte, p.Width*p.Height)
	for i := range q {
		if i%mapsAtOnce == 0 {
			p.chunk = -1 // they take the place of maps
			if err := p.session.Run(p.proposals[i/mapsAtOnce]); err != nil {
				return err
			}
			if err := p.session.Read(p.reply.maps, kernel.Bytes(masks)); err != nil {
				return err
			}
		}
		if err := p.paintMap(1, masks[i%mapsAtOnce*cells:][:cells], 0.5); err != nil {
			return err
		}
		if err := p.session.Read(p.paint.mask, mask); err != nil {
			return err
		}
		if err := each(mask); err != nil {
			return err
		}
	}
	return nil
}

// segmentFor returns the smallest recording that holds n phrases.
func (p *Picture) segmentFor(n int) segment {
	for _, s := range p.segments {
		if s.slots >= n {
			return s
		}
	}
	panic("model: more phrases than any recording holds")
}

// intBytes is n's memory.
func intBytes(n []int32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(n))), 4*len(n))
}

// NoLabel marks pixels of a label map that belong to no prompt.
const NoLabel = kernel.NoLabel
