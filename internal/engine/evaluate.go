package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"image"
	"strconv"

	"github.com/pmp-seg/pmp/eval"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
)

// Evaluation says what is measured, and how the model is asked.
type Evaluation struct {
	Engine    Options
	Data      eval.DataOptions
	Prompts   string // one of eval's Prompts constants
	Threshold string
	Presence  float64
}

// Flags defines it as flags of a command.
func (e *Evaluation) Flags(flags *flag.FlagSet) {
	e.Engine.Flags(flags)
	e.Data.Flags(flags)
	flags.StringVar(&e.Prompts, "prompts", eval.PromptsAll, "all: every name of the set; present: the names in the picture; single: each of those alone")
	flags.StringVar(&e.Threshold, "threshold", "", "where masks are cut, 0 to 1; own: the model's own; none: each pixel takes its strongest name (default: none for a benchmark, since it says of every pixel what it is or ignores it, and the model's own for a folder and single prompts)")
	flags.Float64Var(&e.Presence, "presence", -1, "score from which a prompt counts as present: 0.5 as on the page; -1 never refuses, so that masks and refusals (presence_auc) are measured apart")
}

// Open opens the data. A model becomes what is measured by ask.
func (e Evaluation) Open() (o eval.Options, ask func(*model.Model) (eval.Segmenter, error), err error) {
	theta, err := threshold(e.Threshold, e.Data.Benchmark != "", e.Prompts)
	if err != nil {
		return o, nil, err
	}
	if o.Data, err = eval.OpenDataset(e.Data); err != nil {
		return o, nil, err
	}
	options := model.Options{Threshold: theta, Presence: float32(e.Presence)}
	o.Prompts = e.Prompts
	o.Settings, err = e.Engine.Settings(options)
	return o, func(m *model.Model) (eval.Segmenter, error) {
		s := &evaluated{model: m, options: options}
		return s, s.hear(o.Data.Classes)
	}, err
}

// hear asks for all names at once. What a model knows of a phrase differs in
// the last bits with the phrases that it was encoded beside, and it remembers
// them; so figures would depend on which pictures a worker gets first.
func (e *evaluated) hear(classes []eval.Class) error {
	prompts := make([]string, len(classes))
	for i, c := range classes {
		prompts[i] = c.Prompt()
	}
	p, err := Encode(e.model, image.NewRGBA(image.Rect(0, 0, 64, 64)))
	if err != nil {
		return err
	}
	defer p.Close()
	return p.SegmentGroups(prompts, e.options, func(*model.Result) error { return nil })
}

// threshold reads the flag -threshold.
func threshold(text string, benchmark bool, prompts string) (float32, error) {
	single := prompts == eval.PromptsSingle
	switch {
	case text == "own", text == "" && (!benchmark || single):
		return 0, nil
	case text == "none" && single:
		return 0, errors.New("a single prompt without a threshold covers the whole picture; leave out -threshold none, or give all names")
	case text == "none", text == "":
		return model.NoThreshold, nil
	}
	theta, err := strconv.ParseFloat(text, 32)
	if err != nil || !(theta > 0 && theta < 1) {
		return 0, fmt.Errorf("-threshold %s: it is a number between 0 and 1, own or none", text)
	}
	return float32(theta), nil
}

// Settings are what figures depend on, besides the data.
func (o Options) Settings(m model.Options) ([]eval.Setting, error) {
	files, err := ReadWeights(o.Weights)
	if err != nil {
		return nil, err
	}
	precision, err := o.precision(files)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	fmt.Fprint(hash, files.Config) // the calibration is in it
	for _, file := range files.Files {
		hash.Write(file.SHA256[:])
	}
	theta := "the model's own"
	switch {
	case m.Threshold == model.NoThreshold:
		theta = "none"
	case m.Threshold != 0:
		theta = fmt.Sprint(m.Threshold)
	}
	presence := "never refuses"
	if m.Presence >= 0 {
		presence = fmt.Sprint(m.Presence)
	}
	return []eval.Setting{{Name: "threshold", Value: theta}, {Name: "presence", Value: presence}, {Name: "precision", Value: precision.String()},
		{Name: "device", Value: o.Device}, {Name: "weights", Value: hex.EncodeToString(hash.Sum(nil)[:6])}}, nil
}

// evaluated is the model as the evaluation sees it. It keeps the last picture
// encoded, since single prompts ask for the same one many times.
type evaluated struct {
	model   *model.Model
	options model.Options
	last    image.Image
	picture *model.Picture
}

// Segment asks about a picture. More prompts than the model takes at once are
// asked in groups, see SegmentGroups, and a pixel takes the strongest of all maps.
func (e *evaluated) Segment(img image.Image, prompts []string) (*eval.Result, error) {
	if e.last != img {
		if e.picture != nil {
			e.picture.Close()
		}
		var err error
		if e.picture, err = Encode(e.model, photo.Opaque(img)); err != nil {
			return nil, err
		}
		e.last = img
	}
	if len(model.Groups(prompts)) > 1 {
		return e.many(prompts)
	}
	r, err := e.picture.Segment(prompts, e.options)
	if err != nil {
		return nil, err
	}
	pixels := e.picture.Width * e.picture.Height
	out := &eval.Result{Width: e.picture.Width, Height: e.picture.Height, Scores: scores(r), Proposals: e.proposals}
	if len(prompts) == 1 {
		out.Masks = [][]byte{make([]byte, pixels)}
		if err := r.Mask(0, out.Masks[0]); err != nil {
			return nil, err
		}
	}
	labels := make([]byte, pixels)
	if err := r.LabelMap(labels); err != nil {
		return nil, err
	}
	out.Labels = make([]uint16, pixels)
	for i, l := range labels {
		out.Labels[i] = eval.NoLabel
		if l != model.NoLabel {
			out.Labels[i] = uint16(l)
		}
	}
	return out, nil
}

// many asks in groups.
func (e *evaluated) many(prompts []string) (*eval.Result, error) {
	out := &eval.Result{Width: e.picture.Width, Height: e.picture.Height}
	var strongest model.Strongest
	var proposals [][]byte
	err := e.picture.SegmentGroups(prompts, e.options, func(r *model.Result) error {
		if err := strongest.Add(r); err != nil {
			return err
		}
		r.Release()
		out.Scores = append(out.Scores, scores(r)...)
		// The next question replaces them.
		proposals = append(proposals, e.proposals()...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Labels = strongest.Labels // None is NoLabel
	out.Proposals = func() [][]byte { return proposals }
	return out, nil
}

func scores(r *model.Result) []float64 {
	var out []float64
	for _, a := range r.Prompts {
		out = append(out, float64(a.Score))
	}
	return out
}

// proposals are those behind the last answer.
func (e *evaluated) proposals() [][]byte {
	var all [][]byte
	err := e.picture.Proposals(func(m []byte) error {
		all = append(all, append([]byte(nil), m...))
		return nil
	})
	if err != nil {
		panic("engine: proposals of an open picture cannot be read")
	}
	return all
}

// Both packages have the same number for no label.
var _ = [1]struct{}{}[model.None-eval.NoLabel]
