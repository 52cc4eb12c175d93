package webgpu

import (
	"testing"
	"time"

	"github.com/pmp-seg/pmp/kernel"
)

func TestTuningText(t *testing.T) {
	for _, want := range []Tuning{untuned, {Float: Shape{4, 32}, Int8: Shape{16, 16}, Heads: Shape{64, 1}, Tiles: 7}} {
		if got, ok := ParseTuning(want.String()); !ok || got != want {
			t.Errorf("%q becomes %v, %v", want.String(), got, ok)
		}
	}
	if untuned.String() != "8x16 8x16 32x4 32" {
		t.Errorf("got %q", untuned.String())
	}
	for _, s := range []string{"", "8x16", "8x16 8x16 32x4", "8x16 8x16 32x4 32 1", "8x16 8x16 32x4 x", "08x16 8x16 32x4 32",
		"8x16  8x16 32x4 32", "8 8x16 32x4 32", "8x16x2 8x16 32x4 32", "9999999999999999999x1 8x16 32x4 32"} {
		if got, ok := ParseTuning(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestTuningFits(t *testing.T) {
	for text, want := range map[string]bool{
		"8x16 8x16 32x4 32": true, "16x16 8x32 64x4 1": true,
		"16x32 8x16 32x4 32": false, // invocations
		"32x1 8x16 32x4 32":  false, // workgroup memory
		"8x16 8x64 32x4 32":  false,
		"8x16 8x16 64x8 32":  false,
		"8x16 8x16 24x4 32":  false, // no power of two
		"0x16 8x16 32x4 32":  false,
		"8x16 -8x16 32x4 32": false,
		"8x16 8x16 32x4 0":   false,
	} {
		tuning, ok := ParseTuning(text)
		if !ok || tuning.fits(leastLimits) != want {
			t.Errorf("%q: fits is %v, %v", text, tuning.fits(leastLimits), ok)
		}
	}
	small := leastLimits
	small.invocations = 64
	if untuned.fits(small) {
		t.Error("too many invocations fit")
	}
}

// A product's tile is never larger than the tuning says, and 48 queries waste nothing.
func TestTiles(t *testing.T) {
	for part := range tuneParts {
		for _, c := range untuned.candidates(part) {
			if !c.fits(leastLimits) {
				t.Errorf("%v does not fit", c)
			}
			for _, kind := range []kernel.Kind{kernel.KindMatMul, kernel.KindMatMul8} {
				most := c.Int8
				if kind == kernel.KindMatMul {
					most = c.Float
				}
				for _, m := range []int{48, 1000} {
					for _, n := range []int{8, 40, 72, 112, 4096} {
						o := op{kind: kind}
						o.ints[0], o.ints[1], o.ints[2] = m, n, 64
						c.Tiles = 1
						d := o.lay(&card{tuning: c})
						settings := map[string]int{}
						for _, s := range d.settings {
							settings[s.name] = s.value
						}
						wx, wy := settings["WX"], settings["WY"]
						if wx < 1 || wx > most.Across || wy < 1 || wy > most.Down || wx*8 > n || m == 48 && 12%wy != 0 {
							t.Errorf("%v: %d×%d has tiles of %d×%d", c, m, n, wx, wy)
						}
						if covered := d.groups * wx * 8 * wy * 4; covered < m*n {
							t.Errorf("%v: %d×%d is not covered", c, m, n)
						}
					}
				}
			}
		}
	}
}

// A clock that goes on by what is measured.
func TestTune(t *testing.T) {
	want := Tuning{Float: Shape{16, 8}, Int8: Shape{4, 32}, Heads: Shape{64, 2}, Tiles: 12}
	run := func(budget, each time.Duration) (got Tuning, spent time.Duration) {
		got = tune(untuned, leastLimits, budget, func() time.Duration { return spent }, func(part int, c Tuning, until time.Duration) (time.Duration, bool) {
			spent += each
			same := []bool{c.Int8 == want.Int8, c.Float == want.Float, c.Heads == want.Heads, c.Tiles == want.Tiles}[part]
			return map[bool]time.Duration{true: each / 2, false: each}[same], spent < until
		})
		return got, spent
	}
	if got, _ := run(time.Second, time.Millisecond); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, spent := run(10*time.Millisecond, time.Second); got != untuned || spent > time.Second {
		t.Errorf("without time: got %v after %v", got, spent)
	}
	if got, spent := run(0, time.Second); got != untuned || spent != 0 {
		t.Errorf("without any: got %v after %v", got, spent)
	}
	// What is only a little faster is not worth a change.
	got := tune(untuned, leastLimits, time.Hour, func() time.Duration { return 0 }, func(part int, c Tuning, _ time.Duration) (time.Duration, bool) {
		return map[bool]time.Duration{true: 1000, false: 980}[c == untuned], true
	})
	if got != untuned {
		t.Errorf("takes %v for 2 %%", got)
	}
}
