package eval

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// TestMetrics compares with another implementation; testdata/fixture.py has
// made the cases.
func TestMetrics(t *testing.T) {
	var cases []struct {
		Classes     int
		Background  bool
		Truths      [][]uint16
		Predictions [][]uint16
		Proposals   [][]string
		Scores      []float64
		Present     []bool
		Table       [][3]*float64
		MIoU        float64 `json:"miou"`
		MIoUD2      float64 `json:"miou_d2"`
		Segments    int
		At50, At75  int
		Single      float64
		SingleMIoU  float64 `json:"single_miou"`
		Oracle      [][]uint16
		AUC         float64
	}
	data, err := os.ReadFile("testdata/metrics.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		// Each picture has sums of its own, which are merged.
		confusion, recall, presence := NewConfusion(c.Classes), Recall{}, Presence{}
		single := Single{}
		for j, truth := range c.Truths {
			one := NewConfusion(c.Classes)
			one.Add(truth, c.Predictions[j])
			confusion.Merge(one)

			var proposals [][]byte
			for _, p := range c.Proposals[j] {
				m := []byte(p)
				for k := range m {
					m[k] -= '0'
				}
				proposals = append(proposals, m)
			}
			present := (&Truth{Labels: truth}).Present()
			var r Recall
			r.Add(truth, present, proposals)
			recall.Merge(r)
			var s Single
			for _, class := range present {
				s.Add(truth, len(truth), class, proposals[class%len(proposals)])
			}
			single.Merge(&s)
			if got := Oracle(truth, c.Classes, c.Background, proposals); !slices.Equal(got, c.Oracle[j]) {
				t.Errorf("case %d, picture %d: the oracle paints %v, want %v", i, j, got, c.Oracle[j])
			}
		}
		for j, score := range c.Scores {
			var p Presence
			p.Add(score, c.Present[j])
			presence.Merge(&p)
		}
		for class, want := range c.Table {
			iou, truth, predicted := confusion.IoU(class)
			if (want[0] == nil) != math.IsNaN(iou) || want[0] != nil && iou != *want[0] || float64(truth) != *want[1] || float64(predicted) != *want[2] {
				t.Errorf("case %d, class %d: IoU %v of %d and %d pixels, want %v", i, class, iou, truth, predicted, want)
			}
		}
		if got := confusion.MIoU(); got != c.MIoU {
			t.Errorf("case %d: mIoU %v, want %v", i, got, c.MIoU)
		}
		if got := confusion.MIoUD2(); got != c.MIoUD2 || got > confusion.MIoU() {
			t.Errorf("case %d: mIoU of the older convention %v, want %v", i, got, c.MIoUD2)
		}
		if want := (Recall{c.Segments, c.At50, c.At75}); recall != want {
			t.Errorf("case %d: recall %v, want %v", i, recall, want)
		}
		// The other implementation adds in another order.
		if got := single.Mean(); math.Abs(got-c.Single) > 1e-15 {
			t.Errorf("case %d: IoU of single prompts %v, want %v", i, got, c.Single)
		}
		if got := single.MIoU(); got != c.SingleMIoU {
			t.Errorf("case %d: mIoU of single prompts %v, want %v", i, got, c.SingleMIoU)
		}
		if got := presence.AUC(); got != c.AUC {
			t.Errorf("case %d: AUC %v, want %v", i, got, c.AUC)
		}
	}
}

func TestConfusionByHand(t *testing.T) {
	c := NewConfusion(3)
	c.Add([]uint16{0, 0, 1, 1, Ignore, NoLabel}, []uint16{0, 2, 1, NoLabel, 0, 0})
	// Class 0: 1 of 2; class 1: 1 of 2; class 2 is only predicted.
	if c.MIoU() != 0.5 || c.MIoUD2() != 1.0/3 || c.MIoUOf(1) != 0.5 {
		t.Errorf("got %v, %v", c.MIoU(), c.MIoUD2())
	}
	if !math.IsNaN(NewConfusion(3).MIoU()) {
		t.Error("the mIoU of nothing is a number")
	}
}

func TestAUCByHand(t *testing.T) {
	for _, test := range []struct {
		present, absent []float64
		want            float64
	}{
		{[]float64{1}, []float64{0}, 1},
		{[]float64{0}, []float64{1}, 0},
		{[]float64{1, 1}, []float64{1, 1}, 0.5},
		{[]float64{3, 1}, []float64{2, 1}, 0.625},
		{[]float64{math.NaN()}, []float64{-1}, 0},
		{[]float64{math.Inf(1)}, []float64{math.Inf(1), 5}, 0.75},
		{nil, []float64{1}, math.NaN()},
		{[]float64{1}, nil, math.NaN()},
	} {
		var p Presence
		for _, s := range test.present {
			p.Add(s, true)
		}
		for _, s := range test.absent {
			p.Add(s, false)
		}
		if got := p.AUC(); got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("%v against %v: got %v, want %v", test.present, test.absent, got, test.want)
		}
	}
}

func TestMaskIoU(t *testing.T) {
	truth := []uint16{0, 0, 1, Ignore, NoLabel}
	for _, test := range []struct {
		mask  []byte
		class int
		want  float64
	}{
		{[]byte{1, 1, 0, 1, 0}, 0, 1},
		{[]byte{1, 0, 1, 1, 0}, 0, 1.0 / 3},
		{[]byte{0, 0, 0, 1, 0}, 2, 1},
		{[]byte{0, 0, 0, 0, 1}, 2, 0},
	} {
		if got := MaskIoU(truth, test.class, test.mask); got != test.want {
			t.Errorf("%v for class %d: got %v, want %v", test.mask, test.class, got, test.want)
		}
	}
}

func TestRecallByHand(t *testing.T) {
	// Eight pixels of class 0, then eight of class 1.
	truth := make([]uint16, 16)
	for i := 8; i < 16; i++ {
		truth[i] = 1
	}
	first := func(n int) []byte { return append(slices.Repeat([]byte{1}, n), make([]byte, 16-n)...) }
	for _, test := range []struct {
		pixels     int
		at50, at75 int
	}{{0, 0, 0}, {3, 0, 0}, {4, 1, 0}, {5, 1, 0}, {6, 1, 1}, {8, 1, 1}, {10, 1, 1}, {11, 1, 0}, {16, 2, 0}} {
		var r Recall
		r.Add(truth, []int{0, 1}, [][]byte{first(test.pixels)})
		if want := (Recall{2, test.at50, test.at75}); r != want {
			t.Errorf("a proposal of %d pixels: got %v, want %v", test.pixels, r, want)
		}
	}
}

func TestOracleByHand(t *testing.T) {
	const n, x = NoLabel, Ignore
	truth := []uint16{0, 0, 1, 1, n, x}
	for _, test := range []struct {
		name       string
		background bool
		proposals  [][]byte
		want       []uint16
	}{
		{"none", true, nil, []uint16{n, n, n, n, n, n}},
		{"equal classes: the first", false, [][]byte{{1, 1, 1, 1, 0, 0}}, []uint16{0, 0, 0, 0, n, n}},
		{"equal proposals: the first", false, [][]byte{{1, 0, 0, 0, 0, 1}, {0, 0, 1, 0, 0, 1}}, []uint16{0, n, 1, n, n, 0}},
		{"the better one wins", false, [][]byte{{1, 1, 1, 0, 0, 0}, {0, 0, 1, 1, 0, 0}}, []uint16{0, 0, 1, 1, n, n}},
		{"background", true, [][]byte{{0, 0, 1, 1, 0, 0}, {0, 0, 0, 1, 1, 0}}, []uint16{n, n, 1, 1, n, n}},
		{"without background", false, [][]byte{{0, 0, 0, 1, 1, 0}}, []uint16{n, n, n, 1, 1, n}},
		{"nothing known", true, [][]byte{{0, 0, 0, 0, 0, 1}}, []uint16{n, n, n, n, n, n}},
	} {
		if got := Oracle(truth, 2, test.background, test.proposals); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}
