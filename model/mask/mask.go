// Package mask measures binary masks and writes them in the forms that other
// programs read: COCO's run lengths and polygons.
//
// A mask is a slice of width·height bytes, row by row; a byte that is not 0
// means that the pixel belongs to the mask.
package mask

import "bytes"

const (
	badSize   = "mask: width or height is negative"
	badLength = "mask: the mask does not have width·height bytes"

	// chunk is how many bytes are compared at once where mostly nothing
	// happens. A comparison of this size is one call that uses wide
	// instructions on every machine.
	chunk = 64
)

func check(m []byte, width, height int) {
	if width < 0 || height < 0 {
		panic(badSize)
	}
	if len(m) != width*height {
		panic(badLength)
	}
}

// Box is a rectangle of pixels, as COCO writes it: the left and the top
// edge, width and height.
type Box struct{ X, Y, W, H int }

// Area is the number of pixels that belong to the mask.
func Area(m []byte) int { return len(m) - bytes.Count(m, zeros[:1]) }

var zeros [chunk]byte

// firstSet is the index of the first byte that is not 0, or len(row).
func firstSet(row []byte) int {
	i := 0
	for len(row)-i >= chunk && bytes.Equal(row[i:i+chunk], zeros[:]) {
		i += chunk
	}
	for i < len(row) && row[i] == 0 {
		i++
	}
	return i
}

// lastSet is the index of the last byte that is not 0, or -1.
func lastSet(row []byte) int {
	i := len(row)
	for i >= chunk && bytes.Equal(row[i-chunk:i], zeros[:]) {
		i -= chunk
	}
	for i > 0 && row[i-1] == 0 {
		i--
	}
	return i - 1
}

// BBox is the smallest box that holds the mask; that of an empty mask is all
// zeros.
func BBox(m []byte, width, height int) Box {
	check(m, width, height)
	first := firstSet(m)
	if first == len(m) {
		return Box{}
	}
	top, bottom := first/width, lastSet(m)/width
	left, right := width, -1
	for y := top; y <= bottom; y++ {
		row := m[y*width:][:width]
		// Only what lies outside the box so far can change it.
		if x := firstSet(row[:left]); x < left {
			left = x
		}
		if x := lastSet(row[right+1:]); x >= 0 {
			right += x + 1
		}
	}
	return Box{left, top, right - left + 1, bottom - top + 1}
}
