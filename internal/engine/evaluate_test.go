package engine

import (
	"testing"

	"github.com/pmp-seg/pmp/model"
)

func TestThreshold(t *testing.T) {
	for _, test := range []struct {
		text      string
		benchmark bool
		prompts   string
		want      float32
	}{
		{"", false, "all", 0}, {"", true, "all", model.NoThreshold}, {"", true, "single", 0}, {"own", true, "all", 0},
		{"none", false, "present", model.NoThreshold}, {"0.25", true, "all", 0.25},
	} {
		if got, err := threshold(test.text, test.benchmark, test.prompts); err != nil || got != test.want {
			t.Errorf("%+v: got %v, %v", test, got, err)
		}
	}
	for _, text := range []string{"0", "1", "-1", "NaN", "some"} {
		if _, err := threshold(text, false, "all"); err == nil {
			t.Errorf("-threshold %s: no error", text)
		}
	}
	if _, err := threshold("none", true, "single"); err == nil {
		t.Error("a single prompt without a threshold: no error")
	}
}
