package bpe

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// The numbers are those of transformers' CLIPTokenizer, see testdata/bpe.py.
func TestEncode(t *testing.T) {
	data, err := os.ReadFile("testdata/encode.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Merges string
		Tokens int
		Cases  []struct {
			Text string
			IDs  []int32
		}
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	// More merges than there are tokens for, and other ends of lines, change nothing.
	for _, merges := range []string{want.Merges, strings.ReplaceAll(want.Merges, "\n", "\r\n"), want.Merges + "a b\nno merge\n"} {
		b, err := New([]byte(merges), want.Tokens)
		if err != nil {
			t.Fatal(err)
		}
		if b.Len() != want.Tokens {
			t.Errorf("%d tokens, want %d", b.Len(), want.Tokens)
		}
		for _, c := range want.Cases {
			if got := b.Encode(c.Text, 77); !slices.Equal(got, c.IDs) {
				t.Errorf("%.40q: got %v, want %v", c.Text, got, c.IDs)
			}
		}
	}
	for about, merges := range map[string]string{"short": "#version: 0.2\ni n\n", "empty": "", "unknown": strings.Replace(want.Merges, "\n", "\nthe re\n", 1), "one": strings.Replace(want.Merges, "\n", "\nthe\n", 1)} {
		if _, err := New([]byte(merges), want.Tokens); err == nil {
			t.Errorf("%s: no error", about)
		}
	}
	for _, tokens := range []int{0, 513, 1 << 30} {
		if _, err := New([]byte(want.Merges), tokens); err == nil {
			t.Errorf("%d tokens: no error", tokens)
		}
	}
}
