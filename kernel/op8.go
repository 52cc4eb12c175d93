package kernel

// The ops of this file multiply integers: activations are bytes from 0 to
// 127, weights int8, sums int32. Seven bits leave room for engines whose dot
// product adds two products in 16 bits. Sums are exact, and what follows a
// sum is rounded as written, each operation by itself and none fused, so that
// every device computes the same bits.

// Quad is the number of rows of a packed int8 matrix that lie side by side:
// what one lane of a dot product takes.
const Quad = 4

// MatMul8Len is the length in float32s of the block of constants that
// MatMul8 reads: Scale, Bias and Sums, N float32s each, and then the packed
// int8 matrix of K rows and N columns.
func MatMul8Len(k, n int) int { return 3*n + k*n/4 }

// Pack8 is where element [k,n] of an int8 matrix of K rows lies in its packed
// form, in bytes: panels of Panel columns, in which Quad rows of a column lie
// together. K is a multiple of Quad, the number of columns of Panel.
func Pack8(rows, k, n int) int {
	return ((n/Panel*(rows/Quad)+k/Quad)*Panel+n%Panel)*Quad + k%Quad
}

// MaxK8 is how many numbers a row of bytes may have: devices keep some rows in
// a cache.
const MaxK8 = 8192

// Quantize brings rows of float32s to bytes, each row in a scale of its own:
//
//	for m { low, high := min(A[m,:]), max(A[m,:])
//		inv := 127/(high-low), or 0 if high = low
//		rows[2*m], rows[2*m+1] = (high-low)/127, low
//		for k { dst[m*K+k] = round7((A[m*K+k] - low) * inv) } }
//
// where round7(x) rounds to the nearest integer, ties to even, and clamps
// to 0..127; |x| must be below 2^22. K is a multiple of 8.
type Quantize struct {
	Dst, Rows, A View
	M, K         int
}

func (o Quantize) record() record {
	if o.M <= 0 || o.K <= 0 || o.K%8 != 0 {
		panic("kernel: Quantize needs M above 0 and K a multiple of 8")
	}
	return record{kind: KindQuantize, views: views{o.Dst, o.Rows, o.A}, ints: ints{o.M, o.K}}
}

// MatMul8 is the product of bytes A, M rows of K, with an int8 matrix. Scale,
// Bias, Sums and W are the parts of B, see MatMul8Len and Pack8.
//
//	for m, n { s := 0 (int32)
//		for k { s += A[m*K+k] * W[k,n] }
//		if Rows { y := float32(s)*(rows[2*m]*Scale[n]) + (rows[2*m+1]*Sums[n] + Bias[n]) }
//		else    { y := float32(s)*Scale[n] + Bias[n] }
//		if Bytes { dst[m*LDD+n] = round7(y) } else { dst[m*LDD+n] = act(y) + res[m*LDR+n] } }
//
// Rows is what Quantize wrote beside A; without it the scale of A is part of
// Scale. Act must be ActNone and Res absent if Bytes is set: the scale of dst
// is part of Scale, Bias and Sums, and clamping is the ReLU. N and K are
// multiples of 8, K is at most MaxK8. LDD counts elements of dst, bytes or
// float32s; LDD and LDR of 0 mean N.
//
// If Packed is set, dst is packed instead, see Panel, as a matrix of M rows and N
// columns. It holds float32s then, and there is no activation and no residual.
type MatMul8 struct {
	Dst, A, B, Rows, Res View
	M, N, K              int
	LDD, LDR             int
	Act                  Act
	Bytes, Packed        bool
}

func (o MatMul8) record() record {
	if o.M <= 0 || o.N <= 0 || o.K <= 0 || o.N%Panel != 0 || o.K%8 != 0 || o.K > MaxK8 {
		panic("kernel: MatMul8 needs sides above 0, N and K multiples of 8, K at most MaxK8")
	}
	if o.Bytes && (o.Act != ActNone || o.Res.Valid()) {
		panic("kernel: MatMul8 to bytes has no other activation and no residual")
	}
	if o.Packed && (o.Bytes || o.Act != ActNone || o.Res.Valid() || o.LDD != 0) {
		panic("kernel: MatMul8 to a packed matrix has float32s, no activation, no residual and no LDD")
	}
	return record{kind: KindMatMul8, act: o.Act, views: views{o.Dst, o.A, o.B, o.Rows, o.Res},
		ints: ints{o.M, o.N, o.K, or(o.LDD, o.N), or(o.LDR, o.N), flag(o.Bytes), flag(o.Packed)}}
}

// Depthwise8Len is the length in float32s of the block of constants that
// Depthwise8 reads: Scale and Bias, C float32s each, then words of four taps:
// for each column kx of the window and each q < quads(Size), C words, of which
// byte i is the int8 W[4*q+i, kx, c], or 0 beyond the window.
func Depthwise8Len(size, c int) int { return 2*c + size*quads(size)*c }

// PackDepthwise8 is where tap (ky, kx) of channel c lies behind Scale and
// Bias, in bytes.
func PackDepthwise8(size, channels, ky, kx, c int) int {
	return ((kx*quads(size)+ky/Quad)*channels+c)*Quad + ky%Quad
}

// quads is the number of fours that a column of a window takes.
func quads(size int) int { return (size + Quad - 1) / Quad }

// Depthwise8 is Depthwise on bytes whose zero is 0, to such bytes:
//
//	for y, x, c { s := 0 (int32)
//		for ky, kx { iy, ix := y*Stride+ky-Pad, x*Stride+kx-Pad
//			if inside { s += A[(iy*WI+ix)*C+c] * W[ky,kx,c] } }
//		dst[(y*W+x)*C+c] = round7(float32(s)*Scale[c] + Bias[c]) }
//
// C is a multiple of 16, at most MaxK8/2; B is the block of constants, see
// Depthwise8Len.
type Depthwise8 struct {
	Dst, A, B         View
	H, W, HI, WI, C   int
	Size, Stride, Pad int
}

func (o Depthwise8) record() record {
	if o.H <= 0 || o.W <= 0 || o.HI <= 0 || o.WI <= 0 || o.C <= 0 {
		panic("kernel: Depthwise8 with an empty side")
	}
	if (o.Size != 3 && o.Size != 5) || (o.Stride != 1 && o.Stride != 2) || o.C%16 != 0 || o.C > MaxK8/2 {
		panic("kernel: Depthwise8 needs Size 3 or 5, Stride 1 or 2 and C a multiple of 16, at most MaxK8/2")
	}
	return record{kind: KindDepthwise8, views: views{o.Dst, o.A, o.B},
		ints: ints{o.H, o.W, o.HI, o.WI, o.C, o.Size, o.Stride, o.Pad}}
}

// Residual8 is a whole inverted residual, so that its wide maps need not
// leave the caches: the three ops below, one after the other.
//
//	Quantize{Dst: q, Rows: r, A: A, M: HI*WI, K: In}
//	MatMul8{Dst: wide, A: q, B: Expand, Rows: r, M: HI*WI, N: C, K: In, Bytes: true}
//	Depthwise8{Dst: deep, A: wide, B: Depthwise, H, W, HI, WI, C, Size, Stride, Pad}
//	MatMul8{Dst: dst, A: deep, B: Project, Res: res, M: H*W, N: Out, K: C}
//
// Without Expand A is wide already, HI*WI rows of C bytes. Res may be A. In is at
// most MaxK8/4.
type Residual8 struct {
	Dst, A, Expand, Depthwise, Project, Res View
	H, W, HI, WI, C                         int
	Size, Stride, Pad                       int
	In, Out                                 int
}

func (o Residual8) record() record {
	if o.Expand.Valid() && (o.In <= 0 || o.In%8 != 0) || o.Out <= 0 || o.Out%Panel != 0 {
		panic("kernel: Residual8 needs In and Out to be multiples of 8")
	}
	if o.In > MaxK8/4 {
		panic("kernel: Residual8 needs In to be at most MaxK8/4")
	}
	r := Depthwise8{H: o.H, W: o.W, HI: o.HI, WI: o.WI, C: o.C, Size: o.Size, Stride: o.Stride, Pad: o.Pad}.record()
	r.kind, r.views = KindResidual8, views{o.Dst, o.A, o.Expand, o.Depthwise, o.Project, o.Res}
	r.ints[8], r.ints[9] = o.In, o.Out
	return r
}
