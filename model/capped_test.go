package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Of a name that was never trained the best proposal stays, and the others are to
// it as they are if all logits are lower; other names stay as they are.
func TestCapped(t *testing.T) {
	const q, limit = 24, 0.5
	rng := rand.New(rand.NewPCG(1, 2))
	sigmoid := func(z float64) float64 { return 1 / (1 + math.Exp(-z)) }
	for _, high := range []float64{-6, 0, 6} {
		unseen := []float32{1, 0, 0.5}
		var logits []float64
		var class []float32
		for range len(unseen) * q {
			z := high + 2*rng.NormFloat64()
			logits, class = append(logits, z), append(class, float32(sigmoid(z)))
		}
		got := capped(class, unseen, limit)
		for i, u := range unseen {
			z, said, shown := logits[i*q:(i+1)*q], class[i*q:(i+1)*q], got[i*q:(i+1)*q]
			down := max(slices.Max(z), 0) * float64(u) // since limit is even odds
			for j := range q {
				want := sigmoid(slices.Max(z)) / sigmoid(slices.Max(z)-down) * sigmoid(z[j]-down)
				if math.Abs(float64(shown[j])-want) > 1e-4 {
					t.Errorf("unseen %v, logit %.3f of at most %.3f: P is %v, want %v", u, z[j], slices.Max(z), shown[j], want)
				}
			}
			if best := slices.Max(said); math.Abs(float64(slices.Max(shown)-best)) > 1e-6 {
				t.Errorf("unseen %v: the best P becomes %v from %v", u, slices.Max(shown), best)
			}
			if u == 0 && !slices.Equal(shown, said) {
				t.Error("a trained name changes")
			}
		}
	}
	// What leaves nothing to the others has finite odds.
	if got := capped([]float32{1, 1, 0.5, 0}, []float32{1}, limit); got[0] != 1 || got[1] != 1 || !(got[2] < 0.01) || got[3] != 0 {
		t.Errorf("got %v for certain proposals", got)
	}
}
