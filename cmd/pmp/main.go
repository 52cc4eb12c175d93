// Command pmp finds things in photos by name, without a browser: the same
// model, the same weights and the same kernels as the page.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// command is one of pmp's commands. It gets the arguments behind its name.
type command struct {
	name, arguments, about string
	run                    func(args []string, out io.Writer) error
}

func commands() []command {
	return []command{
		{"segment", "PHOTO PROMPT... [-o overlay.png] [-masks DIR] [-json]", "find each prompt in a photo", segment},
		{"eval", "-data DIR [-benchmark NAME] [-prompts all|present|single] [-report DIR] [-json]", "measure the model on labelled photos", evaluate},
		{"bench", "[PHOTO] [-precision int8|f32] [-rounds 7] [-json]", "time the model on this machine", bench},
		{"inspect", "[WEIGHTS or CHECKPOINT]", "list what is in a folder of weights, or in a checkpoint", inspect},
		{"import", "SOURCE -o DIR [-store f32|f16|int8] [-pmp | -clip CLIP] [-backbone FILE] [-vocabulary FILE]", "turn a checkpoint, ours or a public one, into weights", importWeights},
		{"serve", "[-addr localhost:8080] [DIR]", "serve the built demo page", serveSite},
	}
}

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "pmp:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name == args[0] {
				return c.run(args[1:], out)
			}
		}
		if args[0] != "help" && args[0] != "-h" && args[0] != "--help" {
			usage(os.Stderr)
			return fmt.Errorf("there is no command %q", args[0])
		}
	}
	usage(out)
	return nil
}

func usage(w io.Writer) {
	fmt.Fprint(w, "pmp finds things in photos by name.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  pmp %s %s\n        %s\n", c.name, c.arguments, c.about)
	}
	fmt.Fprint(w, "\nEvery command takes -h. A prompt may list synonyms: \"sofa, couch\".\n")
}

// parse parses flags that may stand before, between and behind the other
// arguments, and returns those.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		args = flags.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// newFlags makes a command's flag set with a usage line.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet("pmp "+name, flag.ContinueOnError)
	flags.Usage = func() {
		for _, c := range commands() {
			if c.name == name {
				fmt.Fprintf(flags.Output(), "usage: pmp %s %s\n", c.name, c.arguments)
			}
		}
		flags.PrintDefaults()
	}
	return flags
}
