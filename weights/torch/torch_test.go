package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// truth is what testdata/make.py says of its files: a type, a shape and the
// bytes of the numbers for each tensor.
func truth(t testing.TB) map[string]map[string][3]any {
	var all map[string]map[string][3]any
	if err := json.Unmarshal(fixture(t, "truth.json"), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func fixture(t testing.TB, name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func open(data []byte) ([]Tensor, error) { return Open(bytes.NewReader(data), int64(len(data))) }

// read reads everything that is in a file.
func read(data []byte) (map[string][3]any, error) {
	tensors, err := open(data)
	if err != nil {
		return nil, err
	}
	found := map[string][3]any{}
	for _, x := range tensors {
		e, err := x.Entry()
		if err != nil {
			return nil, err
		}
		shape := []any{}
		for _, n := range e.Shape {
			shape = append(shape, float64(n))
		}
		found[e.Name] = [3]any{string(e.DType), shape, hex.EncodeToString(e.Data)}
	}
	return found, nil
}

func same(a, b map[string][3]any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func TestTruth(t *testing.T) {
	for name, want := range truth(t) {
		got, err := read(fixture(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for x := range want {
			if fmt.Sprint(got[x]) != fmt.Sprint(want[x]) {
				t.Errorf("%s: %s is %v, want %v", name, x, got[x], want[x])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d tensors, want %d", name, len(got), len(want))
		}
	}
}

// Tensors come in the order in which the network has them.
func TestOrder(t *testing.T) {
	tensors, err := open(fixture(t, "zip.pth"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"float32", "tied", "part"} {
		if tensors[i].Name != want {
			t.Errorf("tensor %d is %s, want %s", i, tensors[i].Name, want)
		}
	}
}

func TestEvil(t *testing.T) {
	for name, want := range map[string]string{"evil0.pkl": `"os.system"`, "evil2.pkl": `"posix.system"`, "evil4.pkl": `"builtins.print"`, "evil.pth": `"__builtin__.eval"`} {
		if _, err := open(fixture(t, name)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "may run code") {
			t.Errorf("%s: got %v, want an error that names %s", name, err, want)
		}
	}
}

func TestTruncated(t *testing.T) {
	for name := range truth(t) {
		data := fixture(t, name)
		for n := range data {
			if _, err := open(data[:n]); err == nil {
				t.Errorf("%s: its first %d of %d bytes are a checkpoint", name, n, len(data))
			}
		}
	}
}

// A flipped bit gives an error or is not noticed; in a zip file, which has
// checksums, it gives an error or changes nothing.
func TestFlipped(t *testing.T) {
	for name, want := range truth(t) {
		data := fixture(t, name)
		for i := range data {
			data[i] ^= 1 << (i % 8)
			if got, err := read(data); err == nil && isZip(bytes.NewReader(data)) && !same(got, want) {
				t.Errorf("%s: with byte %d changed it is another checkpoint, without an error", name, i)
			}
			data[i] ^= 1 << (i % 8)
		}
	}
}

// What follows writes pickles by hand.

func call(module, name string, args ...string) string {
	return "c" + module + "\n" + name + "\n(" + strings.Join(args, "") + "tR"
}

func str(s string) string { return "U" + string(rune(len(s))) + s }

func number(n int) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func numbers(n ...int) string {
	s := "("
	for _, x := range n {
		s += number(x)
	}
	return s + "t"
}

func dictOf(pairs ...string) string { return "}(" + strings.Join(pairs, "") + "u" }

func pickled(root string) []byte { return []byte("\x80\x02" + root + ".") }

func dtype(name, order string) string {
	return call("numpy", "dtype", str(name)) + "(K\x03" + str(order) + "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
}

func array(dtype, shape, data string) string {
	return call("numpy.core.multiarray", "_reconstruct", "cnumpy\nndarray\n", numbers(0), str("b")) + "(K\x01" + shape + dtype + "\x89" + data + "tb"
}

func storageOf(class, key string, length int) string {
	return "(" + str("storage") + "ctorch\n" + class + "\n" + str(key) + str("cpu") + number(length) + "NtQ"
}

func tensorOf(storage string, first int, shape, strides string) string {
	return call("torch._utils", "_rebuild_tensor_v2", storage, number(first), shape, strides, "\x89", call("collections", "OrderedDict"))
}

// coded is bytes as Python 3 writes them in protocol 2.
func coded(s string) string {
	return call("_codecs", "encode", "X"+string(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))+s, str("latin1"))
}

// legacy is a file in the old format whose storages have 4 bytes an element.
func legacy(root string, storages map[string]int) []byte {
	out := []byte("\x80\x02\x8a\x0a")
	out = append(append(out, magic...), '.')
	out = append(out, pickled(number(version))...)
	out = append(out, pickled(dictOf(str("little_endian"), "\x88"))...)
	out = append(out, pickled(root)...)
	keys, data := "", []byte{}
	for _, k := range slices.Sorted(keysOf(storages)) {
		keys += str(k)
		data = binary.LittleEndian.AppendUint64(data, uint64(storages[k]))
		data = append(data, make([]byte, 4*storages[k])...)
	}
	return append(append(out, pickled("]("+keys+"e")...), data...)
}

func keysOf(m map[string]int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// zipped is a file in the new format.
func zipped(t testing.TB, method uint16, files ...string) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		w, err := z.CreateHeader(&zip.FileHeader{Name: files[i], Method: method})
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func one(storage string, first int, shape, strides string) string {
	return dictOf(str("a"), tensorOf(storage, first, shape, strides))
}

func TestRefuses(t *testing.T) {
	float := func(n int) string { return storageOf("FloatStorage", "0", n) }
	four := map[string]int{"0": 4}
	f4 := dtype("f4", "<")
	data := str(strings.Repeat("\x00", 16))
	pkl := func(value string) []byte { return pickled(dictOf(str("a"), value)) }
	inZip := func(root string, more ...string) []byte {
		return zipped(t, zip.Store, append([]string{"x/data.pkl", string(pickled(root))}, more...)...)
	}
	deep := "N"
	for range 40 {
		deep = dictOf(str("a"), deep)
	}
	laughs := array(f4, numbers(4), data) + "q\x00"
	for i := range 14 {
		laughs += dictOf(str("a"), "h"+string(rune(i)), str("b"), "h"+string(rune(i))) + "q" + string(rune(i+1))
	}
	for _, test := range []struct {
		what string
		file []byte
		want string
	}{
		{"nothing", nil, "ends too early"},
		{"text", []byte("<html>"), "no checkpoint"},
		{"zeros", make([]byte, 100), "no checkpoint"},
		{"no dict", pickled("N"), "no dict"},
		{"no tensors", pickled(dictOf(str("a"), "K\x01")), "no tensors"},
		{"protocol", []byte("\x80\x06N."), "protocol 6"},
		{"rest", append(pickled("N"), 0), "follows"},
		{"frame", []byte("\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN."), "ends too early"},
		{"length", []byte("\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffN."), "ends too early"},
		{"length beyond", pickled("B\xff\xff\xff\x7fN"), "ends too early"},
		{"underflow", pickled("a"), "value is missing"},
		{"below a mark", pickled("N(0"), "value is missing"},
		{"no mark", pickled("t"), "mark is missing"},
		{"memo", pickled("h\x00"), "never remembered"},
		{"memo far", pickled("Nr\xff\xff\xff\xff"), "remembers"},
		{"half a pair", pickled("}(Nu"), "no value"},
		{"no list", pickled("}Na"), "no list"},
		{"no dict to set", pickled("]NNs"), "no dict to set"},
		{"long name", []byte("\x80\x02c" + strings.Repeat("a", 5000)), "too long"},
		{"instance", pickled("(ios\nsystem\n"), "no checkpoint"},
		{"object", pickled("ccollections\nOrderedDict\n)\x81"), "no checkpoint"},
		{"extension", pickled("\x82\x01"), "no checkpoint"},
		{"almost allowed", pickled("ctorch._utils\n_rebuild_tensor_v2.x\n"), "may run code"},
		{"other module", pickled("cos\nFloatStorage\n"), "may run code"},
		{"complex", pickled("ctorch\nComplexFloatStorage\n"), "may run code"},
		{"called twice", pickled(call("collections", "OrderedDict") + ")R"), "no function"},
		{"room for bytes", pickled(call("builtins", "bytes", number(1<<40))), "no function"},
		{"called storage", pickled("ctorch\nFloatStorage\n)R"), "no function"},
		{"state", pickled("NNb"), "state"},

		{"big-endian", pkl(array(dtype("f4", ">"), numbers(4), data)), "little-endian"},
		{"objects", pkl(array(dtype("O8", "|"), numbers(4), data)), `"O8"`},
		{"fields", pkl(call("numpy", "dtype", str("f4")) + "(K\x03" + str("<") + "N(t}NNNtb"), "state"},
		{"array short", pkl(array(f4, numbers(5), data)), "bytes of data"},
		{"array long", pkl(array(f4, numbers(3), data)), "bytes of data"},
		{"array huge", pkl(array(f4, numbers(1<<40, 1<<40), data)), "huge"},
		{"array wraps", pkl(array(f4, numbers(1<<32, 1<<32, 4), data)), "huge"},
		{"array negative", pkl(array(f4, numbers(-2, -2), data)), "negative"},
		{"array rank", pkl(array(f4, numbers(4, 1, 1, 1, 1, 1, 1, 1, 1), data)), "not made of"},
		{"array of no bytes", pkl(array(f4, numbers(4), "N")), "not made of"},
		{"array of text", pkl(array(f4, numbers(4), "X\x10\x00\x00\x00"+strings.Repeat("a", 16))), "not made of"},
		{"few characters", pkl(array(f4, numbers(4), coded("abc"))), "bytes of data"},
		{"many characters", pkl(array(f4, numbers(1), coded(strings.Repeat("a", 9)))), "bytes of data"},
		{"other characters", pkl(array(f4, numbers(1), coded("a\u00e9bcd"))), "as many bytes"},
		{"not Latin", pkl(array(f4, numbers(1), coded("abc\u0141"))), "no bytes"},
		{"not UTF-8", pkl(array(f4, numbers(1), coded("abc\xe9"))), "no bytes"},
		{"other code", pkl(array(f4, numbers(1), call("_codecs", "encode", "X\x04\x00\x00\x00abcd", str("utf-8")))), "unknown way"},
		{"array without state", pkl(call("numpy.core.multiarray", "_reconstruct")), "no data"},
		{"array twice", pkl(array(f4, numbers(4), data) + "NK\x01b"), "state"},
		{"two of a name", pickled(dictOf(str("a"), array(f4, numbers(4), data), str("a"), array(f4, numbers(4), data))), "two tensors"},
		{"no name", pickled(dictOf(str(""), array(f4, numbers(4), data))), "two tensors"},
		{"odd name", pickled(dictOf("N", array(f4, numbers(4), data))), "neither a text"},
		{"deep", pickled(deep), "too deep"},
		{"within itself", pickled("}q\x00(" + str("a") + "h\x00u"), "times as large"},
		{"laughs", pickled(laughs), "times as large"},

		{"outside", pickled(one(float(4), 0, numbers(4), numbers(1))), "outside of it"},
		{"cut off", legacy(one(float(1<<40), 0, numbers(4), numbers(1)), four), "cut off"},
		{"cut off at the end", func() []byte {
			whole := legacy(one(float(4), 0, numbers(4), numbers(1)), four)
			return whole[:len(whole)-4]
		}(), "cut off"},
		{"negative storage", legacy(one(float(-4), 0, numbers(4), numbers(1)), four), "no storage"},
		{"other storage", legacy(one(storageOf("FloatStorage", "1", 4), 0, numbers(4), numbers(1)), four), "no tensor needs"},
		{"no storage", legacy(one(float(4), 0, numbers(4), numbers(1)), nil), "does not hold the storages"},
		{"two lengths", legacy(dictOf(str("a"), tensorOf(float(4), 0, numbers(4), numbers(1)), str("b"), tensorOf(float(5), 0, numbers(4), numbers(1))), four), "two types"},
		{"two types", legacy(dictOf(str("a"), tensorOf(float(4), 0, numbers(4), numbers(1)), str("b"), tensorOf(storageOf("IntStorage", "0", 4), 0, numbers(4), numbers(1))), four), "two types"},
		{"tensor long", legacy(one(float(4), 0, numbers(5), numbers(1)), four), "does not lie"},
		{"tensor behind", legacy(one(float(4), 1, numbers(4), numbers(1)), four), "does not lie"},
		{"tensor begins behind", legacy(one(float(4), 5, numbers(1), numbers(1)), four), "outside of its storage"},
		{"one behind", legacy(one(float(4), 4, numbers(1), numbers(1)), four), "does not lie"},
		{"number behind", legacy(one(float(4), 4, numbers(), numbers()), four), "does not lie"},
		{"negative offset", legacy(one(float(4), -1, numbers(1), numbers(1)), four), "outside of its storage"},
		{"strides", legacy(one(float(4), 0, numbers(2, 2), numbers(3, 1)), four), "does not lie"},
		{"strides wrap", legacy(one(float(4), 0, numbers(3, 2), numbers(math.MaxInt, 1)), four), "does not lie"},
		{"negative stride", legacy(one(float(4), 3, numbers(4), numbers(-1)), four), "negative"},
		{"negative side", legacy(one(float(4), 0, numbers(-1, -4), numbers(1, 1)), four), "negative"},
		{"few strides", legacy(one(float(4), 0, numbers(2, 2), numbers(1)), four), "a stride for each"},
		{"expanded", legacy(one(float(4), 0, numbers(1<<20), numbers(0)), four), "times as large"},
		{"expanded far", legacy(one(float(4), 0, numbers(1<<40, 1<<40, 1<<40), numbers(0, 0, 0)), four), "does not lie"},
		{"parameter", pickled(call("torch._utils", "_rebuild_parameter", "N")), "no tensor"},
		{"old rest", append(legacy(one(float(4), 0, numbers(4), numbers(1)), four), 0), "1 bytes follow"},

		{"empty zip", zipped(t, zip.Store, "x", "y"), "no checkpoint"},
		{"script", inZip("N", "x/constants.pkl", ""), "TorchScript"},
		{"bomb", fixture(t, "bomb.pth"), "compressed"},
		{"two files", inZip("N", "x/data.pkl", ""), "twice"},
		{"byte order", inZip("N", "x/byteorder", "big"), "little-endian"},
		{"pickle rest", zipped(t, zip.Store, "data.pkl", "N.N"), "follows"},
		{"missing storage", inZip(one(float(4), 0, numbers(4), numbers(1)), "x/data/1", "0000111122223333"), `no "x/data/0"`},
		{"short storage", inZip(one(float(4), 0, numbers(4), numbers(1)), "x/data/0", "000011112222"), "12 bytes"},
		{"odd storage", inZip(one(float(4), 0, numbers(4), numbers(1)), "x/data/0", "0000111122223333."), "17 bytes"},
		{"storage elsewhere", inZip(one(storageOf("FloatStorage", "../data.pkl", 4), 0, numbers(4), numbers(1))), "no \"x/data/../data.pkl\""},
	} {
		_, err := read(test.file)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.what, err, test.want)
		}
	}

	// The same parts in order are a checkpoint.
	for what, file := range map[string][]byte{
		"array":   pkl(array(f4, numbers(4), data)),
		"coded":   pkl(array(f4, numbers(1), coded("ab\u00e9\x00"))),
		"old":     legacy(one(float(4), 1, numbers(2, 2), numbers(1, 1)), four),
		"no side": legacy(one(float(4), 4, numbers(0, 1<<40), numbers(7, 1)), four),
		"zip":     inZip(one(float(4), 0, numbers(4), numbers(1)), "x/data/0", "0000111122223333", "x/byteorder", "little"),
	} {
		if _, err := read(file); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Storages that overlap would let a small archive hold as many bytes as it
// likes.
func TestOverlap(t *testing.T) {
	const numel = 1000
	float := func(key string) string {
		return tensorOf(storageOf("FloatStorage", key, numel), 0, numbers(1), numbers(1))
	}
	root := dictOf(str("a"), float("0"), str("b"), float("1"))
	file := zipped(t, zip.Store, "x/data.pkl", string(pickled(root)), "x/data/0", strings.Repeat("0", 4*numel), "x/data/1", strings.Repeat("1", 4*numel))
	if _, err := open(file); err != nil {
		t.Fatal(err)
	}
	// The directory's last entry gets the place of the one before.
	last := bytes.LastIndex(file, []byte("PK\x01\x02"))
	before := bytes.LastIndex(file[:last], []byte("PK\x01\x02"))
	copy(file[last+42:last+46], file[before+42:before+46])
	copy(file[last+16:last+20], file[before+16:before+20]) // and its checksum
	file = slices.Delete(file, bytes.Index(file, []byte("1111")), bytes.LastIndex(file, []byte("1111"))+4)
	end := bytes.LastIndex(file, []byte("PK\x05\x06"))
	binary.LittleEndian.PutUint32(file[end+16:], uint32(bytes.Index(file, []byte("PK\x01\x02"))))
	if _, err := read(file); err == nil || !strings.Contains(err.Error(), "more in") {
		t.Errorf("overlapping storages: got %v", err)
	}
}

// allocated is how many bytes a function allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// most is what reading a file of n bytes may allocate, with all that becomes
// garbage on the way.
func most(n int) uint64 { return 100*uint64(n) + 1<<17 }

func TestMemory(t *testing.T) {
	const n = 1 << 18
	for what, step := range map[string]string{
		"lists": "]", "dicts": "}", "marks": "(", "none": "N", "tuples": ")", "texts": "U\x00", "remembered": "]\x94", "twice": "]22", "numbers": "M\xff\xff",
		"tuples in tuples": "\x85", "arrays": "cnumpy.core.multiarray\n_reconstruct\n)R", "ordered": "ccollections\nOrderedDict\n)R0",
	} {
		file := append([]byte("\x80\x04N"), strings.Repeat(step, n/len(step))...)
		if got := allocated(func() { read(file) }); got > most(len(file)) {
			t.Errorf("%s: %d bytes make the reader allocate %d", what, len(file), got)
		}
	}
	// Calls that are made again and again from remembered parts.
	again := call("numpy.core.multiarray", "_reconstruct")
	again = "cnumpy.core.numeric\n_frombuffer\nq\x00(" + str("") + dtype("f4", "<") + numbers(0, 1, 1, 1, 1, 1, 1, 1) + str("C") + "tq\x01" + strings.Repeat("h\x00h\x01R", n/5)
	if got := allocated(func() { read(pickled(again)) }); got > most(len(again)) {
		t.Errorf("arrays again: %d bytes make the reader allocate %d", len(again), got)
	}
	var names []string
	for i := range 2000 {
		names = append(names, strconv.Itoa(i), "")
	}
	archive := zipped(t, zip.Store, append(names, "data.pkl", "N.")...)
	if got := allocated(func() { read(archive) }); got > most(len(archive)) {
		t.Errorf("an archive of %d bytes makes the reader allocate %d", len(archive), got)
	}
	if _, err := read(pickled(strings.Repeat("]0", maxSteps) + "N")); err == nil || !strings.Contains(err.Error(), "steps") {
		t.Errorf("a pickle of many steps: %v", err)
	}
}

// Listing a file reads no numbers, and a tensor is held once.
func TestLazy(t *testing.T) {
	const n = 1 << 25
	data := "B" + string(binary.LittleEndian.AppendUint32(nil, n)) + strings.Repeat("\x3f", n)
	file := pickled(dictOf(str("a"), array(dtype("u1", "|"), numbers(n), data)))
	var tensors []Tensor
	var err error
	if got := allocated(func() { tensors, err = open(file) }); err != nil || got > 1<<16 {
		t.Fatalf("listing a file of %d bytes allocates %d: %v", len(file), got, err)
	}
	got := allocated(func() {
		e, err := tensors[0].Entry()
		if err != nil || len(e.Data) != n || e.Data[n-1] != 0x3F {
			t.Errorf("%d bytes, %v", len(e.Data), err)
		}
	})
	if got > n+n/100 {
		t.Errorf("reading a tensor of %d bytes allocates %d", n, got)
	}
}

func FuzzCheckpoint(f *testing.F) {
	for name := range truth(f) {
		f.Add(fixture(f, name))
	}
	for _, name := range []string{"evil0.pkl", "evil2.pkl", "evil4.pkl", "evil.pth", "bomb.pth"} {
		f.Add(fixture(f, name))
	}
	f.Add(pickled("}q\x00(" + str("a") + "h\x00u"))
	f.Add(legacy(one(storageOf("FloatStorage", "0", 4), 1, numbers(2, 2), numbers(1, 0)), map[string]int{"0": 4}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tensors []Tensor
		var err error
		bytes := 0
		got := allocated(func() {
			if tensors, err = open(data); err != nil {
				return
			}
			for _, x := range tensors {
				e, err := x.Entry()
				if err != nil {
					return
				}
				n := x.DType.Size()
				for _, side := range x.Shape {
					n *= side
				}
				if len(e.Data) != n {
					t.Errorf("%q of %s %v has %d bytes", x.Name, x.DType, x.Shape, len(e.Data))
				}
				bytes += n
			}
		})
		if got > most(len(data)) || bytes > maxRepeats*len(data) {
			t.Errorf("%d bytes hold %d and make the reader allocate %d", len(data), bytes, got)
		}
	})
}
