package eval

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"math"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// Segmenter is the model that is measured. It is called from one goroutine.
type Segmenter interface {
	// Segment looks for the prompts in a picture. A prompt may hold several
	// names for the same thing, with commas between them.
	Segment(img image.Image, prompts []string) (*Result, error)
}

// Result is what a Segmenter found. Masks and labels have a value for each
// pixel of the picture, row by row.
type Result struct {
	Width, Height int
	Masks         [][]byte  // one a prompt, 0 or not; needed for single prompts only
	Scores        []float64 // one a prompt: how sure it is that the picture has it at all
	Labels        []uint16  // the index of the prompt, or NoLabel; needed but for single prompts
	// Proposals returns the masks among which the model chose. It is optional,
	// and called before the next picture is segmented by the same worker.
	Proposals func() [][]byte
}

// Ways to prompt.
const (
	PromptsAll     = "all"     // every name of the set for every picture, as benchmarks do
	PromptsPresent = "present" // the names of what is in the picture: easier
	PromptsSingle  = "single"  // each name of what is in the picture alone, as people do
)

// Options say how to measure.
type Options struct {
	Data    *Dataset
	Prompts string // one of the Prompts constants; all if empty
	Workers int    // pictures at the same time; 1 if 0

	// Report is a folder for a page with figures and pictures, and for what
	// each picture counted; pictures that were counted there by an earlier run
	// with the same settings are not counted again. None if empty.
	Report string
	// Settings are whatever else the figures depend on: of the weights and of
	// how the model is asked.
	Settings []Setting
	Command  []string // what the page says it was made with
}

// Setting is something that figures depend on.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Figure is a number that may be unknown: NaN, which is null in JSON.
type Figure float64

// MarshalJSON writes NaN as null.
func (f Figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// Figures are the result. Shares are from 0 to 1. What the way to prompt, the
// data or the model do not allow to measure is NaN.
type Figures struct {
	Data       string    `json:"data"`
	Benchmark  string    `json:"benchmark,omitempty"`
	Prompts    string    `json:"prompts"`
	Settings   []Setting `json:"settings,omitempty"` // of the model
	Pictures   int       `json:"pictures"`
	Classes    int       `json:"classes"`
	Background bool      `json:"background"` // pixels with none of the names are a class of their own

	// The mean IoU over the classes in the truth; with background as one of
	// them if Background. With single prompts, over the masks of a class from
	// all pictures that have it.
	MIoU Figure `json:"miou"`
	// The same with the older convention; see Confusion.MIoUD2.
	MIoUD2 Figure `json:"miou_d2"`
	// MIoU without the background.
	MIoUForeground Figure `json:"miou_foreground"`
	// The mean IoU over all pairs of a picture and a class in it; single
	// prompts only.
	SingleIoU Figure `json:"single_iou"`
	// The same of what lies along borders; see BoundaryIoU.
	BoundaryIoU Figure `json:"boundary_iou"`

	// The share of segments that some proposal covers with an IoU of at least
	// 0.5 and 0.75. With single prompts, each prompt has its own proposals.
	Recall50 Figure `json:"recall50"`
	Recall75 Figure `json:"recall75"`
	// MIoU if every proposal were named by the truth; not with single prompts.
	OracleMIoU Figure `json:"oracle_miou"`
	// How well scores tell present from absent prompts; all names only.
	PresenceAUC Figure `json:"presence_auc"`

	// The mean time of Segment, all calls for a picture together.
	Seconds Figure `json:"seconds_per_picture"`

	PerClass []ClassFigure `json:"per_class"`
	Mistakes []Mistake     `json:"mistakes,omitempty"` // the most frequent ones
}

// ClassFigure is the result for one class that occurs in the truth.
type ClassFigure struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	IoU  Figure `json:"iou"`

	Pictures int64 `json:"pictures"` // that have it
	Pixels   int64 `json:"pixels"`   // that it has there
}

// Mistake is a class's pixels that got a wrong answer.
type Mistake struct {
	Truth  string `json:"truth"`
	Said   string `json:"said"`
	Pixels int64  `json:"pixels"`
	Share  Figure `json:"share"` // of all pixels that the class has
}

// Run measures a model; open makes one for each worker. It writes its progress to a writer, which may be nil:
// one line that is overwritten on a terminal, a line now and then elsewhere.
func Run(o Options, open func() (Segmenter, error), progress io.Writer) (*Figures, error) {
	d := o.Data
	if o.Prompts == "" {
		o.Prompts = PromptsAll
	}
	if o.Prompts != PromptsAll && o.Prompts != PromptsPresent && o.Prompts != PromptsSingle {
		return nil, fmt.Errorf("prompts %q: they can be all, present or single", o.Prompts)
	}
	counted := make([]*Counted, len(d.Items))
	var journal *journal
	var notes []string
	if o.Report != "" {
		var err error
		if journal, notes, err = openJournal(o, counted); err != nil {
			return nil, err
		}
		defer journal.close()
	}
	var todo []int
	for i, c := range counted {
		if c == nil {
			todo = append(todo, i)
		}
	}
	progressOf := newReporter(progress, len(d.Items), len(d.Items)-len(todo))
	for _, note := range append(notes, d.Notes...) {
		progressOf.line(note)
	}
	if err := o.count(todo, counted, open, journal, progressOf); err != nil {
		return nil, err
	}
	total := &Counted{}
	for _, c := range counted {
		total.Merge(c)
	}
	figures := total.Figures(o)
	if o.Report != "" {
		return figures, writeReport(o, figures, total, counted, open)
	}
	return figures, nil
}

// count counts some of the pictures.
func (o Options) count(todo []int, counted []*Counted, open func() (Segmenter, error), journal *journal, progress *reporter) error {
	items := make(chan int, len(todo))
	for _, i := range todo {
		items <- i
	}
	close(items)
	workers := min(max(1, o.Workers), len(todo))
	failures := make(chan error, workers)
	var group sync.WaitGroup
	stop := make(chan struct{})
	var once sync.Once
	for range workers {
		group.Go(func() {
			fail := func(err error) {
				failures <- err
				once.Do(func() { close(stop) })
			}
			seg, err := open()
			if err != nil {
				fail(err)
				return
			}
			for i := range items {
				select {
				case <-stop:
					return
				default:
				}
				c, err := o.Count(seg, i)
				if err == nil {
					counted[i] = c
					err = journal.add(o.Data.Items[i].Name, c)
				}
				if err != nil {
					fail(err)
					return
				}
				progress.step(c.Seconds)
			}
		})
	}
	group.Wait()
	progress.end()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// labelCount is the number of labels of the confusion matrices: the classes, and
// the background if there is one.
func (d *Dataset) labelCount() int {
	if d.Background {
		return len(d.Classes) + 1
	}
	return len(d.Classes)
}

// answer is what a model said of a picture.
type answer struct {
	img     image.Image
	truth   *Truth
	labels  []uint16 // for each pixel the index of a class or NoLabel
	counted *Counted
}

// Count asks about one of the data's pictures and counts.
func (o Options) Count(seg Segmenter, index int) (*Counted, error) {
	a, err := o.picture(seg, index)
	if err != nil {
		return nil, fmt.Errorf("picture %s: %w", o.Data.Items[index].Name, err)
	}
	return a.counted, nil
}

// picture asks about one picture and counts.
func (o Options) picture(seg Segmenter, index int) (*answer, error) {
	d := o.Data
	img, truth, err := d.Read(d.Items[index])
	if err != nil {
		return nil, err
	}
	c := &Counted{Pictures: 1}
	a := &answer{img, truth, slices.Repeat([]uint16{NoLabel}, len(truth.Labels)), c}
	segment := func(prompts []string) (*Result, error) {
		start := time.Now()
		r, err := seg.Segment(img, prompts)
		c.Seconds += time.Since(start).Seconds()
		if err == nil {
			err = r.check(truth, len(prompts), o.Prompts)
		}
		return r, err
	}
	present := truth.Present()
	pixels := labelled(truth.Labels, len(d.Classes))
	for _, class := range present {
		c.Seen = append(c.Seen, [3]int64{int64(class), 1, pixels[class]})
	}
	if o.Prompts == PromptsSingle {
		return a, o.single(a, present, segment)
	}

	asked := present
	if o.Prompts == PromptsAll {
		asked = make([]int, len(d.Classes))
		for i := range asked {
			asked[i] = i
		}
	}
	r := &Result{}
	// Without a prompt there is nothing to ask, and nothing is found.
	if len(asked) > 0 {
		prompts := make([]string, len(asked))
		for i, class := range asked {
			prompts[i] = d.Classes[class].Prompt()
		}
		if r, err = segment(prompts); err != nil {
			return nil, err
		}
	}
	for i, l := range r.Labels {
		if l != NoLabel {
			a.labels[i] = uint16(asked[l])
		}
	}
	expected := d.withBackground(truth.Labels)
	confusion := NewConfusion(d.labelCount())
	confusion.Add(expected, d.withBackground(a.labels))
	c.Confusion = confusion.Cells()
	if r.Proposals != nil {
		c.Proposals = true
		proposals := r.Proposals()
		c.Recall.Add(truth.Labels, present, proposals)
		oracle := NewConfusion(d.labelCount())
		oracle.Add(expected, d.withBackground(Oracle(truth.Labels, len(d.Classes), d.Background, proposals)))
		c.Oracle = oracle.Cells()
	}
	if o.Prompts == PromptsAll {
		for class, score := range r.Scores {
			c.Presence.Add(score, slices.Contains(present, class))
		}
	}
	return a, nil
}

// single asks for each class of a picture alone.
func (o Options) single(a *answer, present []int, segment func(prompts []string) (*Result, error)) error {
	a.counted.Single = &Single{}
	for _, class := range present {
		r, err := segment([]string{o.Data.Classes[class].Prompt()})
		if err != nil {
			return err
		}
		a.counted.Single.Add(a.truth.Labels, a.truth.Width, class, r.Masks[0])
		if r.Proposals != nil {
			a.counted.Proposals = true
			a.counted.Recall.Add(a.truth.Labels, []int{class}, r.Proposals())
		}
		for i, v := range r.Masks[0] {
			if v != 0 {
				a.labels[i] = uint16(class)
			}
		}
	}
	return nil
}

// withBackground makes the background a class after the others, where there
// is one.
func (d *Dataset) withBackground(labels []uint16) []uint16 {
	if !d.Background {
		return labels
	}
	out := make([]uint16, len(labels))
	for i, l := range labels {
		if l == NoLabel {
			l = uint16(len(d.Classes))
		}
		out[i] = l
	}
	return out
}

// check tells whether a result has what is needed from it.
func (r *Result) check(truth *Truth, prompts int, mode string) error {
	if r.Width != truth.Width || r.Height != truth.Height {
		return fmt.Errorf("the model answers with %d×%d pixels for a picture of %d×%d", r.Width, r.Height, truth.Width, truth.Height)
	}
	n := truth.Width * truth.Height
	if mode == PromptsSingle {
		if len(r.Masks) != prompts || len(r.Masks[0]) != n {
			return fmt.Errorf("the model does not answer with a mask for each prompt")
		}
		return nil
	}
	if len(r.Labels) != n {
		return fmt.Errorf("the model does not answer with a label for each pixel")
	}
	for _, l := range r.Labels {
		if l != NoLabel && int(l) >= prompts {
			return fmt.Errorf("the model answers with label %d to %d prompts", l, prompts)
		}
	}
	if r.Scores != nil && len(r.Scores) != prompts {
		return fmt.Errorf("the model answers with %d scores to %d prompts", len(r.Scores), prompts)
	}
	for _, score := range r.Scores {
		if math.IsNaN(score) || math.IsInf(score, 0) {
			return errors.New("the model answers with a score that is no number")
		}
	}
	return nil
}

// Figures makes the figures of what was counted.
func (c *Counted) Figures(o Options) *Figures {
	d := o.Data
	nan := Figure(math.NaN())
	f := &Figures{
		Data: d.Dir, Prompts: o.Prompts, Settings: o.Settings, Pictures: c.Pictures, Classes: len(d.Classes),
		Background: d.Background && o.Prompts != PromptsSingle,
		MIoU:       nan, MIoUD2: nan, MIoUForeground: nan, SingleIoU: nan, BoundaryIoU: nan,
		Recall50: nan, Recall75: nan, OracleMIoU: nan, PresenceAUC: nan,
		Seconds: Figure(c.Seconds / float64(c.Pictures)),
	}
	if d.Benchmark != nil {
		f.Benchmark = d.Benchmark.Name
	}
	confusion := NewConfusion(d.labelCount())
	confusion.AddCells(c.Confusion)
	iou := func(class int) float64 { v, _, _ := confusion.IoU(class); return v }
	if o.Prompts == PromptsSingle {
		if c.Single == nil {
			c.Single = &Single{}
		}
		iou = c.Single.IoU
		f.MIoU, f.SingleIoU = Figure(c.Single.MIoU()), Figure(c.Single.Mean())
		f.MIoUForeground, f.BoundaryIoU = f.MIoU, Figure(c.Single.MeanBorder())
	} else {
		f.MIoU, f.MIoUD2 = Figure(confusion.MIoU()), Figure(confusion.MIoUD2())
		f.MIoUForeground = Figure(confusion.MIoUOf(len(d.Classes)))
		f.PresenceAUC = Figure(c.Presence.AUC())
		if c.Proposals {
			oracle := NewConfusion(d.labelCount())
			oracle.AddCells(c.Oracle)
			f.OracleMIoU = Figure(oracle.MIoU())
		}
	}
	if c.Proposals && c.Recall.Segments > 0 {
		f.Recall50 = Figure(float64(c.Recall.At50) / float64(c.Recall.Segments))
		f.Recall75 = Figure(float64(c.Recall.At75) / float64(c.Recall.Segments))
	}
	for _, r := range c.Seen {
		class := d.Classes[r[0]]
		f.PerClass = append(f.PerClass, ClassFigure{class.ID, class.Name, Figure(iou(int(r[0]))), r[1], r[2]})
	}
	f.Mistakes = c.mistakes(d)
	return f
}

// mistakes are the pairs of a class and a wrong answer with the most pixels.
func (c *Counted) mistakes(d *Dataset) []Mistake {
	const most = 30
	name := func(label int64) string {
		switch {
		case label < int64(len(d.Classes)):
			return d.Classes[label].Name
		case label < int64(d.labelCount()):
			return "background"
		}
		return "nothing"
	}
	pixels := map[int64]int64{}
	var wrong Rows
	for _, r := range c.Confusion {
		pixels[r[0]] += r[2]
		if r[0] != r[1] {
			wrong = append(wrong, r)
		}
	}
	slices.SortStableFunc(wrong, func(a, b [3]int64) int { return cmp.Compare(b[2], a[2]) })
	var out []Mistake
	for _, r := range wrong[:min(most, len(wrong))] {
		out = append(out, Mistake{name(r[0]), name(r[1]), r[2], Figure(float64(r[2]) / float64(pixels[r[0]]))})
	}
	return out
}

// figureLine is a figure with what it is called and means.
type figureLine struct {
	name, title string
	value       Figure
	note        string
}

// lines are the figures that are shares, in the order in which people read
// them.
func (f *Figures) lines() []figureLine {
	out := []figureLine{
		{"miou", "mIoU", f.MIoU, "mean over the classes, all pictures of a class together"},
		{"single_iou", "single-prompt IoU", f.SingleIoU, "mean over pictures and the classes in them"},
		{"boundary_iou", "single-prompt boundary IoU", f.BoundaryIoU, "the same of what lies within 1 % of the diagonal of a border"},
	}
	if f.Prompts != PromptsSingle {
		note := "mean over the classes in the truth"
		if f.Background {
			note += ", and background"
		}
		out = []figureLine{{"miou", "mIoU", f.MIoU, note},
			{"miou_d2", "mIoU, older convention", f.MIoUD2, "classes that are only predicted count as 0"}}
		if f.Background {
			out = append(out, figureLine{"miou_foreground", "mIoU of the foreground", f.MIoUForeground, "without the background"})
		}
	}
	return append(out,
		figureLine{"recall50", "proposal recall at 0.5", f.Recall50, "segments with a proposal of IoU 0.5"},
		figureLine{"recall75", "proposal recall at 0.75", f.Recall75, "segments with a proposal of IoU 0.75"},
		figureLine{"oracle_miou", "oracle-classified mIoU", f.OracleMIoU, "if the truth named the proposals"},
		figureLine{"presence_auc", "presence AUC", f.PresenceAUC, "scores of present against absent names"})
}

// Write writes the figures for people, shares as percentages.
func (f *Figures) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s: %d pictures, %d names, prompts: %s", cmp.Or(f.Benchmark, f.Data), f.Pictures, f.Classes, f.Prompts)
	for _, s := range f.Settings {
		fmt.Fprintf(t, ", %s: %s", s.Name, s.Value)
	}
	fmt.Fprintln(t)
	for _, l := range f.lines() {
		if !math.IsNaN(float64(l.value)) {
			fmt.Fprintf(t, "%s\t%.1f\t%s\n", l.name, 100*float64(l.value), l.note)
		}
	}
	fmt.Fprintf(t, "seconds\t%.3f\ta picture\n", float64(f.Seconds))
	return t.Flush()
}
