package torch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/weights"
)

const (
	// maxSteps is how many steps a file's pickles may have, and fewest how
	// many they may have in a small file, where the limit is one for two bytes
	// of the file. A tensor takes about thirty, in more than a hundred bytes
	// without its numbers.
	maxSteps = 1 << 20
	fewest   = 64
	// maxText is the longest text that is read as a name.
	maxText = 1 << 10
)

// The values of a pickle: nil, bool, int, and these. Floats are nothing that
// tensors need, and become nil.
type (
	// text is a string, bytes, or an integer of more than 8 bytes, which
	// stays in the file.
	text struct {
		file    io.ReaderAt
		at, n   int64
		unicode bool // it is a string of Python 3, and not bytes or a string of Python 2
		encoded bool // it is bytes that are written as the string which has them as characters
		number  bool
	}
	tuple []any
	list  struct{ items []any }
	dict  struct{ entries []entry }
	entry struct{ key, value any }
	// global is something that a pickle asks Python for, by its name.
	global string
	// storageType is a class such as torch.FloatStorage.
	storageType weights.DType
	// numpyType is a numpy.dtype.
	numpyType struct{ dtype weights.DType }
)

func (t text) bytes() []byte {
	b := make([]byte, min(t.n, maxText))
	if readAt(t.file, b, t.at) != nil {
		return nil
	}
	return b
}

func (t text) String() string {
	if t.file == nil {
		return ""
	}
	if t.unicode {
		return strings.ToValidUTF8(string(t.bytes()), "?")
	}
	var s []rune // Latin-1, as texts of Python 2 are taken
	for _, b := range t.bytes() {
		s = append(s, rune(b))
	}
	return string(s)
}

// get returns a value by its key, nil if it is not there.
func (d *dict) get(key string) any {
	for _, e := range d.entries {
		if k, ok := e.key.(text); ok && k.n == int64(len(key)) && k.String() == key {
			return e.value
		}
	}
	return nil
}

const (
	orderedDict      global = "collections.OrderedDict"
	rebuildTensor    global = "torch._utils._rebuild_tensor_v2"
	rebuildParameter global = "torch._utils._rebuild_parameter"
	ndarray          global = "numpy.ndarray"
	numpyDType       global = "numpy.dtype"
	reconstruct      global = "numpy.core.multiarray._reconstruct"
	scalar           global = "numpy.core.multiarray.scalar"
	frombuffer       global = "numpy.core.numeric._frombuffer"
	encode           global = "_codecs.encode"
	noBytes          global = "builtins.bytes" // without arguments, which is how protocol 2 writes b""
)

var globals = []global{orderedDict, rebuildTensor, rebuildParameter, ndarray, numpyDType, reconstruct, scalar, frombuffer, encode, noBytes}

var storageTypes = map[string]weights.DType{
	"FloatStorage": weights.F32, "HalfStorage": weights.F16, "BFloat16Storage": weights.BF16, "DoubleStorage": "F64",
	"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": weights.I8, "ByteStorage": "U8", "BoolStorage": "BOOL",
}

var numpyTypes = map[string]weights.DType{
	"f4": weights.F32, "f2": weights.F16, "f8": "F64", "i8": "I64", "i4": "I32", "i2": "I16", "i1": weights.I8, "u1": "U8", "b1": "BOOL",
}

var emptyTuple any = tuple{}

var errEnd = errors.New("it ends too early; fetch it again")

// unpickler runs pickles that follow one another in a file. Its first error
// sticks, and what is done after it does not matter.
type unpickler struct {
	file  io.ReaderAt
	size  int64
	at    int64
	steps int
	limit int // of steps
	err   error

	window []byte // what was read ahead
	begin  int64  // where the window lies in the file

	stack []any
	marks []int // lengths that the stack had
	memo  []any

	storages map[string]*storage
	// place finds a storage in the file, nil where there are none.
	place func(s *storage, key string) error
}

// newUnpickler reads pickles that are all or part of a file of whole bytes.
func newUnpickler(pickles io.ReaderAt, size, whole int64) *unpickler {
	return &unpickler{file: pickles, size: size, limit: int(min(maxSteps, whole/2+fewest)), window: make([]byte, 0, 4096),
		storages: map[string]*storage{}}
}

func (u *unpickler) fail(format string, args ...any) {
	if u.err == nil {
		u.err = fmt.Errorf(format, args...)
	}
}

func (u *unpickler) damaged(format string, args ...any) {
	u.fail("its pickle is damaged at byte %d (%s); fetch it again", u.at, fmt.Sprintf(format, args...))
}

// load runs the next pickle and returns the value that it makes.
func (u *unpickler) load() (any, error) {
	u.stack, u.marks, u.memo = u.stack[:0], u.marks[:0], u.memo[:0]
	for u.err == nil {
		if u.steps++; u.steps > u.limit {
			u.fail("its pickle has more than %d steps, too many for a checkpoint of its size", u.limit)
			break
		}
		code := u.byte()
		if u.err == nil && code == '.' {
			return u.pop(), u.err
		}
		u.step(code)
	}
	return nil, u.err
}

// take returns the next few bytes.
func (u *unpickler) take(n int) []byte {
	if u.size-u.at < int64(n) {
		if u.err == nil {
			u.err = errEnd
		}
		return make([]byte, n)
	}
	if u.at < u.begin || u.at+int64(n) > u.begin+int64(len(u.window)) {
		u.begin, u.window = u.at, u.window[:min(int64(cap(u.window)), u.size-u.at)]
		if err := readAt(u.file, u.window, u.at); err != nil {
			u.fail("it cannot be read: %w", err)
		}
	}
	b := u.window[u.at-u.begin:][:n]
	u.at += int64(n)
	return b
}

func (u *unpickler) byte() byte { return u.take(1)[0] }

// number returns the next n bytes as an unsigned integer.
func (u *unpickler) number(n int) uint64 {
	var b [8]byte
	copy(b[:], u.take(n))
	return binary.LittleEndian.Uint64(b[:])
}

// text skips so many bytes and remembers where they are.
func (u *unpickler) text(n uint64) text {
	if n > uint64(u.size-u.at) {
		if u.err == nil {
			u.err = errEnd
		}
		return text{}
	}
	t := text{file: u.file, at: u.at, n: int64(n)}
	u.at += int64(n)
	return t
}

// line returns what comes before the next line feed.
func (u *unpickler) line() string {
	var b []byte
	for c := u.byte(); c != '\n' && u.err == nil; c = u.byte() {
		if b = append(b, c); len(b) > maxText {
			u.fail("a name in its pickle is too long")
		}
	}
	return string(b)
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

// pop returns the value on top, but none from below the last mark.
func (u *unpickler) pop() any {
	low := 0
	if n := len(u.marks); n > 0 {
		low = u.marks[n-1]
	}
	if len(u.stack) == low {
		u.damaged("a value is missing")
		return nil
	}
	v := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	return v
}

// popMark returns the values above the last mark. They are good until the
// next push.
func (u *unpickler) popMark() []any {
	if len(u.marks) == 0 {
		u.damaged("a mark is missing")
		return nil
	}
	low := u.marks[len(u.marks)-1]
	u.marks = u.marks[:len(u.marks)-1]
	values := u.stack[low:]
	u.stack = u.stack[:low]
	return values
}

func (u *unpickler) popTuple(n int) {
	t := make(tuple, n)
	for i := range t {
		t[n-1-i] = u.pop()
	}
	u.push(t)
}

func (u *unpickler) get(i uint64) {
	if i >= uint64(len(u.memo)) {
		u.damaged("value %d was never remembered", i)
		return
	}
	u.push(u.memo[i])
}

// put remembers the value on top. Python numbers values as they come.
func (u *unpickler) put(i uint64) {
	if i > uint64(u.steps) {
		u.damaged("it remembers a value as number %d", i)
		return
	}
	for uint64(len(u.memo)) <= i {
		u.memo = append(u.memo, nil)
	}
	u.memo[i] = u.pop()
	u.push(u.memo[i])
}

// step does what the byte that begins a step says. The names are Python's.
func (u *unpickler) step(code byte) {
	switch code {
	case 0x80: // PROTO
		if v := u.byte(); v > 5 {
			u.fail("it is a pickle of protocol %d; save it again with protocol 2", v)
		}
	case 0x95: // FRAME
		if u.number(8) > uint64(u.size-u.at) && u.err == nil {
			u.err = errEnd
		}
	case '(': // MARK
		u.marks = append(u.marks, len(u.stack))
	case '0': // POP
		u.pop()
	case '1': // POP_MARK
		u.popMark()
	case '2': // DUP
		v := u.pop()
		u.push(v)
		u.push(v)

	case 'N', 'G': // NONE, BINFLOAT
		if code == 'G' {
			u.take(8)
		}
		u.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		u.push(code == 0x88)
	case 'J': // BININT
		u.push(int(int32(u.number(4))))
	case 'K': // BININT1
		u.push(int(u.number(1)))
	case 'M': // BININT2
		u.push(int(u.number(2)))
	case 0x8A: // LONG1
		n := u.number(1)
		if n > 8 {
			t := u.text(n)
			t.number = true
			u.push(t)
		} else {
			shift := 64 - 8*n
			u.push(int(int64(u.number(int(n))<<shift) >> shift))
		}

	case 'X', 0x8C, 0x8D: // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
		t := u.text(u.number(map[byte]int{'X': 4, 0x8C: 1, 0x8D: 8}[code]))
		t.unicode = true
		u.push(t)
	case 'C', 'U': // SHORT_BINBYTES, SHORT_BINSTRING
		u.push(u.text(u.number(1)))
	case 'B', 'T': // BINBYTES, BINSTRING
		u.push(u.text(u.number(4)))
	case 0x8E, 0x96: // BINBYTES8, BYTEARRAY8
		u.push(u.text(u.number(8)))

	case ')': // EMPTY_TUPLE
		u.push(emptyTuple)
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		u.popTuple(int(code) - 0x84)
	case 't': // TUPLE
		u.push(tuple(slices.Clone(u.popMark())))
	case ']', 0x8F: // EMPTY_LIST, EMPTY_SET
		u.push(&list{})
	case 'l', 0x91: // LIST, FROZENSET
		u.push(&list{slices.Clone(u.popMark())})
	case 'a', 'e', 0x90: // APPEND, APPENDS, ADDITEMS
		var values []any
		if code == 'a' {
			values = []any{u.pop()}
		} else {
			values = u.popMark()
		}
		l, ok := u.pop().(*list)
		if !ok {
			u.damaged("there is no list to append to")
			return
		}
		l.items = append(l.items, values...)
		u.push(l)
	case '}': // EMPTY_DICT
		u.push(&dict{})
	case 'd': // DICT
		d := &dict{}
		u.set(d, u.popMark())
		u.push(d)
	case 's', 'u': // SETITEM, SETITEMS
		var values []any
		if code == 's' {
			value := u.pop()
			values = []any{u.pop(), value}
		} else {
			values = u.popMark()
		}
		d, ok := u.pop().(*dict)
		if !ok {
			u.damaged("there is no dict to set a value of")
			return
		}
		u.set(d, values)
		u.push(d)

	case 'h': // BINGET
		u.get(u.number(1))
	case 'j': // LONG_BINGET
		u.get(u.number(4))
	case 'q': // BINPUT
		u.put(u.number(1))
	case 'r': // LONG_BINPUT
		u.put(u.number(4))
	case 0x94: // MEMOIZE
		u.put(uint64(len(u.memo)))

	case 'c': // GLOBAL
		module := u.line()
		u.find(module, u.line())
	case 0x93: // STACK_GLOBAL
		name, _ := u.pop().(text)
		module, _ := u.pop().(text)
		u.find(module.String(), name.String())
	case 'R': // REDUCE
		args, _ := u.pop().(tuple)
		v, err := u.call(u.pop(), args)
		if err != nil {
			u.fail("its pickle cannot be used at byte %d: %w", u.at, err)
		}
		u.push(v)
	case 'b': // BUILD
		state := u.pop()
		v := u.pop()
		if err := build(v, state); err != nil {
			u.fail("its pickle cannot be used at byte %d: %w", u.at, err)
		}
		u.push(v)
	case 'Q': // BINPERSID
		id, _ := u.pop().(tuple)
		u.push(u.storage(id))
	default:
		u.fail("it is no checkpoint that can be read here (byte %d of its pickle is %#02x); save the model's state_dict() with torch.save", u.at-1, code)
	}
}

// set appends keys and values, which come by turns, to a dict.
func (u *unpickler) set(d *dict, values []any) {
	if len(values)%2 != 0 {
		u.damaged("a key has no value")
		return
	}
	for i := 0; i < len(values); i += 2 {
		d.entries = append(d.entries, entry{values[i], values[i+1]})
	}
}

// find pushes what a name stands for, if it is one of those that tensors need.
func (u *unpickler) find(module, name string) {
	if u.err != nil {
		return
	}
	asked := module + "." + name
	if d, ok := storageTypes[name]; ok && (module == "torch" || module == "torch.cuda") {
		u.push(storageType(d))
		return
	}
	// numpy 2 and Python 3 renamed some.
	g := global(strings.Replace(strings.Replace(asked, "numpy._core.", "numpy.core.", 1), "__builtin__.", "builtins.", 1))
	if !slices.Contains(globals, g) {
		u.fail("it asks for %q, which no tensor needs: a file that asks for such things may run code when Python loads it, and is refused; save the model's state_dict() instead", asked)
		return
	}
	u.push(g)
}

// call does what a call of a global makes of its arguments.
func (u *unpickler) call(f any, args tuple) (any, error) {
	arg := func(i int) any {
		if i < len(args) {
			return args[i]
		}
		return nil
	}
	switch f {
	case orderedDict:
		d := &dict{}
		if pairs, ok := arg(0).(*list); ok { // as Python 2 wrote it
			for _, p := range pairs.items {
				if pair, ok := p.(*list); ok {
					u.set(d, pair.items)
				} else {
					pair, _ := p.(tuple)
					u.set(d, pair)
				}
			}
		}
		return d, nil
	case rebuildTensor:
		s, ok := arg(0).(*storage)
		first, okFirst := arg(1).(int)
		shape, okShape := ints(arg(2))
		strides, okStrides := ints(arg(3))
		if !ok || !okFirst || !okShape || !okStrides {
			return nil, errors.New("a tensor is not made of a storage, an offset, a shape and strides")
		}
		return newTensor(s, first, shape, strides)
	case rebuildParameter:
		if t, ok := arg(0).(*Tensor); ok {
			return t, nil
		}
		return nil, errors.New("a parameter is no tensor")
	case reconstruct:
		return &Tensor{}, nil
	case scalar:
		t := &Tensor{}
		return t, t.fill(arg(0), tuple{}, arg(1), false)
	case frombuffer:
		order, _ := arg(3).(text)
		t := &Tensor{}
		return t, t.fill(arg(1), arg(2), arg(0), order.String() == "F")
	case numpyDType:
		name, _ := arg(0).(text)
		d, ok := numpyTypes[strings.TrimLeft(name.String(), "<|=")]
		if !ok {
			return nil, fmt.Errorf("it has numpy elements of type %q, which are not read", name)
		}
		return &numpyType{d}, nil
	case encode:
		t, ok := arg(0).(text)
		if how, _ := arg(1).(text); !ok || !t.unicode || how.String() != "latin1" {
			return nil, errors.New("a text is encoded in an unknown way")
		}
		t.unicode, t.encoded = false, true
		return t, nil
	case noBytes:
		if len(args) == 0 {
			return text{file: u.file}, nil
		}
	}
	return nil, errors.New("something is called that is no function")
}

// build sets the state of something that a call made.
func build(v, state any) error {
	parts, _ := state.(tuple)
	switch v := v.(type) {
	case *dict: // attributes, such as the versions of modules
		return nil
	case *Tensor: // (version, shape, dtype, Fortran's order, data)
		if v.storage == nil && len(parts) == 5 {
			fortran, _ := parts[3].(bool)
			return v.fill(parts[2], parts[1], parts[4], fortran)
		}
	case *numpyType: // (version, byte order, subarray, field names, fields, …)
		if len(parts) > 4 && parts[2] == nil && parts[3] == nil && parts[4] == nil {
			if order, _ := parts[1].(text); order.String() == ">" {
				return errors.New("its numbers are not little-endian")
			}
			return nil
		}
	}
	return errors.New("a value gets a state that it cannot have")
}

// fill makes a tensor of what numpy says of an array.
func (t *Tensor) fill(dtype, shape, data any, fortran bool) error {
	d, ok := dtype.(*numpyType)
	bytes, okData := data.(text)
	sides, okShape := ints(shape)
	if !ok || !okData || !okShape || bytes.unicode || bytes.number {
		return errors.New("an array is not made of numbers, a shape and bytes")
	}
	strides := make([]int, len(sides))
	n := 1
	for k := range sides {
		i := k
		if !fortran {
			i = len(sides) - 1 - k
		}
		strides[i] = n
		if side := sides[i]; side < 0 || side > 0 && n > maxElements/side {
			return errors.New("an array has a negative or a huge shape")
		}
		n *= sides[i]
	}
	need := int64(n * d.dtype.Size())
	if bytes.encoded && (bytes.n < need || bytes.n > 2*need) || !bytes.encoded && bytes.n != need {
		return fmt.Errorf("an array of shape %v has %d bytes of data", sides, bytes.n)
	}
	made, err := newTensor(&storage{dtype: d.dtype, length: n, data: io.NewSectionReader(bytes.file, bytes.at, bytes.n),
		size: bytes.n, text: bytes.encoded}, 0, sides, strides)
	if err == nil {
		*t = *made
	}
	return err
}

// storage returns what a persistent id stands for: a storage by its key.
func (u *unpickler) storage(id tuple) *storage {
	if u.place == nil || len(id) < 5 {
		u.damaged("it refers to something outside of it")
		return nil
	}
	kind, _ := id[0].(text)
	class, okClass := id[1].(storageType)
	key, okKey := id[2].(text)
	length, okLength := id[4].(int)
	if kind.String() != "storage" || !okClass || !okKey || !okLength || length < 0 || length > math.MaxInt64/8 {
		u.damaged("it refers to something that is no storage")
		return nil
	}
	if len(id) > 5 && id[5] != nil {
		u.fail("its storages are parts of one another, as very old versions of PyTorch wrote them; save it again")
		return nil
	}
	name := key.String()
	s := u.storages[name]
	if s == nil {
		s = &storage{dtype: weights.DType(class), length: length}
		if err := u.place(s, name); err != nil {
			u.fail("%w", err)
		}
		u.storages[name] = s
	}
	if s.dtype != weights.DType(class) || s.length != length {
		u.fail("storage %q has two types or lengths", name)
	}
	return s
}

// ints returns a tuple or a list of integers.
func ints(v any) ([]int, bool) {
	values, ok := v.(tuple)
	if l, isList := v.(*list); isList {
		values, ok = l.items, true
	}
	if !ok || len(values) > maxRank {
		return nil, false
	}
	out := make([]int, len(values))
	for i, x := range values {
		if out[i], ok = x.(int); !ok {
			return nil, false
		}
	}
	return out, true
}
