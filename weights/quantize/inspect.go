package quantize

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/pmp-seg/pmp/weights"
)

// Inspect writes what is in the weights, for people: the files, every tensor
// with its shape, type and size, totals, and the licence of every part.
func Inspect(m *weights.Manifest, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "architecture\t%s\n", m.Arch)
	fmt.Fprintf(t, "vocabulary\t%s\n", m.Tokenizer)
	fmt.Fprintf(t, "trained names\t%d\n", len(m.TrainedNames))

	fmt.Fprintf(t, "\nFILE\tBYTES\tSHA-256\n")
	for _, f := range m.Files {
		fmt.Fprintf(t, "%s\t%d\t%x\n", f.Name, f.Size, f.SHA256)
	}
	fmt.Fprintf(t, "%d files\t%d\n", len(m.Files), m.Size())

	fmt.Fprintf(t, "\nTENSOR\tTYPE\tSHAPE\tBYTES\n")
	type total struct{ tensors, numbers, bytes int }
	totals := map[weights.DType]total{}
	var all total
	for _, name := range m.Names() {
		x, err := m.Tensor(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", printable(name), typeName(x.DType), shapeText(x.Shape), x.Bytes())
		n := totals[x.DType]
		totals[x.DType] = total{n.tensors + 1, n.numbers + x.Len(), n.bytes + x.Bytes()}
		all = total{all.tensors + 1, all.numbers + x.Len(), all.bytes + x.Bytes()}
	}

	fmt.Fprintf(t, "\nTYPE\tTENSORS\tNUMBERS\tBYTES\n")
	for _, d := range []weights.DType{weights.I8, weights.F16, weights.BF16, weights.F32} {
		if n, ok := totals[d]; ok {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", typeName(d), n.tensors, n.numbers, n.bytes)
		}
	}
	fmt.Fprintf(t, "all\t%d\t%d\t%d\n", all.tensors, all.numbers, all.bytes)

	fmt.Fprintf(t, "\nPART\tLICENCE\tSOURCE\tNOTE\n")
	for _, p := range m.Parts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", printable(p.Name), printable(p.Licence), printable(p.Source), printable(p.Note))
	}
	return t.Flush()
}

func typeName(d weights.DType) string {
	switch d {
	case weights.I8:
		return "int8 × float16"
	case weights.F16:
		return "float16"
	case weights.BF16:
		return "bfloat16"
	}
	return "float32"
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
