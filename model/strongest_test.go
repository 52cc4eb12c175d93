package model

import (
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// The order of steps: maps are resized first and compared then. By hand, with
// two cells at stride 4 and eight pixels: cell centres lie at positions 4 and
// 8, pixel x at x+0.5, so its weights are those of u = (x+0.5)/4 - 1, which is
// below 0 for the first four and 0.125, 0.375, 0.625, 0.875 for the others.
//
//	a: 0.8 0.0 →  0.8 0.8 0.8 0.8  0.7 0.5 0.3 0.1
//	b: 0.6 0.6 →  0.6 everywhere
//
// So a has five pixels. Comparing cells and enlarging the answer would give it
// six or four, depending on which cell is nearest, and centres that ignored
// the trunk's alignment would give it three.
func TestStrongestByHand(t *testing.T) {
	tapsY, tapsX := kernel.PaintTaps(1, 1, 1, 4), kernel.PaintTaps(2, 8, 1, 4)
	var s Strongest
	s.begin(tapsY, tapsX)
	s.add([]float32{0.8, 0}, 2, 0)
	for x, want := range []float32{0.8, 0.8, 0.8, 0.8, 0.7, 0.5, 0.3, 0.1} {
		if d := s.best[x] - want; d > 1e-6 || d < -1e-6 {
			t.Errorf("pixel %d of a is %v, want %v", x, s.best[x], want)
		}
	}
	s.add([]float32{0.6, 0.6}, 2, 1)
	if want := []uint16{0, 0, 0, 0, 0, 1, 1, 1}; !slices.Equal(s.Labels, want) {
		t.Errorf("got %v, want %v", s.Labels, want)
	}
	// Columns are as rows are, and a threshold is what has to be exceeded.
	s.begin(kernel.PaintTaps(2, 8, 1, 4), kernel.PaintTaps(1, 1, 1, 4))
	s.add([]float32{0.8 - 0.65, -0.65}, 1, 3)
	if want := []uint16{3, 3, 3, 3, 3, None, None, None}; !slices.Equal(s.Labels, want) {
		t.Errorf("rows with a threshold of 0.65: got %v, want %v", s.Labels, want)
	}
}

// Without a threshold every pixel has a label, and it is the one that joining
// the maps on the host gives, whether it is asked for at once or in parts.
func TestNoThreshold(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		prompts := []string{"dog", "cat", "tree", "sky"}
		r, err := p.Segment(prompts, Options{Threshold: NoThreshold, Presence: -1})
		must(t, err)
		if r.Theta != 0 {
			t.Errorf("the threshold is %v, want 0", r.Theta)
		}
		var joined Strongest
		must(t, joined.Add(r))
		labels := make([]byte, p.Width*p.Height)
		must(t, r.LabelMap(labels))
		for i, l := range labels {
			if l == NoLabel {
				t.Fatalf("pixel %d has no label", i)
			}
			if got := joined.Labels[i]; got != uint16(l) {
				t.Fatalf("pixel %d: the device says %d, the host %d", i, l, got)
			}
		}
		// An answer that was added stays when the next question is asked.
		var parts Strongest
		for _, prompts := range [][]string{{"dog", "cat"}, {"tree", "sky"}} {
			r, err := p.Segment(prompts, Options{Threshold: NoThreshold, Presence: -1})
			must(t, err)
			must(t, parts.Add(r))
			r.Release()
		}
		for i, l := range parts.Labels {
			if l >= 4 {
				t.Fatalf("pixel %d has label %d", i, l)
			}
		}
		released, err := p.Segment(prompts, Options{Presence: -1})
		must(t, err)
		released.Release()
		must(t, p.Encode())
		wantError(t, "a released answer", parts.Add(released), ErrReleased)
	})
}

func TestGroups(t *testing.T) {
	many := slices.Repeat([]string{"a"}, 600)
	sizes := func(groups [][]string) (n []int) {
		for _, g := range groups {
			n = append(n, len(g))
		}
		return n
	}
	if got := sizes(Groups(many)); !slices.Equal(got, []int{255, 255, 90}) {
		t.Errorf("groups of %v prompts", got)
	}
	hundred := strings.Repeat("b,", 100)
	if got := sizes(Groups([]string{hundred, hundred, "a", hundred, strings.Repeat("c,", 300), "a"})); !slices.Equal(got, []int{3, 1, 1, 1}) {
		t.Errorf("groups of %v prompts", got)
	}
	if Groups(nil) != nil {
		t.Error("no prompts make a group")
	}
}
