package main

import (
	"encoding/json"
	"image"
	"io"
	"os"

	"github.com/pmp-seg/pmp/eval"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
)

func evaluate(args []string, out io.Writer) error {
	flags := newFlags("eval")
	var engine engineFlags
	engine.register(flags)
	var data eval.DataOptions
	data.Flags(flags)
	prompts := flags.String("prompts", eval.PromptsAll, "all: every name of the set; present: the names in the picture; single: each of those alone")
	workers := flags.Int("workers", 1, "pictures at the same time")
	asJSON := flags.Bool("json", false, "print JSON")
	threshold := flags.Float64("threshold", 0, "where masks are cut, 0 to 1 (default: the model's own)")
	presence := flags.Float64("presence", -1, "score from which a prompt counts as present: 0.5 as on the page; -1 never refuses, so that masks and refusals (presence_auc) are measured apart")
	if _, err := parse(flags, args); err != nil {
		return err
	}
	set, err := eval.OpenDataset(data)
	if err != nil {
		return err
	}
	options := model.Options{Threshold: float32(*threshold), Presence: float32(*presence)}
	figures, err := eval.Run(eval.Options{Data: set, Prompts: *prompts, Workers: *workers}, func() (eval.Segmenter, error) {
		m, _, err := engine.load()
		return &evaluated{model: m, options: options}, err
	}, os.Stderr)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(figures)
	}
	return figures.Write(out)
}

// evaluated is the model as the evaluation sees it. It keeps the last picture
// encoded, since single prompts ask for the same one many times.
type evaluated struct {
	model   *model.Model
	options model.Options
	last    image.Image
	picture *model.Picture
}

func (e *evaluated) Segment(img image.Image, prompts []string) (*eval.Result, error) {
	if e.last != img {
		if e.picture != nil {
			e.picture.Close()
		}
		var err error
		if e.picture, err = encode(e.model, photo.Opaque(img)); err != nil {
			return nil, err
		}
		e.last = img
	}
	r, err := e.picture.Segment(prompts, e.options)
	if err != nil {
		return nil, err
	}
	pixels := e.picture.Width * e.picture.Height
	out := &eval.Result{Width: e.picture.Width, Height: e.picture.Height, Labels: make([]uint16, pixels)}
	for i, a := range r.Prompts {
		out.Scores = append(out.Scores, float64(a.Score))
		if len(prompts) == 1 {
			m := make([]byte, pixels)
			if err := r.Mask(i, m); err != nil {
				return nil, err
			}
			out.Masks = append(out.Masks, m)
		}
	}
	labels := make([]byte, pixels)
	if err := r.LabelMap(labels); err != nil {
		return nil, err
	}
	for i, l := range labels {
		out.Labels[i] = eval.NoLabel
		if l != model.NoLabel {
			out.Labels[i] = uint16(l)
		}
	}
	out.Proposals = func() [][]byte {
		var all [][]byte
		err := e.picture.Proposals(func(m []byte) error {
			all = append(all, append([]byte(nil), m...))
			return nil
		})
		if err != nil {
			panic("pmp: proposals of an open picture cannot be read")
		}
		return all
	}
	return out, nil
}
