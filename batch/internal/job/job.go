// Package job is what the pipelines share: flags, runs, engines, files and
// metrics.
package job

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem/s3" // the others come with beamx
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/x/beamx"
	"github.com/google/uuid"

	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
)

// Parse reads the command line: our flags and Beam's. In a worker process it
// does the runner's work and never returns.
func Parse(ours *flag.FlagSet) {
	ours.VisitAll(func(f *flag.Flag) {
		if theirs := flag.Lookup(f.Name); theirs != nil {
			*theirs = *f // -labels is Dataflow's too
		} else {
			flag.Var(f.Value, f.Name, f.Usage)
		}
	})
	flag.Parse()
	beam.Init()
}

// Run runs a pipeline. A runner that gives up when it loses a worker, as Prism
// does, is asked again, so what the pipeline has finished must stay.
func Run(ctx context.Context, tries int, build func(beam.Scope)) (beam.PipelineResult, error) {
	if *jobopts.WorkerBinary == "" && runtime.GOOS == "linux" {
		// Otherwise Beam compiles the program anew for its workers.
		*jobopts.WorkerBinary, _ = os.Executable()
	}
	for try := 1; ; try++ {
		p, s := beam.NewPipelineWithRoot()
		build(s)
		result, err := beamx.RunWithMetrics(ctx, p)
		if err == nil || try >= tries {
			return result, err
		}
		log.Errorf(ctx, "try %d of %d failed, the next goes on with what is left: %v", try, tries, err)
	}
}

// Pool lends the engines of this process, one a core. They are opened when
// they are first needed, from weights that are read once.
type Pool[T any] struct {
	once  sync.Once
	files *weights.Manifest
	err   error
	free  chan *T
}

// Use calls f with an engine. An error is the engine's, so that no other photo
// would fare better.
func (p *Pool[T]) Use(o engine.Options, wrap func(*model.Model) (T, error), f func(T)) error {
	p.once.Do(func() {
		p.free = make(chan *T, runtime.GOMAXPROCS(0))
		for range cap(p.free) {
			p.free <- nil
		}
		p.files, p.err = engine.ReadWeights(o.Weights)
	})
	if p.err != nil {
		return p.err
	}
	t := <-p.free
	defer func() { p.free <- t }()
	if t == nil {
		m, err := o.Open(p.files)
		if err != nil {
			return err
		}
		wrapped, err := wrap(m)
		if err != nil {
			m.Close()
			return err
		}
		t = &wrapped
	}
	f(*t)
	return nil
}

// Failure is a dead letter: a line for a photo without an answer.
type Failure struct {
	Image string `json:"image"`
	Kind  string `json:"kind"`
	Error string `json:"error"`
}

const namespace = "pmp"

var (
	photos = beam.NewCounter(namespace, "photos")
	pixels = beam.NewCounter(namespace, "pixels")
	before = beam.NewCounter(namespace, "answered_before")
	micros = beam.NewDistribution(namespace, "microseconds")
)

// Done counts a photo that was answered, Before one that an earlier run had
// answered, and Failed one that was not.
func Done(ctx context.Context, n int, took time.Duration) {
	photos.Inc(ctx, 1)
	pixels.Inc(ctx, int64(n))
	micros.Update(ctx, took.Microseconds())
}

func Before(ctx context.Context) { before.Inc(ctx, 1) }

func Failed(ctx context.Context, f Failure) {
	beam.NewCounter(namespace, "failed_"+f.Kind).Inc(ctx, 1)
}

// Summary is the metrics as a line for the terminal.
func Summary(r metrics.Results) string {
	count := map[string]int64{}
	for _, c := range r.AllMetrics().Counters() {
		count[c.Name()] += c.Result()
	}
	line := fmt.Sprintf("%d photos, %.1f megapixels", count["photos"], float64(count["pixels"])/1e6)
	for _, d := range r.AllMetrics().Distributions() {
		if v := d.Result(); d.Name() == "microseconds" && v.Count > 0 {
			line += fmt.Sprintf(", %.3f s a photo", float64(v.Sum)/float64(v.Count)/1e6)
		}
	}
	if n := count["answered_before"]; n > 0 {
		line += fmt.Sprintf(", %d answered before", n)
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		if kind, ok := strings.CutPrefix(name, "failed_"); ok {
			line += fmt.Sprintf(", %d failed (%s)", count[name], kind)
		}
	}
	return line
}

// Path is where a file is whose name was given in the folder dir; workers run
// in folders of their own.
func Path(dir, name string) string {
	if name == "" || strings.Contains(name, "://") || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// List lists files.
func List(ctx context.Context, glob string) ([]string, error) {
	fs, err := filesystem.New(ctx, glob)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return fs.List(ctx, glob)
}

// Read reads a file.
func Read(ctx context.Context, name string) ([]byte, error) {
	fs, err := filesystem.New(ctx, name)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return filesystem.Read(ctx, fs, name)
}

// ReadOld reads a file that an earlier run may have left.
func ReadOld(ctx context.Context, name string) (data []byte, there bool, err error) {
	if found, err := List(ctx, name); err != nil || len(found) == 0 {
		return nil, false, err
	}
	data, err = Read(ctx, name)
	return data, true, err
}

// Write writes a file that is there either whole or not at all, whoever else
// writes it at the same time.
func Write(ctx context.Context, name string, data []byte) error {
	fs, err := filesystem.New(ctx, name)
	if err != nil {
		return err
	}
	defer fs.Close()
	part := name + "." + uuid.NewString() + partial
	if err := filesystem.Write(ctx, fs, part, data); err != nil {
		return err
	}
	return filesystem.Rename(ctx, fs, part, name)
}

const partial = ".part"

// Tidy removes what killed workers had half written.
func Tidy(ctx context.Context, dir string) error {
	parts, err := List(ctx, dir+"/*"+partial)
	if err != nil {
		return err
	}
	for _, name := range parts {
		fs, err := filesystem.New(ctx, name)
		if err != nil {
			return err
		}
		if r, ok := fs.(filesystem.Remover); ok {
			r.Remove(ctx, name)
		}
		fs.Close()
	}
	return nil
}
