package token

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"go/build"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func tokenizer(t testing.TB) *Tokenizer {
	vocab, err := os.ReadFile("../../weights/default/vocab.txt")
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(vocab)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestEncode compares with the reference; testdata/fixture.py has made the
// cases and tells where from.
func TestEncode(t *testing.T) {
	var fixture struct {
		Cases []struct {
			Text []byte
			Max  int
			IDs  []int32
		}
		Sweep map[int]string
	}
	data, err := os.ReadFile("testdata/encode.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &fixture); err != nil {
		t.Fatal(err)
	}
	k := tokenizer(t)
	for _, c := range fixture.Cases {
		if got := k.Encode(string(c.Text), c.Max); !slices.Equal(got, c.IDs) {
			t.Errorf("%.80q, at most %d: got %v, want %v", c.Text, c.Max, got, c.IDs)
		}
	}
	for block, want := range fixture.Sweep {
		h := sha256.New()
		var line []byte
		for c := rune(block * 4096); c < rune(block*4096+4096); c++ {
			if utf8.ValidRune(c) {
				line = line[:0]
				for _, id := range k.Encode("a"+string(c)+"b", 64) {
					line = append(strconv.AppendInt(line, int64(id), 10), ' ')
				}
				line[len(line)-1] = '\n'
				h.Write(line)
			}
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)[:8]); got != want {
			t.Errorf("among the characters from U+%04X on, one is encoded otherwise than by the reference", block*4096)
		}
	}
	if len(fixture.Cases) < 200 || len(fixture.Sweep) != 71 {
		t.Errorf("the fixture has only %d cases and %d blocks", len(fixture.Cases), len(fixture.Sweep))
	}
}

func TestPhrases(t *testing.T) {
	for prompt, want := range map[string][]string{
		"dog":                  {"dog"},
		"sofa, couch":          {"sofa", "couch"},
		" a  b ,, c\t,":        {"a  b", "c"},
		"":                     nil,
		" , ,":                 nil,
		"a,a":                  {"a", "a"},
		"Große Katze,\u00a0é ": {"Große Katze", "é"},
	} {
		if got := Phrases(prompt); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", prompt, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	const good = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##a\n"
	if k, err := New([]byte(good)); err != nil || k.Len() != 6 || !slices.Equal(k.Encode("aa b", 9), []int32{2, 4, 5, 1, 3}) {
		t.Fatalf("a small vocabulary: %v", err)
	}
	if _, err := New([]byte(strings.ReplaceAll(good, "\n", "\r\n"))); err != nil {
		t.Errorf("with CRLF: %v", err)
	}
	for name, vocab := range map[string]string{
		"empty": "", "one line": "[UNK]", "same piece": good + "a\n", "same later piece": good + "##a\n", "empty line": good + "\nb\n",
		"not UTF-8": good + "\xff\n", "no [SEP]": strings.Replace(good, "[SEP]", "x", 1), "too many": good + strings.Repeat("\n", mostPieces),
	} {
		if _, err := New([]byte(vocab)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestImports(t *testing.T) {
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range p.Imports {
		switch name {
		case "errors", "slices", "strings", "unicode/utf8":
		default:
			t.Errorf("the package imports %s, which the engine would then contain", name)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{"a dog", "Ünïcödé 中文", "[MASK]", "\xff\xc3", "한", "a\u0301"} {
		f.Add(s, 8)
	}
	k := tokenizer(f)
	f.Fuzz(func(t *testing.T, s string, max int) {
		if max < 2 || max > 1000 {
			return
		}
		ids := k.Encode(s, max)
		if len(ids) < 2 || len(ids) > max || ids[0] != k.begin || ids[len(ids)-1] != k.end {
			t.Fatalf("%q: got %v", s, ids)
		}
		// A cut text is the beginning of the whole one.
		if all := k.Encode(s, 1<<20); !slices.Equal(all[:len(ids)-1], ids[:len(ids)-1]) {
			t.Fatalf("%q: %v is not the beginning of %v", s, ids, all)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		tokenizer(b)
	}
}

func BenchmarkEncode(b *testing.B) {
	k := tokenizer(b)
	for b.Loop() {
		k.Encode("a photo of a sleeping tortoiseshell cat", 64)
	}
}
