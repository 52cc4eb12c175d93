// Package token turns prompts into what the text encoder reads: numbers of
// pieces of words.
//
// It is BERT's uncased WordPiece tokenizer. For every text it gives the same
// numbers as the one that the text encoder was trained with, also for texts
// that nobody would type.
package token

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// longestWord is the number of characters of the longest word that is
	// looked up; longer ones are unknown.
	longestWord = 100
	// mostPieces bounds the vocabulary that is read.
	mostPieces = 1 << 20
)

// Tokenizer turns texts into numbers. It does not change after New, and may
// be used from many goroutines.
type Tokenizer struct {
	pieces    []string
	table     []int32 // finds pieces by their hash: a number plus one, or 0
	longest   int     // bytes of the longest piece
	specials  []special
	unknown   int32
	begin     int32
	end       int32
	dropped   []span
	spaces    []span
	ideograph []span
	marks     []span
	shifts    []shift
	expand    map[rune]string
}

// special is a piece such as [MASK], which is recognised as it stands in a
// text, before anything is done to that text.
type special struct {
	text string
	id   int32
}

type span struct{ low, high rune }

// shift says that the characters low, low+step, … high each become the one
// that is by further on.
type shift struct{ low, high, step, by rune }

// Phrases splits a prompt into the names that it gives for one thing:
// "sofa, couch" has two. What is empty does not count.
func Phrases(prompt string) []string {
	var phrases []string
	for _, s := range strings.Split(prompt, ",") {
		if s = strings.TrimSpace(s); s != "" {
			phrases = append(phrases, s)
		}
	}
	return phrases
}

// New makes a tokenizer from a vocabulary: a piece a line, numbered from 0.
func New(vocab []byte) (*Tokenizer, error) {
	if !utf8.Valid(vocab) {
		return nil, errors.New("the tokenizer's vocabulary is not UTF-8 text; use the vocab.txt that belongs to the weights")
	}
	// One string holds the text of all pieces.
	lines := strings.Split(strings.TrimSuffix(string(vocab), "\n"), "\n")
	if len(lines) > mostPieces {
		return nil, errors.New("the tokenizer's vocabulary is too large; use the vocab.txt that belongs to the weights")
	}
	t := &Tokenizer{
		pieces:    lines,
		dropped:   spans(droppedTable),
		spaces:    spans(spaceTable),
		ideograph: spans(ideographTable),
		marks:     spans(punctuationTable),
		shifts:    shifts(),
		expand:    map[rune]string{},
	}
	for _, s := range strings.Fields(expansions) {
		c, size := utf8.DecodeRuneInString(s)
		t.expand[c] = s[size:]
	}

	size := 1
	for size < 2*len(lines) {
		size *= 2
	}
	t.table = make([]int32, size)
	for i, line := range lines {
		piece := strings.TrimSuffix(line, "\r")
		slot, ok := t.slot("", piece)
		if ok || piece == "" {
			return nil, errors.New("the tokenizer's vocabulary has an empty line or the same piece twice; use the vocab.txt that belongs to the weights")
		}
		t.pieces[i], t.table[slot] = piece, int32(i+1)
		t.longest = max(t.longest, len(piece))
	}
	for _, s := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		if id, ok := t.find("", s); ok {
			t.specials = append(t.specials, special{s, id})
		}
	}
	var ok [3]bool
	t.unknown, ok[0] = t.find("", "[UNK]")
	t.begin, ok[1] = t.find("", "[CLS]")
	t.end, ok[2] = t.find("", "[SEP]")
	if ok != [3]bool{true, true, true} {
		return nil, errors.New("the tokenizer's vocabulary lacks [UNK], [CLS] or [SEP]; use the vocab.txt that belongs to the weights")
	}
	return t, nil
}

// Len is the number of pieces in the vocabulary.
func (t *Tokenizer) Len() int { return len(t.pieces) }

// slot returns the place in the table of the piece that prefix and rest are
// together, or the one that it would have. A table of our own is filled in
// half of the time of a map, and the page waits for that.
func (t *Tokenizer) slot(prefix, rest string) (slot int, ok bool) {
	hash := uint32(2166136261) // FNV-1a
	for i := range len(prefix) {
		hash = (hash ^ uint32(prefix[i])) * 16777619
	}
	for i := range len(rest) {
		hash = (hash ^ uint32(rest[i])) * 16777619
	}
	for slot = int(hash) & (len(t.table) - 1); t.table[slot] != 0; slot = (slot + 1) & (len(t.table) - 1) {
		piece := t.pieces[t.table[slot]-1]
		if len(piece) == len(prefix)+len(rest) && piece[:len(prefix)] == prefix && piece[len(prefix):] == rest {
			return slot, true
		}
	}
	return slot, false
}

func (t *Tokenizer) find(prefix, rest string) (id int32, ok bool) {
	slot, ok := t.slot(prefix, rest)
	return t.table[slot] - 1, ok
}

// Encode returns the numbers of a text's pieces between those of [CLS] and
// [SEP], at most max numbers in all. What does not fit is cut off.
func (t *Tokenizer) Encode(text string, max int) []int32 {
	if max < 2 {
		panic("token: no room for [CLS] and [SEP]")
	}
	e := encoder{t: t, ids: []int32{t.begin}, room: max - 1}
	for text != "" && !e.full() {
		at, length, id := t.nextSpecial(text)
		e.plain(text[:at])
		if length > 0 && !e.full() {
			e.ids = append(e.ids, id)
		}
		text = text[at+length:]
	}
	return append(e.ids, t.end)
}

// nextSpecial finds the first special piece in a text. Without one, at is
// the length of the text.
func (t *Tokenizer) nextSpecial(text string) (at, length int, id int32) {
	at = len(text)
	for i := 0; ; i++ {
		j := strings.IndexByte(text[i:], '[')
		if j < 0 {
			return at, 0, 0
		}
		i += j
		for _, s := range t.specials {
			if strings.HasPrefix(text[i:], s.text) {
				return i, len(s.text), s.id
			}
		}
	}
}

// encoder collects the pieces of one text.
type encoder struct {
	t     *Tokenizer
	ids   []int32
	room  int    // how many numbers there may be before [SEP]
	word  []byte // the word that is being read, as it is looked up
	chars int    // its characters
}

func (e *encoder) full() bool { return len(e.ids) >= e.room }

// plain reads text without special pieces.
func (e *encoder) plain(text string) {
	for _, c := range text {
		if e.full() {
			return
		}
		e.character(c)
	}
	e.endWord()
}

// character takes the next character of a text: it drops it, ends the word
// with it, or adds its lower case without accents to the word.
func (e *encoder) character(c rune) {
	t := e.t
	if c < utf8.RuneSelf {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			e.add(c)
			return
		case 'A' <= c && c <= 'Z':
			e.add(c + 'a' - 'A')
			return
		case c == ' ':
			e.endWord()
			return
		}
	}
	switch {
	case within(t.dropped, c):
	case within(t.spaces, c):
		e.endWord()
	case within(t.ideograph, c):
		e.endWord()
		e.add(t.lower(c))
		e.endWord()
	case firstSyllable <= c && c <= lastSyllable:
		for _, c := range decompose(c) {
			if c != 0 {
				e.add(c)
			}
		}
	default:
		if s, ok := t.expand[c]; ok {
			for _, c := range s {
				e.add(c)
			}
			return
		}
		c = t.lower(c)
		if within(t.marks, c) {
			e.endWord()
			e.add(c)
			e.endWord()
			return
		}
		e.add(c)
	}
}

func (e *encoder) add(c rune) {
	// A word that is too long is unknown, whatever else it contains.
	if e.chars++; e.chars <= longestWord {
		e.word = utf8.AppendRune(e.word, c)
	}
}

// endWord splits the word that was read into pieces: the longest one that it
// begins with, then the longest one that the rest begins with, and so on. If
// nothing fits somewhere, the whole word is one unknown piece.
func (e *encoder) endWord() {
	word, chars := string(e.word), e.chars
	e.word, e.chars = e.word[:0], 0
	if chars == 0 || e.full() {
		return
	}
	if chars > longestWord {
		e.ids = append(e.ids, e.t.unknown)
		return
	}
	start := len(e.ids)
	for prefix := ""; len(word) > 0; prefix = "##" {
		end := min(len(word), e.t.longest)
		id, ok := e.t.find(prefix, word[:end])
		for !ok && end > 1 {
			end--
			// Half a character is in no vocabulary, so it needs no care here.
			id, ok = e.t.find(prefix, word[:end])
		}
		if !ok {
			e.ids = append(e.ids[:start], e.t.unknown)
			return
		}
		e.ids = append(e.ids, id)
		word = word[end:]
	}
	e.ids = e.ids[:min(len(e.ids), e.room)]
}

// lower returns the lower case of a character without its accents.
func (t *Tokenizer) lower(c rune) rune {
	i, found := slices.BinarySearchFunc(t.shifts, c, func(s shift, c rune) int {
		return outside(span{s.low, s.high}, c)
	})
	if found && (c-t.shifts[i].low)%t.shifts[i].step == 0 {
		return c + t.shifts[i].by
	}
	return c
}

func within(spans []span, c rune) bool {
	_, found := slices.BinarySearchFunc(spans, c, outside)
	return found
}

// outside tells on which side of a character a span lies: -1 before it, 1
// after it, or 0 when the character lies in the span.
func outside(s span, c rune) int {
	switch {
	case s.high < c:
		return -1
	case s.low > c:
		return 1
	}
	return 0
}

const (
	firstSyllable = 0xAC00
	lastSyllable  = 0xD7A3
)

// decompose splits a Korean syllable into its two or three letters, as the
// Unicode standard (3.12) says.
func decompose(c rune) [3]rune {
	const vowels, finals = 21, 28
	c -= firstSyllable
	letters := [3]rune{0x1100 + c/(vowels*finals), 0x1161 + c/finals%vowels, 0}
	if final := c % finals; final > 0 {
		letters[2] = 0x11A7 + final
	}
	return letters
}

// varints returns the numbers of a table.
func varints(table string) []rune {
	var out []rune
	var x rune
	var at uint
	for i := range len(table) {
		x |= rune(table[i]&0x7F) << at
		if at += 7; table[i] < 0x80 {
			out = append(out, x)
			x, at = 0, 0
		}
	}
	return out
}

func spans(table string) []span {
	var out []span
	var next rune
	for v := varints(table); len(v) > 0; v = v[2:] {
		low := next + v[0]
		next = low + v[1]
		out = append(out, span{low, next - 1})
	}
	return out
}

func shifts() []shift {
	var out []shift
	var next rune
	for v := varints(shiftTable); len(v) > 0; v = v[3:] {
		low, step := next+v[0], v[1]&1+1
		high := low + (v[1]>>1-1)*step
		by := v[2]>>1 ^ -(v[2] & 1)
		out = append(out, shift{low, high, step, by})
		next = high + 1
	}
	return out
}
