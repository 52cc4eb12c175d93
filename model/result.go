package model

import (
	"slices"
	"unsafe"

	"github.com/pmp-seg/pmp/kernel"
)

// Mask writes prompt i's mask at the picture's own resolution to dst, a byte
// a pixel, 0 or 1. The mask of a prompt that is not present is empty.
func (r *Result) Mask(i int, dst []byte) error {
	if err := r.mask(i, dst[:r.picture.Width*r.picture.Height]); err != nil {
		return err
	}
	return r.picture.session.Wait()
}

// mask fetches prompt i's mask.
func (r *Result) mask(i int, dst []byte) error {
	if !r.Prompts[i].Present {
		clear(dst)
		return r.usable()
	}
	if err := r.prepare(i/mapsAtOnce, r.stage()); err != nil {
		return err
	}
	p := r.picture
	if err := p.session.Run(p.paint.masks[i%mapsAtOnce]); err != nil {
		return err
	}
	return p.session.Fetch(p.paint.mask, dst)
}

// Masks calls each with the mask of every prompt that is present; the mask is
// only good during the call. Up to atOnce of them are fetched together, which
// takes memory for so many and spares waiting where a device works by itself.
func (r *Result) Masks(atOnce int, each func(i int, mask []byte) error) error {
	size := r.picture.Width * r.picture.Height
	var present []int
	for i, a := range r.Prompts {
		if a.Present {
			present = append(present, i)
		}
	}
	for some := range slices.Chunk(present, atOnce) {
		for len(r.picture.masks) < len(some) {
			r.picture.masks = append(r.picture.masks, make([]byte, size))
		}
		for j, i := range some {
			if err := r.mask(i, r.picture.masks[j]); err != nil {
				return err
			}
		}
		if err := r.picture.session.Wait(); err != nil {
			return err
		}
		for j, i := range some {
			if err := each(i, r.picture.masks[j]); err != nil {
				return err
			}
		}
	}
	return r.usable()
}

// LabelMap writes the index of the strongest present prompt of each pixel to
// dst, NoLabel where none reaches the threshold.
func (r *Result) LabelMap(dst []byte) error {
	if err := r.label(); err != nil {
		return err
	}
	return r.picture.session.Read(r.picture.paint.label, dst[:r.picture.Width*r.picture.Height])
}

// Colour leaves a picture's labels on the device as colours, see
// Picture.Colours: palette has one for each prompt, and NoLabel's.
func (r *Result) Colour(palette *[NoLabel + 1]uint32) error {
	if err := r.label(); err != nil {
		return err
	}
	p := r.picture
	if err := p.session.Write(p.ask.palette, wordBytes(palette[:])); err != nil {
		return err
	}
	return p.session.Run(p.paint.colours)
}

// Colours is where Result.Colour leaves a word for each pixel.
func (p *Picture) Colours() kernel.View { return p.paint.colour }

// label makes the label map on the device.
func (r *Result) label() error {
	p := r.picture
	for chunk := range r.chunks() {
		if err := r.prepare(chunk, r.stage()); err != nil {
			return err
		}
		// The first one starts the label map anew.
		if err := p.session.Write(p.ask.index, wordBytes([]int32{int32(chunk * mapsAtOnce)})); err != nil {
			return err
		}
		if err := p.session.Run(p.paint.labels); err != nil {
			return err
		}
	}
	return nil
}

// usable tells what keeps the result from being painted.
func (r *Result) usable() error {
	switch {
	case r.picture.session == nil:
		return ErrPictureClosed
	case r.maps == nil && r.picture.latest != r, r.picture.guide.Valid() && r.encodes != r.picture.encodes:
		return ErrReleased
	}
	return nil
}

// stage is what makes the result's maps ready to be painted. Without a threshold
// a map is above 0 wherever arithmetic did not run out of digits: such holes are
// no regions of their own.
func (r *Result) stage() int {
	if r.Theta == 0 {
		return r.picture.paint.all
	}
	return r.picture.paint.tidy
}

// prepare sees to it that a stage has made a chunk of maps ready to be painted. The
// map of a prompt that is not present is below its threshold everywhere.
func (r *Result) prepare(chunk, stage int) error {
	if err := r.usable(); err != nil {
		return err
	}
	p := r.picture
	if p.held == (held{r, chunk, stage}) {
		return nil
	}
	first, n := r.chunk(chunk)
	var theta []float32
	for _, a := range r.Prompts[first : first+n] {
		if a.Present {
			theta = append(theta, r.cutAt())
		} else {
			theta = append(theta, kernel.Nowhere)
		}
	}
	if r.maps == nil {
		if err := r.make(chunk); err != nil {
			return err
		}
	} else if err := p.session.Write(p.reply.maps, kernel.Bytes(r.maps[first*r.cells:(first+n)*r.cells])); err != nil {
		return err
	}
	p.held = held{}
	if err := p.threshold(theta, stage); err != nil {
		return err
	}
	p.held = held{r, chunk, stage}
	return nil
}

// cutAt is what maps are above where a prompt may be. Without a threshold that is
// everywhere, even if the guided filter goes below 0.
func (r *Result) cutAt() float32 {
	if r.Theta == 0 && r.picture.guide.Valid() {
		return -1
	}
	return r.Theta
}

// threshold runs a stage that takes thresholds off the maps on the device.
func (p *Picture) threshold(theta []float32, stage int) error {
	if err := p.session.Write(p.ask.theta, kernel.Bytes(theta)); err != nil {
		return err
	}
	if err := p.session.Write(p.ask.prompts, wordBytes([]int32{int32(len(theta))})); err != nil {
		return err
	}
	return p.session.Run(stage)
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
	mask, theta := make([]byte, p.Width*p.Height), make([]float32, mapsAtOnce)
	for i := range theta {
		theta[i] = 0.5
	}
	p.held = held{} // they take the place of maps
	for i := range p.model.decoder.q {
		if i%mapsAtOnce == 0 {
			if err := p.session.Run(p.proposals[i/mapsAtOnce]); err != nil {
				return err
			}
			if err := p.threshold(theta[:min(p.model.decoder.q-i, mapsAtOnce)], p.paint.cut); err != nil {
				return err
			}
		}
		if err := p.session.Run(p.paint.masks[i%mapsAtOnce]); err != nil {
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

// wordBytes is n's memory.
func wordBytes[T int32 | uint32](n []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(n))), 4*len(n))
}

// NoLabel marks pixels of a label map that belong to no prompt.
const NoLabel = kernel.NoLabel
