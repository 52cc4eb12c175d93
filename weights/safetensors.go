package weights

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// DType is a safetensors element type, by its name in the file.
type DType string

// The types that Tensor can turn into float32. A checkpoint may have others,
// such as I64 for positions, as long as nobody reads them.
const (
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I8   DType = "I8"
)

// Size is the size of an element in bytes, or 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2":
		return 1
	case "U16", "I16", "F16", "BF16":
		return 2
	case "U32", "I32", "F32":
		return 4
	case "U64", "I64", "F64":
		return 8
	}
	return 0
}

const (
	// maxHeader is the longest safetensors header that is read. A thousand
	// tensors need about 100 kB.
	maxHeader = 8 << 20
	// maxRank is the most dimensions that a tensor may have.
	maxRank = 8
)

// Entry is one tensor of a safetensors file.
type Entry struct {
	Name  string
	DType DType
	Shape []int  // every number is at least 1; empty for a single number
	Data  []byte // little-endian, row-major, a part of the file
}

// ReadSafetensors reads the header of a safetensors file and returns its
// tensors in the order of their data. The data must fill the file without
// gaps or overlaps, which is what the format asks for.
func ReadSafetensors(file []byte) ([]Entry, error) {
	const damaged = "this is not a safetensors file: "
	if len(file) < 8 {
		return nil, formatError(damaged + "it is too short for a header")
	}
	var length uint64
	for i := range 8 {
		length |= uint64(file[i]) << (8 * i)
	}
	if length > maxHeader || length > uint64(len(file)-8) {
		return nil, formatError(damaged + "its header does not fit")
	}
	header, err := Parse(file[8 : 8+length])
	if err != nil {
		return nil, formatError(damaged + "in its header, " + err.Error())
	}
	if !header.IsObject() {
		return nil, formatError(damaged + "its header is not an object")
	}
	data := file[8+length:]

	type placed struct {
		Entry
		begin, end int
	}
	tensors := make([]placed, 0, header.Len())
	for i := range header.Len() {
		name, value := header.Member(i)
		if name == "__metadata__" {
			continue
		}
		f := value.Fields("tensor " + quote(name))
		e := Entry{Name: name, DType: DType(f.Text("dtype")), Shape: f.Ints("shape")}
		offsets := f.Ints("data_offsets")
		if err := f.Err(); err != nil {
			return nil, formatError(damaged + err.Error())
		}
		if why := checkEntry(e, offsets, len(data)); why != "" {
			return nil, formatError(damaged + "tensor " + quote(name) + " " + why)
		}
		e.Data = data[offsets[0]:offsets[1]:offsets[1]]
		tensors = append(tensors, placed{e, offsets[0], offsets[1]})
	}

	slices.SortFunc(tensors, func(a, b placed) int { return cmp.Compare(a.begin, b.begin) })
	entries := make([]Entry, len(tensors))
	end := 0
	for i, t := range tensors {
		if t.begin != end {
			return nil, formatError(damaged + "before tensor " + quote(t.Name) + " there is a gap or an overlap")
		}
		entries[i], end = t.Entry, t.end
	}
	if end != len(data) {
		return nil, formatError(damaged + strconv.Itoa(len(data)-end) + " bytes follow after the last tensor")
	}
	return entries, nil
}

// checkEntry returns what is wrong with a tensor's description, or "".
func checkEntry(e Entry, offsets []int, size int) string {
	if e.Name == "" {
		return "has no name"
	}
	width := e.DType.Size()
	if width == 0 {
		return "has the unknown element type " + quote(string(e.DType))
	}
	if len(e.Shape) > maxRank {
		return "has too many dimensions"
	}
	// The product is compared with what is left of size before it is made, so
	// that it cannot overflow.
	bytes := width
	for _, n := range e.Shape {
		if n < 1 || n > math.MaxInt32 {
			return "has a dimension that is not from 1 to 2147483647"
		}
		if bytes > size/n {
			return "is larger than the file"
		}
		bytes *= n
	}
	if len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > size {
		return "does not lie inside the file"
	}
	if offsets[1]-offsets[0] != bytes {
		return "has " + strconv.Itoa(offsets[1]-offsets[0]) + " bytes of data; its shape and type need " + strconv.Itoa(bytes)
	}
	return ""
}
