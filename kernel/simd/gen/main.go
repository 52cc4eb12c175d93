// Command gen writes the WebAssembly modules of package simd. It is a small
// typed assembler (module.go, value.go, statement.go) and, in the other
// files, the kernels written with it.
//
// The kernels' names for shapes are those of the ops in package kernel, where
// the meaning of each is a loop in the doc comment. Addresses and steps in
// the inner functions are in bytes.
package main

import (
	"fmt"
	"os"
)

// variants are the modules of kernels by file name.
var variants = map[string]Options{
	"simd.wasm":            {},
	"relaxed.wasm":         {Relaxed: true},
	"simd-threads.wasm":    {Threads: true},
	"relaxed-threads.wasm": {Relaxed: true, Threads: true},
}

// modules makes all modules, by file name.
func modules() map[string][]byte {
	all := map[string][]byte{"probe.wasm": probe()}
	for file, options := range variants {
		all[file] = Generate(options)
	}
	return all
}

func main() {
	for file, module := range modules() {
		if err := os.WriteFile(file, module, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
