package kernel

// Columns8 brings a matrix of K rows and N columns that is computed, not
// loaded, to the block that MatMul8 reads, each column in a scale of its own.
// From a row-major A[k*N+n], or, if Transposed, from A[n*K+k]:
//
//	for n { top := max over k of |A[k,n]|
//		inv := 127/top, or 0 if top = 0
//		for k { W[k,n] = the integer nearest to A[k,n]*inv, ties to even }
//		Scale[n], Bias[n], Sums[n] = top/127, 0, top/127 * sum over k of W[k,n] }
//
// K and N are multiples of 8.
type Columns8 struct {
	Dst, A     View
	K, N       int
	Transposed bool
}

func (o Columns8) record() record {
	if o.K <= 0 || o.N <= 0 || o.K%8 != 0 || o.N%Panel != 0 {
		panic("kernel: Columns8 needs K and N to be multiples of 8")
	}
	return record{kind: KindColumns8, views: views{o.Dst, o.A}, ints: ints{o.K, o.N, flag(o.Transposed)}}
}

// Maps makes the map of each prompt from Q proposals without keeping those:
//
//	n := T, or the int32 in Count if it is given (1 ≤ n ≤ T)
//	for q, i < N { m[q,i] = ActSigmoid(A·B)[q,i] }
//	for t < n, i < N { dst[t*N+i] = sum over q of P[t*Q+q] * m[q,i] }
//
// where A·B is MatMul8 of bytes and their Rows if these are given, and MatMul
// with a packed B if not; A has K columns. Devices may be off by 1e-5 in a
// proposal. N and K are multiples of 8; Q is at most 256, K at most 1024.
type Maps struct {
	Dst, A, Rows, B, P, Count View
	Q, K, N, T                int
}

func (o Maps) record() record {
	if o.Q <= 0 || o.K <= 0 || o.N <= 0 || o.T <= 0 || o.N%Panel != 0 || o.K%8 != 0 {
		panic("kernel: Maps needs sides above 0, N and K multiples of 8")
	}
	if o.Q > 256 || o.K > 1024 {
		panic("kernel: Maps with too many proposals")
	}
	return record{kind: KindMaps, views: views{o.Dst, o.A, o.Rows, o.B, o.P, o.Count}, ints: ints{o.Q, o.K, o.N, o.T}}
}

// Peaks is the largest number of each of T maps of H rows and W columns,
// looked for in every second row and column:
//
//	n := T, or the int32 in Count if it is given (1 ≤ n ≤ T)
//	for t < n { dst[t] = max(0, A[(t*H+y)*W+x] for odd y, x) }
//
// W is a multiple of 8.
type Peaks struct {
	Dst, A, Count View
	T, H, W       int
}

func (o Peaks) record() record {
	if o.T <= 0 || o.H <= 0 || o.W <= 0 || o.W%8 != 0 {
		panic("kernel: Peaks needs sides above 0 and W a multiple of 8")
	}
	return record{kind: KindPeaks, views: views{o.Dst, o.A, o.Count}, ints: ints{o.T, o.H, o.W}}
}

// Tidy makes maps of H rows and W columns ready to be painted: it removes the
// islands above a map's threshold and fills the holes that are too small to be
// meant, and subtracts the threshold. Cells touch at their sides.
//
//	n := T, or the int32 in Count if it is given (1 ≤ n ≤ T)
//	for t < n { theta := Theta[t]; s := A[t,:]
//		if theta ≥ Nowhere { dst[t,:] = -1; continue }
//		if Speck > 0 {
//			largest := the size of the largest region of cells with s > theta
//			for each such region with size*Speck < H*W or size*Island < largest { s = theta/2 there }
//			for each region, found anew, of cells with !(s > theta) and size*Speck < H*W { s = (1+theta)/2 there } }
//		dst[t,:] = s - theta }
//
// Dst may be A. Thresholds are not negative. Scratch has room for 2*T*H*W
// int32s. H*W is below 2^21, Speck and Island at most 1000.
type Tidy struct {
	Dst, A, Theta, Count, Scratch View
	T, H, W                       int
	Speck, Island                 int
}

// Nowhere is a threshold that no map reaches.
const Nowhere = 1 << 30

func (o Tidy) record() record {
	if o.T <= 0 || o.H <= 0 || o.W <= 0 || o.H*o.W >= 1<<21 {
		panic("kernel: Tidy needs sides above 0 and fewer than 2^21 cells")
	}
	if o.Speck < 0 || o.Speck > 1000 || o.Island < 0 || o.Island > 1000 {
		panic("kernel: Tidy needs Speck and Island from 0 to 1000")
	}
	return record{kind: KindTidy, views: views{o.Dst, o.A, o.Theta, o.Count, o.Scratch}, ints: ints{o.T, o.H, o.W, o.Speck, o.Island}}
}

// Colour gives each of N labels its colour:
//
//	for i < N { dst[i] = palette[label[i]] }
//
// where label has bytes, and dst and palette, of 256, have words.
type Colour struct {
	Dst, Label, Palette View
	N                   int
}

func (o Colour) record() record {
	if o.N <= 0 {
		panic("kernel: Colour with nothing to colour")
	}
	return record{kind: KindColour, views: views{o.Dst, o.Label, o.Palette}, ints: ints{o.N}}
}
