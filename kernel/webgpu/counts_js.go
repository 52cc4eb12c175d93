//go:build js

package webgpu

// Counts is what a stage costs, whatever the card.
type Counts struct {
	Dispatches int // of the card's kernels
	Pipelines  int // how often another kernel is chosen between them
	// Bytes of the card's memory, each operand of a dispatch counted once.
	Read, Written int64
}

// Counts of a stage.
func (s *Session) Counts(stage int) Counts { return s.stages[stage].counts }

// add puts an op at the end of the stage.
func (st *stage) add(o *op, s step) {
	c := &st.counts
	if c.Dispatches++; c.Dispatches == 1 || s.pipeline != st.steps[len(st.steps)-1].pipeline {
		c.Pipelines++
	}
	for _, x := range o.operands() {
		if x.write {
			c.Written += int64(x.bytes)
		} else {
			c.Read += int64(x.bytes)
		}
	}
	st.steps = append(st.steps, s)
}
