package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights/quantize"
)

func inspect(args []string, out io.Writer) error {
	flags := newFlags("inspect")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	dir := ""
	if len(rest) > 0 {
		dir = rest[0]
	}
	m, err := readWeights(dir)
	if err != nil {
		return err
	}
	return quantize.Inspect(m, out)
}

func importWeights(args []string, out io.Writer) error {
	flags := newFlags("import")
	dir := flags.String("o", "", "folder to write the weights to")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || *dir == "" {
		flags.Usage()
		return errors.New("import needs the folder of a checkpoint and -o")
	}
	source, err := quantize.ReadDir(rest[0])
	if err != nil {
		return err
	}
	if err := source.Write(*dir); err != nil {
		return err
	}
	// What was written must be a network that can be built.
	m, err := readWeights(*dir)
	if err != nil {
		return err
	}
	loaded, err := model.Load(m, scalar.New(), model.Int8)
	if err != nil {
		return fmt.Errorf("the weights were written, but the network cannot be built from them: %w", err)
	}
	loaded.Close()
	fmt.Fprintf(out, "wrote %d files, %.2f MB, to %s\n", len(m.Files)+1, float64(m.Size())/1e6, *dir)
	return nil
}
