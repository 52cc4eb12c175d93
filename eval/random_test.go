package eval

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Random label maps against sets of pixels and counted pairs: the same
// definitions, written in another way. (TestMetrics compares with a third one,
// in Python.)
func TestRandomMaps(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	for range 200 {
		classes := 1 + r.IntN(6)
		type pixels map[[2]int]bool // of picture and place
		truths, answers := make([]pixels, classes), make([]pixels, classes)
		for c := range classes {
			truths[c], answers[c] = pixels{}, pixels{}
		}
		total := &Counted{}
		recalled, segments := [2]int{}, 0
		for picture := range 1 + r.IntN(4) {
			n := 1 + r.IntN(40)
			truth, answer := make([]uint16, n), make([]uint16, n)
			known := map[int]bool{}
			for i := range n {
				truth[i], answer[i] = uint16(r.IntN(classes)), uint16(r.IntN(classes+1))
				if r.IntN(5) == 0 {
					truth[i] = Ignore
				} else {
					known[i] = true
					truths[truth[i]][[2]int{picture, i}] = true
				}
				if int(answer[i]) == classes {
					answer[i] = NoLabel
				} else if known[i] {
					answers[answer[i]][[2]int{picture, i}] = true
				}
			}
			var proposals [][]byte
			for range r.IntN(4) {
				p := make([]byte, n)
				c := r.IntN(classes)
				for i := range p {
					if int(truth[i]) == c != (r.IntN(6) == 0) {
						p[i] = 1
					}
				}
				proposals = append(proposals, p)
			}
			present := (&Truth{Labels: truth}).Present()
			for _, c := range present {
				best := 0.0
				for _, p := range proposals {
					either, both := map[int]bool{}, map[int]bool{}
					for i := range known {
						if p[i] != 0 || int(truth[i]) == c {
							either[i] = true
						}
						if p[i] != 0 && int(truth[i]) == c {
							both[i] = true
						}
					}
					best = max(best, float64(len(both))/float64(len(either)))
				}
				segments++
				for i, at := range []float64{0.5, 0.75} {
					if best >= at {
						recalled[i]++
					}
				}
			}
			m := NewConfusion(classes)
			m.Add(truth, answer)
			one := &Counted{Confusion: m.Cells()}
			one.Recall.Add(truth, present, proposals)
			for range r.IntN(6) {
				one.Presence.Add(float64(r.IntN(8))/8, r.IntN(2) == 0)
			}
			total.Merge(one)
		}

		sum, inTruth, anywhere := 0.0, 0, 0
		for c := range classes {
			both, either := 0, len(answers[c])
			for p := range truths[c] {
				if answers[c][p] {
					both++
				} else {
					either++
				}
			}
			if either > 0 {
				anywhere++
			}
			if len(truths[c]) > 0 {
				sum += float64(both) / float64(either)
				inTruth++
			}
		}
		wins, pairs := 0.0, 0
		for _, a := range total.Presence.Present {
			for _, b := range total.Presence.Absent {
				pairs++
				if a > b {
					wins++
				} else if a == b {
					wins += 0.5
				}
			}
		}
		m := NewConfusion(classes)
		m.AddCells(total.Confusion)
		for _, x := range []struct {
			name      string
			got, want float64
		}{
			{"mIoU", m.MIoU(), sum / float64(inTruth)}, {"older mIoU", m.MIoUD2(), sum / float64(anywhere)},
			{"AUC", total.Presence.AUC(), wins / float64(pairs)},
		} {
			if math.IsNaN(x.got) != math.IsNaN(x.want) || math.Abs(x.got-x.want) > 1e-12 {
				t.Fatalf("%s is %v, want %v", x.name, x.got, x.want)
			}
		}
		if want := (Recall{segments, recalled[0], recalled[1]}); total.Recall != want {
			t.Fatalf("recall %v, want %v", total.Recall, want)
		}
	}
}
