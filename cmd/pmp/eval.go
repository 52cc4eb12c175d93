package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/pmp-seg/pmp/eval"
	"github.com/pmp-seg/pmp/internal/engine"
)

func evaluate(args []string, out io.Writer) error {
	flags := newFlags("eval")
	var evaluation engine.Evaluation
	evaluation.Flags(flags)
	workers := flags.Int("workers", 1, "pictures at the same time")
	asJSON := flags.Bool("json", false, "print JSON")
	report := flags.String("report", "", "folder to write a page with figures, plots and the worst pictures to; a run that was cut off goes on there")
	if rest, err := parse(flags, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return fmt.Errorf("eval takes flags only, not %q", rest[0])
	}
	options, ask, err := evaluation.Open()
	if err != nil {
		return err
	}
	options.Workers, options.Report, options.Command = *workers, *report, append([]string{"pmp", "eval"}, args...)
	figures, err := eval.Run(options, func() (eval.Segmenter, error) {
		m, err := evaluation.Engine.Load()
		if err != nil {
			return nil, err
		}
		return ask(m)
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
