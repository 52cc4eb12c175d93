//go:build js

package webgpu

import (
	"syscall/js"
	"time"
)

// clock measures on the card how long each run of a stage takes, where cards
// have timestamps. What is run before a Wait beyond its places is not measured.
type clock struct {
	queries, resolved js.Value
	passes            [clockPlaces]js.Value // arguments of beginComputePass
	runs              []run
	words             []byte
}

type run struct {
	session *Session
	stage   int
}

const clockPlaces = 16

// start makes the clock, or leaves it out where there is no feature for it.
func (c *clock) start(d *Device) error {
	if !d.gpu.Get("features").Call("has", timestamps).Bool() {
		return nil
	}
	const usageQueryResolve = 512
	if err := d.create(want{&c.resolved, 16 * clockPlaces, usageQueryResolve | usageCopySrc}); err != nil {
		return err
	}
	c.queries = d.gpu.Call("createQuerySet", map[string]any{"type": "timestamp", "count": 2 * clockPlaces})
	for i := range c.passes {
		c.passes[i] = js.ValueOf(map[string]any{"timestampWrites": map[string]any{
			"querySet": c.queries, "beginningOfPassWriteIndex": 2 * i, "endOfPassWriteIndex": 2*i + 1}})
	}
	c.words = make([]byte, 16*clockPlaces)
	return nil
}

// pass is how the pass of a run begins.
func (c *clock) pass(s *Session, stage int) js.Value {
	if c.words == nil || len(c.runs) == clockPlaces {
		return js.Undefined()
	}
	c.runs = append(c.runs, run{s, stage})
	return c.passes[len(c.runs)-1]
}

// fetch asks for the times of what was run.
func (c *clock) fetch(d *Device) error {
	if len(c.runs) == 0 {
		return nil
	}
	d.resolve.call(d.commands(), c.queries, 0, 2*len(c.runs), c.resolved, 0)
	return d.fetch(c.resolved, 0, c.words[:16*len(c.runs)])
}

// read gives them to their sessions.
func (c *clock) read() {
	for i, r := range c.runs {
		if r.stage < len(r.session.stages) { // it is not closed
			r.session.stages[r.stage].took = between(c.words[16*i:])
		}
	}
	c.runs = c.runs[:0]
}

// Took is how long a stage took on the card when it was last run and waited
// for, 0 if that was not measured. Browsers round it, most to 100 µs.
func (s *Session) Took(stage int) time.Duration { return s.stages[stage].took }

// between is the time from the first of two timestamps to the second.
func between(words []byte) time.Duration {
	at := func(i int) (t time.Duration) {
		for j := 7; j >= 0; j-- {
			t = t<<8 | time.Duration(words[8*i+j])
		}
		return t
	}
	return at(1) - at(0)
}
