package main

import (
	"io"
	"path/filepath"

	"github.com/pmp-seg/pmp/internal/serve"
)

func serveSite(args []string, _ io.Writer) error {
	flags := newFlags("serve")
	addr := flags.String("addr", "localhost:8080", "address to listen on")
	isolated := flags.Bool("isolated", true, "send the headers that make pages cross-origin isolated")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	dir := filepath.Join("dist", "site")
	if len(rest) > 0 {
		dir = rest[0]
	}
	return serve.ListenAndServe(*addr, dir, *isolated)
}
