package kernel

import "testing"

// What is held does not lie where the ops of its stage have their temporary
// buffers, although nothing touches it before the next stage; what is kept may.
func TestHold(t *testing.T) {
	for _, hold := range []bool{false, true} {
		var p Program
		p.Stage()
		in, between, out := p.Input(4*64), p.Temp(64), p.Keep(64)
		var later View
		if hold {
			later = p.Hold(4 * 64)
		}
		p.Do(Activate{Dst: between, A: in, N: 64})
		p.Do(Activate{Dst: out, A: between, N: 64})
		p.Stage()
		if !hold {
			later = p.KeepBytes(4 * 64)
		}
		p.Do(Activate{Dst: later, A: out, N: 64})
		p.Plan()
		if apart := p.Address(later, 0, 0) != p.Address(between, 0, 0); apart != hold {
			t.Errorf("hold %v: they lie apart: %v", hold, apart)
		}
	}
}
