package kernel

import "testing"

// Two matrix products one after the other: what lies between them is moved
// twice, but need not be at all.
func TestTraffic(t *testing.T) {
	var c Constants
	weights := c.Add(16*16, func([]float32) {})
	var p Program
	p.Stage()
	in, between, out := p.Input(4*3*16), p.Temp(3*16), p.Keep(3*16)
	p.Do(MatMul{Dst: between, A: in, B: p.Const(weights), M: 3, N: 16, K: 16})
	p.Do(MatMul{Dst: out, A: between, B: p.Const(weights), M: 3, N: 16, K: 16})
	p.Stage()
	p.Do(Add{Dst: out, A: out, B: in, M: 3, N: 16, MB: 3})
	p.Plan()
	const rows, matrix = 4 * 3 * 16, 4 * 16 * 16
	if moved, least := p.Traffic(0); moved != 4*rows+2*matrix || least != 2*rows+matrix {
		t.Errorf("stage 0: moved %d, at least %d", moved, least)
	}
	if moved, least := p.Traffic(1); moved != 3*rows || least != 2*rows {
		t.Errorf("stage 1: moved %d, at least %d", moved, least)
	}
}
