package kernel

import "math"

// TapTable is the weights of a separable resize along one side: for each of
// N outputs the first input, the number of inputs and their weights, which
// sum to 1. Encoded, an entry is 2+Size little-endian words: first, n (both
// int32) and Size float32 weights, unused ones 0.
type TapTable struct {
	N, Size int
	First   []int32
	Count   []int32
	Weights []float32 // N rows of Size
}

// Taps makes the taps that resize in inputs to out outputs with the triangle
// filter, widened when the side shrinks so that nothing aliases (Pillow's
// BILINEAR; its weights to within rounding).
func Taps(in, out int) TapTable {
	scale := float64(in) / float64(out)
	radius := max(scale, 1)
	t := newTaps(out, int(math.Ceil(radius))*2+1)
	for i := range out {
		centre := (float64(i) + 0.5) * scale
		first := max(int(centre-radius+0.5), 0)
		last := min(int(centre+radius+0.5), in)
		w := t.Weights[i*t.Size : (i+1)*t.Size]
		var sum float64
		for j := first; j < last; j++ {
			sum += triangle((float64(j) - centre + 0.5) / radius)
		}
		for j := first; j < last; j++ {
			w[j-first] = float32(triangle((float64(j)-centre+0.5)/radius) / sum)
		}
		t.First[i], t.Count[i] = int32(first), int32(last-first)
	}
	return t
}

// PaintTaps makes the taps that bring a map of in cells to out pixels,
// where pixel p of the out pixels lies at position (p+0.5)*scale in the
// frame and cell i's centre lies at position (i+1)*stride. Pixels outside
// the outermost centres take the nearest cell. Each entry has two weights.
func PaintTaps(in, out int, scale, stride float64) TapTable {
	return bilinear(in, out, func(i int) float64 { return (float64(i)+0.5)*scale/stride - 1 })
}

// ResizeTaps makes the taps that resize a map whose cells' centres lie in their
// middles from in to out cells, as PaintTaps does and PyTorch by default.
func ResizeTaps(in, out int) TapTable {
	return bilinear(in, out, func(i int) float64 { return (float64(i)+0.5)*float64(in)/float64(out) - 0.5 })
}

// bilinear makes the taps of outputs that lie at the given places among inputs.
func bilinear(in, out int, at func(i int) float64) TapTable {
	t := newTaps(out, 2)
	for i := range out {
		u := min(max(at(i), 0), float64(in-1))
		first := min(int(u), max(in-2, 0))
		f := u - float64(first)
		t.First[i], t.Count[i] = int32(first), 2
		t.Weights[2*i], t.Weights[2*i+1] = float32(1-f), float32(f)
		if in == 1 {
			t.Count[i] = 1
			t.Weights[2*i], t.Weights[2*i+1] = 1, 0
		}
	}
	return t
}

func newTaps(n, size int) TapTable {
	return TapTable{N: n, Size: size, First: make([]int32, n), Count: make([]int32, n), Weights: make([]float32, n*size)}
}

func triangle(x float64) float64 { return max(1-math.Abs(x), 0) }

// Encode gives the table in the form that Picture and Paint read.
func (t TapTable) Encode() []byte {
	b := make([]byte, 0, t.N*(2+t.Size)*4)
	for i := range t.N {
		b = appendWord(b, uint32(t.First[i]))
		b = appendWord(b, uint32(t.Count[i]))
		for _, w := range t.Weights[i*t.Size : (i+1)*t.Size] {
			b = appendWord(b, math.Float32bits(w))
		}
	}
	return b
}
