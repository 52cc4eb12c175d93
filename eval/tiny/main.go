// Command tiny makes tiny data sets of drawn shapes in the official layouts of
// the benchmarks that pmp eval knows, to try the command without the data.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/pmp-seg/pmp/eval/tiny/shapes"
)

func main() {
	out := flag.String("out", "", "folder to write to")
	flag.Parse()
	if *out == "" {
		fmt.Fprintln(os.Stderr, "tiny: name a folder with -out")
		os.Exit(1)
	}
	for _, l := range shapes.Layouts {
		if err := l.Write(*out + "/" + l.Name); err != nil {
			fmt.Fprintln(os.Stderr, "tiny:", err)
			os.Exit(1)
		}
		fmt.Printf("pmp eval -benchmark %s -data %s/%s\n", l.Benchmark, *out, l.Name)
	}
}
