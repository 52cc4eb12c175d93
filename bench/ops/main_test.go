package main

import (
	"math"
	"testing"
)

// TestRecord expects the same arithmetic in both precisions, and as much of
// it as EfficientNet-Lite0 and the decoder have.
func TestRecord(t *testing.T) {
	var total []float64
	for _, precision := range []string{"f32", "int8"} {
		l, err := record(precision, 512, 20)
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Encode) < 20 || len(l.Segment) < 20 || l.RecordSize == 0 {
			t.Fatalf("%s: %d and %d ops", precision, len(l.Encode), len(l.Segment))
		}
		sum := 0.0
		for _, o := range append(l.Encode, l.Segment...) {
			if o.Kind == "" {
				t.Errorf("%s: an op without a name", precision)
			}
			sum += o.Flops
		}
		total = append(total, sum/1e9)
	}
	if total[0] < 5 || total[0] > 7 || math.Abs(total[0]-total[1]) > 0.01*total[0] {
		t.Errorf("GFLOP in f32 and int8: %v", total)
	}
	if _, err := record("int4", 512, 20); err == nil {
		t.Error("int4 is accepted")
	}
}
