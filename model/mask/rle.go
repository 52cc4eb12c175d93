package mask

import (
	"bytes"
	"errors"
	"math"
)

// Counts returns COCO's uncompressed run lengths: the pixels, taken column by
// column, are so many zeros, so many ones, so many zeros, and so on.
//
// A run ends where a pixel differs from the one above it, or in the top row
// from the bottom one of the column before. So rows are compared with rows,
// which touches memory in its order, and the few differences are sorted into
// their columns.
func Counts(m []byte, width, height int) []uint32 {
	check(m, width, height)
	if len(m) == 0 {
		return nil
	}
	if len(m) > math.MaxUint32 {
		panic("mask: the mask is too large for 32-bit run lengths")
	}
	// What is before each pixel of the top row.
	before := make([]byte, width)
	copy(before[1:], m[(height-1)*width:])

	// First how many differences each column has, then where they are.
	starts := make([]uint32, width+1)
	differences(before, m, width, func(x, _ int) { starts[x+1]++ })
	for x := range width {
		starts[x+1] += starts[x]
	}
	ends := make([]uint32, starts[width], starts[width]+1)
	differences(before, m, width, func(x, y int) {
		ends[starts[x]] = uint32(x*height + y)
		starts[x]++
	})

	counts := append(ends, uint32(len(m)))
	previous := uint32(0)
	for i, end := range counts {
		counts[i], previous = end-previous, end
	}
	return counts
}

// differences calls f for every pixel that differs from the one above it,
// where before is what is above the top row.
func differences(before, m []byte, width int, f func(x, y int)) {
	for y := 0; len(m) > 0; y++ {
		row := m[:width]
		for x := 0; x < width; x += chunk {
			a, b := before[x:min(x+chunk, width)], row[x:min(x+chunk, width)]
			if bytes.Equal(a, b) {
				continue
			}
			for i := range b {
				if (a[i] != 0) != (b[i] != 0) {
					f(x+i, y)
				}
			}
		}
		before, m = row, m[width:]
	}
}

var errCounts = errors.New("the run lengths of a mask do not add up to its size; it is damaged, or of another size")

// FromCounts makes the mask, of zeros and ones, that has these run lengths.
func FromCounts(counts []uint32, width, height int) ([]byte, error) {
	if width < 0 || height < 0 {
		panic(badSize)
	}
	total := uint64(0)
	for _, n := range counts {
		total += uint64(n)
	}
	if total != uint64(width)*uint64(height) {
		return nil, errCounts
	}
	m := make([]byte, width*height)
	x, y := 0, 0
	for i, n := range counts {
		for n := int(n); n > 0; {
			run := min(n, height-y) // the part of the run in this column
			if i%2 == 1 {
				for j := y; j < y+run; j++ {
					m[j*width+x] = 1
				}
			}
			n -= run
			if y += run; y == height {
				x, y = x+1, 0
			}
		}
	}
	return m, nil
}

// Compress writes run lengths as COCO's string. From the fourth on, each is
// given as its difference from the one two places before. Five bits go into
// a character, the low ones first, and 32 says that more follow.
func Compress(counts []uint32) string {
	out := make([]byte, 0, 2*len(counts))
	for i, n := range counts {
		x := int64(n)
		if i > 2 {
			x -= int64(counts[i-2])
		}
		for more := true; more; {
			c := byte(x & 31)
			x >>= 5
			// The highest bit that is written stands for all above it.
			if c&16 != 0 {
				more = x != -1
			} else {
				more = x != 0
			}
			if more {
				c |= 32
			}
			out = append(out, c+48)
		}
	}
	return string(out)
}

// Decompress reads COCO's string.
func Decompress(s string) ([]uint32, error) {
	var counts []uint32
	for i := 0; i < len(s); {
		var x int64
		for at := 0; ; at += 5 {
			if i == len(s) || at > 35 || s[i] < 48 || s[i] >= 48+64 {
				return nil, errors.New("this is not a mask in COCO's compressed form; it is damaged, or in another form")
			}
			c := int64(s[i] - 48)
			i++
			x |= c & 31 << at
			if c&32 == 0 {
				if c&16 != 0 {
					x |= -1 << (at + 5)
				}
				break
			}
		}
		if n := len(counts); n > 2 {
			x += int64(counts[n-2])
		}
		if x < 0 || x > math.MaxUint32 {
			return nil, errCounts
		}
		counts = append(counts, uint32(x))
	}
	return counts, nil
}

// RLE is a mask in COCO's compressed form, without its size.
func RLE(m []byte, width, height int) string { return Compress(Counts(m, width, height)) }

// FromRLE makes the mask, of zeros and ones, from COCO's compressed form.
func FromRLE(s string, width, height int) ([]byte, error) {
	counts, err := Decompress(s)
	if err != nil {
		return nil, err
	}
	return FromCounts(counts, width, height)
}
