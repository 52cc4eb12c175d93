package webgpu

import (
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// halved are the indices of a program's ops that take halves.
func halved(p *kernel.Program) (got []int, stages [][]op) {
	p.Plan()
	for i := range p.Stages() {
		stages = append(stages, decode(p.Records(i, constantsAt, arenaAt), 0))
	}
	halve(stages)
	n := 0
	for _, ops := range stages {
		for _, o := range ops {
			if o.halves {
				got = append(got, n)
			}
			n++
		}
	}
	return got, stages
}

func TestHalve(t *testing.T) {
	const d, nk, nq = 16, 40, 4
	// A program of two stages: keys and values are packed in the first, by a
	// MatMul8 and a Pack, and read in the second.
	type parts struct {
		p           *kernel.Program
		k, v, q, to kernel.View
	}
	make := func(second func(x parts)) *kernel.Program {
		x := parts{p: new(kernel.Program)}
		x.p.Stage()
		x.q = x.p.Input(4 * nk * d)
		x.k, x.v, x.to = x.p.Keep(2*nk*d), x.p.Keep(nk*d), x.p.Keep(nk*d)
		block := x.p.Input(4 * kernel.MatMul8Len(d, 2*d))
		x.p.Do(kernel.MatMul8{Dst: x.k, A: x.p.Input(nk * d), B: block, Rows: x.p.Input(8 * nk), M: nk, N: 2 * d, K: d, Packed: true}) // 0
		x.p.Do(kernel.Pack{Dst: x.v, A: x.q, K: nk, N: d})                                                                             // 1
		x.p.Stage()
		second(x)
		return x.p
	}
	attend := func(x parts, k, v kernel.View) {
		x.p.Do(kernel.Attention{Dst: x.to, Q: x.q, K: k, V: v, NQ: nq, NK: nk, D: d, Heads: 2, Scale: 1})
	}
	read := func(x parts, v kernel.View) { x.p.Do(kernel.Activate{Dst: x.to, A: v, N: nk * d}) }
	for _, c := range []struct {
		name   string
		second func(x parts)
		want   int
	}{
		{"only attention", func(x parts) { attend(x, x.k, x.v) }, 3},
		{"two of them", func(x parts) { attend(x, x.k, x.v); attend(x, x.k.At(nk*d), x.v) }, 4},
		{"keys that others read", func(x parts) { attend(x, x.k, x.v); read(x, x.k.At(nk*d)) }, 0},
		{"values that others read before", func(x parts) { read(x, x.v); attend(x, x.k, x.v) }, 0},
		{"one of two with values of the host", func(x parts) { attend(x, x.k, x.v); attend(x, x.k.At(nk*d), x.q) }, 0},
		{"values that others write", func(x parts) {
			x.p.Do(kernel.Activate{Dst: x.v.At(4), A: x.q, N: 8})
			attend(x, x.k, x.v)
		}, 0},
		{"values that a second run finds replaced", func(x parts) {
			attend(x, x.k, x.v)
			x.p.Do(kernel.Pack{Dst: x.v, A: x.q, K: nk, N: d})
			attend(x, x.k, x.v)
		}, 0},
		{"values that are replaced before", func(x parts) {
			x.p.Do(kernel.Pack{Dst: x.v, A: x.q, K: nk, N: d})
			attend(x, x.k, x.v)
		}, 3},
		{"values that attention writes", func(x parts) { attend(x, x.k, x.v); attend(x, x.k, x.to) }, 0},
		{"read again in the next run", func(x parts) {
			read(x, x.v)
			x.p.Do(kernel.Pack{Dst: x.v, A: x.q, K: nk, N: d})
			attend(x, x.k, x.v)
		}, 0},
	} {
		got, _ := halved(make(c.second))
		if len(got) != c.want {
			t.Errorf("%s: ops %v take halves, want %d", c.name, got, c.want)
		}
	}
	// The host's picture may lie where values will.
	p := new(kernel.Program)
	p.Stage()
	picture, x, v, to := p.ScratchInput(4*nk*d), p.Temp(nk*d), p.Keep(nk*d), p.Keep(nk*d)
	p.Do(kernel.Activate{Dst: x, A: picture, N: nk * d})
	p.Do(kernel.Pack{Dst: v, A: x, K: nk, N: d})
	p.Stage()
	p.Do(kernel.Attention{Dst: to, Q: x, K: v, V: v, NQ: nq, NK: nk, D: d, Heads: 2, Scale: 1})
	if got, _ := halved(p); p.Address(v, 0, 0) != p.Address(picture, 0, 0) || len(got) != 2 {
		t.Errorf("values where the host's picture was: ops %v take halves", got)
	}
	// The second layer's keys lie half-way through the first half.
	_, stages := halved(make(func(x parts) { attend(x, x.k.At(nk*d), x.v) }))
	if at := stages[1][0].views[2] - stages[0][0].views[0]; at != nk*d/2 {
		t.Errorf("the second layer's keys lie at word %d", at)
	}
}

// Every kind tells its operands, each within the buffer it lies in, and writes
// what is its result.
func TestOperands(t *testing.T) {
	for kind := kernel.Kind(1); kind < kernel.KindCount; kind++ {
		o := op{kind: kind}
		for i := range o.ints {
			o.ints[i] = 16
		}
		if kind == kernel.KindWindowAttention {
			o.ints[5] = 16 * 16 // rows of all windows
		}
		ops := []op{o}
		if kind == kernel.KindResidual8 {
			ops = o.parts()
		}
		for _, o := range ops {
			written := 0
			for _, x := range o.operands() {
				if x.bytes <= 0 || x.extent < x.bytes {
					t.Errorf("%s: view %d has %d bytes in %d", kind, x.view, x.bytes, x.extent)
				}
				if x.write && x.view == 0 {
					written++
				}
			}
			if written != 1 {
				t.Errorf("%s: %d results", kind, written)
			}
		}
	}
}

// An op of a kind that operands does not list keeps everything float32.
func TestUnlisted(t *testing.T) {
	make := func(kind kernel.Kind, ints []int, views ...uint32) op {
		o := op{kind: kind}
		for i := range o.views {
			o.views[i] = absent
		}
		copy(o.views[:], views)
		copy(o.ints[:], ints)
		return o
	}
	packed := []int{16, 8, 16, 0}
	keys, values := make(kernel.KindPack, packed, 0, 1000), make(kernel.KindPack, packed, 128, 2000)
	unlisted := make(kernel.KindCount, []int{16}, 600, 100)
	attention := make(kernel.KindAttention, []int{4, 8, 16, 1, 16}, 400, 500, 0, 128)
	for _, c := range []struct {
		ops  []op
		want bool
	}{{[]op{keys, values, attention}, true}, {[]op{keys, values, unlisted, attention}, false}} {
		halve([][]op{c.ops})
		if got := c.ops[len(c.ops)-1].halves; got != c.want {
			t.Errorf("%d ops: halves is %v", len(c.ops), got)
		}
	}
}
