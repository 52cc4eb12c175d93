// Command batch finds prompts in any number of photos: a pipeline on Apache
// Beam whose answers are the command line's.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/pmp-seg/pmp/batch/internal/job"
	"github.com/pmp-seg/pmp/eval"
	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
)

// asked is what answers depend on, and where they are. It is job.json in their
// folder, so that a folder has the answers to one question only.
type asked struct {
	Prompts  []string       `json:"prompts"`
	Settings []eval.Setting `json:"settings"`
	Labels   bool           `json:"labels"`
	Overlays bool           `json:"overlays"`
	Shards   int            `json:"shards"`
}

// options are the command line.
type options struct {
	asked
	in, out   string
	engine    engine.Options
	threshold float64
	tries     int
}

func main() {
	if err := run(context.Background(), *parse()); err != nil {
		fmt.Fprintln(os.Stderr, "batch:", err)
		os.Exit(1)
	}
}

func parse() *options {
	var o options
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.StringVar(&o.in, "in", "", "photos: a folder, or a glob such as 'photos/*.jpg', gs://bucket/*.jpg or s3://bucket/*.jpg")
	flags.StringVar(&o.out, "out", "", "folder to write answers to; a job that was cut off goes on there")
	prompts := flags.String("prompts", "", "what to find: dog,sofa; where a prompt has synonyms, with semicolons: 'dog;sofa, couch'")
	flags.BoolVar(&o.Labels, "labels", false, "also write label maps to OUT/labels: PNGs whose pixels are 0, or the number of the strongest prompt from 1 on")
	flags.BoolVar(&o.Overlays, "overlays", false, "also write photos with their masks to OUT/overlays")
	flags.IntVar(&o.Shards, "shards", 0, "number of files with answers (default: one for each 100 photos, at least 32)")
	flags.Float64Var(&o.threshold, "threshold", 0, "where masks are cut, 0 to 1 (default: the model's own)")
	flags.IntVar(&o.tries, "tries", 3, "how often a job is started whose workers get lost")
	o.engine.Flags(flags)
	job.Parse(flags)
	o.Prompts = split(*prompts)
	return &o
}

// split makes prompts of the flag: with a semicolon in it, commas join
// synonyms as everywhere else.
func split(text string) []string {
	by := ","
	if strings.Contains(text, ";") {
		by = ";"
	}
	var prompts []string
	for _, p := range strings.Split(text, by) {
		if p = strings.TrimSpace(p); p != "" {
			prompts = append(prompts, p)
		}
	}
	return prompts
}

func run(ctx context.Context, o options) error {
	if o.in == "" || o.out == "" || len(o.Prompts) == 0 {
		return errors.New("-in, -out and -prompts say which photos, where to write and what to find; -help lists all flags")
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if !picture.MatchString(o.in) && !strings.ContainsAny(o.in, "*?[") {
		o.in = strings.TrimSuffix(o.in, "/") + "/*"
	}
	o.engine.Weights = job.Path(dir, o.engine.Weights)
	f := &segmentFn{Dir: dir, Out: strings.TrimSuffix(job.Path(dir, o.out), "/"), Engine: o.engine, Threshold: float32(o.threshold)}
	glob := job.Path(dir, o.in)
	fixed := glob[:strings.IndexAny(glob+"*", "*?[")]
	f.Root = fixed[:strings.LastIndexByte(fixed, '/')+1]
	photos, err := list(ctx, glob)
	if err != nil {
		return err
	}
	if len(photos) == 0 {
		return fmt.Errorf("there is no photo at %s", o.in)
	}
	if err := o.try(); err != nil {
		return err
	}
	if f.Asked, err = o.agree(ctx, f.Out+"/job.json", len(photos)); err != nil {
		return err
	}
	result, err := job.Run(ctx, o.tries, func(s beam.Scope) {
		names := beam.ParDo(s, &listFn{glob, dir, f.Asked.Shards}, beam.Impulse(s))
		// Nobody wants the shards' numbers, but Prism spins on a core while a stage without outputs runs.
		beam.Reshuffle(s, beam.ParDo(s, f, beam.GroupByKey(s, names)))
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, job.Summary(result.Metrics()))
	return job.Tidy(ctx, f.Out)
}

// picture fits the names of what can be read.
var picture = regexp.MustCompile(`(?i)\.(jpe?g|png|gif|webp)$`)

// list lists photos. Of a folder that has other files too, it leaves those out.
func list(ctx context.Context, glob string) ([]string, error) {
	names, err := job.List(ctx, glob)
	if strings.HasSuffix(glob, "/*") {
		names = slices.DeleteFunc(names, func(name string) bool { return !picture.MatchString(name) })
	}
	return names, err
}

// try asks about an empty picture, so that what would fail for every photo
// fails before there is a job.
func (o options) try() error {
	m, err := o.engine.Load()
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = engine.Segment(m, "", image.NewRGBA(image.Rect(0, 0, 64, 64)), o.Prompts, o.model(), nil)
	return err
}

func (o options) model() model.Options { return model.Options{Threshold: float32(o.threshold)} }

// agree writes what is asked into the folder of the answers, or compares it
// with what an earlier run asked there.
func (o options) agree(ctx context.Context, name string, photos int) (asked, error) {
	shown := o.model()
	shown.Presence = 0.5
	var err error
	if o.Settings, err = o.engine.Settings(shown); err != nil {
		return o.asked, err
	}
	data, there, err := job.ReadOld(ctx, name)
	if err != nil {
		return o.asked, err
	}
	if !there {
		if o.Shards <= 0 {
			o.Shards = max(photos/100, 32)
		}
		data, err := json.MarshalIndent(o.asked, "", "  ")
		if err != nil {
			return o.asked, err
		}
		return o.asked, job.Write(ctx, name, data)
	}
	var old asked
	if err := json.Unmarshal(data, &old); err != nil {
		return o.asked, fmt.Errorf("%s: %w", name, err)
	}
	if o.Shards <= 0 {
		o.Shards = old.Shards
	}
	if !reflect.DeepEqual(old, o.asked) {
		return o.asked, fmt.Errorf("%s has the answers to another question (its job.json says which); take another folder", o.out)
	}
	return old, nil
}

// listFn lists the photos and deals them to shards by their names, so that a
// photo is in the same one whenever it is listed.
type listFn struct {
	Glob, Dir string
	Shards    int
}

func (f *listFn) ProcessElement(ctx context.Context, _ []byte, emit func(int, string)) error {
	names, err := list(ctx, f.Glob)
	for _, name := range names {
		name = strings.TrimPrefix(name, f.Dir+"/")
		emit(int(crc32.ChecksumIEEE([]byte(name))%uint32(f.Shards)), name)
	}
	return err
}

// segmentFn answers for the photos of a shard and writes its file, which is
// there either whole or not at all. Photos that are in it already are left
// alone. So it does not matter how often a runner tries a shard, nor where.
type segmentFn struct {
	Asked     asked
	Engine    engine.Options
	Threshold float32
	Dir       string // in which the photos' names were given
	Root      string // of the photos' paths, what all have in common
	Out       string
}

var engines job.Pool[*model.Model]

func (f *segmentFn) ProcessElement(ctx context.Context, shard int, names func(*string) bool) (int, error) {
	file := func(kind string) string {
		return fmt.Sprintf("%s/%s-%05d-of-%05d.jsonl", f.Out, kind, shard, f.Asked.Shards)
	}
	old, err := answered(ctx, file("answers"))
	if err != nil {
		return 0, err
	}
	_, hadFailures, err := job.ReadOld(ctx, file("failed"))
	if err != nil {
		return 0, err
	}
	var lines, failures bytes.Buffer
	var fresh, failed int
	start := time.Now()
	for _, name := range sorted(names) {
		line, ok := old[name]
		if ok {
			job.Before(ctx)
		} else {
			var failure *job.Failure
			if line, failure, err = f.answer(ctx, name); err != nil {
				return 0, err
			}
			if failure != nil {
				failed++
				job.Failed(ctx, *failure)
				if err := json.NewEncoder(&failures).Encode(failure); err != nil {
					return 0, err
				}
				continue
			}
			fresh++
		}
		lines.Write(line)
	}
	if failed > 0 || hadFailures {
		if err := job.Write(ctx, file("failed"), failures.Bytes()); err != nil {
			return 0, err
		}
	}
	if fresh > 0 {
		if err := job.Write(ctx, file("answers"), lines.Bytes()); err != nil {
			return 0, err
		}
	}
	log.Infof(ctx, "shard %d of %d: %d photos in %.1f s, %d failed", shard, f.Asked.Shards, fresh, time.Since(start).Seconds(), failed)
	return shard, nil
}

func sorted(names func(*string) bool) []string {
	var all []string
	for name := ""; names(&name); {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// answered returns the lines of a shard that is there already, by photo.
func answered(ctx context.Context, file string) (map[string][]byte, error) {
	data, _, err := job.ReadOld(ctx, file)
	lines := map[string][]byte{}
	for line := range bytes.Lines(data) {
		var a struct{ Image string }
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		lines[a.Image] = line
	}
	return lines, err
}

// answer is a photo's line, or why there is none.
func (f *segmentFn) answer(ctx context.Context, name string) (line []byte, failure *job.Failure, err error) {
	fail := func(kind string, err error) { failure = &job.Failure{Image: name, Kind: kind, Error: err.Error()} }
	path := job.Path(f.Dir, name)
	data, err := job.Read(ctx, path)
	if err != nil {
		fail("read", err)
		return nil, failure, nil
	}
	images := map[string]image.Image{}
	err = engines.Use(f.Engine, func(m *model.Model) (*model.Model, error) { return m, nil }, func(m *model.Model) {
		start := time.Now()
		img, err := photo.Decode(data)
		if err != nil {
			fail("decode", err)
			return
		}
		var labels *image.Paletted
		var pix []byte
		if f.Asked.Labels {
			labels = image.NewPaletted(img.Rect, f.palette())
			pix = labels.Pix
		}
		a, err := engine.Segment(m, name, img, f.Asked.Prompts, model.Options{Threshold: f.Threshold}, pix)
		if err != nil {
			fail("segment", err)
			return
		}
		var b bytes.Buffer
		if err := a.Write(&b); err != nil {
			fail("segment", err)
			return
		}
		line = b.Bytes()
		for i := range pix {
			pix[i]++ // model.NoLabel becomes 0
		}
		if f.Asked.Labels {
			images["labels"] = labels
		}
		if f.Asked.Overlays {
			images["overlays"] = engine.PaintOver(img, a.Masks)
		}
		job.Done(ctx, len(img.Pix)/4, time.Since(start))
	})
	for folder, img := range images {
		var b bytes.Buffer
		if err == nil {
			err = png.Encode(&b, img)
		}
		if err == nil {
			err = job.Write(ctx, f.Out+"/"+folder+"/"+strings.TrimPrefix(path, f.Root)+".png", b.Bytes())
		}
	}
	return line, failure, err
}

// palette is black for what has no prompt, and the colours of the overlays.
func (f *segmentFn) palette() color.Palette {
	colours := color.Palette{color.Black}
	for i := range f.Asked.Prompts {
		colours = append(colours, engine.Palette[i%len(engine.Palette)])
	}
	return colours
}

func init() {
	register.DoFn3x1[context.Context, []byte, func(int, string), error](&listFn{})
	register.DoFn3x2[context.Context, int, func(*string) bool, int, error](&segmentFn{})
	register.Emitter2[int, string]()
	register.Iter1[string]()
}
