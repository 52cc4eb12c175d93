package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
)

// benchSide is the size at which the browser's benchmark runs, too.
const benchSide = 512

// benchPrompts are those of the browser's benchmark.
var benchPrompts = strings.Fields("person flag helmet dog car tree sky chair cat table sofa bottle bicycle horse sheep boat train bus bird grass")

// benchResult is what `pmp bench -json` prints: the form of ./build.sh bench -json.
type benchResult struct {
	Machine benchMachine `json:"machine"`
	Runs    []benchRun   `json:"runs"`
}

type benchMachine struct {
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	System string    `json:"system"`
	Go     string    `json:"go"`
	Date   time.Time `json:"date"`
	Rounds int       `json:"rounds"`
	Side   int       `json:"side"`
	Words  int       `json:"prompts"`
}

// benchRun is an engine's times in milliseconds: medians, and the shortest
// and longest. Words is a segment with words that were never asked for, so it
// also embeds them.
type benchRun struct {
	Engine     string  `json:"engine"`
	Device     string  `json:"device"`
	Threads    int     `json:"threads"`
	Encode     float64 `json:"encode_ms"`
	EncodeMin  float64 `json:"encode_ms_min"`
	EncodeMax  float64 `json:"encode_ms_max"`
	Segment    float64 `json:"segment_ms"`
	SegmentMin float64 `json:"segment_ms_min"`
	SegmentMax float64 `json:"segment_ms_max"`
	Words      float64 `json:"words_ms"`
	WordsMin   float64 `json:"words_ms_min"`
	WordsMax   float64 `json:"words_ms_max"`
	Heap       float64 `json:"heap_mib"`       // what the weights and one picture take
	Load       float64 `json:"load_ms"`        // compiles the kernels, too
	LoadCached float64 `json:"load_cached_ms"` // does not
	Bytes      int     `json:"weights_bytes"`
}

func bench(args []string, out io.Writer) error {
	flags := newFlags("bench")
	var which engine.Options
	which.Flags(flags)
	which.Precision = "both"
	p := flags.Lookup("precision")
	p.Usage, p.DefValue = "int8, f32 or both, in turns", which.Precision
	rounds := flags.Int("rounds", 7, "how often each step is timed, after two rounds to warm up")
	asJSON := flags.Bool("json", false, "print JSON")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if *rounds < 1 {
		return errors.New("-rounds must be at least 1")
	}
	img := noise(benchSide)
	switch len(rest) {
	case 0:
	case 1:
		if img, err = photo.Read(rest[0]); err != nil {
			return err
		}
	default:
		flags.Usage()
		return errors.New("bench takes one photo")
	}
	names := []string{which.Precision}
	if which.Precision == "both" {
		names = []string{"f32", "int8"}
	}
	var all []*timed
	for _, name := range names {
		which.Precision = name
		t, err := newTimed(which, img)
		if err != nil {
			return err
		}
		defer t.model.Close()
		all = append(all, t)
	}
	const warm = 2
	for round := range warm + *rounds {
		for _, t := range all {
			if err := t.round(img, round, round >= warm); err != nil {
				return err
			}
		}
	}
	result := benchResult{Machine: benchMachine{CPU: cpuName(), Cores: runtime.NumCPU(), System: runtime.GOOS + " " + runtime.GOARCH,
		Go: runtime.Version(), Date: time.Now().UTC().Truncate(time.Second), Rounds: *rounds, Side: max(img.Rect.Dx(), img.Rect.Dy()), Words: len(benchPrompts)}}
	for _, t := range all {
		result.Runs = append(result.Runs, t.result())
	}
	if *asJSON {
		return json.NewEncoder(out).Encode(result)
	}
	return result.write(out)
}

// timed is an engine that is timed.
type timed struct {
	run                    benchRun
	model                  *model.Model
	encode, segment, words []time.Duration
}

// newTimed loads an engine twice, to see what compiled kernels are worth, and
// keeps the second.
func newTimed(which engine.Options, img *image.RGBA) (*timed, error) {
	t := &timed{run: benchRun{Engine: "pmp-" + which.Precision, Threads: 1}}
	var before runtime.MemStats
	for _, took := range []*float64{&t.run.Load, &t.run.LoadCached} {
		if t.model != nil {
			t.model.Close()
			t.model = nil
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		m, err := which.Load()
		if err != nil {
			return nil, err
		}
		*took = milliseconds(time.Since(start))
		t.model, t.run.Device = m, m.Device().Name()
	}
	files, err := engine.ReadWeights(which.Weights)
	if err != nil {
		return nil, err
	}
	t.run.Bytes = files.Size()
	picture, err := engine.Encode(t.model, img)
	if err != nil {
		return nil, err
	}
	defer picture.Close()
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.run.Heap = math.Round(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/(1<<20)*10) / 10
	return t, nil
}

// round times each step once. The words of each round are new.
func (t *timed) round(img *image.RGBA, round int, counts bool) error {
	p, err := t.model.NewPicture(img.Rect.Dx(), img.Rect.Dy())
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Write(img.Pix); err != nil {
		return err
	}
	prompts, words := benchPrompts, make([]string, len(benchPrompts))
	for i, w := range benchPrompts {
		words[i] = fmt.Sprintf("%s number %d", w, round)
	}
	if labels := t.model.Labels; labels != nil { // no other words can be asked for
		prompts = labels[:min(len(labels), len(prompts))]
		words = prompts
	}
	find := func(prompts []string) func() error {
		return func() error {
			_, err := p.Segment(prompts, model.Options{})
			return err
		}
	}
	for _, step := range []struct {
		times *[]time.Duration
		run   func() error
	}{{&t.encode, p.Encode}, {&t.segment, find(prompts)}, {&t.words, find(words)}} {
		start := time.Now()
		if err := step.run(); err != nil {
			return err
		}
		if counts {
			*step.times = append(*step.times, time.Since(start))
		}
	}
	return nil
}

func (t *timed) result() benchRun {
	r := t.run
	r.EncodeMin, r.Encode, r.EncodeMax = spread(t.encode)
	r.SegmentMin, r.Segment, r.SegmentMax = spread(t.segment)
	r.WordsMin, r.Words, r.WordsMax = spread(t.words)
	return r
}

// spread returns the shortest, the median and the longest in milliseconds.
func spread(times []time.Duration) (least, median, most float64) {
	slices.Sort(times)
	n := len(times)
	return milliseconds(times[0]), milliseconds((times[(n-1)/2] + times[n/2]) / 2), milliseconds(times[n-1])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func (r benchResult) write(out io.Writer) error {
	fmt.Fprintf(out, "%s, %d cores, %s; long side %d pixels, %d prompts; ms: median [least..most] of %d\n", r.Machine.CPU, r.Machine.Cores,
		r.Machine.System, r.Machine.Side, r.Machine.Words, r.Machine.Rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "engine\tdevice\tencode\tsegment\tnew words\tload, again\tMiB")
	for _, b := range r.Runs {
		fmt.Fprintf(w, "%s\t%s\t%.1f [%.1f..%.1f]\t%.1f [%.1f..%.1f]\t%.1f [%.1f..%.1f]\t%.0f, %.0f\t%.0f\n", b.Engine, b.Device,
			b.Encode, b.EncodeMin, b.EncodeMax, b.Segment, b.SegmentMin, b.SegmentMax, b.Words, b.WordsMin, b.WordsMax,
			b.Load, b.LoadCached, b.Heap)
	}
	return w.Flush()
}

// noise is a picture whose numbers take no short cuts.
func noise(side int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	r := rand.New(rand.NewPCG(1, 2))
	for y := range side {
		for x := range side {
			n := r.Uint32()
			img.SetRGBA(x, y, color.RGBA{uint8(n), uint8(n >> 8), uint8(n >> 16), 255})
		}
	}
	return img
}

// cpuName is the processor's name where the system tells it.
func cpuName() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
