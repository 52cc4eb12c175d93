package weights

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// This is a small strict JSON parser. It exists because encoding/json, with
// the reflection that it needs, would add 110 kB to what a page downloads.
// It accepts exactly RFC 8259, with these limits, which keep forged input
// from costing more than a few times its own size:
const (
	maxDepth  = 16      // objects and lists inside each other
	maxValues = 1 << 18 // values in one text
)

type kind uint8

const (
	absent kind = iota
	null
	boolean
	number
	text
	list
	object
)

var kindNames = [...]string{"nothing", "null", "true or false", "a number", "a string", "a list", "an object"}

// Value is a JSON value. The zero Value is the value of a member that is not
// there.
type Value struct {
	kind kind
	// The string, or a number as it was written, or "true".
	text string
	// A list's values, or an object's keys and values by turns, in the order
	// in which they were written.
	items []Value
}

// Parse parses one JSON value with nothing after it but white space. It
// refuses objects with two members of the same name.
func Parse(data []byte) (Value, error) {
	p := parser{data: data}
	p.space()
	v := p.value(0)
	p.space()
	if p.wrong == "" && p.at < len(data) {
		p.fail("something follows after the end")
	}
	if p.wrong != "" {
		return Value{}, formatError("this is not valid JSON: " + p.wrong + " at byte " + strconv.Itoa(p.at))
	}
	return v, nil
}

// Present tells whether the value is there and not null.
func (v Value) Present() bool { return v.kind > null }

// Bool returns the value if it is true or false.
func (v Value) Bool() (value, ok bool) { return v.text == "true", v.kind == boolean }

// Int returns the value if it is a number written as an integer that fits.
func (v Value) Int() (int, bool) {
	if v.kind != number {
		return 0, false
	}
	n, err := strconv.Atoi(v.text)
	return n, err == nil
}

// Float returns the value if it is a number that a float64 can hold.
func (v Value) Float() (float64, bool) {
	if v.kind != number {
		return 0, false
	}
	x, err := strconv.ParseFloat(v.text, 64)
	return x, err == nil
}

// Text returns the value if it is a string.
func (v Value) Text() (string, bool) { return v.text, v.kind == text }

// List returns the values of a list.
func (v Value) List() ([]Value, bool) { return v.items, v.kind == list }

// IsObject tells whether the value is an object.
func (v Value) IsObject() bool { return v.kind == object }

// Len is the number of values in a list or of members in an object.
func (v Value) Len() int {
	if v.kind == object {
		return len(v.items) / 2
	}
	return len(v.items)
}

// Member returns an object's member number i, in the order in which they
// were written.
func (v Value) Member(i int) (key string, value Value) {
	if v.kind != object {
		panic("weights: Member of a value that is not an object")
	}
	return v.items[2*i].text, v.items[2*i+1]
}

// Get returns an object's member, or the zero Value if there is none.
func (v Value) Get(key string) Value {
	if v.kind == object {
		for i := 0; i < len(v.items); i += 2 {
			if v.items[i].text == key {
				return v.items[i+1]
			}
		}
	}
	return Value{}
}

// Fields reads the members of an object and remembers the first thing that
// was wrong, so that a reader may ask for all that it needs and look at the
// error once:
//
//	f := m.Fields()
//	d, heads := f.Int("d"), f.Int("heads")
//	stem := f.Fields("trunk").Int("stem")
//	if err := f.Err(); err != nil { … }
//
// After an error, and in a Fields that was asked for and is not there,
// everything is zero.
type Fields struct {
	value Value
	where string // what comes before a key in messages
	wrong *string
}

// Fields returns a reader of the value's members; where says in messages what
// is being read.
func (v Value) Fields(where string) Fields {
	f := Fields{value: v, where: where + ": ", wrong: new(string)}
	if v.kind != object {
		*f.wrong = where + ": expected an object, found " + kindNames[v.kind]
	}
	return f
}

// Err returns the first thing that was wrong, in this object or in one that
// was reached through it.
func (f Fields) Err() error {
	if *f.wrong == "" {
		return nil
	}
	return formatError(*f.wrong)
}

// Fail records that a member has a value that it may not have.
func (f Fields) Fail(key, why string) {
	if *f.wrong == "" {
		*f.wrong = f.where + "member " + quote(key) + " " + why
	}
}

// Has tells whether a member is there and not null.
func (f Fields) Has(key string) bool { return f.value.Get(key).Present() }

func (f Fields) get(key string, ok func(v Value) bool, expected string) Value {
	v := f.value.Get(key)
	if *f.wrong == "" && !ok(v) {
		if v.kind == absent {
			f.Fail(key, "is missing")
		} else {
			f.Fail(key, "should be "+expected+"; it is "+kindNames[v.kind])
		}
	}
	if *f.wrong != "" {
		return Value{}
	}
	return v
}

// Int returns a member that is an integer.
func (f Fields) Int(key string) int {
	v := f.get(key, func(v Value) bool { _, ok := v.Int(); return ok }, "an integer")
	n, _ := v.Int()
	return n
}

// IntWithin returns a member that is an integer of at least low and at most
// high.
func (f Fields) IntWithin(key string, low, high int) int {
	n := f.Int(key)
	if *f.wrong == "" && (n < low || n > high) {
		f.Fail(key, "should be from "+strconv.Itoa(low)+" to "+strconv.Itoa(high)+"; it is "+strconv.Itoa(n))
	}
	if *f.wrong != "" {
		return 0
	}
	return n
}

// Float returns a member that is a number.
func (f Fields) Float(key string) float64 {
	v := f.get(key, func(v Value) bool { _, ok := v.Float(); return ok }, "a number")
	x, _ := v.Float()
	return x
}

// Bool returns a member that is true or false.
func (f Fields) Bool(key string) bool {
	v := f.get(key, func(v Value) bool { return v.kind == boolean }, "true or false")
	return v.text == "true"
}

// Text returns a member that is a string.
func (f Fields) Text(key string) string {
	return f.get(key, func(v Value) bool { return v.kind == text }, "a string").text
}

// TextOr returns a member that is a string, or another if it is not there.
func (f Fields) TextOr(key, other string) string {
	if !f.Has(key) {
		return other
	}
	return f.Text(key)
}

// List returns the values of a member that is a list.
func (f Fields) List(key string) []Value {
	return f.get(key, func(v Value) bool { return v.kind == list }, "a list").items
}

// Ints returns a member that is a list of integers.
func (f Fields) Ints(key string) []int {
	values := f.List(key)
	out := make([]int, len(values))
	for i, v := range values {
		n, ok := v.Int()
		if !ok {
			f.Fail(key, "should be a list of integers")
			return nil
		}
		out[i] = n
	}
	return out
}

// Texts returns a member that is a list of strings.
func (f Fields) Texts(key string) []string {
	values := f.List(key)
	out := make([]string, len(values))
	for i, v := range values {
		s, ok := v.Text()
		if !ok {
			f.Fail(key, "should be a list of strings")
			return nil
		}
		out[i] = s
	}
	return out
}

// Fields returns a reader of a member that is an object. Both share the
// error.
func (f Fields) Fields(key string) Fields {
	v := f.get(key, Value.IsObject, "an object")
	return Fields{value: v, where: f.where + key + ": ", wrong: f.wrong}
}

// parser reads one text from its start to its end. Once wrong is set, every
// method returns at once and what was parsed is thrown away.
type parser struct {
	data  []byte
	at    int
	count int
	wrong string
}

func (p *parser) fail(why string) {
	if p.wrong == "" {
		p.wrong = why
	}
}

func (p *parser) space() {
	for p.at < len(p.data) {
		switch p.data[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end, which starts nothing.
func (p *parser) peek() byte {
	if p.at < len(p.data) {
		return p.data[p.at]
	}
	return 0
}

func (p *parser) word(w string) bool {
	if len(p.data)-p.at < len(w) || string(p.data[p.at:p.at+len(w)]) != w {
		p.fail("an unknown word")
		return false
	}
	p.at += len(w)
	return true
}

func (p *parser) value(depth int) Value {
	if p.wrong != "" {
		return Value{}
	}
	if p.count++; p.count > maxValues {
		p.fail("too many values")
		return Value{}
	}
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth == maxDepth {
			p.fail("too many levels")
			return Value{}
		}
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.list(depth + 1)
	case c == '"':
		return Value{kind: text, text: p.string()}
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == 't' && p.word("true"):
		return Value{kind: boolean, text: "true"}
	case c == 'f' && p.word("false"):
		return Value{kind: boolean, text: "false"}
	case c == 'n' && p.word("null"):
		return Value{kind: null}
	}
	p.fail("expected a value")
	return Value{}
}

// next skips what stands between two values of a list or an object that ends
// with the byte end, and tells whether there is another value.
func (p *parser) next(first bool, end byte) bool {
	p.space()
	if p.wrong != "" {
		return false
	}
	if p.peek() == end {
		p.at++
		return false
	}
	if first {
		return true
	}
	if p.peek() != ',' {
		p.fail("expected a comma or the closing bracket")
		return false
	}
	p.at++
	p.space()
	return true
}

func (p *parser) list(depth int) Value {
	p.at++
	v := Value{kind: list}
	for first := true; p.next(first, ']'); first = false {
		v.items = append(v.items, p.value(depth))
	}
	return v
}

func (p *parser) object(depth int) Value {
	p.at++
	v := Value{kind: object}
	for first := true; p.next(first, '}'); first = false {
		if p.peek() != '"' {
			p.fail("expected the name of a member")
			break
		}
		p.count++
		key := Value{kind: text, text: p.string()}
		p.space()
		if p.peek() != ':' {
			p.fail("expected a colon")
			break
		}
		p.at++
		p.space()
		v.items = append(v.items, key, p.value(depth))
	}
	if p.wrong == "" && repeats(v) {
		p.fail("two members of the same name in the object that ends")
	}
	return v
}

// repeats tells whether two members of an object have the same name.
func repeats(v Value) bool {
	keys := make([]string, 0, len(v.items)/2)
	for i := 0; i < len(v.items); i += 2 {
		keys = append(keys, v.items[i].text)
	}
	slices.Sort(keys)
	for i := 1; i < len(keys); i++ {
		if keys[i-1] == keys[i] {
			return true
		}
	}
	return false
}

func (p *parser) digits() {
	start := p.at
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.at++
	}
	if p.at == start {
		p.fail("expected a digit")
	}
}

func (p *parser) number() Value {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++ // nothing but a fraction or an exponent may follow
	} else {
		p.digits()
	}
	if p.peek() == '.' {
		p.at++
		p.digits()
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		p.digits()
	}
	return Value{kind: number, text: string(p.data[start:p.at])}
}

func (p *parser) string() string {
	p.at++
	start := p.at
	var out []byte // what came before start, once there was an escape
	for {
		switch c := p.peek(); {
		case c == '"':
			out = append(out, p.data[start:p.at]...)
			p.at++
			if !utf8.Valid(out) {
				p.fail("a string that is not UTF-8 ends")
			}
			return string(out)
		case c < ' ': // at the end of the data, too
			p.fail("a string without an end, or with a control character,")
			return ""
		case c == '\\':
			out = append(out, p.data[start:p.at]...)
			p.at++
			out = p.escape(out)
			start = p.at
		default:
			p.at++
		}
		if p.wrong != "" {
			return ""
		}
	}
}

func (p *parser) escape(out []byte) []byte {
	c := p.peek()
	p.at++
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		r := p.hex()
		if 0xD800 <= r && r < 0xE000 {
			// The first of two halves; a half alone is no character.
			if r >= 0xDC00 || p.peek() != '\\' || !p.word(`\u`) {
				p.fail("half of a surrogate pair")
				return out
			}
			low := p.hex()
			if low < 0xDC00 || low >= 0xE000 {
				p.fail("half of a surrogate pair")
				return out
			}
			r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
		}
		return utf8.AppendRune(out, r)
	}
	p.fail("an unknown escape")
	return out
}

func (p *parser) hex() rune {
	var r rune
	for range 4 {
		c := p.peek()
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			p.fail("expected four hexadecimal digits")
			return 0
		}
		p.at++
		r = r<<4 | rune(c)
	}
	return r
}
