// Command eval measures the model on labelled photos, as `pmp eval` does and
// to the last digit: a pipeline on Apache Beam that counts picture by picture
// and merges what was counted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/pmp-seg/pmp/batch/internal/job"
	"github.com/pmp-seg/pmp/eval"
	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/model"
)

type options struct {
	engine.Evaluation
	out   string
	json  bool
	tries int
}

func main() {
	var o options
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	o.Flags(flags)
	flags.StringVar(&o.out, "out", "", "folder to write figures.json, counted.json and failed.jsonl to")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.IntVar(&o.tries, "tries", 3, "how often a job is started whose workers get lost")
	job.Parse(flags)
	if err := run(context.Background(), o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "eval:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	if o.out == "" {
		return errors.New("-out says where to write what was counted; -help lists all flags")
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	set, _, err := o.Open()
	if err != nil {
		return err
	}
	f := &countFn{Evaluation: o.Evaluation}
	for _, path := range []*string{&f.Engine.Weights, &f.Data.Dir, &f.Data.Labels, &f.Data.List, &f.Data.Split} {
		*path = job.Path(dir, *path)
	}
	write := &writeFn{job.Path(dir, o.out)}
	pictures := make([]int, len(set.Data.Items))
	for i := range pictures {
		pictures[i] = i
	}
	result, err := job.Run(ctx, o.tries, func(s beam.Scope) {
		parts := beam.ParDo(s, f, beam.Reshuffle(s, beam.CreateList(s, pictures)))
		beam.ParDo0(s, write, beam.Combine(s, merge, parts))
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, job.Summary(result.Metrics()))
	data, err := job.Read(ctx, write.counted())
	if err != nil {
		return err
	}
	var counted eval.Counted
	if err := json.Unmarshal(data, &counted); err != nil {
		return err
	}
	figures := counted.Figures(set)
	if data, err = json.MarshalIndent(figures, "", "  "); err != nil {
		return err
	}
	if err := job.Write(ctx, write.Out+"/figures.json", data); err != nil {
		return err
	}
	if o.json {
		_, err = fmt.Fprintf(out, "%s\n", data)
		return err
	}
	return figures.Write(out)
}

// part is what some pictures counted. Pictures that could not be asked about
// count nowhere.
type part struct {
	Counted eval.Counted
	Failed  []job.Failure
}

// merge is associative and commutative, but for the order of failures and the
// rounding of the mean time.
func merge(a, b part) part {
	sum := part{Failed: append(a.Failed[:len(a.Failed):len(a.Failed)], b.Failed...)}
	sum.Counted.Merge(&a.Counted)
	sum.Counted.Merge(&b.Counted)
	return sum
}

func encodePart(p part) ([]byte, error) { return json.Marshal(p) }

func decodePart(data []byte) (p part, err error) { return p, json.Unmarshal(data, &p) }

// countFn counts pictures, given by their numbers.
type countFn struct {
	engine.Evaluation

	options eval.Options
	ask     func(*model.Model) (eval.Segmenter, error)
}

var engines job.Pool[eval.Segmenter]

func (f *countFn) Setup() (err error) {
	f.options, f.ask, err = f.Open()
	return err
}

func (f *countFn) ProcessElement(ctx context.Context, index int, emit func(part)) error {
	return engines.Use(f.Engine, f.ask, func(s eval.Segmenter) {
		c, err := f.options.Count(s, index)
		if err != nil {
			failure := job.Failure{Image: f.options.Data.Items[index].Name, Kind: "picture", Error: err.Error()}
			job.Failed(ctx, failure)
			emit(part{Failed: []job.Failure{failure}})
			return
		}
		pixels := int64(0)
		for _, r := range c.Seen {
			pixels += r[2]
		}
		job.Done(ctx, int(pixels), time.Duration(c.Seconds*float64(time.Second)))
		emit(part{Counted: *c})
	})
}

// writeFn writes what all pictures counted.
type writeFn struct{ Out string }

func (f *writeFn) counted() string { return f.Out + "/counted.json" }

func (f *writeFn) ProcessElement(ctx context.Context, p part) error {
	var failed []byte
	for _, failure := range p.Failed {
		line, err := json.Marshal(failure)
		if err != nil {
			return err
		}
		failed = append(append(failed, line...), '\n')
	}
	if err := job.Write(ctx, f.Out+"/failed.jsonl", failed); err != nil {
		return err
	}
	data, err := json.Marshal(p.Counted)
	if err != nil {
		return err
	}
	return job.Write(ctx, f.counted(), data)
}

func init() {
	register.DoFn3x1[context.Context, int, func(part), error](&countFn{})
	register.DoFn2x1[context.Context, part, error](&writeFn{})
	register.Emitter1[part]()
	register.Function2x1(merge)
	beam.RegisterCoder(reflect.TypeOf((*part)(nil)).Elem(), encodePart, decodePart)
}
