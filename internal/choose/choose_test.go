package choose

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
)

func TestCard(t *testing.T) {
	good := [][]float32{{0, 0.5, 1, 0.25}, {1, 0, 0, 0}}
	shifted := func(by float32) [][]float32 {
		var maps [][]float32
		for _, m := range good {
			var moved []float32
			for _, x := range m {
				moved = append(moved, x+by)
			}
			maps = append(maps, moved)
		}
		return maps
	}
	nan := shifted(0)
	nan[1][3] = float32(math.NaN())
	for _, c := range []struct {
		about     string
		card, cpu Trial
		yes       bool
		err       error
		says      string
	}{
		{"faster", Trial{6 * time.Millisecond, shifted(0.01)}, Trial{31 * time.Millisecond, good}, true, nil, "card took 6.0 ms and the processor 31 ms"},
		{"equal", Trial{time.Second, good}, Trial{time.Second, good}, true, nil, ""},
		{"slower", Trial{90 * time.Millisecond, good}, Trial{31 * time.Millisecond, good}, false, nil, "slower"},
		{"faster but wrong", Trial{time.Millisecond, shifted(0.1)}, Trial{time.Second, good}, false, ErrWrong, ""},
		{"not a number", Trial{time.Millisecond, nan}, Trial{time.Second, good}, false, ErrWrong, ""},
		{"fewer maps", Trial{time.Millisecond, good[:1]}, Trial{time.Second, good}, false, ErrWrong, ""},
	} {
		yes, why, err := Card(c.card, c.cpu)
		if yes != c.yes || err != c.err || !strings.Contains(why, c.says) {
			t.Errorf("%s: %v, %q, %v", c.about, yes, why, err)
		}
	}
}

// The trial leaves nothing behind and does find something to compare.
func TestRun(t *testing.T) {
	d, err := simd.New()
	if err != nil {
		t.Fatal(err)
	}
	w, err := weights.Load(shipped.FS.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(w, d, model.Int8)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	trial, err := Run(m, Rounds)
	if err != nil {
		t.Fatal(err)
	}
	if trial.Time <= 0 || len(trial.Maps) != len(words(m)) {
		t.Fatalf("%v, %d maps", trial.Time, len(trial.Maps))
	}
	most := float32(0)
	for _, m := range trial.Maps {
		for _, x := range m {
			most = max(most, x)
		}
	}
	if most < 0.3 {
		t.Errorf("no word is found anywhere: at most %v", most)
	}
	if yes, _, err := Card(trial, trial); !yes || err != nil {
		t.Errorf("against itself: %v, %v", yes, err)
	}
}
