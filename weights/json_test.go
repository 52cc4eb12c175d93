package weights

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// plain turns a Value into what encoding/json makes of the same text.
func plain(v Value) any {
	switch v.kind {
	case boolean:
		b, _ := v.Bool()
		return b
	case number:
		x, _ := v.Float()
		return x
	case text:
		return v.text
	case list:
		out := []any{}
		for _, item := range v.items {
			out = append(out, plain(item))
		}
		return out
	case object:
		out := map[string]any{}
		for i := range v.Len() {
			key, value := v.Member(i)
			out[key] = plain(value)
		}
		return out
	}
	return nil
}

func TestParseAgreesWithEncodingJSON(t *testing.T) {
	for _, s := range []string{
		`null`, `true`, `false`, `0`, `-0`, `-12.5e+3`, `1E2`, `0.25`, `""`, `"a\"\\\/\b\f\n\r\té😀"`,
		`"é 漢 😀"`, `[]`, `[ ]`, `{}`, ` { } `, `[1,[2,[3]],{"a":[]}]`, "\t{\"a\" : 1 ,\r\n\"b\":{\"a\":null}}\n",
		`{"":{"":""}}`,
	} {
		v, err := Parse([]byte(s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		var want any
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			t.Fatal(err)
		}
		if got := plain(v); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, want %#v", s, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "nul", "nulll", "True", "+1", "01", "-", "1.", ".5", "1e", "1e+", "0x1", "NaN", "1 2", "[1,]", "[,1]", "[1 2]",
		"[", "]", "[1", "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{"a":1 "b":2}`, `{"a":1}}`, `"`, `"a`, `"\`, `"\x"`, `"\u12"`,
		`"\u12G4"`, `"\ud83d"`, `"\ud83d\u0041"`, `"\ud83dA"`, `"\ude00"`, "\"\x01\"", "\"\n\"", "\"\xff\"", "\"\xed\xa0\x80\"",
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, "\xef\xbb\xbf{}", "{}\x00", "//", "[1]//",
		strings.Repeat("[", 17) + strings.Repeat("]", 17), strings.Repeat("[", 1<<20), "[" + strings.Repeat("0,", maxValues) + "0]",
	} {
		if v, err := Parse([]byte(s)); err == nil {
			t.Errorf("%.40q was taken for %v", s, plain(v))
		} else if e, ok := err.(*Error); !ok || e.Code != CodeFormat {
			t.Errorf("%.40q: error %v is not of the code %q", s, err, CodeFormat)
		}
	}
}

func TestFields(t *testing.T) {
	v, err := Parse([]byte(`{"n":3,"x":0.5,"big":1e999,"s":"t","yes":true,"nothing":null,"l":[1,2],"w":["a"],"o":{"n":7,"s":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	f := v.Fields("config")
	if f.Int("n") != 3 || f.Float("n") != 3 || f.Float("x") != 0.5 || f.Text("s") != "t" || !f.Bool("yes") ||
		f.Has("nothing") || f.Has("none") || !reflect.DeepEqual(f.Ints("l"), []int{1, 2}) ||
		!reflect.DeepEqual(f.Texts("w"), []string{"a"}) || f.Fields("o").Int("n") != 7 || f.TextOr("none", "other") != "other" ||
		f.IntWithin("n", 3, 3) != 3 {
		t.Error("a member has another value than was written")
	}
	if f.Err() != nil {
		t.Fatal(f.Err())
	}
	for _, test := range []struct {
		name string
		read func(f Fields)
		want string
	}{
		{"missing", func(f Fields) { f.Int("none") }, `config: member "none" is missing`},
		{"fraction", func(f Fields) { f.Int("x") }, `config: member "x" should be an integer; it is a number`},
		{"too big", func(f Fields) { f.Float("big") }, `config: member "big" should be a number; it is a number`},
		{"type", func(f Fields) { f.Text("n") }, `config: member "n" should be a string; it is a number`},
		{"null", func(f Fields) { f.Bool("nothing") }, `config: member "nothing" should be true or false; it is null`},
		{"range", func(f Fields) { f.IntWithin("n", 4, 9) }, `config: member "n" should be from 4 to 9; it is 3`},
		{"list", func(f Fields) { f.Ints("w") }, `config: member "w" should be a list of integers`},
		{"inner", func(f Fields) { f.Fields("o").Text("s") }, `config: o: member "s" should be a string; it is a number`},
		{"first only", func(f Fields) { f.Fields("p").Int("n"); f.Int("none") }, `config: member "p" is missing`},
	} {
		f := v.Fields("config")
		test.read(f)
		if err := f.Err(); err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	if err := (Value{}).Fields("config").Err(); err == nil {
		t.Error("a value that is not there was taken for an object")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,true,null,"\u00e9\ud83d\ude00"]}`, `[[[[]]]]`, `{"a":1,"a":2}`, `"\ud83d"`, `01`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
			return
		}
		// Whatever is accepted means the same to encoding/json.
		var want any
		if err := json.Unmarshal(data, &want); err != nil {
			if strings.Contains(err.Error(), "cannot unmarshal number") {
				return // a number beyond float64, which Float refuses
			}
			t.Fatalf("accepted %q, which encoding/json refuses: %v", data, err)
		}
		if got := plain(v); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %#v, want %#v", data, got, want)
		}
	})
}
