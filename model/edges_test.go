package model

import (
	"bytes"
	"slices"
	"testing"
)

// edged is a network whose masks follow edges, with random weights.
func edged(t *testing.T) map[string]*Model {
	t.Helper()
	models := map[string]*Model{}
	for _, d := range devices {
		device, err := d.open()
		must(t, err)
		c := testConfig()
		c.Edges = 0.001
		models[d.name] = newTestModel(t, c, newRandom(), device)
	}
	return models
}

// Each way to paint is the same one, on each device.
func TestEdges(t *testing.T) {
	prompts := []string{"dog", "cat", "tree", "sky"}
	var first []byte
	for name, m := range edged(t) {
		p := newEncoded(t, m, "wide", 150, 100)
		pixels := p.Width * p.Height
		labels, mask, joined := make([]byte, pixels), make([]byte, pixels), make([]byte, pixels)

		// Without a threshold all have a label, though the filter may go below 0.
		r, err := p.Segment(prompts, Options{Threshold: NoThreshold, Presence: -1})
		must(t, err)
		must(t, r.LabelMap(labels))
		if bytes.IndexByte(labels, NoLabel) >= 0 {
			t.Errorf("%s: a pixel without a label, but there is no threshold", name)
		}
		if first == nil {
			first = bytes.Clone(labels)
		}
		if n := differences(labels, first); n > pixels/1000 {
			t.Errorf("%s: %d labels are not those of the other device", name, n)
		}

		// The strongest, joined on the host, in one question and in several.
		join := func(groups ...[]string) {
			var s Strongest
			for _, g := range groups {
				r, err := p.Segment(g, Options{Threshold: NoThreshold, Presence: -1})
				must(t, err)
				must(t, s.Add(r))
			}
			for i, l := range s.Labels {
				joined[i] = byte(l)
			}
		}
		join(prompts)
		if n := differences(labels, joined); n > pixels/1000 {
			t.Errorf("%s: %d labels that the host joins are others", name, n)
		}
		r, err = p.Segment(prompts[:1], Options{Threshold: NoThreshold, Presence: -1})
		must(t, err)
		must(t, r.Mask(0, mask))
		if bytes.IndexByte(mask, 0) >= 0 {
			t.Errorf("%s: a mask without a threshold is not everywhere", name)
		}

		// A result stays when the picture is asked again, and ends with what painting needs of its pixels.
		r, err = p.Segment(prompts, Options{Presence: -1})
		must(t, err)
		s, _ := r.Map(0)
		slices.Sort(s)
		r.Theta = s[len(s)/2] // maps of random weights lie above 1
		must(t, r.LabelMap(labels))
		if none := bytes.Count(labels, []byte{NoLabel}); none == 0 || none == pixels {
			t.Errorf("%s: %d of %d pixels have no label, which tests nothing", name, none, pixels)
		}
		join(prompts[:2], prompts[2:])
		again := make([]byte, pixels)
		must(t, p.Write(testPixels("other", 150, 100)))
		must(t, r.LabelMap(again))
		if !bytes.Equal(labels, again) {
			t.Errorf("%s: labels changed before the picture was encoded again", name)
		}
		must(t, p.Encode())
		wantError(t, "after another picture", r.Mask(0, again), ErrReleased)
		wantError(t, "after another picture", new(Strongest).Add(r), ErrReleased)
	}
}

func differences(a, b []byte) (n int) {
	for i, x := range a {
		if x != b[i] {
			n++
		}
	}
	return n
}
