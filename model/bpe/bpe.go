// Package bpe turns prompts into what CLIP's text encoder reads. It is apart from
// package token, since a page's engine has no use for it and none for the tables of
// characters that it brings.
package bpe

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tokenizer is CLIP's tokenizer: pairs of bytes in lower case, merged by a list that says
// which pairs go together first. It does not compose characters: where an accent
// follows its letter as a character of its own, that is what the network gets to read.
type Tokenizer struct {
	ranks      map[[2]int32]int32 // of pairs: the number of the merge, by which it is also named
	names      []int32            // of merges: the token
	bytes      [256]int32         // of bytes inside of words; at their ends they are byteTokens further on
	begin, end int32
}

const (
	byteTokens = 256
	endOfWord  = "</w>"
	// mostPieces bounds the vocabulary that is read.
	mostPieces = 1 << 20
)

var errMerges = errors.New("the tokenizer's list of merges has a line that is not two pieces of the lines before it; use the merges.txt that belongs to the weights")

// New makes a tokenizer of tokens pieces: all bytes, as parts of words and as their
// ends, as many merges as remain, a line each, and the two that begin and end a text.
// What the list has beyond that is left out, as is a first line with a version.
func New(merges []byte, tokens int) (*Tokenizer, error) {
	lines := strings.Split(strings.ReplaceAll(string(merges), "\r", ""), "\n")
	if strings.Contains(lines[0], "#version") {
		lines = lines[1:]
	}
	most := tokens - 2*byteTokens - 2
	if most < 0 || tokens > mostPieces || len(lines) < most {
		return nil, errors.New("the tokenizer's list of merges is shorter than the weights' vocabulary; use the merges.txt that belongs to the weights")
	}
	t := &Tokenizer{ranks: map[[2]int32]int32{}, begin: int32(tokens - 2), end: int32(tokens - 1)}
	pieces := map[string]int32{}
	// Bytes that are no printable characters are written as other characters, which
	// come behind those that are.
	id, other := int32(0), rune(byteTokens)
	for _, printable := range []bool{true, false} {
		for b := range byteTokens {
			r := rune(b)
			if printable != ('!' <= r && r <= '~' || '¡' <= r && r <= 'ÿ' && r != '\u00ad') {
				continue
			}
			if !printable {
				r, other = other, other+1
			}
			t.bytes[b] = id
			pieces[string(r)], pieces[string(r)+endOfWord] = id, id+byteTokens
			id++
		}
	}
	for i, line := range lines[:most] {
		left, right, ok := strings.Cut(line, " ")
		a, okA := pieces[left]
		b, okB := pieces[right]
		if !ok || !okA || !okB {
			return nil, errMerges
		}
		t.ranks[[2]int32{a, b}] = int32(i)
		pieces[left+right] = int32(2*byteTokens + i)
	}
	// Two merges may have the same piece; its name is the last one's number.
	for _, line := range lines[:most] {
		t.names = append(t.names, pieces[strings.Replace(line, " ", "", 1)])
	}
	return t, nil
}

// Len is the number of pieces.
func (t *Tokenizer) Len() int { return int(t.end) + 1 }

// Encode returns the numbers of a text's pieces, at most most of them, with those that
// begin and end a text.
func (t *Tokenizer) Encode(text string, most int) []int32 {
	ids := []int32{t.begin}
	for text != "" && len(ids) < most {
		// Marks of the beginning and the end are what they are wherever they stand.
		at, mark := len(text), ""
		for _, m := range textMarks {
			if i := strings.Index(text, m); i >= 0 && i < at {
				at, mark = i, m
			}
		}
		ids = t.words(ids, lower(text[:at]), most)
		text = text[at+len(mark):]
		if mark == textMarks[0] {
			ids = append(ids, t.begin)
		} else if mark != "" {
			ids = append(ids, t.end)
		}
	}
	return append(ids[:min(len(ids), most-1)], t.end)
}

var textMarks = [...]string{"<|startoftext|>", "<|endoftext|>"}

// lower changes characters one by one.
func lower(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == 'İ' {
			b.WriteString("i\u0307")
		} else {
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// words splits a text: endings behind an apostrophe, rows of letters, single digits,
// rows of anything else that is no space.
func (t *Tokenizer) words(ids []int32, text string, most int) []int32 {
	for text != "" && len(ids) < most {
		n := word(text)
		if n == 0 {
			_, n = utf8.DecodeRuneInString(text)
		} else {
			ids = t.merge(ids, text[:n])
		}
		text = text[n:]
	}
	return ids
}

// word is the length of the word that a text begins with, 0 if that is a space.
func word(text string) int {
	for _, whole := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if strings.HasPrefix(text, whole) {
			return len(whole)
		}
	}
	kind := func(r rune) int {
		switch {
		case unicode.IsSpace(r):
			return 0
		case unicode.IsLetter(r):
			return 1
		case unicode.IsNumber(r):
			return 2
		}
		return 3
	}
	first, n := utf8.DecodeRuneInString(text)
	of := kind(first)
	switch of {
	case 0:
		return 0
	case 2:
		return n
	}
	for i, r := range text {
		if kind(r) != of {
			return i
		}
	}
	return len(text)
}

// merge appends the pieces of a word.
func (t *Tokenizer) merge(ids []int32, word string) []int32 {
	first := len(ids)
	for i := range len(word) {
		ids = append(ids, t.bytes[word[i]])
	}
	ids[len(ids)-1] += byteTokens
	for {
		best, found := int32(0), false
		for i := first; i+1 < len(ids); i++ {
			if rank, ok := t.ranks[[2]int32{ids[i], ids[i+1]}]; ok && (!found || rank < best) {
				best, found = rank, true
			}
		}
		if !found {
			return ids
		}
		to := first
		for i := first; i < len(ids); i++ {
			ids[to] = ids[i]
			if i+1 < len(ids) {
				if rank, ok := t.ranks[[2]int32{ids[i], ids[i+1]}]; ok && rank == best {
					ids[to] = t.names[rank]
					i++
				}
			}
			to++
		}
		ids = ids[:to]
	}
}
