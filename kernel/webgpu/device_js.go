//go:build js

package webgpu

import (
	"errors"
	"strconv"
	"syscall/js"
	"time"

	"github.com/pmp-seg/pmp/kernel"
)

// Errors of their own kind. All but the last two can only come from New.
var (
	// ErrNoWebGPU says that the browser has no WebGPU, or not here.
	ErrNoWebGPU = errors.New("this browser has no WebGPU here; it needs a secure page (https or localhost)")
	// ErrNoAdapter says that the browser has no card for us.
	ErrNoAdapter = errors.New("the browser offers no graphics card to WebGPU")
	// ErrNoDevice says that the card was refused.
	ErrNoDevice = errors.New("the browser did not let us use the graphics card")
	// ErrLost says that the card went away: it was reset, or taken from the
	// page. The device is of no use any more; a new one may be.
	ErrLost = errors.New("the graphics card was lost")
	// ErrUnsupported says that Open met an op that has no shader in its shape:
	// attention whose heads have more than 64 channels.
	ErrUnsupported = errors.New("the kernels for graphics cards cannot compute this network; take another device")
)

// Options choose among cards and what is used of one. The zero Options take
// what is best.
type Options struct {
	// Adapter is a GPUAdapter; if it is not set, the browser chooses one.
	Adapter js.Value
	// Limits are asked for instead of what the adapter has, for tests.
	Limits map[string]int
	// NoDot does without the language's product of four bytes.
	NoDot bool
	// NoSubgroups does without exchange between neighbouring invocations.
	NoSubgroups bool
	// Half lets the card round operands of float32 products to halves, if it has
	// those, and keep what only attention reads, as keys and values, as such;
	// sums stay float32. The host must not read those keys and values then.
	Half bool
	// Tuning is what Device.Tune found on this card before. What is no tuning, or
	// none for this card, counts as none.
	Tuning string
	// Timestamps lets Session.Profile measure, if the card can.
	Timestamps bool
}

// wanted are the limits that large pictures need: an arena is one buffer and
// one binding. All else keeps to the defaults, which every card has.
var wanted = [...]string{"maxBufferSize", "maxStorageBufferBindingSize"}

// Device is a kernel.Device on a graphics card. Load, Open and Session.Read
// wait for the browser, so they must not be called within a call from
// JavaScript: start a goroutine there.
type Device struct {
	gpu, queue js.Value
	maxBuffer  int // bytes
	maxBinding int // bytes
	card       card
	layout     js.Value // of the only bind group
	pipelines  js.Value // their layout
	modules    map[string]js.Value
	made       map[string]js.Value // pipelines by module and settings

	constants     js.Value
	constantsSize int
	sessions      []*Session
	closed        bool
	lost, failure string // what the browser said

	bytes    js.Value // a Uint8Array on the way in
	stagings []staging
	fetched  []fetched // since the last Wait
	encoder  js.Value  // of commands that are not submitted yet, or undefined
	drawing  drawing
	showing  drawing
	clock    clock
	one      js.Value // an array for the one command buffer that is submitted
	shift    uint32   // words by which arenas are shifted, for tests
	name     string
	software bool

	promises waiter
	funcs    []js.Func

	createEncoder, submit, writeBuffer bound
	beginPass, finish                  unbound
	copyBuffer, resolve                unbound
	setPipeline, setBindGroup          unbound
	dispatch, end                      unbound
}

// bound is a method of an object. Calling it is several times cheaper than
// js.Value.Call, which looks the method up.
type bound js.Value

func bind(v js.Value, method string) bound { return bound(v.Get(method).Call("bind", v)) }

func (b bound) call(args ...any) js.Value { return js.Value(b).Invoke(args...) }

// unbound is a method of objects that come and go: the first argument is the
// object.
type unbound js.Value

func method(class, name string) unbound {
	f := js.Global().Get(class).Get("prototype").Get(name)
	return unbound(js.Global().Get("Function").Get("prototype").Get("call").Call("bind", f))
}

func (u unbound) call(args ...any) js.Value { return js.Value(u).Invoke(args...) }

// waiter waits for promises, one at a time.
type waiter struct {
	settled         chan settled
	resolve, reject js.Func
}

type settled struct {
	value js.Value
	ok    bool
}

func newWaiter() waiter {
	w := waiter{settled: make(chan settled, 1)}
	first := func(args []js.Value) js.Value {
		if len(args) == 0 {
			return js.Undefined()
		}
		return args[0]
	}
	w.resolve = js.FuncOf(func(_ js.Value, args []js.Value) any { w.settle(first(args), true); return nil })
	w.reject = js.FuncOf(func(_ js.Value, args []js.Value) any { w.settle(first(args), false); return nil })
	return w
}

// settle ends a wait. It never blocks, since JavaScript calls it.
func (w waiter) settle(v js.Value, ok bool) {
	select {
	case w.settled <- settled{v, ok}:
	default:
	}
}

func (w waiter) wait(promise js.Value) (v js.Value, ok bool) {
	promise.Call("then", w.resolve, w.reject)
	s := <-w.settled
	return s.value, s.ok
}

func (w waiter) release() {
	w.resolve.Release()
	w.reject.Release()
}

// New asks the browser for a card and takes it.
func New(o Options) (d *Device, err error) {
	navigator := js.Global().Get("navigator")
	if !navigator.Truthy() || !navigator.Get("gpu").Truthy() {
		return nil, ErrNoWebGPU
	}
	gpu := navigator.Get("gpu")
	promises := newWaiter()
	defer func() {
		if err != nil {
			promises.release()
		}
	}()
	d = &Device{modules: map[string]js.Value{}, made: map[string]js.Value{}, promises: promises}
	adapter := o.Adapter
	if !adapter.Truthy() {
		options := map[string]any{"powerPreference": "high-performance"}
		if a, ok := d.promises.wait(gpu.Call("requestAdapter", options)); ok {
			adapter = a
		}
	}
	if !adapter.Truthy() {
		return nil, ErrNoAdapter
	}
	limits := map[string]any{}
	if o.Limits != nil {
		for name, n := range o.Limits {
			limits[name] = n
		}
	} else {
		for _, name := range wanted {
			limits[name] = adapter.Get("limits").Get(name)
		}
	}
	features := []any{}
	feature := func(name string, wanted bool) bool {
		wanted = wanted && adapter.Get("features").Call("has", name).Bool()
		if wanted {
			features = append(features, name)
		}
		return wanted
	}
	feature(timestamps, o.Timestamps)
	grouped := feature("subgroups", !o.NoSubgroups)
	d.card.half = feature("shader-f16", o.Half)
	d.card.halves = d.card.half
	wants := map[string]any{"requiredLimits": limits, "requiredFeatures": features}
	device, ok := d.promises.wait(adapter.Call("requestDevice", wants))
	if !ok {
		return nil, ErrNoDevice
	}
	d.gpu, d.queue = device, device.Get("queue")
	has := gpu.Get("wgslLanguageFeatures")
	d.card.dot = !o.NoDot && has.Truthy() && has.Call("has", "packed_4x8_integer_dot_product").Bool()
	d.maxBuffer = min(device.Get("limits").Get(wanted[0]).Int(), constantsAt-arenaAt)
	d.maxBinding = min(device.Get("limits").Get(wanted[1]).Int(), d.maxBuffer)
	d.name = "webgpu"
	if info := adapter.Get("info"); info.Truthy() {
		if vendor := info.Get("vendor").String(); vendor != "" {
			d.name += " (" + vendor + " " + info.Get("architecture").String() + ")"
		}
		d.software = info.Get("isFallbackAdapter").Truthy()
	}
	d.watch()
	d.prepare()
	if err := d.clock.start(d); err != nil {
		d.Close()
		return nil, err
	}
	if t, ok := ParseTuning(o.Tuning); ok && t.fits(d.limits()) {
		d.card.tuning = t
	}
	if grouped {
		d.card.shuffled = d.exchanging(adapter.Get("info"))
	}
	return d, nil
}

// watch notes what happens to the device by itself. The last that happens is
// that it is lost, by Close if nothing else.
func (d *Device) watch() {
	lost := js.FuncOf(func(_ js.Value, args []js.Value) any {
		d.lost = args[0].Get("reason").String() + ": " + args[0].Get("message").String()
		d.promises.settle(js.Undefined(), false) // nobody must wait for a card that is gone
		for _, f := range d.funcs {
			f.Release()
		}
		return nil
	})
	failed := js.FuncOf(func(_ js.Value, args []js.Value) any {
		if d.failure == "" {
			d.failure = args[0].Get("error").Get("message").String()
		}
		return nil
	})
	d.gpu.Get("lost").Call("then", lost)
	d.gpu.Call("addEventListener", "uncapturederror", failed)
	d.funcs = append(d.funcs, lost, failed)
}

// prepare makes what all programs share.
func (d *Device) prepare() {
	const compute = 4 // GPUShaderStage.COMPUTE
	entry := func(binding int, layout map[string]any) any {
		return map[string]any{"binding": binding, "visibility": compute, "buffer": layout}
	}
	d.layout = d.gpu.Call("createBindGroupLayout", map[string]any{"entries": []any{
		entry(0, map[string]any{"type": "storage"}),
		entry(1, map[string]any{"type": "read-only-storage"}),
		entry(2, map[string]any{"type": "uniform", "hasDynamicOffset": true, "minBindingSize": 4 * opWords}),
	}})
	d.pipelines = d.gpu.Call("createPipelineLayout", map[string]any{"bindGroupLayouts": []any{d.layout}})
	d.one = js.Global().Get("Array").New(1)
	d.createEncoder, d.submit, d.writeBuffer = bind(d.gpu, "createCommandEncoder"), bind(d.queue, "submit"), bind(d.queue, "writeBuffer")
	const encoder, pass = "GPUCommandEncoder", "GPUComputePassEncoder"
	d.beginPass, d.finish, d.copyBuffer = method(encoder, "beginComputePass"), method(encoder, "finish"), method(encoder, "copyBufferToBuffer")
	d.resolve = method(encoder, "resolveQuerySet")
	d.setPipeline, d.setBindGroup = method(pass, "setPipeline"), method(pass, "setBindGroup")
	d.dispatch, d.end = method(pass, "dispatchWorkgroups"), method(pass, "end")
}

// Name tells the device from others in reports.
func (d *Device) Name() string { return d.name }

// Features are what the device uses of what not all cards have, and its tuning.
func (d *Device) Features() []string {
	var list []string
	for _, f := range []struct {
		has  bool
		name string
	}{
		{d.card.half, "shader-f16"}, {d.card.shuffled > 0, "subgroups"}, {d.card.dot, "packed_4x8_integer_dot_product"}, {d.clock.words != nil, timestamps},
	} {
		if f.has {
			list = append(list, f.name)
		}
	}
	return append(list, "tuning "+d.Tuning().String())
}

// Tuning is what the device is tuned to.
func (d *Device) Tuning() Tuning { return d.card.tuning.or() }

// Software tells whether the card is a program on the CPU, which is far
// slower than the other devices.
func (d *Device) Software() bool { return d.software }

// state is the error that the device is in.
func (d *Device) state() error {
	switch {
	case d.closed:
		return kernel.ErrClosed
	case d.lost != "":
		return &deviceError{ErrLost, d.lost}
	case d.failure != "":
		return &deviceError{errFailed, d.failure}
	}
	return nil
}

// errFailed can only come from a bug of ours, or of a browser.
var errFailed = errors.New("the graphics card refused a command")

// deviceError is an error with what the browser said.
type deviceError struct {
	kind    error
	message string
}

// messageOf is what an error of JavaScript says.
func messageOf(e js.Value) string {
	if !e.Truthy() {
		return "no reason given"
	}
	return e.Get("message").String()
}

func (e *deviceError) Error() string { return e.kind.Error() + " (" + e.message + ")" }
func (e *deviceError) Unwrap() error { return e.kind }

// Usages of buffers.
const (
	usageMapRead = 1
	usageCopySrc = 4
	usageCopyDst = 8
	usageUniform = 64
	usageStorage = 128
)

// smallest is the size of a buffer that has nothing to hold, so that it can be
// bound.
const smallest = 256

// want is a buffer that is needed.
type want struct {
	buffer      *js.Value
	size, usage int
}

// create makes buffers, zeroed, or says that there is no memory for them.
func (d *Device) create(all ...want) error {
	for _, w := range all {
		if w.size > d.maxBuffer {
			return kernel.ErrMemory
		}
	}
	d.gpu.Call("pushErrorScope", "out-of-memory")
	for _, w := range all {
		*w.buffer = d.gpu.Call("createBuffer", map[string]any{"size": max(w.size, smallest), "usage": w.usage})
	}
	e, ok := d.promises.wait(d.gpu.Call("popErrorScope"))
	err := d.state()
	if err == nil && (!ok || e.Truthy()) {
		err = kernel.ErrMemory
	}
	if err != nil {
		for _, w := range all {
			w.buffer.Call("destroy")
			*w.buffer = js.Undefined()
		}
	}
	return err
}

// room is a Uint8Array of at least n bytes, a multiple of 4.
func (d *Device) room(n int) js.Value {
	if d.bytes.IsUndefined() || d.bytes.Length() < n {
		d.bytes = js.Global().Get("Uint8Array").New(n)
	}
	return d.bytes
}

// piece is how much is written at a time, so that what is kept for it stays
// small.
const piece = 1 << 22

// write copies data to a buffer; both sizes are multiples of 4 but for the
// last bytes, which are filled up with zeros.
func (d *Device) write(buffer js.Value, at int, data []byte) {
	for len(data) > 0 {
		n := min(len(data), piece)
		whole := (n + 3) &^ 3
		bytes := d.room(whole)
		js.CopyBytesToJS(bytes, data[:n])
		for i := n; i < whole; i++ {
			bytes.SetIndex(i, 0)
		}
		d.writeBuffer.call(buffer, at, bytes, 0, whole)
		at, data = at+n, data[n:]
	}
}

// Load makes a buffer of the constants.
func (d *Device) Load(c *kernel.Constants) error {
	if err := d.state(); err != nil {
		return err
	}
	if c.Size() == 0 {
		return nil
	}
	if err := d.create(want{&d.constants, c.Size(), usageStorage | usageCopyDst}); err != nil {
		return err
	}
	d.constantsSize = c.Size()
	return c.Each(func(offset int, data []byte) error {
		if c.Size() > d.maxBinding && len(data) > quarter(d.maxBinding) {
			return kernel.ErrMemory // see window
		}
		d.write(d.constants, offset, data)
		return d.state()
	})
}

// paramsSize is the distance of ops in the buffer of their words: no card
// needs dynamic offsets to be multiples of more.
const paramsSize = 256

// Open makes a program's buffers, compiles what it needs and writes down the
// calls of each stage.
func (d *Device) Open(p *kernel.Program) (kernel.Session, error) {
	if err := d.state(); err != nil {
		return nil, err
	}
	if p.ArenaSize() > d.maxBinding {
		return nil, kernel.ErrMemory
	}
	s := &Session{device: d, program: p, stages: make([]stage, p.Stages())}
	// Where what an op's parts leave for each other lies: behind the arena.
	scratch := d.shift + uint32(p.ArenaSize()+63)/64*16
	size := 4 * int(scratch)
	var params []byte
	var offsets []uint32
	ops := make([][]op, len(s.stages))
	for i := range ops {
		ops[i] = decode(p.Records(i, constantsAt, arenaAt), d.shift)
	}
	if d.card.halves {
		halve(ops)
	}
	for i := range s.stages {
		for _, o := range ops[i] {
			parts, words := o.expand(scratch)
			size = max(size, 4*(int(scratch)+words))
			for j := range parts {
				part := 0
				if d.constantsSize > d.maxBinding {
					part = parts[j].window(d.maxBinding)
				}
				dispatch := parts[j].lay(&d.card)
				if dispatch.groups == 0 {
					return nil, ErrUnsupported
				}
				s.stages[i].add(&parts[j], step{d.pipeline(dispatch), part, len(offsets), dispatch.groups})
				offsets = append(offsets, uint32(len(params)))
				for _, w := range parts[j].words() {
					params = append(params, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
				}
				params = append(params, make([]byte, paramsSize-4*opWords)...)
			}
		}
	}
	if size > d.maxBinding {
		return nil, kernel.ErrMemory
	}
	if err := s.allocate(size, params, offsets); err != nil {
		s.destroy()
		return nil, err
	}
	d.sessions = append(d.sessions, s)
	return s, nil
}

// pipeline starts to make a pipeline, unless it was made before, and returns
// its name in made.
func (d *Device) pipeline(p dispatch) string {
	settings := map[string]any{}
	name := p.module
	for _, s := range p.settings {
		settings[s.name] = s.value
		name += " " + s.name + strconv.Itoa(s.value)
	}
	if _, ok := d.made[name]; ok {
		return name
	}
	module, ok := d.modules[p.module]
	if !ok {
		module = d.gpu.Call("createShaderModule", map[string]any{"code": code(p.module), "label": p.module})
		d.modules[p.module] = module
	}
	// Compiled side by side; allocate waits for them.
	d.made[name] = d.gpu.Call("createComputePipelineAsync", map[string]any{"layout": d.pipelines, "label": name,
		"compute": map[string]any{"module": module, "constants": settings}})
	return name
}

// Session is a program on the card.
type Session struct {
	device        *Device
	program       *kernel.Program
	arena, params js.Value
	stages        []stage
	closed        bool
}

// stage is the ops of a stage, and then the calls that run them.
type stage struct {
	steps  []step
	calls  []call
	counts Counts
	took   time.Duration // see clock
}

type step struct {
	pipeline string
	part     int // of the constants
	index    int // among all ops
	groups   int
}

// call is a call of a method of the pass, which is its first argument.
type call struct {
	method js.Value
	args   []any
}

func (s *Session) allocate(size int, params []byte, offsets []uint32) error {
	d := s.device
	all := []want{{&s.arena, size, usageStorage | usageCopySrc | usageCopyDst}, {&s.params, len(params), usageUniform | usageCopyDst}}
	if d.constants.IsUndefined() { // something must be bound
		all = append(all, want{&d.constants, 0, usageStorage | usageCopyDst})
	}
	if err := d.create(all...); err != nil {
		return err
	}
	d.write(s.params, 0, params)
	s.program.Initial(func(address int, data []byte) { d.write(s.arena, address+4*int(d.shift), data) })
	var groups []js.Value // by part of the constants
	whole := max(d.constantsSize, smallest)
	for offset := 0; offset == 0 || offset < d.constantsSize && whole > d.maxBinding; offset += quarter(d.maxBinding) {
		groups = append(groups, d.gpu.Call("createBindGroup", map[string]any{"layout": d.layout, "entries": []any{
			map[string]any{"binding": 0, "resource": map[string]any{"buffer": s.arena}},
			map[string]any{"binding": 1, "resource": map[string]any{"buffer": d.constants, "offset": offset, "size": min(d.maxBinding, whole-offset)}},
			map[string]any{"binding": 2, "resource": map[string]any{"buffer": s.params, "size": 4 * opWords}},
		}}))
	}
	at := js.Global().Get("Uint32Array").New(len(offsets))
	for i, o := range offsets {
		at.SetIndex(i, int(o))
	}
	for i := range s.stages {
		st := &s.stages[i]
		last := ""
		for _, step := range st.steps {
			if step.pipeline != last {
				pipeline, err := d.compiled(step.pipeline)
				if err != nil {
					return err
				}
				st.calls = append(st.calls, call{js.Value(d.setPipeline), []any{nil, pipeline}})
				last = step.pipeline
			}
			x, y := fold(step.groups)
			st.calls = append(st.calls, call{js.Value(d.setBindGroup), []any{nil, 0, groups[step.part], at, step.index, 1}},
				call{js.Value(d.dispatch), []any{nil, x, y}})
		}
	}
	return d.state()
}

// compiled waits for a pipeline.
func (d *Device) compiled(key string) (js.Value, error) {
	v := d.made[key]
	if !v.InstanceOf(js.Global().Get("Promise")) {
		return v, nil
	}
	pipeline, ok := d.promises.wait(v)
	if !ok {
		delete(d.made, key)
		if err := d.state(); err != nil {
			return js.Value{}, err
		}
		return js.Value{}, &deviceError{errFailed, key + ": " + messageOf(pipeline)}
	}
	d.made[key] = pipeline
	return pipeline, nil
}

// state is the error that the session is in.
func (s *Session) state() error {
	if s.closed {
		return kernel.ErrClosed
	}
	return s.device.state()
}

// Address is where v lies in the session's buffer.
func (s *Session) Address(v kernel.View) int { return s.program.Address(v, 0, 4*int(s.device.shift)) }

// Write copies data to v.
func (s *Session) Write(v kernel.View, data []byte) error {
	if err := s.state(); err != nil {
		return err
	}
	size := s.program.Size(v)
	if len(data) > size {
		panic("kernel/webgpu: Write beyond the end of the buffer")
	}
	s.device.flush()
	if rest := len(data) % 4; rest != 0 && len(data) < size {
		// The card writes whole words, and the last one has bytes that stay.
		var word [4]byte
		start := len(data) - rest
		if err := s.Read(v.At(start/4), word[:]); err != nil {
			return err
		}
		copy(word[:], data[start:])
		s.device.write(s.arena, s.Address(v)+start, word[:])
		data = data[:start]
	}
	s.device.write(s.arena, s.Address(v), data)
	return nil
}

// Run adds the commands of a stage to those that Wait will send, or the next
// Write, which must not overtake them.
func (s *Session) Run(stage int) error {
	if err := s.state(); err != nil {
		return err
	}
	d := s.device
	var pass any = d.beginPass.call(d.commands(), d.clock.pass(s, stage))
	calls := s.stages[stage].calls
	for i := range calls {
		c := &calls[i]
		c.args[0] = pass
		c.method.Invoke(c.args...)
	}
	d.end.call(pass)
	return nil
}

// commands is the encoder that commands are added to.
func (d *Device) commands() js.Value {
	if d.encoder.IsUndefined() {
		d.encoder = d.createEncoder.call()
	}
	return d.encoder
}

// flush sends all commands to the card.
func (d *Device) flush() {
	if d.encoder.IsUndefined() {
		return
	}
	d.one.SetIndex(0, d.finish.call(d.encoder))
	d.encoder = js.Undefined()
	d.submit.call(d.one)
	d.one.SetIndex(0, nil)
}

// staging is a buffer on the way out. What is fetched lies there one after the
// other.
type staging struct {
	buffer     js.Value
	size, used int
}

// fetched is where data will come from.
type fetched struct {
	staging, at int
	data        []byte
}

// Fetch adds a copy of v to the commands.
func (s *Session) Fetch(v kernel.View, data []byte) error {
	if err := s.state(); err != nil {
		return err
	}
	if len(data) > s.program.Size(v) {
		panic("kernel/webgpu: Fetch beyond the end of the buffer")
	}
	return s.device.fetch(s.arena, s.Address(v), data)
}

func (d *Device) fetch(from js.Value, address int, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	size := (len(data) + 3) &^ 3
	last := len(d.stagings) - 1
	if last < 0 || d.stagings[last].size-d.stagings[last].used < size {
		next := staging{size: size}
		if last >= 0 {
			next.size = max(size, min(2*d.stagings[last].size, d.maxBuffer))
		}
		if err := d.create(want{&next.buffer, next.size, usageMapRead | usageCopyDst}); err != nil {
			return err
		}
		d.stagings = append(d.stagings, next)
		last++
	}
	to := &d.stagings[last]
	d.copyBuffer.call(d.commands(), from, address, to.buffer, to.used, size)
	d.fetched = append(d.fetched, fetched{last, to.used, data})
	to.used += (size + 7) &^ 7 // where a mapping may start
	return nil
}

// Wait sends what is not sent yet, and waits for it.
func (s *Session) Wait() error {
	if err := s.state(); err != nil {
		return err
	}
	return s.device.wait()
}

// wait leaves one empty staging buffer, the last and largest.
func (d *Device) wait() error {
	if err := d.clock.fetch(d); err != nil {
		return err
	}
	d.flush()
	waiting := d.fetched
	d.fetched = d.fetched[:0]
	if len(waiting) == 0 {
		if _, ok := d.promises.wait(d.queue.Call("onSubmittedWorkDone")); !ok {
			return d.lostError(js.Undefined())
		}
		return d.state()
	}
	const read = 1 // GPUMapMode.READ
	for i := range d.stagings {
		from := &d.stagings[i]
		if from.used == 0 {
			continue
		}
		used := from.used
		from.used = 0
		if e, ok := d.promises.wait(from.buffer.Call("mapAsync", read, 0, min(used, from.size))); !ok {
			return d.lostError(e)
		}
		all := js.Global().Get("Uint8Array").New(from.buffer.Call("getMappedRange", 0, min(used, from.size)))
		for _, f := range waiting {
			if f.staging == i {
				js.CopyBytesToGo(f.data, all.Call("subarray", f.at, f.at+len(f.data)))
			}
		}
		from.buffer.Call("unmap")
	}
	if last := len(d.stagings) - 1; last > 0 {
		for _, old := range d.stagings[:last] {
			old.buffer.Call("destroy")
		}
		d.stagings = append(d.stagings[:0], d.stagings[last])
	}
	d.clock.read()
	return d.state()
}

// lostError is what a promise that was rejected with e means.
func (d *Device) lostError(e js.Value) error {
	if err := d.state(); err != nil {
		return err
	}
	// A card that is lost rejects promises before it says so.
	promise := js.Global().Get("Promise")
	if lost, ok := d.promises.wait(promise.Call("race", []any{d.gpu.Get("lost"), promise.Call("resolve", nil)})); ok && lost.Truthy() {
		return &deviceError{ErrLost, lost.Get("message").String()}
	}
	if err := d.state(); err != nil {
		return err
	}
	return &deviceError{errFailed, messageOf(e)}
}

// Read waits until all that was run has ended, and copies from v.
func (s *Session) Read(v kernel.View, data []byte) error {
	if err := s.Fetch(v, data); err != nil {
		return err
	}
	return s.device.wait()
}

// destroy frees what the session has on the card.
func (s *Session) destroy() {
	for _, buffer := range []js.Value{s.arena, s.params} {
		if buffer.Truthy() {
			buffer.Call("destroy")
		}
	}
	s.arena, s.params, s.stages = js.Undefined(), js.Undefined(), nil
}

// Close frees the session's memory. Closing again does nothing.
func (s *Session) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.destroy()
	d := s.device
	for i, other := range d.sessions {
		if other == s {
			d.sessions = append(d.sessions[:i], d.sessions[i+1:]...)
			break
		}
	}
	return nil
}

// Close frees the card. Closing again does nothing.
func (d *Device) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	for _, s := range d.sessions {
		s.closed = true
		s.destroy()
	}
	d.sessions = nil
	d.gpu.Call("destroy")
	d.modules, d.made, d.constants, d.bytes, d.encoder = nil, nil, js.Undefined(), js.Undefined(), js.Undefined()
	d.stagings, d.fetched = nil, nil
	d.drawing, d.showing = drawing{}, drawing{}
	return nil
}
