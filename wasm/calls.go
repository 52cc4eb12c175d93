//go:build js && wasm

package main

import (
	"errors"
	"syscall/js"

	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/kernel/webgpu"
	"github.com/pmp-seg/pmp/model"
)

// One worker has one engine, and calls one function of it at a time.
var (
	engine   *model.Model
	pictures = map[int]*picture{}
	lastID   int
	lostID   int // the last picture of a card that was lost
)

type picture struct {
	*model.Picture
	result *model.Result
	bytes  []byte // RGBA or labels on their way from or to JavaScript; kept, since Go's memory never shrinks
}

func (p *picture) size() int { return p.Width * p.Height }

// card is the picture's session if it is on a graphics card.
func (p *picture) card() (s *webgpu.Session, ok bool) {
	s, ok = p.Session().(*webgpu.Session)
	return s, ok
}

// buffer returns n bytes to carry something over; what was there is lost.
func (p *picture) buffer(n int) []byte {
	if cap(p.bytes) < n {
		p.bytes = make([]byte, n)
	}
	return p.bytes[:n]
}

var (
	errNoPicture = errors.New("this picture is closed; encode it again")
	errNoResult  = errors.New("there is no result for this picture yet; segment it first")
	errLost      = errors.New("this picture went with the graphics card, which was lost; encode it again")
	errNotLoaded = errors.New("the weights must be loaded before a picture is encoded")
)

func pictureOf(v js.Value) (*picture, error) {
	id := v.Int()
	p := pictures[id]
	switch {
	case p != nil:
		return p, nil
	case id <= lostID:
		return nil, errLost
	}
	return nil, errNoPicture
}

// unload gives back the device and all that is on it.
func unload() {
	if engine != nil {
		engine.Close()
	}
	engine, lostID = nil, lastID
	clear(pictures)
}

// begin(width, height) → {id, address, card} reserves all that a picture needs.
// If the device has a memory, the worker writes RGBA pixels there at address;
// if it is a graphics card, it calls draw; otherwise, and if that does not
// work, it calls pixels.
func begin(args []js.Value) (any, error) {
	if engine == nil {
		return nil, errNotLoaded
	}
	w, h := args[0].Int(), args[1].Int()
	p, err := engine.NewPicture(w, h)
	if err != nil {
		return nil, err
	}
	lastID++
	pictures[lastID] = &picture{Picture: p}
	out := map[string]any{"id": lastID}
	switch s := p.Session().(type) {
	case *simd.Session:
		out["address"] = s.Address(p.Pixels())
	case *webgpu.Session:
		out["card"] = true
	}
	return out, nil
}

// draw(id, bitmap or frame) → whether the card could take a picture as it is,
// without its pixels coming to the processor.
func draw(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	s, ok := p.card()
	if !ok {
		return false, nil
	}
	switch err := s.Draw(p.Pixels(), args[1], p.Width, p.Height); {
	case errors.Is(err, webgpu.ErrTexture):
		return false, nil
	case err != nil:
		return nil, err
	}
	return true, nil
}

// pixels(id, rgba Uint8Array) writes a picture's pixels to a device whose
// memory the worker cannot reach.
func pixels(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	b := p.buffer(4 * p.size())
	if js.CopyBytesToGo(b, args[1]) != len(b) {
		return nil, errors.New("there are fewer pixels than the picture's sides say")
	}
	return true, p.Write(b)
}

// encode(id) → {work} runs the part of the network that only looks at the
// picture, and tells what that took, see work.
func encode(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	if err := p.Encode(); err != nil {
		return nil, err
	}
	return map[string]any{"work": work(p, p.EncodeStage())}, nil
}

// segment(id, prompts, threshold, guided) → {answers: [{text, score, present}, …], work}
// A threshold that is not a number means the model's own. Unless guided, the
// mask decoder does not see the prompts.
func segment(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	prompts := make([]string, args[1].Length())
	for i := range prompts {
		prompts[i] = args[1].Index(i).String()
	}
	var opt model.Options
	if t := args[2]; t.Type() == js.TypeNumber {
		opt.Threshold = float32(t.Float())
	}
	opt.Unguided = !args[3].Bool()
	if p.result != nil {
		p.result.Release()
	}
	p.result, err = p.Segment(prompts, opt)
	if err != nil {
		return nil, err
	}
	answers := make([]any, len(p.result.Prompts))
	for i, a := range p.result.Prompts {
		answers[i] = map[string]any{"text": a.Text, "score": a.Score, "present": a.Present}
	}
	return map[string]any{"answers": answers, "work": work(p, p.SegmentStage())}, nil
}

// work is what a stage takes: how many ops or, on a card, dispatches; how many
// bytes they read and write, and how many would have to be moved at least; and
// the milliseconds that the card measured, where it does.
func work(p *picture, stage int) any {
	ops, moved, least := p.Work(stage)
	out := map[string]any{"dispatches": ops, "moved": moved, "least": least}
	if s, ok := p.card(); ok {
		c := s.Counts(stage)
		out["dispatches"], out["moved"] = c.Dispatches, c.Read+c.Written
		if t := s.Took(stage); t > 0 {
			out["card"] = t.Seconds() * 1000
		}
	}
	return out
}

// maskBytes is how much of masks is fetched from a card at once.
const maskBytes = 32 << 20

// masks(id, dst Uint8Array, each) calls each(i) for every prompt that is
// present, with its mask in dst: one byte a pixel, row by row, 1 where it is.
func masks(args []js.Value) (any, error) {
	p, err := resultOf(args[0])
	if err != nil {
		return nil, err
	}
	atOnce := 1 // what has no round trips need not spend memory
	if _, ok := p.card(); ok {
		atOnce = max(1, maskBytes/p.size())
	}
	return true, p.result.Masks(atOnce, func(i int, mask []byte) error {
		js.CopyBytesToJS(args[1], mask)
		args[2].Invoke(i)
		return nil
	})
}

// proposals(id, dst Uint8Array, each) calls each(prompt, chance) for every mask
// proposal, with its mask in dst and the likeliest of the prompts.
func proposals(args []js.Value) (any, error) {
	p, err := resultOf(args[0])
	if err != nil {
		return nil, err
	}
	q := 0
	return true, p.Proposals(func(mask []byte) error {
		js.CopyBytesToJS(args[1], mask)
		args[2].Invoke(p.result.Named[q].Prompt, p.result.Named[q].P)
		q++
		return nil
	})
}

// labels(id, dst Uint8Array) writes the number of the strongest prompt for each
// pixel, 255 where there is none.
func labels(args []js.Value) (any, error) {
	p, err := resultOf(args[0])
	if err != nil {
		return nil, err
	}
	b := p.buffer(p.size())
	if err := p.result.LabelMap(b); err != nil {
		return nil, err
	}
	js.CopyBytesToJS(args[1], b)
	return true, nil
}

// overlay(id, palette Uint32Array of 256, canvas, dst) → whether the card drew
// the label map in these colours, each four bytes of red, green, blue and alpha,
// onto the canvas. Otherwise dst() gives a Uint8Array that they are written to,
// four bytes a pixel.
func overlay(args []js.Value) (any, error) {
	p, err := resultOf(args[0])
	if err != nil {
		return nil, err
	}
	var palette [model.NoLabel + 1]uint32
	for i := range palette {
		palette[i] = uint32(args[1].Index(i).Float())
	}
	if err := p.result.Colour(&palette); err != nil {
		return nil, err
	}
	if s, ok := p.card(); ok {
		switch err := s.Show(p.Colours(), args[2], p.Width, p.Height); {
		case err == nil:
			return true, nil
		case !errors.Is(err, webgpu.ErrTexture):
			return nil, err
		}
	}
	b := p.buffer(4 * p.size())
	if err := p.Session().Read(p.Colours(), b); err != nil {
		return nil, err
	}
	js.CopyBytesToJS(args[3].Invoke(), b)
	return false, nil
}

func resultOf(id js.Value) (*picture, error) {
	p, err := pictureOf(id)
	if err != nil {
		return nil, err
	}
	if p.result == nil {
		return nil, errNoResult
	}
	return p, nil
}

// close(id) gives back what a picture holds; closing twice is no error.
func closePicture(args []js.Value) (any, error) {
	if p := pictures[args[0].Int()]; p != nil {
		delete(pictures, args[0].Int())
		if p.result != nil {
			p.result.Release()
		}
		p.Close()
	}
	return true, nil
}
