//go:build js

package simd

import (
	_ "embed"
	"errors"
	"sync"
	"syscall/js"
)

// The other modules: with relaxed SIMD, whose fused multiply-add and dot
// product of bytes are faster, and for threads on a shared memory.
var (
	//go:embed relaxed.wasm
	relaxedModule []byte
	//go:embed simd-threads.wasm
	plainThreads []byte
	//go:embed relaxed-threads.wasm
	relaxedThreads []byte
	//go:embed probe.wasm
	probeModule []byte
)

// Variant says which instructions the kernels may use.
type Variant int

const (
	Auto    Variant = iota // Relaxed if it does what the kernels need, else Plain
	Plain                  // SIMD128 only
	Relaxed                // relaxed SIMD too
)

func (v Variant) resolve() Variant {
	if v != Auto {
		return v
	}
	if relaxedWorks() {
		return Relaxed
	}
	return Plain
}

var relaxedWorks = sync.OnceValue(probeRelaxed)

// ThreadsModule is what startThreads (js/threads.js) needs to start threads
// for NewThreads, or nil if this browser cannot run it.
func ThreadsModule(v Variant) []byte {
	module := plainThreads
	if v.resolve() == Relaxed {
		module = relaxedThreads
	}
	if !validates(module) {
		return nil
	}
	return module
}

// Supported tells whether this browser has WebAssembly SIMD.
func Supported() bool { return validates(plainModule) }

func validates(module []byte) bool {
	return js.Global().Get("WebAssembly").Call("validate", toJS(module)).Bool()
}

// probeRelaxed tells whether this browser has relaxed SIMD, and whether its
// dot product is exact where the kernels use it: int8 numbers by numbers from
// 0 to 127, in this order. The standard lets engines do what they like beyond
// that, and early ones did so within.
func probeRelaxed() (ok bool) {
	if !validates(relaxedModule) || !validates(probeModule) {
		return false
	}
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	exports := instantiate(probeModule, js.Undefined())
	bytes := js.Global().Get("Uint8Array").New(exports.Get("memory").Get("buffer"))
	dot := exports.Get("dot")
	next := uint32(1)
	random := func() byte {
		next = next*1664525 + 1013904223
		return byte(next >> 24)
	}
	for trial := range 16 {
		var in [48]byte
		var want [4]int32
		for i := range 4 {
			sum := int32(random()) << (8 * (trial % 3))
			copy(in[32+4*i:], word(sum))
			for j := 4 * i; j < 4*i+4; j++ {
				weight, activation := int8(random()), random()&127
				if trial < 4 { // the extremes
					weight, activation = [...]int8{-128, 127, -127, 1}[(trial+j)%4], 127
					if trial < 2 {
						weight = [...]int8{-128, 127}[trial]
					}
				}
				in[j], in[16+j] = byte(weight), activation
				sum += int32(weight) * int32(activation)
			}
			want[i] = sum
		}
		js.CopyBytesToJS(bytes, in[:])
		dot.Invoke()
		var out [16]byte
		js.CopyBytesToGo(out[:], bytes.Call("subarray", 48))
		for i, w := range want {
			if string(out[4*i:4*i+4]) != string(word(w)) {
				return false
			}
		}
	}
	return true
}

func word(n int32) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)} }

func toJS(b []byte) js.Value {
	a := js.Global().Get("Uint8Array").New(len(b))
	js.CopyBytesToJS(a, b)
	return a
}

// instantiate compiles and instantiates synchronously, which is allowed in a
// worker; on a page's main thread some engines refuse large modules.
func instantiate(module []byte, imports js.Value) (exports js.Value) {
	wasm := js.Global().Get("WebAssembly")
	return wasm.Get("Instance").New(wasm.Get("Module").New(toJS(module)), imports).Get("exports")
}

// host is an instance of a module in the engine that also runs us.
type host struct {
	relaxed            bool
	memory             js.Value // the WebAssembly.Memory
	bytes              js.Value // all of it as a Uint8Array, made anew when it grows
	runFunc, beginFunc js.Value
	scratchSize        int      // 0 if the instance has its scratch
	pool               js.Value // the other threads, if there are any
}

func newHost() (*host, error) { return newVariant(Auto) }

func newVariant(v Variant) (h *host, err error) {
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
	if h.relaxed = v.resolve() == Relaxed; h.relaxed {
		module = relaxedModule
	}
	exports := instantiate(module, js.Undefined())
	h.memory, h.runFunc, h.beginFunc = exports.Get("memory"), exports.Get("run"), exports.Get("begin")
	h.scratchSize = exports.Get("scratchSize").Get("value").Int()
	h.view()
	return h, nil
}

// NewVariant is New for one variant of the module.
func NewVariant(v Variant) (*Device, error) {
	h, err := newVariant(v)
	if err != nil {
		return nil, err
	}
	return newDevice(h, firstAddress)
}

// NewThreads makes a device of the threads in a pool, which startThreads made
// with ThreadsModule(v). Closing the device ends them.
func NewThreads(v Variant, pool js.Value) (*Device, error) {
	h := &host{relaxed: v.resolve() == Relaxed, pool: pool, memory: pool.Get("memory"), runFunc: pool.Get("exports").Get("run")}
	h.view()
	return newDevice(h, pool.Get("start").Int())
}

func (h *host) name() string {
	if h.relaxed {
		return "simd (relaxed)"
	}
	return "simd"
}

// view remakes bytes. A memory that has grown leaves it empty or, if it is
// shared, as short as before.
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

// run runs on all threads. Where one stops at a trap, which only a bug of
// ours can cause, the others stop too, and so do all later runs.
func (h *host) run(records, count int) (err error) {
	defer func() {
		if recover() != nil {
			if h.pool.Truthy() {
				h.pool.Get("exports").Call("fail")
			}
			err = errTrap
		}
	}()
	h.runFunc.Invoke(records, count)
	return nil
}

func (h *host) begin(scratch int) { h.beginFunc.Invoke(scratch) }

func (h *host) close() error {
	if h.pool.Truthy() {
		h.pool.Call("close")
	}
	h.pool, h.memory, h.bytes, h.runFunc = js.Undefined(), js.Undefined(), js.Undefined(), js.Undefined()
	return nil
}

// Memory is the module's WebAssembly.Memory, for JavaScript that writes to
// addresses got from Session.Address. Its buffer is another one after Load
// or Open.
func (d *Device) Memory() js.Value { return d.host.memory }

// Threads is how many threads share the work.
func (d *Device) Threads() int {
	if d.host.pool.Truthy() {
		return d.host.pool.Get("threads").Int()
	}
	return 1
}
