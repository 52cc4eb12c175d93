//go:build js

package webgpu

import (
	"errors"
	"syscall/js"
	"time"
)

// timestamps is the feature that Profile needs.
const timestamps = "timestamp-query"

// ErrNoTimestamps says that the card cannot measure, or was not asked to.
var ErrNoTimestamps = errors.New("this graphics card has no timestamps, or Options.Timestamps was not set")

// Timing is one dispatch of a stage.
type Timing struct {
	Name   string // the files of its module and its settings
	Groups int    // of invocations
	Time   time.Duration
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
	var resolved js.Value
	if err := d.create(want{&resolved, 16 * n, usageQueryResolve | usageCopySrc}); err != nil {
		return nil, err
	}
	defer resolved.Call("destroy")

	encoder := d.commands()
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
	words := make([]byte, 16*n)
	if err := d.fetch(resolved, 0, words); err != nil {
		return nil, err
	}
	if err := d.wait(); err != nil {
		return nil, err
	}
	for i := range timings {
		timings[i].Time = between(words[16*i:])
	}
	return timings, nil
}
