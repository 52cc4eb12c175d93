//go:build js && wasm

package main

import (
	"errors"
	"syscall/js"
	"unsafe"

	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/weights"
)

var (
	manifest *weights.Manifest
	rooms    = map[string][]byte{} // of files that are on their way
)

var (
	errNoManifest = errors.New("the manifest must be opened before anything else")
	errNoFile     = errors.New("the manifest does not list this file, or it has no room yet")
)

// open(manifest Uint8Array) → [{name, size, sha256}, …] reads the manifest and
// tells which files the worker has to get.
func open(args []js.Value) (any, error) {
	m, err := weights.Open(bytesOf(args[0]))
	if err != nil {
		return nil, err
	}
	manifest = m
	clear(rooms)
	files := make([]any, len(m.Files))
	for i, f := range m.Files {
		files[i] = map[string]any{"name": f.Name, "size": f.Size, "sha256": hex(f.SHA256[:])}
	}
	return files, nil
}

// room(name) → address reserves memory for one of the files. The worker writes
// the file there as it arrives, so that no second copy of it is made.
func room(args []js.Value) (any, error) {
	if manifest == nil {
		return nil, errNoManifest
	}
	name := args[0].String()
	if rooms[name] == nil {
		f, ok := manifest.File(name)
		if !ok {
			return nil, errNoFile
		}
		rooms[name] = make([]byte, f.Size)
	}
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(rooms[name])))), nil
}

// add(name, sha) checks a file that was written to its room, and keeps it. Sha is
// a Uint8Array of the file's SHA-256 as the browser finds it, or undefined where
// that offers none. The room of a file that is refused can be written again.
func add(args []js.Value) (any, error) {
	if manifest == nil {
		return nil, errNoManifest
	}
	name := args[0].String()
	if rooms[name] == nil {
		return nil, errNoFile
	}
	var err error
	if sha := args[1]; sha.Truthy() {
		err = manifest.AddHashed(name, rooms[name], [32]byte(bytesOf(sha)))
	} else {
		err = manifest.Add(name, rooms[name])
	}
	if err != nil {
		return nil, err
	}
	delete(rooms, name)
	return true, nil
}

// kernels() → Uint8Array or null: the module of kernels that the worker needs to
// start threads, or null if this browser cannot run it.
func kernels([]js.Value) (any, error) {
	module := simd.ThreadsModule(simd.Auto)
	if module == nil {
		return nil, nil
	}
	a := js.Global().Get("Uint8Array").New(len(module))
	js.CopyBytesToJS(a, module)
	return a, nil
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, x := range b {
		out = append(out, digits[x>>4], digits[x&15])
	}
	return string(out)
}
