package weights

import (
	"bytes"
	"errors"
	"fmt"
	"go/build"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// file returns a safetensors file with the given header and data.
func file(header string, data []byte) []byte {
	n := len(header)
	out := []byte{byte(n), byte(n >> 8), byte(n >> 16), 0, 0, 0, 0, 0}
	return append(append(out, header...), data...)
}

// manifestFor returns a manifest that lists the files; vocab.txt has to be
// one of them.
func manifestFor(files map[string][]byte) []byte {
	var shards []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		shards = append(shards, fmt.Sprintf(`{"file":%q,"size":%d,"sha256":"%x"}`, name, len(files[name]), sum(files[name])))
	}
	return []byte(`{"format":"pmp-weights","version":1,"arch":"test","config":{"d":8},"tokenizer":"vocab.txt","shards":[` +
		strings.Join(shards, ",") + `],"parts":[{"name":"all","source":"here","licence":"MIT"}],"trained_names":["cat","dog"],"later":1}`)
}

func load(files map[string][]byte) (*Manifest, error) {
	return Load(func(name string) ([]byte, error) {
		if name == "manifest.json" {
			return manifestFor(files), nil
		}
		return files[name], nil
	})
}

// sample has a tensor of each type.
func sample() map[string][]byte {
	return map[string][]byte{
		"vocab.txt": []byte("[PAD]\n"),
		"a.safetensors": file(`{"__metadata__":{"made":"by hand"},"f":{"dtype":"F32","shape":[],"data_offsets":[0,4]},`+
			`"q.scale":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"q":{"dtype":"I8","shape":[2,3],"data_offsets":[8,14]}}  `,
			[]byte{0, 0, 0x20, 0xC1 /* -10 */, 0, 0x38 /* 0.5 */, 0, 0x40 /* 2 */, 1, 0xFF, 127, 0x81, 0, 3}),
		"b.safetensors": file(`{"h":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"g":{"dtype":"BF16","shape":[2,1],"data_offsets":[6,10]}}`,
			[]byte{0, 0x3C, 1, 0, 0xFF, 0x7B, 0x80, 0x3F, 0x40, 0xC0}),
	}
}

func TestRead(t *testing.T) {
	m, err := load(sample())
	if err != nil {
		t.Fatal(err)
	}
	if m.Arch != "test" || m.Fields().Int("d") != 8 || string(m.Vocabulary()) != "[PAD]\n" ||
		!slices.Equal(m.TrainedNames, []string{"cat", "dog"}) || m.Parts[0] != (Part{"all", "here", "MIT", ""}) {
		t.Errorf("the manifest was read as %+v", m)
	}
	if got := m.Names(); !slices.Equal(got, []string{"f", "g", "h", "q"}) {
		t.Errorf("names are %q", got)
	}
	for _, test := range []struct {
		name  string
		shape []int
		want  []float32
	}{
		{"f", nil, []float32{-10}},
		{"g", []int{2, 1}, []float32{1, -3}},
		{"h", []int{3}, []float32{1, 1.0 / (1 << 24), 65504}},
		{"q", []int{2, 3}, []float32{0.5, -0.5, 63.5, -254, 0, 6}},
	} {
		x, err := m.Tensor(test.name)
		if err != nil {
			t.Error(err)
			continue
		}
		got := make([]float32, x.Len())
		x.Float32(got)
		if !slices.Equal(x.Shape, test.shape) || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v %v, want %v %v", test.name, x.Shape, got, test.shape, test.want)
		}
		row := make([]float32, x.Width())
		for i := range x.Rows() {
			x.Row(i, row)
			if !slices.Equal(row, test.want[i*len(row):][:len(row)]) {
				t.Errorf("%s: row %d is %v", test.name, i, row)
			}
		}
	}
	if _, err := m.Tensor("q.scale"); err != nil {
		t.Error(err)
	}
	if _, err := m.Tensor("none"); codeOf(err) != CodeFormat {
		t.Errorf("a missing tensor gives %v", err)
	}
}

// A matrix in panels is read as the matrix, row by row and as a whole.
func TestPanels(t *testing.T) {
	const rows, width = 16, 12
	data := make([]byte, rows*width)
	var scales []byte
	for n := range rows {
		scales = append(scales, 0, 0x3C) // 1
		for k := range width {
			// By hand: panel n/8 has 3 quads of 8 rows of 4.
			data[n/8*96+k/4*32+n%8*4+k%4] = byte(int8(10*k - 7*n))
		}
	}
	header := fmt.Sprintf(`{"q.scale":{"dtype":"F16","shape":[%d],"data_offsets":[0,%d]},"q":{"dtype":"I8","shape":[2,3,8,4],"data_offsets":[%[2]d,%d]}}`,
		rows, 2*rows, 2*rows+len(data))
	m, err := load(map[string][]byte{"vocab.txt": []byte("[PAD]\n"), "a.safetensors": file(header, append(scales, data...))})
	if err != nil {
		t.Fatal(err)
	}
	x, err := m.Tensor("q")
	if err != nil || !x.Panels || !slices.Equal(x.Shape, []int{rows, width}) {
		t.Fatalf("got %v %v, panels %v: %v", x.Name, x.Shape, x.Panels, err)
	}
	all, row := make([]float32, rows*width), make([]float32, width)
	x.Float32(all)
	for n := range rows {
		x.Row(n, row)
		for k := range width {
			if want := float32(10*k - 7*n); row[k] != want || all[n*width+k] != want {
				t.Fatalf("[%d,%d] is %v and %v, want %v", n, k, row[k], all[n*width+k], want)
			}
		}
	}
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestAdd(t *testing.T) {
	files := sample()
	m, err := Open(manifestFor(files))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Complete(); codeOf(err) != CodeIntegrity {
		t.Errorf("without any file, Complete gives %v", err)
	}
	shard := files["a.safetensors"]
	if err := m.Add("a.safetensors", shard[:len(shard)-1]); codeOf(err) != CodeIntegrity {
		t.Errorf("a shard that was cut gives %v", err)
	}
	for i := range shard {
		flipped := bytes.Clone(shard)
		flipped[i] ^= 1
		if err := m.Add("a.safetensors", flipped); codeOf(err) != CodeIntegrity {
			t.Errorf("a flipped bit in byte %d gives %v", i, err)
		}
	}
	if err := m.Add("c.safetensors", shard); codeOf(err) != CodeFormat {
		t.Errorf("a file that is not listed gives %v", err)
	}
	if err := m.Add("a.safetensors", shard); err != nil {
		t.Errorf("after all those refusals, the right shard gives %v", err)
	}
	if err := m.Add("a.safetensors", shard); codeOf(err) != CodeFormat {
		t.Errorf("the same shard again gives %v", err)
	}
	x, err := m.Tensor("f")
	if err != nil {
		t.Fatal(err)
	}
	if &x.data[0] != &shard[len(shard)-14] {
		t.Error("the bytes were copied")
	}
}

// TestForged checks shards whose hash is right and whose content is not.
func TestForged(t *testing.T) {
	type shards map[string][]byte
	one := func(header string, n int) shards { return shards{"a.safetensors": file(header, make([]byte, n))} }
	for name, test := range map[string]struct {
		files shards
		want  string
	}{
		"short":          {shards{"a.safetensors": {1, 2, 3}}, "too short"},
		"header beyond":  {shards{"a.safetensors": {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'}}, "does not fit"},
		"header huge":    {shards{"a.safetensors": {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, '{', '}'}}, "does not fit"},
		"not JSON":       {one(`{"a"`, 0), "not valid JSON"},
		"not an object":  {one(`[]`, 0), "not an object"},
		"no dtype":       {one(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, 4), `"dtype" is missing`},
		"dtype":          {one(`{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, 4), "unknown element type"},
		"dtype unfit":    {one(`{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`, 8), "elements of type I64"},
		"negative shape": {one(`{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}`, 4), "dimension"},
		"zero shape":     {one(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0), "dimension"},
		"overflow": {one(`{"a":{"dtype":"F32","shape":[2147483647,2147483647,2147483647,2147483647],"data_offsets":[0,4]}}`, 4),
			"larger than the file"},
		"wraps to 4":        {one(`{"a":{"dtype":"F32","shape":[65536,65536,65536,65537],"data_offsets":[0,4]}}`, 4), "larger than the file"},
		"rank":              {one(`{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`, 4), "too many dimensions"},
		"fraction":          {one(`{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}`, 4), "integers"},
		"three offsets":     {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4), "inside the file"},
		"beyond":            {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 4), "inside the file"},
		"backwards":         {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4), "inside the file"},
		"negative offset":   {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4), "inside the file"},
		"length":            {one(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 8), "its shape and type need 8"},
		"gap":               {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "gap"},
		"overlap":           {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4), "overlap"},
		"rest":              {one(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 5), "1 bytes follow"},
		"same name":         {one(`{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}`, 2), "same name"},
		"no name":           {one(`{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4), "no name"},
		"no scale":          {one(`{"a":{"dtype":"I8","shape":[1,1],"data_offsets":[0,1]}}`, 1), "does not have a float16 scale"},
		"scales too few":    {one(`{"a.scale":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"I8","shape":[2,1],"data_offsets":[2,4]}}`, 4), "float16 scale"},
		"scale of F32":      {one(`{"a.scale":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I8","shape":[1,1],"data_offsets":[4,5]}}`, 5), "float16 scale"},
		"scale not finite":  {shards{"a.safetensors": file(`{"a.scale":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"I8","shape":[1,1],"data_offsets":[2,3]}}`, []byte{0, 0x7C, 1})}, "not finite"},
		"scale is negative": {shards{"a.safetensors": file(`{"a.scale":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"I8","shape":[1,1],"data_offsets":[2,3]}}`, []byte{0, 0xBC, 1})}, "negative"},
		"two shards": {shards{"a.safetensors": file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, make([]byte, 4)),
			"b.safetensors": file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]} }`, make([]byte, 4))}, "in two of"},
	} {
		test.files["vocab.txt"] = []byte("x")
		_, err := load(test.files)
		if codeOf(err) != CodeFormat || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want a format error with %q", name, err, test.want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	good := string(manifestFor(map[string][]byte{"vocab.txt": []byte("x"), "a.safetensors": []byte("y")}))
	if _, err := Open([]byte(good)); err != nil {
		t.Fatal(err)
	}
	shard := good[strings.Index(good, `{"file":"a`) : strings.Index(good, `},{`)+1]
	for name, test := range map[string]struct{ old, new, want string }{
		"format":          {`"pmp-weights"`, `"other"`, `its format is "other"`},
		"version":         {`"version":1`, `"version":2`, "use weights and program of the same release"},
		"no version":      {`"version":1`, `"v":1`, `"version" is missing`},
		"no arch":         {`"arch":"test"`, `"arch":3`, `"arch" should be a string`},
		"config":          {`{"d":8}`, `[]`, `"config" should be an object`},
		"tokenizer":       {`"tokenizer":"vocab.txt"`, `"tokenizer":"v.txt"`, "not one of the files"},
		"twice":           {shard, shard + "," + shard, "twice"},
		"folder":          {`"a.safetensors"`, `"../a.safetensors"`, "plain file name"},
		"hidden":          {`"a.safetensors"`, `".a"`, "plain file name"},
		"capitals":        {`"a.safetensors"`, `"A"`, "plain file name"},
		"itself":          {`"a.safetensors"`, `"manifest.json"`, "plain file name"},
		"no size":         {`"size":1`, `"size":null`, "should be an integer"},
		"negative size":   {`"size":1`, `"size":-1`, "should be from 1"},
		"size":            {`"size":1`, `"size":99999999999999`, "should be from 1"},
		"size of 30 nine": {`"size":1`, `"size":999999999999999999999999999999`, "should be an integer"},
		"sha":             {`"sha256":"`, `"sha256":"0`, "64 lower-case"},
		"sha capitals":    {`"sha256":"a`, `"sha256":"A`, "64 lower-case"},
		"parts":           {`"parts":[`, `"parts":[1,`, "expected an object"},
		"names":           {`"cat"`, `1`, "list of strings"},
		"same member":     {`"arch"`, `"version":1,"arch"`, "same name"},
		"end":             {`"later":1}`, `"later":1}{}`, "something follows"},
	} {
		if !strings.Contains(good, test.old) {
			t.Fatalf("%s: the manifest has no %s", name, test.old)
		}
		_, err := Open([]byte(strings.Replace(good, test.old, test.new, 1)))
		if codeOf(err) != CodeFormat || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want a format error with %q", name, err, test.want)
		}
	}
	for _, s := range []string{"", "{}", "null", `{"format":"pmp-weights","version":1,"arch":"a","config":{},"tokenizer":"v","shards":[]}`} {
		if _, err := Open([]byte(s)); codeOf(err) != CodeFormat {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

// TestHalf compares every float16 with its meaning.
func TestHalf(t *testing.T) {
	for i := range 1 << 16 {
		exponent, fraction := i>>10&31, float64(i&1023)
		want := math.Ldexp(1024+fraction, exponent-25)
		if exponent == 0 {
			want = math.Ldexp(fraction, -24)
		} else if exponent == 31 && fraction == 0 {
			want = math.Inf(1)
		} else if exponent == 31 {
			want = math.NaN()
		}
		if i >= 1<<15 {
			want = -want
		}
		got := half([]byte{byte(i), byte(i >> 8)})
		if float64(got) != want && !(math.IsNaN(want) && got != got) {
			t.Fatalf("%#04x: got %v, want %v", i, got, want)
		}
	}
}

func TestPanics(t *testing.T) {
	m, err := load(sample())
	if err != nil {
		t.Fatal(err)
	}
	q, err := m.Tensor("q")
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"length":       func() { q.Float32(make([]float32, 5)) },
		"row length":   func() { q.Row(0, make([]float32, 2)) },
		"row":          func() { q.Row(2, make([]float32, 3)) },
		"negative row": func() { q.Row(-1, make([]float32, 3)) },
	} {
		func() {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "weights: ") {
					t.Errorf("%s: no panic, or another one", name)
				}
			}()
			f()
		}()
	}
}

// TestImports keeps out of the engine what would make its download larger.
func TestImports(t *testing.T) {
	context := build.Default
	context.GOOS, context.GOARCH = "js", "wasm"
	p, err := context.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range p.Imports {
		switch name {
		case "fmt", "encoding/json", "encoding/binary", "reflect", "net/http", "os", "sort", "regexp", "crypto/sha256", "io/fs":
			t.Errorf("the package imports %s", name)
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	for _, data := range sample() {
		f.Add(data)
	}
	f.Add(file(`{"a":{"dtype":"F32","shape":[2147483647,2147483647],"data_offsets":[0,4]}}`, make([]byte, 4)))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ReadSafetensors(data)
		if err != nil {
			if codeOf(err) != CodeFormat {
				t.Fatalf("error %v has no code", err)
			}
			return
		}
		// What is accepted covers the file's data exactly.
		total := 0
		for _, e := range entries {
			n := e.DType.Size()
			for _, d := range e.Shape {
				n *= d
			}
			if n != len(e.Data) {
				t.Fatalf("tensor %q has %d bytes and not %d", e.Name, len(e.Data), n)
			}
			total += n
		}
		if total > len(data)-8 {
			t.Fatalf("the tensors have %d bytes, the file %d", total, len(data))
		}
	})
}

func FuzzOpen(f *testing.F) {
	f.Add(manifestFor(sample()))
	f.Add([]byte(`{"format":"pmp-weights","version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Open(data)
		if err != nil {
			if codeOf(err) != CodeFormat {
				t.Fatalf("error %v has no code", err)
			}
			return
		}
		for _, file := range m.Files {
			if file.Size < 1 || !plainName(file.Name) {
				t.Fatalf("accepted the file %+v", file)
			}
		}
		if err := m.Complete(); codeOf(err) != CodeIntegrity {
			t.Fatalf("without files, Complete gives %v", err)
		}
	})
}

func BenchmarkFloat32(b *testing.B) {
	for _, d := range []DType{I8, F16, F32} {
		b.Run(string(d), func(b *testing.B) {
			x := Tensor{Shape: []int{1000, 384}, DType: d, data: make([]byte, 384000*d.Size()), scale: make([]byte, 2000)}
			for i := range x.data {
				x.data[i] = byte(i * 7)
			}
			dst := make([]float32, x.Len())
			b.SetBytes(int64(4 * len(dst)))
			for b.Loop() {
				x.Float32(dst)
			}
		})
	}
}
