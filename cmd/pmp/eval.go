package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"strconv"

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
	threshold := flags.String("threshold", "", "where masks are cut, 0 to 1; own: the model's own; none: each pixel takes its strongest name (default: none for a benchmark, since it says of every pixel what it is or ignores it, and the model's own for a folder and single prompts)")
	presence := flags.Float64("presence", -1, "score from which a prompt counts as present: 0.5 as on the page; -1 never refuses, so that masks and refusals (presence_auc) are measured apart")
	report := flags.String("report", "", "folder to write a page with figures, plots and the worst pictures to; a run that was cut off goes on there")
	if rest, err := parse(flags, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return fmt.Errorf("eval takes flags only, not %q", rest[0])
	}
	theta, err := thresholdOf(*threshold, data.Benchmark != "", *prompts)
	if err != nil {
		return err
	}
	set, err := eval.OpenDataset(data)
	if err != nil {
		return err
	}
	options := model.Options{Threshold: theta, Presence: float32(*presence)}
	settings, err := engine.settings(options)
	if err != nil {
		return err
	}
	figures, err := eval.Run(eval.Options{Data: set, Prompts: *prompts, Workers: *workers, Report: *report,
		Settings: settings, Command: append([]string{"pmp", "eval"}, args...)}, func() (eval.Segmenter, error) {
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

// thresholdOf reads -threshold.
func thresholdOf(text string, benchmark bool, prompts string) (float32, error) {
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

// settings are what figures depend on, besides the data.
func (f engineFlags) settings(o model.Options) ([]eval.Setting, error) {
	m, err := readWeights(f.weights)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	fmt.Fprint(hash, m.Config) // the calibration is in it
	for _, file := range m.Files {
		hash.Write(file.SHA256[:])
	}
	threshold := "the model's own"
	switch {
	case o.Threshold == model.NoThreshold:
		threshold = "none"
	case o.Threshold != 0:
		threshold = fmt.Sprint(o.Threshold)
	}
	presence := "never refuses"
	if o.Presence >= 0 {
		presence = fmt.Sprint(o.Presence)
	}
	return []eval.Setting{{Name: "threshold", Value: threshold}, {Name: "presence", Value: presence}, {Name: "precision", Value: f.precision},
		{Name: "device", Value: f.device}, {Name: "weights", Value: hex.EncodeToString(hash.Sum(nil)[:6])}}, nil
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
// asked in groups: each group has its own proposals and its own softmax, and a
// pixel takes the strongest of all maps.
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
	if groups := model.Groups(prompts); len(groups) > 1 {
		return e.many(groups)
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
func (e *evaluated) many(groups [][]string) (*eval.Result, error) {
	out := &eval.Result{Width: e.picture.Width, Height: e.picture.Height}
	var strongest model.Strongest
	var proposals [][]byte
	for _, prompts := range groups {
		r, err := e.picture.Segment(prompts, e.options)
		if err != nil {
			return nil, err
		}
		if err := strongest.Add(r); err != nil {
			return nil, err
		}
		r.Release()
		out.Scores = append(out.Scores, scores(r)...)
		// The next question replaces them.
		proposals = append(proposals, e.proposals()...)
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
		panic("pmp: proposals of an open picture cannot be read")
	}
	return all
}

// Both packages have the same number for no label.
var _ = [1]struct{}{}[model.None-eval.NoLabel]
