package eval

import (
	"encoding/json"
	"fmt"
	"image"
	"io"
	"math"
	"os"
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
	Data       string `json:"data"`
	Prompts    string `json:"prompts"`
	Pictures   int    `json:"pictures"`
	Classes    int    `json:"classes"`
	Background bool   `json:"background"` // pixels with none of the names are a class of their own

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
}

// ClassFigure is the result for one class that occurs in the truth.
type ClassFigure struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	IoU  Figure `json:"iou"`
}

// sums is what is counted, by each worker for itself.
type sums struct {
	confusion, oracle *Confusion
	single            *Single
	recall            Recall
	presence          Presence
	proposals         bool
	seconds           float64
	pictures          int
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
	workers := min(max(1, o.Workers), len(d.Items))
	report := newReporter(progress, len(d.Items))
	for _, note := range d.Notes {
		report.line(note)
	}

	items := make(chan int, len(d.Items))
	for i := range d.Items {
		items <- i
	}
	close(items)
	all := make([]*sums, workers)
	failures := make(chan error, workers)
	var group sync.WaitGroup
	stop := make(chan struct{})
	var once sync.Once
	for w := range all {
		all[w] = o.newSums()
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
				seconds, err := all[w].picture(o, seg, i)
				if err != nil {
					fail(fmt.Errorf("picture %s: %w", d.Items[i].Name, err))
					return
				}
				report.step(seconds)
			}
		})
	}
	group.Wait()
	report.end()
	select {
	case err := <-failures:
		return nil, err
	default:
	}
	for _, s := range all[1:] {
		all[0].merge(s)
	}
	return all[0].figures(o), nil
}

// labelCount is the number of labels of the confusion matrices: the classes, and
// the background if there is one.
func (d *Dataset) labelCount() int {
	if d.Background {
		return len(d.Classes) + 1
	}
	return len(d.Classes)
}

func (o Options) newSums() *sums {
	n := o.Data.labelCount()
	s := &sums{confusion: NewConfusion(n), oracle: NewConfusion(n)}
	if o.Prompts == PromptsSingle {
		s.single = NewSingle(len(o.Data.Classes), len(o.Data.Items))
	}
	return s
}

func (s *sums) merge(t *sums) {
	s.confusion.Merge(t.confusion)
	s.oracle.Merge(t.oracle)
	if s.single != nil {
		s.single.Merge(t.single)
	}
	s.recall.Merge(t.recall)
	s.presence.Merge(&t.presence)
	s.proposals = s.proposals || t.proposals
	s.seconds += t.seconds
	s.pictures += t.pictures
}

// picture measures one picture and returns the seconds that the model took.
func (s *sums) picture(o Options, seg Segmenter, index int) (seconds float64, err error) {
	d := o.Data
	img, truth, err := d.Read(d.Items[index])
	if err != nil {
		return 0, err
	}
	segment := func(prompts []string) (*Result, error) {
		start := time.Now()
		r, err := seg.Segment(img, prompts)
		seconds += time.Since(start).Seconds()
		if err == nil {
			err = r.check(truth, len(prompts), o.Prompts)
		}
		return r, err
	}
	present := truth.Present()
	switch o.Prompts {
	case PromptsSingle:
		for _, class := range present {
			r, err := segment([]string{d.Classes[class].Prompt()})
			if err != nil {
				return 0, err
			}
			s.single.Add(index, truth.Labels, class, r.Masks[0])
			if r.Proposals != nil {
				s.proposals = true
				s.recall.Add(truth.Labels, []int{class}, r.Proposals())
			}
		}
	default:
		asked := present
		if o.Prompts == PromptsAll {
			asked = make([]int, len(d.Classes))
			for i := range asked {
				asked[i] = i
			}
		}
		r := &Result{Labels: make([]uint16, len(truth.Labels))}
		for i := range r.Labels {
			r.Labels[i] = NoLabel
		}
		// Without a prompt there is nothing to ask, and nothing is found.
		if len(asked) > 0 {
			prompts := make([]string, len(asked))
			for i, class := range asked {
				prompts[i] = d.Classes[class].Prompt()
			}
			if r, err = segment(prompts); err != nil {
				return 0, err
			}
		}
		predicted := make([]uint16, len(r.Labels))
		for i, l := range r.Labels {
			predicted[i] = NoLabel
			if l != NoLabel {
				predicted[i] = uint16(asked[l])
			}
		}
		expected := d.withBackground(truth.Labels)
		s.confusion.Add(expected, d.withBackground(predicted))
		if r.Proposals != nil {
			s.proposals = true
			proposals := r.Proposals()
			s.recall.Add(truth.Labels, present, proposals)
			s.oracle.Add(expected, d.withBackground(Oracle(truth.Labels, len(d.Classes), d.Background, proposals)))
		}
		if o.Prompts == PromptsAll && r.Scores != nil {
			has := make([]bool, len(d.Classes))
			for _, class := range present {
				has[class] = true
			}
			for class, score := range r.Scores {
				s.presence.Add(score, has[class])
			}
		}
	}
	s.seconds += seconds
	s.pictures++
	return seconds, nil
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
	return nil
}

func (s *sums) figures(o Options) *Figures {
	d := o.Data
	nan := Figure(math.NaN())
	f := &Figures{
		Data: d.Dir, Prompts: o.Prompts, Pictures: s.pictures, Classes: len(d.Classes),
		Background: d.Background && o.Prompts != PromptsSingle,
		MIoU:       nan, MIoUD2: nan, MIoUForeground: nan, SingleIoU: nan,
		Recall50: nan, Recall75: nan, OracleMIoU: nan, PresenceAUC: nan,
		Seconds: Figure(s.seconds / float64(s.pictures)),
	}
	if s.single != nil {
		f.MIoU, f.SingleIoU = Figure(s.single.MIoU()), Figure(s.single.Mean())
		f.MIoUForeground = f.MIoU
	} else {
		f.MIoU, f.MIoUD2 = Figure(s.confusion.MIoU()), Figure(s.confusion.MIoUD2())
		f.MIoUForeground = Figure(s.confusion.MIoUOf(len(d.Classes)))
		f.PresenceAUC = Figure(s.presence.AUC())
		if s.proposals {
			f.OracleMIoU = Figure(s.oracle.MIoU())
		}
	}
	if s.proposals && s.recall.Segments > 0 {
		f.Recall50 = Figure(float64(s.recall.At50) / float64(s.recall.Segments))
		f.Recall75 = Figure(float64(s.recall.At75) / float64(s.recall.Segments))
	}
	for i, c := range d.Classes {
		if s.single != nil {
			if s.single.union[i] > 0 {
				f.PerClass = append(f.PerClass, ClassFigure{c.ID, c.Name, Figure(s.single.IoU(i))})
			}
		} else if iou, truth, _ := s.confusion.IoU(i); truth > 0 {
			f.PerClass = append(f.PerClass, ClassFigure{c.ID, c.Name, Figure(iou)})
		}
	}
	return f
}

// Write writes the figures for people, shares as percentages.
func (f *Figures) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s: %d pictures, %d names, prompts: %s\n", f.Data, f.Pictures, f.Classes, f.Prompts)
	percent := func(name string, x Figure, note string) {
		if !math.IsNaN(float64(x)) {
			fmt.Fprintf(t, "%s\t%.1f\t%s\n", name, 100*float64(x), note)
		}
	}
	background := ""
	if f.Background {
		background = ", and background"
	}
	if f.Prompts == PromptsSingle {
		percent("miou", f.MIoU, "mean over the classes, all pictures of a class together")
		percent("single_iou", f.SingleIoU, "mean over pictures and the classes in them")
	} else {
		percent("miou", f.MIoU, "mean over the classes in the truth"+background)
		percent("miou_d2", f.MIoUD2, "classes that are only predicted count as 0")
		if f.Background {
			percent("miou_foreground", f.MIoUForeground, "without the background")
		}
	}
	percent("recall50", f.Recall50, "segments with a proposal of IoU 0.5")
	percent("recall75", f.Recall75, "segments with a proposal of IoU 0.75")
	percent("oracle_miou", f.OracleMIoU, "if the truth named the proposals")
	percent("presence_auc", f.PresenceAUC, "scores of present against absent names")
	fmt.Fprintf(t, "seconds\t%.3f\ta picture\n", float64(f.Seconds))
	return t.Flush()
}

// reporter writes progress. It may be used from many goroutines.
type reporter struct {
	w        io.Writer
	terminal bool
	mutex    sync.Mutex
	// These are guarded by the mutex.
	done, of int
	seconds  float64
	written  time.Time
}

func newReporter(w io.Writer, of int) *reporter {
	r := &reporter{w: w, of: of, written: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		r.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return r
}

func (r *reporter) line(text string) {
	if r.w != nil {
		fmt.Fprintln(r.w, text)
	}
}

func (r *reporter) step(seconds float64) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.done++
	r.seconds += seconds
	// Seldom enough that the writing costs nothing.
	pause := 10 * time.Second
	if r.terminal {
		pause = 100 * time.Millisecond
	}
	if r.w == nil || r.done < r.of && time.Since(r.written) < pause {
		return
	}
	r.written = time.Now()
	text := fmt.Sprintf("%d of %d pictures, %.2f s a picture", r.done, r.of, r.seconds/float64(r.done))
	if !r.terminal {
		fmt.Fprintln(r.w, text)
		return
	}
	const width = 24
	bar := make([]rune, width)
	for i := range bar {
		bar[i] = '·'
		if i < width*r.done/r.of {
			bar[i] = '█'
		}
	}
	fmt.Fprintf(r.w, "\r%s %s ", string(bar), text)
}

func (r *reporter) end() {
	if r.terminal && r.done > 0 {
		fmt.Fprintln(r.w)
	}
}
