//go:build js

package simd

import (
	_ "embed"
	"errors"
	"syscall/js"
)

// relaxedModule needs relaxed SIMD, whose fused multiply-add is faster.
//
//go:embed relaxed.wasm
var relaxedModule []byte

// Supported tells whether this browser has WebAssembly SIMD.
func Supported() bool { return validates(plainModule) }

func validates(module []byte) bool {
	return js.Global().Get("WebAssembly").Call("validate", toJS(module)).Bool()
}

func toJS(b []byte) js.Value {
	a := js.Global().Get("Uint8Array").New(len(b))
	js.CopyBytesToJS(a, b)
	return a
}

// host is an instance of the module in the engine that also runs us.
type host struct {
	relaxed            bool
	memory             js.Value // the WebAssembly.Memory
	bytes              js.Value // all of it as a Uint8Array, made anew when it grows
	runFunc, beginFunc js.Value
	scratchSize        int
}

// newHost compiles and instantiates synchronously, which is allowed in a
// worker; on a page's main thread some engines refuse modules of this size.
func newHost() (h *host, err error) {
	if !Supported() {
		return nil, errors.New("this browser has no WebAssembly SIMD")
	}
	defer func() {
		if recover() != nil {
			h, err = nil, errors.New("the browser did not let us start the WebAssembly kernels")
		}
	}()
	h = new(host)
	module := plainModule
	if validates(relaxedModule) {
		module, h.relaxed = relaxedModule, true
	}
	wasm := js.Global().Get("WebAssembly")
	exports := wasm.Get("Instance").New(wasm.Get("Module").New(toJS(module))).Get("exports")
	h.memory, h.runFunc, h.beginFunc = exports.Get("memory"), exports.Get("run"), exports.Get("begin")
	h.scratchSize = exports.Get("scratchSize").Get("value").Int()
	h.view()
	return h, nil
}

func (h *host) name() string {
	if h.relaxed {
		return "simd (relaxed)"
	}
	return "simd"
}

// view remakes bytes, which a memory that has grown leaves empty.
func (h *host) view() {
	h.bytes = js.Global().Get("Uint8Array").New(h.memory.Get("buffer"))
}

func (h *host) size() int { return h.bytes.Length() }

func (h *host) grow(pages int) (ok bool) {
	defer func() {
		if recover() != nil { // a RangeError
			ok = false
		}
	}()
	h.memory.Call("grow", pages)
	h.view()
	return true
}

func (h *host) write(at int, data []byte) {
	js.CopyBytesToJS(h.bytes.Call("subarray", at, at+len(data)), data)
}

func (h *host) read(at int, data []byte) {
	js.CopyBytesToGo(data, h.bytes.Call("subarray", at, at+len(data)))
}

func (h *host) run(records, count int) (err error) {
	defer func() {
		if recover() != nil {
			err = errTrap
		}
	}()
	h.runFunc.Invoke(records, count)
	return nil
}

func (h *host) begin(scratch int) { h.beginFunc.Invoke(scratch, 0, 1) }

func (h *host) close() error {
	h.memory, h.bytes, h.runFunc = js.Undefined(), js.Undefined(), js.Undefined()
	return nil
}

// Memory is the module's WebAssembly.Memory, for JavaScript that writes to
// addresses got from Session.Address. Its buffer is another one after Load
// or Open.
func (d *Device) Memory() js.Value { return d.host.memory }
