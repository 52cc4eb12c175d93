//go:build js

package webgpu

import (
	"errors"
	"syscall/js"
)

// timestamps is the feature that Profile needs.
const timestamps = "timestamp-query"

// ErrNoTimestamps says that the card cannot measure, or was not asked to.
var ErrNoTimestamps = errors.New("this graphics card has no timestamps, or Options.Timestamps was not set")

// Timing is one dispatch of a stage.
type Timing struct {
	Name   string // the files of its module and its settings
	Groups int    // of invocations
	Nanos  int64
}

// Profile runs a stage with each dispatch in a pass of its own and tells how
// long each took on the card. Browsers round these times, most to 100 µs
// unless told otherwise, and passes of their own take longer.
func (s *Session) Profile(stage int) ([]Timing, error) {
	if err := s.state(); err != nil {
		return nil, err
	}
	d := s.device
	if !d.gpu.Get("features").Call("has", timestamps).Bool() {
		return nil, ErrNoTimestamps
	}
	const (
		usageQueryResolve = 512
		most              = 2048 // dispatches, half of what a query set holds
	)
	st := &s.stages[stage]
	n := len(st.steps)
	if n > most {
		panic("kernel/webgpu: a stage of too many dispatches to measure")
	}
	queries := d.gpu.Call("createQuerySet", map[string]any{"type": "timestamp", "count": 2 * n})
	defer queries.Call("destroy")
	var resolved, staging js.Value
	if err := d.create(want{&resolved, 16 * n, usageQueryResolve | usageCopySrc}, want{&staging, 16 * n, usageMapRead | usageCopyDst}); err != nil {
		return nil, err
	}
	defer resolved.Call("destroy")
	defer staging.Call("destroy")

	encoder := d.createEncoder.call()
	timings := make([]Timing, 0, n)
	var pass js.Value
	open := false
	for _, c := range st.calls {
		if !open {
			i := len(timings)
			pass, open = encoder.Call("beginComputePass", map[string]any{"timestampWrites": map[string]any{
				"querySet": queries, "beginningOfPassWriteIndex": 2 * i, "endOfPassWriteIndex": 2*i + 1}}), true
			// A pass starts without a pipeline.
			d.setPipeline.call(pass, d.made[st.steps[i].pipeline])
		}
		c.args[0] = pass
		c.method.Invoke(c.args...)
		if c.method.Equal(js.Value(d.dispatch)) {
			d.end.call(pass)
			open = false
			step := st.steps[len(timings)]
			timings = append(timings, Timing{Name: step.pipeline, Groups: step.groups})
		}
	}
	encoder.Call("resolveQuerySet", queries, 0, 2*n, resolved, 0)
	d.copyBuffer.call(encoder, resolved, 0, staging, 0, 16*n)
	d.send(encoder)
	words := make([]byte, 16*n)
	if err := d.fetch(staging, words); err != nil {
		return nil, err
	}
	at := func(i int) (t int64) {
		for j := 7; j >= 0; j-- {
			t = t<<8 | int64(words[8*i+j])
		}
		return t
	}
	for i := range timings {
		timings[i].Nanos = at(2*i+1) - at(2*i)
	}
	return timings, nil
}
