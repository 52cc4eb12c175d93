// Package shipped holds the weights that come with the program: one
// prompt-guided model of the architecture pmp-s. Open it with
//
//	m, err := weights.Load(shipped.FS.ReadFile)
//
// The browser's engine does not import this package; a page downloads the
// same files.
package shipped

import "embed"

// FS has manifest.json and the files that it lists.
//
//go:embed manifest.json vocab.txt *.safetensors
var FS embed.FS
