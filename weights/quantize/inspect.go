package quantize

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/pmp-seg/pmp/weights"
)

// Inspect writes what is in the weights, for people: the files, every tensor
// with its shape, type and size, totals, and the licence of every part.
func Inspect(m *weights.Manifest, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "architecture\t%s\n", m.Arch)
	if m.Release != "" {
		fmt.Fprintf(t, "release\t%s\n", printable(m.Release))
	}
	fmt.Fprintf(t, "vocabulary\t%s\n", m.Tokenizer)
	fmt.Fprintf(t, "trained names\t%d\n", len(m.TrainedNames))

	fmt.Fprintf(t, "\nFILE\tBYTES\tSHA-256\n")
	for _, f := range m.Files {
		fmt.Fprintf(t, "%s\t%d\t%x\n", f.Name, f.Size, f.SHA256)
	}
	fmt.Fprintf(t, "%d files\t%d\n", len(m.Files), m.Size())

	var rows []row
	for _, name := range m.Names() {
		x, err := m.Tensor(name)
		if err != nil {
			return err
		}
		kind := typeName(x.DType)
		if x.DType == weights.I8 {
			kind = "int8 × float16"
		}
		rows = append(rows, row{name, kind, x.Shape, x.Bytes()})
	}
	fmt.Fprintln(t)
	list(t, rows)

	fmt.Fprintf(t, "\nPART\tLICENCE\tSOURCE\tNOTE\n")
	for _, p := range m.Parts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(p.Name), printable(p.Licence), printable(p.Source), printable(p.Note))
	}
	return t.Flush()
}

// Inspect writes what is in a checkpoint: every tensor with its shape, type
// and size, and totals.
func (c *Checkpoint) Inspect(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var rows []row
	for _, x := range c.tensors {
		rows = append(rows, row{x.name, typeName(x.dtype), x.shape, numbers(x.shape) * x.dtype.Size()})
	}
	list(t, rows)
	return t.Flush()
}

// row is a tensor in a list.
type row struct {
	name, kind string
	shape      []int
	bytes      int
}

// list writes tensors and what they are together.
func list(w io.Writer, rows []row) {
	fmt.Fprintf(w, "TENSOR\tTYPE\tSHAPE\tBYTES\n")
	type total struct{ tensors, numbers, bytes int }
	totals := map[string]total{}
	for _, x := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", printable(x.name), x.kind, shapeText(x.shape), x.bytes)
		for _, kind := range []string{x.kind, "all"} {
			n := totals[kind]
			totals[kind] = total{n.tensors + 1, n.numbers + numbers(x.shape), n.bytes + x.bytes}
		}
	}
	kinds := slices.Sorted(maps.Keys(totals))
	// All of them come last.
	kinds = append(slices.DeleteFunc(kinds, func(k string) bool { return k == "all" }), "all")
	fmt.Fprintf(w, "\nTYPE\tTENSORS\tNUMBERS\tBYTES\n")
	for _, kind := range kinds {
		n := totals[kind]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", kind, n.tensors, n.numbers, n.bytes)
	}
}

// numbers is how many elements a shape has.
func numbers(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func typeName(d weights.DType) string {
	switch {
	case d == weights.BF16:
		return "bfloat16"
	case d == "BOOL":
		return "bool"
	}
	for letter, name := range map[byte]string{'F': "float", 'I': "int", 'U': "uint"} {
		if d[0] == letter {
			return name + string(d[1:])
		}
	}
	return string(d)
}

func shapeText(shape []int) string {
	if len(shape) == 0 {
		return "1"
	}
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", "×")
}

// printable keeps a text from the manifest on its line and in its column.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return ' '
		}
		return r
	}, s)
}
