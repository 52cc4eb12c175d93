//go:build js && wasm

// Command wasm is the engine as the browser runs it: exported calls and
// nothing else. The worker (js/worker.js) hands in an object, pmpHost, and
// this program puts its functions there. What may have to wait for the browser,
// as a graphics card does, is a task: it takes a function first that it calls
// with its answer. The others return theirs. An answer is a plain value or
// {error: {code, message, lost}}; a panic becomes such an error too, so that one
// bad picture does not cost the weights that are already loaded.
package main

import (
	"errors"
	"syscall/js"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/webgpu"
	"github.com/pmp-seg/pmp/weights"
)

// The codes of errors, the same strings that PMPError.code has in js/index.d.ts.
const (
	codeFormat    = "format"
	codeIntegrity = "integrity"
	codeMemory    = "out-of-memory"
	codeBadInput  = "bad-input"
	codeInternal  = "internal"
	codeLacking   = "unsupported"
	codeLost      = "device-lost"
)

func main() {
	host := js.Global().Get("pmpHost")
	export := func(name, code string, f func(args []js.Value) (any, error)) {
		host.Set(name, js.FuncOf(func(_ js.Value, args []js.Value) any { return guarded(code, f, args) }))
	}
	export("open", codeFormat, open)
	export("room", codeFormat, room)
	export("add", codeIntegrity, add)
	export("kernels", codeInternal, kernels)
	task := func(name, code string, f func(args []js.Value) (any, error)) {
		host.Set(name, js.FuncOf(func(_ js.Value, args []js.Value) any {
			go func() { args[0].Invoke(guarded(code, f, args[1:])) }()
			return nil
		}))
	}
	task("load", codeFormat, load)
	task("begin", codeBadInput, begin)
	task("draw", codeInternal, draw)
	task("pixels", codeBadInput, pixels)
	task("encode", codeInternal, encode)
	task("segment", codeBadInput, segment)
	task("masks", codeInternal, masks)
	task("proposals", codeInternal, proposals)
	task("labels", codeInternal, labels)
	task("overlay", codeInternal, overlay)
	task("close", codeInternal, closePicture)
	select {}
}

// guarded calls f and turns an error, or a panic, into a value that
// JavaScript can throw. The code is what an error means in this call unless
// the error itself says something more exact.
func guarded(code string, f func([]js.Value) (any, error), args []js.Value) (out any) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			out = failure(codeInternal, r.Error())
		case string:
			out = failure(codeInternal, r)
		default:
			out = failure(codeInternal, "the engine met a case that it does not know")
		}
	}()
	v, err := f(args)
	if err == nil {
		return v
	}
	var w *weights.Error
	lost := false
	switch {
	case errors.Is(err, webgpu.ErrLost):
		// All pictures went with the card. The worker loads another device.
		code, lost = codeLost, true
		unload()
	case errors.Is(err, errLost):
		code = codeLost
	case errors.As(err, &w) && w.Code == weights.CodeIntegrity:
		code = codeIntegrity
	case errors.As(err, &w):
		code = codeFormat
	case errors.Is(err, kernel.ErrMemory):
		code = codeMemory
	case errors.Is(err, errNoSIMD), errors.Is(err, errNoCard):
		code = codeLacking
	case errors.Is(err, errPrecision):
		code = codeBadInput
	}
	out = failure(code, err.Error())
	if lost {
		out.(map[string]any)["error"].(map[string]any)["lost"] = true
	}
	return out
}

func failure(code, message string) any {
	return map[string]any{"error": map[string]any{"code": code, "message": message}}
}

// bytesOf copies a Uint8Array to Go.
func bytesOf(v js.Value) []byte {
	b := make([]byte, v.Get("length").Int())
	js.CopyBytesToGo(b, v)
	return b
}
