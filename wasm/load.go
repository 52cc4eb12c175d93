//go:build js && wasm

package main

import (
	"errors"
	"runtime"
	"runtime/debug"
	"syscall/js"
	"time"

	"github.com/pmp-seg/pmp/internal/choose"
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/kernel/webgpu"
	"github.com/pmp-seg/pmp/model"
)

var (
	errPrecision = errors.New("there is no such precision; take \"int8\" or \"f32\"")
	errNoSIMD    = errors.New("this browser cannot run the SIMD kernels; take device \"auto\"")
	errNoCard    = errors.New("the graphics card cannot be used")
)

// tuneTime is how long the shapes of a card's kernels may be tried out.
const tuneTime = 400 * time.Millisecond

// load("auto" | "cpu" | "webgpu" | "simd" | "scalar", {precision, adapter, noCard,
// remembered, pool}) → {device, precision, threads, reasons: [{device, reason}],
// labels, memory, features, remember} brings the weights to a device and says why
// other devices were not taken. Precision is "int8", "f32" or absent. Labels are
// all that the network can name, or null if it takes any words. Adapter is a GPUAdapter, or null
// and noCard says why there is none. Remembered is what an earlier load gave to
// remember of this adapter, or null. Pool() promises the pool of threads that
// startThreads (js/threads.js) made, or null. Memory is the device's
// WebAssembly.Memory if it has one, features what is used of a card.
func load(args []js.Value) (any, error) {
	if manifest == nil {
		return nil, errNoManifest
	}
	if err := manifest.Complete(); err != nil {
		return nil, err
	}
	l := &loading{want: args[0].String(), options: args[1]}
	var ok bool
	precision := ""
	if p := l.options.Get("precision"); p.Truthy() {
		precision = p.String()
	}
	if l.precision, ok = model.PrecisionOf(precision, manifest.Arch); !ok {
		return nil, errPrecision
	}
	unload()
	// A browser never gets memory back from Go, so what loading leaves behind is
	// collected early. Afterwards the files themselves are garbage, and there is
	// room for long.
	usual := debug.SetGCPercent(10)
	m, err := l.choose()
	debug.SetGCPercent(usual)
	if err != nil {
		return nil, err
	}
	engine, manifest = m, nil
	runtime.GC()
	out := map[string]any{"device": m.Device().Name(), "precision": l.precision.String(), "threads": 1, "reasons": l.reasons, "labels": nil}
	if m.Labels != nil {
		out["labels"] = texts(m.Labels)
	}
	if l.remember != nil {
		out["remember"] = l.remember
	}
	switch d := m.Device().(type) {
	case *simd.Device:
		out["memory"], out["threads"] = d.Memory(), d.Threads()
	case *webgpu.Device:
		out["features"] = texts(d.Features())
	}
	return out, nil
}

func texts(all []string) any {
	var list []any
	for _, s := range all {
		list = append(list, s)
	}
	return list
}

// loading is one load.
type loading struct {
	want      string
	options   js.Value
	precision model.Precision
	reasons   []any
	remember  map[string]any
}

// no notes why a device was not taken.
func (l *loading) no(device, reason string) {
	l.reasons = append(l.reasons, map[string]any{"device": device, "reason": reason})
}

// remembered is one of the facts that an earlier load gave to remember, or empty.
func (l *loading) remembered(fact string) string {
	if r := l.options.Get("remembered"); r.Truthy() && r.Get(fact).Type() == js.TypeString {
		return r.Get(fact).String()
	}
	return ""
}

// choose loads the device that is to run. The card is taken unasked only if a
// trial was right and not slower than the processor's.
func (l *loading) choose() (*model.Model, error) {
	card, reason, err := l.card()
	if err != nil {
		return nil, err
	}
	if card == nil {
		l.no("webgpu", reason)
		return l.cpu()
	}
	tuning := card.Device().(*webgpu.Device).Tuning().String()
	if l.want == "webgpu" {
		l.no("simd", "the page asked for device \"webgpu\"")
		if l.remembered("tuning") == "" {
			l.remember = map[string]any{"tuning": tuning}
		}
		return card, nil
	}
	if l.remembered("device") == "webgpu" {
		// It was the faster one, but it must work today, too.
		if _, err = choose.Run(card, 1); err == nil {
			l.no("simd", l.remembered("reason")+" (measured earlier)")
			return card, nil
		}
		card.Close()
		l.no("webgpu", err.Error())
		return l.cpu()
	}
	cpu, err := l.cpu()
	if err != nil {
		card.Close()
		return nil, err
	}
	yes, reason, err := l.compare(card, cpu)
	if yes {
		cpu.Close()
		l.reasons = nil
		l.no("simd", reason)
		l.remember = map[string]any{"device": "webgpu", "reason": reason, "tuning": tuning}
		return card, nil
	}
	card.Close()
	if err != nil {
		reason = err.Error()
	}
	l.no("webgpu", reason)
	if !errors.Is(err, webgpu.ErrLost) { // which may be another time's fault
		l.remember = map[string]any{"device": "cpu", "reason": reason, "tuning": tuning}
	}
	return cpu, nil
}

// compare tries both devices.
func (l *loading) compare(card, cpu *model.Model) (yes bool, why string, err error) {
	c, err := choose.Run(card, choose.Rounds)
	if err != nil {
		return false, "", err
	}
	p, err := choose.Run(cpu, choose.Rounds)
	if err != nil {
		return false, "", err
	}
	return choose.Card(c, p)
}

// card loads the graphics card, or says why it is not to be tried.
func (l *loading) card() (m *model.Model, reason string, err error) {
	wanted := l.want == "webgpu"
	if l.want != "auto" && !wanted {
		if l.want == "cpu" {
			return nil, "the graphics card was lost", nil
		}
		return nil, "the page asked for device \"" + l.want + "\"", nil
	}
	adapter := l.options.Get("adapter")
	if !adapter.Truthy() {
		reason = l.options.Get("noCard").String()
		if wanted {
			return nil, "", cardError(errors.New(reason))
		}
		return nil, reason, nil
	}
	if l.remembered("device") == "cpu" && !wanted {
		return nil, l.remembered("reason") + " (measured earlier)", nil
	}
	o := webgpu.Options{Adapter: adapter, Timestamps: true, Half: l.precision == model.Int8, Tuning: l.remembered("tuning")}
	d, err := webgpu.New(o)
	if err == nil && d.Software() && !wanted {
		d.Close()
		return nil, "this browser's graphics card is a program on the processor, which is far slower than the SIMD kernels", nil
	}
	if err == nil && o.Tuning == "" && !d.Software() {
		_, err = d.Tune(tuneTime)
	}
	if err == nil {
		if m, err = build(d, l.precision); err == nil {
			return m, "", nil
		}
	}
	if d != nil {
		d.Close()
	}
	if wanted {
		return nil, "", cardError(err)
	}
	return nil, err.Error(), nil
}

// cardFailed is errNoCard with its reason.
type cardFailed struct{ cause error }

func cardError(cause error) error { return &cardFailed{cause} }
func (e *cardFailed) Error() string {
	return errNoCard.Error() + ": " + e.cause.Error() + ". Take device \"auto\"."
}
func (e *cardFailed) Unwrap() []error { return []error{errNoCard, e.cause} }

// cpu loads the SIMD kernels, or pure Go where they do not run.
func (l *loading) cpu() (*model.Model, error) {
	var dev kernel.Device = scalar.New()
	if l.want == "scalar" {
		l.no("simd", "the page asked for device \"scalar\"")
	} else if d, err := newSIMD(l.options.Get("pool")); err == nil {
		dev = d
		l.no("scalar", "it is only for browsers without SIMD, which is many times faster")
	} else if l.want == "simd" {
		return nil, errNoSIMD
	} else {
		l.no("simd", err.Error())
	}
	m, err := build(dev, l.precision)
	if err != nil {
		dev.Close()
	}
	return m, err
}

func newSIMD(pool js.Value) (*simd.Device, error) {
	if p := await(pool.Invoke()); p.Truthy() {
		return simd.NewThreads(simd.Auto, p)
	}
	return simd.New()
}

// await waits for a promise that is never rejected.
func await(promise js.Value) js.Value {
	done := make(chan js.Value, 1)
	then := js.FuncOf(func(_ js.Value, args []js.Value) any {
		done <- args[0]
		return nil
	})
	defer then.Release()
	promise.Call("then", then)
	return <-done
}
