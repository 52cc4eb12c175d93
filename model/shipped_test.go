package model

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
)

// With the shipped weights the network computes what PyTorch computes, too,
// from the pixels and the words to maps, scores, and masks that follow edges.
func TestShippedWeights(t *testing.T) {
	f := readFixture(t, "shipped.safetensors")
	manifest, err := shipped.FS.ReadFile("manifest.json")
	must(t, err)
	if sum := sha256.Sum256(manifest); !bytes.Equal(sum[:], f.bytes(t, "manifest")) {
		t.Fatal("the shipped weights are not those of the fixture; make it anew with testdata/shipped.py")
	}
	prompts := []string{"cat", "sofa, couch", "sky", "sundial"} // the last one was never trained
	for _, d := range devices {
		t.Run(d.name, func(t *testing.T) {
			w, err := weights.Load(shipped.FS.ReadFile)
			must(t, err)
			device, err := d.open()
			must(t, err)
			m, err := Load(w, device, Float32)
			must(t, err)
			defer m.Close()
			p := newTapped(t, m, 150, 100, testPixels("wide", 150, 100))
			worst := worstErrors{}
			image := p.image.read(t, p.session)
			for _, part := range []string{"head", "P32", "P16", "P8", "M4", "M32"} {
				worst.add(part, f.compare(t, part, image[part]))
			}
			r, err := p.Segment(prompts, Options{})
			must(t, err)
			var e, rows, maps, scores []float32
			phrases, _, err := m.prompts(prompts)
			must(t, err)
			for _, ph := range phrases {
				e, rows = append(e, ph.embedding...), append(rows, ph.row...)
			}
			for i, a := range r.Prompts {
				s, _ := r.Map(i)
				maps, scores = append(maps, s...), append(scores, a.Score)
			}
			segment := p.segments[p.segmentFor(len(phrases)).slots].read(t, p.session)
			for part, got := range map[string][]float32{"E": e, "row": rows, "pooled": segment["pooled"], "e": segment["e"],
				"masks": proposalsOf(t, p.Picture), "S": maps, "score": scores} {
				worst.add(part, f.compare(t, part, got))
			}
			worst.log(t)
			r, err = p.Segment(prompts, Options{Presence: -1})
			must(t, err)
			r.Theta = f.floats(t, "theta")[0]
			compareMasks(t, f, r, "")
		})
	}
}
