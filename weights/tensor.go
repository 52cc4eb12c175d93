package weights

import (
	"math"

	"github.com/x448/float16"
)

// Tensor is a tensor of a complete set of weights. It stands for float32
// numbers, in whatever form they are stored.
type Tensor struct {
	Name  string
	Shape []int // must not be changed
	DType DType // F32, F16, BF16 or I8
	// Panels says that an I8 matrix is stored in panels, see the package's comment.
	Panels bool
	data   []byte
	scale  []byte // of an I8 tensor: a float16 for each index of the first dimension
}

// The sides of the blocks that matrices in panels are stored in: rows, and
// neighbouring numbers of a row.
const (
	PanelRows = 8
	PanelQuad = 4
)

// panelRows returns the number of rows of a matrix in panels that is stored
// with this shape, and whether the shape is one of a matrix in panels.
func panelRows(shape []int) (int, bool) {
	if len(shape) != 4 || shape[2] != PanelRows || shape[3] != PanelQuad {
		return 0, false
	}
	return shape[0] * PanelRows, true
}

// InPanels is where element k of row n lies in a matrix in panels whose rows
// have width numbers.
func InPanels(width, n, k int) int {
	return ((n/PanelRows*(width/PanelQuad)+k/PanelQuad)*PanelRows+n%PanelRows)*PanelQuad + k%PanelQuad
}

// Len is the number of elements.
func (t Tensor) Len() int { return len(t.data) / t.DType.Size() }

// Rows is the length of the first dimension, 1 for a single number.
func (t Tensor) Rows() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[0]
}

// Width is the number of elements of a row, which is everything that shares
// an index in the first dimension.
func (t Tensor) Width() int { return t.Len() / t.Rows() }

// Bytes is how many bytes the tensor takes in its file, with its scales.
func (t Tensor) Bytes() int { return len(t.data) + len(t.scale) }

// Float32 writes all elements to dst, which must have that length.
func (t Tensor) Float32(dst []float32) {
	if len(dst) != t.Len() {
		panic("weights: destination does not have the length of the tensor")
	}
	if t.DType != I8 {
		t.floats(0, dst)
		return
	}
	width := t.Width()
	for i := range t.Rows() {
		t.Row(i, dst[i*width:(i+1)*width])
	}
}

// Row writes row i to dst, which must have the length of a row. It costs
// nothing for the other rows, so an embedding is looked up like this.
func (t Tensor) Row(i int, dst []float32) {
	width := t.Width()
	if uint(i) >= uint(t.Rows()) {
		panic("weights: row out of range")
	}
	if len(dst) != width {
		panic("weights: destination does not have the length of a row")
	}
	if t.DType != I8 {
		t.floats(i*width, dst)
		return
	}
	scale := t.Scale(i)
	if t.Panels {
		at := t.data[InPanels(width, i, 0):]
		for j := range dst {
			dst[j] = float32(int8(at[j/PanelQuad*PanelRows*PanelQuad+j%PanelQuad])) * scale
		}
		return
	}
	for j, b := range t.data[i*width:][:len(dst)] {
		dst[j] = float32(int8(b)) * scale
	}
}

// Int8 returns the stored bytes of an I8 tensor, each of them an int8, for
// kernels that multiply integers; Panels tells their order, Scale has the
// factors. The bytes must not be changed.
func (t Tensor) Int8() (values []byte, ok bool) {
	if t.DType != I8 {
		return nil, false
	}
	return t.data, true
}

// Scale is the factor of row i of an I8 tensor, and 1 for other types.
func (t Tensor) Scale(i int) float32 {
	if t.DType != I8 {
		return 1
	}
	return half(t.scale[2*i:])
}

// floats writes elements that are stored as floating point numbers, from
// index first on.
func (t Tensor) floats(first int, dst []float32) {
	src := t.data[first*t.DType.Size():]
	switch t.DType {
	case F32:
		for i := range dst {
			b := src[4*i : 4*i+4]
			dst[i] = math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
		}
	case F16:
		for i := range dst {
			dst[i] = half(src[2*i : 2*i+2])
		}
	case BF16:
		for i := range dst {
			b := src[2*i : 2*i+2]
			dst[i] = math.Float32frombits(uint32(b[0])<<16 | uint32(b[1])<<24)
		}
	default:
		panic("weights: elements are not floating point numbers")
	}
}

func half(b []byte) float32 {
	return float16.Frombits(uint16(b[0]) | uint16(b[1])<<8).Float32()
}
