package eval

import (
	"math/rand/v2"
	"testing"
)

// By hand: a square of 4×4 in a picture of 12×12, whose borders are one pixel
// wide, against the same one a column further. Both borders have 12 pixels, of
// which the 3 inner columns of the upper and lower sides are the same, and where
// one's side crosses the other no more: 6 of 18.
func TestBoundaryIoU(t *testing.T) {
	const side = 12
	truth, mask := make([]uint16, side*side), make([]byte, side*side)
	for i := range truth {
		truth[i] = NoLabel
		y, x := i/side, i%side
		if y >= 4 && y < 8 && x >= 3 && x < 7 {
			truth[i] = 2
		}
		if y >= 4 && y < 8 && x >= 4 && x < 8 {
			mask[i] = 1
		}
	}
	if got := BoundaryIoU(truth, side, 2, mask); got != 6./18 {
		t.Errorf("got %v, want 1/3", got)
	}
	// Without the column in which the truth is alone, and that in which the mask
	// is, both are the same three columns: 10 pixels, all border but two.
	for i := range truth {
		if x := i % side; x == 3 || x == 7 {
			truth[i] = Ignore
		}
	}
	if got := BoundaryIoU(truth, side, 2, mask); got != 1 {
		t.Errorf("with pixels to ignore: got %v, want 1", got)
	}
	if got := BoundaryIoU(truth, side, 5, make([]byte, side*side)); got != 1 {
		t.Errorf("without any border: got %v, want 1", got)
	}
}

// Borders are those of erosion, a pixel at a time.
func TestBorder(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	for range 30 {
		w, h, d := 1+random.IntN(20), 1+random.IntN(20), 1+random.IntN(3)
		in := make([]bool, w*h)
		for i := range in {
			in[i] = random.IntN(20) > 0
		}
		left := in
		for range d {
			next := make([]bool, w*h)
			for i := range next {
				next[i] = true
				for j := range 9 {
					y, x := i/w+j/3-1, i%w+j%3-1
					next[i] = next[i] && y >= 0 && x >= 0 && y < h && x < w && left[y*w+x]
				}
			}
			left = next
		}
		for i, b := range border(w, h, d, func(i int) bool { return in[i] }) {
			if b != (in[i] && !left[i]) {
				t.Fatalf("%d×%d, %d: pixel %d is %v", w, h, d, i, b)
			}
		}
	}
}
