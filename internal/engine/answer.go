package engine

import (
	"encoding/json"
	"image"
	"io"

	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/model/mask"
)

// Answer is what was found in a photo: what `pmp segment -json` prints.
type Answer struct {
	Image  string `json:"image"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Device string `json:"device"`
	Masks  []Mask `json:"masks"`
}

// Mask is the answer to a prompt.
type Mask struct {
	Text    string  `json:"text"`
	Score   float32 `json:"score"`
	Present bool    `json:"present"`
	BBox    [4]int  `json:"bbox"` // x, y, width, height in pixels
	Area    int     `json:"area"` // pixels
	RLE     RLE     `json:"rle"`

	Pixels []byte `json:"-"` // 0 or 1
}

// RLE is COCO's compressed run-length encoding.
type RLE struct {
	Size   [2]int `json:"size"` // height, width
	Counts string `json:"counts"`
}

// Segment finds prompts in a photo. Labels, if it is not nil, has a byte for
// each pixel and gets the index of its strongest prompt, or model.NoLabel.
func Segment(m *model.Model, name string, img *image.RGBA, prompts []string, o model.Options, labels []byte) (*Answer, error) {
	p, err := Encode(m, img)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	r, err := p.Segment(prompts, o)
	if err != nil {
		return nil, err
	}
	answer := &Answer{Image: name, Width: p.Width, Height: p.Height, Device: m.Device().Name()}
	for i, a := range r.Prompts {
		k := Mask{Text: a.Text, Score: a.Score, Present: a.Present, Pixels: make([]byte, p.Width*p.Height)}
		if err := r.Mask(i, k.Pixels); err != nil {
			return nil, err
		}
		k.Area = mask.Area(k.Pixels)
		box := mask.BBox(k.Pixels, p.Width, p.Height)
		k.BBox = [4]int{box.X, box.Y, box.W, box.H}
		k.RLE = RLE{[2]int{p.Height, p.Width}, mask.RLE(k.Pixels, p.Width, p.Height)}
		answer.Masks = append(answer.Masks, k)
	}
	if labels != nil {
		err = r.LabelMap(labels)
	}
	return answer, err
}

// Write writes the answer as a line of JSON.
func (a *Answer) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(a)
}
