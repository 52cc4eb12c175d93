//go:build js && wasm

package main

import (
	"errors"
	"runtime"
	"runtime/debug"
	"syscall/js"
	"unsafe"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
)

// One worker has one engine, and calls one function of it at a time.
var (
	manifest *weights.Manifest
	engine   *model.Model
	pictures = map[int]*picture{}
	rooms    = map[string][]byte{} // of files that are on their way
	lastID   int
)

type picture struct {
	*model.Picture
	result *model.Result
	bytes  []byte // RGBA or a mask on its way from or to JavaScript; kept, since Go's memory never shrinks
}

func (p *picture) size() int { return p.Width * p.Height }

// buffer returns n bytes to carry something over; what was there is lost.
func (p *picture) buffer(n int) []byte {
	if cap(p.bytes) < n {
		p.bytes = make([]byte, n)
	}
	return p.bytes[:n]
}

var (
	errNoPicture  = errors.New("this picture is closed; encode it again")
	errNoResult   = errors.New("there is no result for this picture yet; segment it first")
	errNoManifest = errors.New("the manifest must be opened before anything else")
	errNoFile     = errors.New("the manifest does not list this file, or it has no room yet")
	errPrecision  = errors.New("there is no such precision; take \"int8\" or \"f32\"")
	errNoSIMD     = errors.New("this browser cannot run the SIMD kernels; take device \"auto\"")
)

func pictureOf(v js.Value) (*picture, error) {
	p := pictures[v.Int()]
	if p == nil {
		return nil, errNoPicture
	}
	return p, nil
}

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

// add(name) checks a file that was written to its room, and keeps it. The room
// of a file that is refused can be written again.
func add(args []js.Value) (any, error) {
	if manifest == nil {
		return nil, errNoManifest
	}
	name := args[0].String()
	if rooms[name] == nil {
		return nil, errNoFile
	}
	if err := manifest.Add(name, rooms[name]); err != nil {
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

// load("auto" | "simd" | "scalar", {precision, pool}) → {device, threads, reasons:
// [{device, reason}], memory} brings the weights to a device and says why other
// devices were not taken. Precision is "int8" or "f32"; the pool of threads is what
// startThreads (js/threads.js) made, or null. Memory is the device's
// WebAssembly.Memory if it has one.
func load(args []js.Value) (any, error) {
	if manifest == nil {
		return nil, errNoManifest
	}
	if err := manifest.Complete(); err != nil {
		return nil, err
	}
	want := args[0].String()
	precision, ok := model.PrecisionOf(args[1].Get("precision").String())
	if !ok {
		return nil, errPrecision
	}
	pool := args[1].Get("pool")
	reasons := []any{}
	no := func(device, reason string) {
		reasons = append(reasons, map[string]any{"device": device, "reason": reason})
	}
	no("webgpu", "this version does not use the graphics card yet")
	var dev kernel.Device
	if want == "scalar" {
		no("simd", "the page asked for device \"scalar\"")
	} else if d, err := newSIMD(pool); err == nil {
		dev = d
		no("scalar", "it is only for browsers without SIMD, which is many times faster")
	} else if want == "simd" {
		return nil, errNoSIMD
	} else {
		no("simd", err.Error())
	}
	if dev == nil {
		dev = scalar.New()
	}
	// A browser never gets memory back from Go, so what loading leaves behind is
	// collected early. Afterwards the files themselves are garbage, and there is
	// room for long.
	usual := debug.SetGCPercent(10)
	m, err := model.Load(manifest, dev, precision)
	debug.SetGCPercent(usual)
	if err != nil {
		dev.Close()
		return nil, err
	}
	engine, manifest = m, nil
	runtime.GC()
	out := map[string]any{"device": dev.Name(), "threads": 1, "reasons": reasons}
	if d, ok := dev.(*simd.Device); ok {
		out["memory"], out["threads"] = d.Memory(), d.Threads()
	}
	return out, nil
}

func newSIMD(pool js.Value) (*simd.Device, error) {
	if pool.Truthy() {
		return simd.NewThreads(simd.Auto, pool)
	}
	return simd.New()
}

// begin(width, height) → {id, address} reserves all that a picture needs. If
// the device has a memory, the worker writes RGBA pixels there at address;
// otherwise it calls pixels.
func begin(args []js.Value) (any, error) {
	if engine == nil {
		return nil, errNoManifest
	}
	w, h := args[0].Int(), args[1].Int()
	p, err := engine.NewPicture(w, h)
	if err != nil {
		return nil, err
	}
	lastID++
	pictures[lastID] = &picture{Picture: p}
	out := map[string]any{"id": lastID}
	if s, ok := p.Session().(*simd.Session); ok {
		out["address"] = s.Address(p.Pixels())
	}
	return out, nil
}

// pixels(id, rgba Uint8Array) writes a picture's pixels to a device whose
// memory the worker cannot reach.
func pixels(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	b := p.buffer(4 * p.size())
	if js.CopyBytesToGo(b, args[1]) != len(b) {
		return nil, errors.New("there are fewer pixels than the picture's sides say")
	}
	return true, p.Write(b)
}

// encode(id) runs the part of the network that only looks at the picture.
func encode(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	return true, p.Encode()
}

// segment(id, prompts, threshold) → [{text, score, present}, …]
// A threshold that is not a number means the model's own.
func segment(args []js.Value) (any, error) {
	p, err := pictureOf(args[0])
	if err != nil {
		return nil, err
	}
	prompts := make([]string, args[1].Length())
	for i := range prompts {
		prompts[i] = args[1].Index(i).String()
	}
	var opt model.Options
	if t := args[2]; t.Type() == js.TypeNumber {
		opt.Threshold = float32(t.Float())
	}
	if p.result != nil {
		p.result.Release()
	}
	p.result, err = p.Segment(prompts, opt)
	if err != nil {
		return nil, err
	}
	answers := make([]any, len(p.result.Prompts))
	for i, a := range p.result.Prompts {
		answers[i] = map[string]any{"text": a.Text, "score": a.Score, "present": a.Present}
	}
	return answers, nil
}

// mask(id, index, dst Uint8Array) writes one byte a pixel, row by row, 1 where the
// mask is.
func mask(args []js.Value) (any, error) {
	return copyResult(args[0], args[2], func(r *model.Result, b []byte) error { return r.Mask(args[1].Int(), b) })
}

// labels(id, dst Uint8Array) writes the number of the strongest prompt for each
// pixel, 255 where there is none.
func labels(args []js.Value) (any, error) {
	return copyResult(args[0], args[1], (*model.Result).LabelMap)
}

// copyResult brings one byte a pixel of a picture's last result to JavaScript.
func copyResult(id, dst js.Value, write func(r *model.Result, b []byte) error) (any, error) {
	p, err := pictureOf(id)
	if err != nil {
		return nil, err
	}
	if p.result == nil {
		return nil, errNoResult
	}
	b := p.buffer(p.size())
	if err := write(p.result, b); err != nil {
		return nil, err
	}
	js.CopyBytesToJS(dst, b)
	return true, nil
}

// close(id) gives back what a picture holds; closing twice is no error.
func closePicture(args []js.Value) (any, error) {
	if p := pictures[args[0].Int()]; p != nil {
		delete(pictures, args[0].Int())
		p.Close()
	}
	return true, nil
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, x := range b {
		out = append(out, digits[x>>4], digits[x&15])
	}
	return string(out)
}
