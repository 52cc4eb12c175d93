package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestBench(t *testing.T) {
	out := pmp(t, "bench", "-rounds", "1", "-json")
	var r benchResult
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 2 || r.Runs[0].Engine != "pmp-f32" || r.Runs[1].Engine != "pmp-int8" {
		t.Fatalf("runs are %+v", r.Runs)
	}
	if r.Machine.CPU == "" || r.Machine.Side != 512 || r.Machine.Words != 20 {
		t.Errorf("the machine is %+v", r.Machine)
	}
	for _, b := range r.Runs {
		if b.Threads != 1 || b.Device == "" || b.Bytes < 1e6 || b.Heap <= 1 || b.Load <= 0 || b.LoadCached <= 0 {
			t.Errorf("%s: %+v", b.Engine, b)
		}
		// New words are embedded first, so they take longer than known ones.
		if b.Encode <= b.Segment || b.Words <= 0 || b.Segment <= 0 || b.EncodeMin != b.EncodeMax {
			t.Errorf("%s: encode %v, segment %v, words %v ms", b.Engine, b.Encode, b.Segment, b.Words)
		}
	}
	// The names that ./build.sh bench has, too.
	for _, name := range []string{"machine", "runs", "engine", "device", "threads", "encode_ms", "encode_ms_min", "encode_ms_max",
		"segment_ms", "words_ms", "heap_mib", "load_ms", "load_cached_ms"} {
		if !strings.Contains(out, `"`+name+`":`) {
			t.Errorf("there is no %q in %s", name, out)
		}
	}
}

func TestBenchTable(t *testing.T) {
	out := pmp(t, "bench", cat, "-rounds", "1", "-precision", "int8")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[2], "pmp-int8 ") {
		t.Errorf("the table is\n%s", out)
	}
}

func TestBenchRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"-rounds":      {"bench", "-rounds", "0"},
		"no precision": {"bench", "-precision", "int4"},
		"no device":    {"bench", "-device", "abacus"},
		"one photo":    {"bench", cat, cat},
		"no such file": {"bench", "none.jpg"},
	} {
		err := run(args, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got error %v, want one with %q", args, err, want)
		}
	}
}
