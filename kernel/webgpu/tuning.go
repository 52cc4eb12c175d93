package webgpu

import (
	"strconv"
	"strings"
	"time"

	"github.com/pmp-seg/pmp/kernel"
)

// Shape is how many things lie side by side, and how many times that.
type Shape struct{ Across, Down int }

// Tuning is what suits a card, where that is a matter of speed only. Device.Tune
// finds it; as a string it can be remembered for Options.Tuning.
type Tuning struct {
	// The largest tiles of products, in panels of 8 columns and fours of rows:
	// WX and WY of tile.wgsl.
	Float, Int8 Shape
	// Lanes that share a query and queries of a workgroup, where keys are many:
	// LANES and QUERIES of attention.wgsl.
	Heads Shape
	// Tiles is how many of them a product must have to be made of tiles.
	Tiles int
}

// untuned suits most cards.
var untuned = Tuning{Float: Shape{8, 16}, Int8: Shape{8, 16}, Heads: Shape{32, 4}, Tiles: 32}

// or is t, or what suits most cards if t is not set.
func (t Tuning) or() Tuning {
	if t == (Tuning{}) {
		return untuned
	}
	return t
}

func (s Shape) String() string { return strconv.Itoa(s.Across) + "x" + strconv.Itoa(s.Down) }

// String is the form that ParseTuning reads, such as "8x16 8x16 32x4 32".
func (t Tuning) String() string {
	return t.Float.String() + " " + t.Int8.String() + " " + t.Heads.String() + " " + strconv.Itoa(t.Tiles)
}

// ParseTuning reads what String has written.
func ParseTuning(s string) (t Tuning, ok bool) {
	words := strings.Fields(s)
	if len(words) != 4 {
		return Tuning{}, false
	}
	for i, to := range []*Shape{&t.Float, &t.Int8, &t.Heads} {
		across, down, _ := strings.Cut(words[i], "x")
		to.Across, _ = strconv.Atoi(across)
		to.Down, _ = strconv.Atoi(down)
	}
	t.Tiles, _ = strconv.Atoi(words[3])
	if t.String() != s { // what is no number is 0 now
		return Tuning{}, false
	}
	return t, true
}

// limits are those of a card's workgroups.
type limits struct {
	invocations, across, down int
	storage                   int // bytes
}

// leastLimits are those that every card has.
var leastLimits = limits{invocations: 256, across: 256, down: 256, storage: 16384}

// fits tells whether workgroups may be like that.
func (t Tuning) fits(l limits) bool {
	group := func(s Shape, storage int) bool {
		return s.Across > 0 && s.Down > 0 && s.Across <= l.across && s.Down <= l.down && s.Across*s.Down <= l.invocations && storage <= l.storage
	}
	const steps = 16 // KT of tile.wgsl
	tile := func(s Shape) bool { return group(s, 16*steps*(s.Down+1+2*s.Across+1)) }
	h := t.Heads
	return tile(t.Float) && tile(t.Int8) && group(h, 16*h.Across*h.Down+4*h.Down) && h.Across&(h.Across-1) == 0 && t.Tiles > 0
}

// The parts of a tuning, each of which is found by itself.
const (
	tuneInt8 = iota
	tuneFloat
	tuneHeads
	tuneTiles
	tuneParts
)

// candidates are tunings that differ from t in one part; the first is t.
func (t Tuning) candidates(part int) []Tuning {
	all := []Tuning{t}
	with := func(set func(c *Tuning)) {
		c := t
		if set(&c); c != t {
			all = append(all, c)
		}
	}
	switch part {
	case tuneInt8, tuneFloat:
		for _, s := range []Shape{{8, 16}, {8, 8}, {16, 8}, {4, 16}, {16, 16}, {8, 32}, {4, 32}} {
			with(func(c *Tuning) {
				if part == tuneInt8 {
					c.Int8 = s
				} else {
					c.Float = s
				}
			})
		}
	case tuneHeads:
		for _, s := range []Shape{{32, 4}, {32, 2}, {64, 1}, {64, 2}, {16, 4}, {16, 8}, {32, 8}, {64, 4}} {
			with(func(c *Tuning) { c.Heads = s })
		}
	case tuneTiles:
		for _, n := range []int{32, 12, 72} {
			with(func(c *Tuning) { c.Tiles = n })
		}
	}
	return all
}

// work is an op of each shape that a part is tuned for, as a picture of 512
// pixels and 48 queries have them, the quickest first.
func work(part int, p *kernel.Program) (ops []kernel.Op) {
	product := func(shapes ...[3]int) {
		for _, l := range shapes {
			m, n, k := l[0], l[1], l[2]
			ops = append(ops, kernel.MatMul{Dst: p.Keep(m * n), A: p.Keep(m * k), B: p.Keep(kernel.PackedLen(k, n)), M: m, N: n, K: k})
		}
	}
	product8 := func(shapes ...[3]int) {
		for _, l := range shapes {
			m, n, k := l[0], l[1], l[2]
			ops = append(ops, kernel.MatMul8{Dst: p.Keep(m * n / 4), A: p.KeepBytes(m * k), B: p.Keep(kernel.MatMul8Len(k, n)), M: m, N: n, K: k, Bytes: true})
		}
	}
	switch part {
	case tuneInt8:
		product8([3]int{48, 4096, 64}, [3]int{4096, 40, 240}, [3]int{16384, 144, 24}, [3]int{1024, 672, 112})
	case tuneFloat:
		product([3]int{48, 4096, 64}, [3]int{4096, 144, 24}, [3]int{1024, 112, 672}, [3]int{256, 1280, 320})
	case tuneHeads:
		const nq, nk, d = 48, 4096, 128
		ops = append(ops, kernel.Attention{Dst: p.Keep(nq * d), Q: p.Keep(nq * d), K: p.Keep(nk * d), V: p.Keep(nk * d), Mask: p.Keep(nq * nk),
			NQ: nq, NK: nk, D: d, Heads: 8, Scale: 0.25})
	case tuneTiles:
		product8([3]int{48, 512, 128}, [3]int{256, 192, 1152}, [3]int{256, 1152, 192}, [3]int{1024, 112, 672})
	}
	return ops
}

// worthwhile is what a candidate's time must be at most, as a part of that of
// what was there before: measurements err.
const worthwhile = 0.97

// tune compares candidates until the budget is spent, which is shared by the
// parts; what is not measured stays as it is. Measure tells how long the work
// of a part takes, or that it could not find that out until then.
func tune(t Tuning, l limits, budget time.Duration, now func() time.Duration, measure func(part int, t Tuning, until time.Duration) (time.Duration, bool)) Tuning {
	end := now() + budget
	for part := range tuneParts {
		until := now() + (end-now())/time.Duration(tuneParts-part)
		best, least := t, time.Duration(0)
		for i, c := range t.candidates(part) {
			if now() >= until {
				break
			}
			if !c.fits(l) {
				continue
			}
			d, ok := measure(part, c, until)
			if !ok && i == 0 {
				break // nothing to compare with
			}
			if ok && (i == 0 || float64(d) < worthwhile*float64(least)) {
				best, least = c, d
			}
		}
		t = best
	}
	return t
}
