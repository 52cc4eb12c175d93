package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/model/token"
	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/huggingface"
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
	if about, err := os.Stat(dir); err == nil && !about.IsDir() {
		c, err := quantize.OpenCheckpoint(dir)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Inspect(out)
	}
	m, err := engine.ReadWeights(dir)
	if err != nil {
		return err
	}
	return quantize.Inspect(m, out)
}

func importWeights(args []string, out io.Writer) error {
	flags := newFlags("import")
	dir := flags.String("o", "", "folder to write the weights to")
	store := flags.String("store", "", "f32, f16 or int8: how tensors are stored (default: f16 for a public checkpoint, int8, where that does no harm, for ours)")
	pmp := flags.Bool("pmp", false, "add prompt guidance to a public checkpoint, to be trained: until then it changes nothing")
	backbone := flags.String("backbone", "", "`file` with a classifier of torchvision, whose ResNet takes the place of a public checkpoint's")
	clip := flags.String("clip", "", "folder of a CLIP of the transformers library, which names the masks of a public checkpoint, so that it takes any prompt")
	vocabulary := flags.String("vocabulary", "", "file of names, a line each with synonyms: an FC-CLIP, an OVSeg or what -clip makes keeps what it knows of these and loses its text encoder")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || *dir == "" {
		flags.Usage()
		return errors.New("import needs a checkpoint, a folder or a file of detectron2, and -o")
	}
	types := map[string]weights.DType{"f32": weights.F32, "f16": weights.F16, "int8": ""}
	if _, ok := types[*store]; !ok && *store != "" {
		return fmt.Errorf("-store %s: it is f32, f16 or int8", *store)
	}
	public := huggingface.Is(rest[0])
	for _, f := range []struct {
		given      bool
		name, ours string
	}{
		{*pmp, "-pmp", "whether ours has prompt guidance is decided when it is trained"}, {*backbone != "", "-backbone", "ours has another image encoder"},
		{*clip != "", "-clip", "ours has a second stage"}, {*vocabulary != "", "-vocabulary", "ours takes any words with a small text encoder"},
	} {
		if f.given && !public {
			return fmt.Errorf("%s is for public checkpoints; %s", f.name, f.ours)
		}
	}
	var names []string
	if *vocabulary != "" {
		if names, err = readNames(*vocabulary); err != nil {
			return err
		}
	}
	read, weigh := quantize.ReadDir, fitting
	if public {
		read = func(path string) (*quantize.Source, error) {
			return readPublic(path, *backbone, *clip, names, *pmp, out)
		}
		weigh = func(s *quantize.Source, _ io.Writer) (quantize.Files, *weights.Manifest, error) { return quantized(s) }
	}
	source, err := read(rest[0])
	if err != nil {
		return err
	}
	if *store != "" {
		source.Store = types[*store]
	}
	// What is written must be a network that can be built.
	files, m, err := weigh(source, out)
	if err != nil {
		return err
	}
	loaded, err := engine.Build(m, scalar.New(), model.Int8)
	if err != nil {
		return fmt.Errorf("no network can be built from this checkpoint: %w", err)
	}
	loaded.Close()
	if err := files.Write(*dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "wrote %d files, %.2f MB, to %s\n", len(files), float64(m.Size())/1e6, *dir)
	return nil
}

// readPublic reads a public checkpoint, with another ResNet if backbone is one's file and
// with a CLIP that names its masks if clip is one's folder, tells what became of their
// tensors, and adds prompt guidance, which reads with the shipped text encoder. With
// names it knows only these.
func readPublic(path, backbone, clip string, names []string, guided bool, out io.Writer) (*quantize.Source, error) {
	source, report, err := huggingface.Read(path)
	if err != nil {
		return nil, err
	}
	tell(out, report)
	if backbone != "" {
		if report, err = huggingface.ReadBackbone(source, backbone); err != nil {
			return nil, err
		}
		tell(out, report)
	}
	source.Store = weights.F16
	if clip != "" {
		tensors, err := huggingface.ReadCLIP(clip)
		if err != nil {
			return nil, err
		}
		if report, err = huggingface.AddCLIP(source, tensors); err != nil {
			return nil, err
		}
		fmt.Fprintf(out, "of the CLIP in %s:\n", clip)
		tell(out, report)
	}
	if guided {
		reader, err := engine.ReadWeights("")
		if err != nil {
			return nil, err
		}
		if err := huggingface.Guide(source, reader); err != nil {
			return nil, err
		}
	}
	if names == nil {
		return source, nil
	}
	return source, limit(source, names, out)
}

// readNames reads a file of names.
func readNames(file string) ([]string, error) {
	list, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	names, err := huggingface.Names(list)
	if err == nil && len(names) > model.MaxLabels {
		err = fmt.Errorf("it has %d names; give at most %d", len(names), model.MaxLabels)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return names, nil
}

// limit lets the text encoder read names once and for all.
func limit(source *quantize.Source, names []string, out io.Writer) error {
	reader, err := huggingface.ReaderOf(source)
	if err != nil {
		return err
	}
	_, m, err := quantized(reader)
	if err != nil {
		return err
	}
	device, err := engine.NewDevice("auto")
	if err != nil {
		return err
	}
	defer device.Close()
	var phrases []string
	for _, name := range names {
		phrases = append(phrases, token.Phrases(name)...)
	}
	embeddings, err := model.Embeddings(m, device, phrases)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d names with %d phrases take the place of the text encoder\n", len(names), len(phrases))
	return huggingface.Limit(source, names, embeddings)
}

// tell says what became of a checkpoint's tensors.
func tell(out io.Writer, report huggingface.Report) {
	needless := 0
	for _, name := range report.Unused {
		if huggingface.Ignored(name) {
			needless++
		} else {
			fmt.Fprintf(out, "unused: %s\n", name)
		}
	}
	fmt.Fprintf(out, "%d tensors are used, %d are not, and %d need not be\n", len(report.Used), len(report.Unused)-needless, needless)
}

// fitting makes weights of a source's tensors, without those that the network
// does not have, and says which ones are missing or left out.
func fitting(source *quantize.Source, out io.Writer) (quantize.Files, *weights.Manifest, error) {
	files, m, err := quantized(source)
	if err != nil {
		return nil, nil, err
	}
	needed, err := model.Tensors(m)
	if err != nil {
		return nil, nil, err
	}
	have := m.Names()
	if missing := without(needed, have); len(missing) > 0 {
		return nil, nil, fmt.Errorf("the checkpoint lacks tensors of this network: %s", naming(missing))
	}
	left := without(have, needed)
	if all := slices.Concat(left, source.Others); len(all) > 0 {
		fmt.Fprintf(out, "left out, since this network does not have them: %s\n", naming(all))
	}
	if len(left) == 0 {
		return files, m, nil
	}
	source.Tensors = slices.DeleteFunc(source.Tensors, func(t quantize.Tensor) bool { return slices.Contains(left, t.Name) })
	return quantized(source)
}

func quantized(source *quantize.Source) (quantize.Files, *weights.Manifest, error) {
	files, err := source.Files()
	if err != nil {
		return nil, nil, err
	}
	m, err := files.Open()
	return files, m, err
}

// without returns those of some names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// naming names tensors, the first few of many.
func naming(names []string) string {
	const most = 8
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
