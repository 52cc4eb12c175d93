package kernel

import "math"

// Kind says what an op record does. The doc comment of the op's struct is
// its meaning as a loop; a device must compute the same up to the order of
// additions.
type Kind uint32

// The op kinds. Zero is not an op, so that a zeroed record is caught.
const (
	KindMatMul Kind = iota + 1
	KindConv
	KindDepthwise
	KindUpsampleAdd
	KindLayerNorm
	KindL2Norm
	KindL1Norm
	KindAdd
	KindAddPosition
	KindAttention
	KindPack
	KindActivate
	KindClassify
	KindPicture
	KindPaint
	KindQuantize
	KindMatMul8
	KindDepthwise8
	KindResidual8
	KindColumns8
	KindMaps
	KindPeaks
	KindTidy
	KindColour
	KindGather
	KindGroupNorm
	KindDeformable
	KindWindowAttention
	KindSmooth
	KindGuide
	KindGuided
	KindPaintGuided
	KindCount // number of kinds + 1
)

var kindNames = [KindCount]string{"", "matmul", "conv", "depthwise", "upsample-add",
	"layer-norm", "l2-norm", "l1-norm", "add", "add-position", "attention", "pack",
	"activate", "classify", "picture", "paint", "quantize", "matmul8", "depthwise8", "residual8",
	"columns8", "maps", "peaks", "tidy", "colour", "gather", "group-norm", "deformable", "window-attention",
	"smooth", "guide", "guided", "paint-guided"}

func (k Kind) String() string {
	if k == 0 || k >= KindCount {
		return "unknown"
	}
	return kindNames[k]
}

// Act is the activation at the end of an op.
type Act uint32

// The activations. Gelu is the exact one, x·(1+erf(x/√2))/2; devices may use
// an approximation of erf with an absolute error of at most 2e-7. QuickGelu is
// x/(1+exp(-1.702·x)), which some networks were trained with.
const (
	ActNone Act = iota
	ActReLU
	ActReLU6
	ActGelu
	ActSigmoid
	ActExp
	ActQuickGelu
)

// Apply is the definition of the activations.
func (a Act) Apply(x float32) float32 {
	switch a {
	case ActReLU:
		return max(x, 0)
	case ActReLU6:
		return min(max(x, 0), 6)
	case ActGelu:
		return float32(float64(x) * 0.5 * (1 + math.Erf(float64(x)/math.Sqrt2)))
	case ActSigmoid:
		return float32(1 / (1 + math.Exp(-float64(x))))
	case ActExp:
		return float32(math.Exp(float64(x)))
	case ActQuickGelu:
		return float32(float64(x) / (1 + math.Exp(-1.702*float64(x))))
	}
	return x
}

// Panel is the number of columns in a panel of a packed matrix. A packed
// matrix B of K rows and N columns keeps B[k,n] at
// ((n/Panel)*K+k)*Panel + n%Panel; columns from N to the next multiple of
// Panel are zero. Every device reads this one layout, so packing happens
// once, when weights are loaded, or in a Pack op for what depends on the
// picture or the prompts.
const Panel = 8

// PackedLen is the length in float32s of a packed matrix of K rows and N columns.
func PackedLen(k, n int) int { return (n + Panel - 1) / Panel * Panel * k }

// Op is one operation on buffers of a program.
type Op interface {
	// record gives the op in the fixed-size form that devices read; it
	// panics with a constant string if the op's shape is impossible.
	record() record
}

// MatMul is the matrix product of a row-major A with B:
//
//	for m, n { s := bias[n]
//		for k { s += A[m*LDA+k] * B[k,n] }
//		dst[m*LDD+n] = act(s) + res[m*LDR+n] }
//
// N is a multiple of Panel; bias (length N) and res may be absent. B is
// packed if LDB is 0, otherwise row-major with rows LDB apart. Leading
// dimensions of 0 mean "dense": K for A, N for dst and res.
type MatMul struct {
	Dst, A, B, Bias, Res View
	M, N, K              int
	LDA, LDB, LDD, LDR   int
	Act                  Act
}

func (o MatMul) record() record {
	if o.M <= 0 || o.N <= 0 || o.K <= 0 {
		panic("kernel: MatMul with an empty side")
	}
	if o.N%Panel != 0 {
		panic("kernel: MatMul needs N to be a multiple of Panel")
	}
	o = o.Dense()
	return record{kind: KindMatMul, act: o.Act, views: views{o.Dst, o.A, o.B, o.Bias, o.Res},
		ints: ints{o.M, o.N, o.K, o.LDA, o.LDB, o.LDD, o.LDR}}
}

// Dense returns o with leading dimensions of 0 (but LDB) filled in.
func (o MatMul) Dense() MatMul {
	o.LDA, o.LDD, o.LDR = or(o.LDA, o.K), or(o.LDD, o.N), or(o.LDR, o.N)
	return o
}

// Conv is a small dense convolution over channels-last rows. Its input is
// already padded: output pixel (y, x) starts at input pixel (y*Stride, x*Stride).
//
//	for y, x, n { s := bias[n]
//		for ky, kx, c { s += A[((y*Stride+ky)*WP + x*Stride+kx)*C + c] * B[(ky*Size+kx)*C+c, n] }
//		dst[(y*W+x)*N+n] = act(s) }
//
// H, W are the output's rows and columns, WP the columns of the padded
// input, B is packed with Size*Size*C rows; N is a multiple of Panel. If
// Bytes is set, dst holds round7(s) instead, a byte each, see Quantize; Act
// must be ActNone then. Sums are made in this order, with each product and
// each sum rounded by itself, see Picture.
type Conv struct {
	Dst, A, B, Bias View
	H, W, N         int
	Size, Stride, C int
	WP              int
	Act             Act
	Bytes           bool
}

func (o Conv) record() record {
	if o.H <= 0 || o.W <= 0 || o.N <= 0 || o.C <= 0 || o.Size <= 0 || o.Stride <= 0 {
		panic("kernel: Conv with an empty side")
	}
	if o.N%Panel != 0 {
		panic("kernel: Conv needs N to be a multiple of Panel")
	}
	if o.Bytes && o.Act != ActNone {
		panic("kernel: Conv to bytes has no other activation")
	}
	return record{kind: KindConv, act: o.Act, views: views{o.Dst, o.A, o.B, o.Bias},
		ints: ints{o.H, o.W, o.N, o.Size, o.Stride, o.C, o.WP, flag(o.Bytes)}}
}

// Depthwise is a depthwise convolution over channels-last rows, zero outside
// the input:
//
//	for y, x, c { s := bias[c]
//		for ky, kx { iy, ix := y*Stride+ky-Pad, x*Stride+kx-Pad
//			if inside { s += A[(iy*WI+ix)*C+c] * B[(ky*Size+kx)*C+c] } }
//		dst[(y*W+x)*C+c] = act(s) }
//
// H, W are the output's rows and columns, HI, WI the input's; Size is 3 or
// 5, or 7 with Stride 1, Stride 1 or 2, C a multiple of 8; bias may be absent. Pad is the number of
// rows (columns) that are missing above (left); what lacks below and right
// follows from the sizes. If Bytes is set, dst holds round7(s) instead, a byte
// each, see Quantize; Act must be ActNone then, and C at most MaxK8.
type Depthwise struct {
	Dst, A, B, Bias   View
	H, W, HI, WI, C   int
	Size, Stride, Pad int
	Act               Act
	Bytes             bool
}

func (o Depthwise) record() record {
	if o.H <= 0 || o.W <= 0 || o.HI <= 0 || o.WI <= 0 || o.C <= 0 {
		panic("kernel: Depthwise with an empty side")
	}
	if (o.Size != 3 && o.Size != 5 && (o.Size != 7 || o.Stride != 1)) || (o.Stride != 1 && o.Stride != 2) || o.C%8 != 0 {
		panic("kernel: Depthwise needs Size 3 or 5, or 7 with Stride 1, Stride 1 or 2 and C a multiple of 8")
	}
	if o.Bytes && (o.Act != ActNone || o.C > MaxK8) {
		panic("kernel: Depthwise to bytes has no other activation and C at most MaxK8")
	}
	return record{kind: KindDepthwise, act: o.Act, views: views{o.Dst, o.A, o.B, o.Bias},
		ints: ints{o.H, o.W, o.HI, o.WI, o.C, o.Size, o.Stride, o.Pad, flag(o.Bytes)}}
}

// UpsampleAdd doubles a channels-last map A of H rows and W columns and adds
// it to Res. Cells are centred at their right and bottom edge (the trunk's
// padding puts them there), so every second output is an input and the
// others lie half-way between two:
//
//	up(i) = i odd: in[i/2]; i even: (in[i/2-1] + in[i/2]) / 2, in[-1] = in[0]
//	dst[y,x,c] = res[y,x,c] + up over y of up over x of A[.,.,c]
//
// C is a multiple of 4.
type UpsampleAdd struct {
	Dst, A, Res View
	H, W, C     int
}

func (o UpsampleAdd) record() record {
	if o.H <= 0 || o.W <= 0 || o.C <= 0 || o.C%4 != 0 {
		panic("kernel: UpsampleAdd needs sides above 0 and C a multiple of 4")
	}
	return record{kind: KindUpsampleAdd, views: views{o.Dst, o.A, o.Res}, ints: ints{o.H, o.W, o.C}}
}

// LayerNorm normalises each row of A+Res (Res may be absent):
//
//	t := A[m,:] + res[m,:]
//	dst[m,n] = (t[n]-mean(t)) / sqrt(variance(t)+Eps) * gamma[n] + beta[n]
//
// N is a multiple of 4. Dst may be A or Res.
type LayerNorm struct {
	Dst, A, Res, Gamma, Beta View
	M, N                     int
	Eps                      float32
}

func (o LayerNorm) record() record {
	rowShape(o.M, o.N)
	return record{kind: KindLayerNorm, views: views{o.Dst, o.A, o.Res, o.Gamma, o.Beta},
		ints: ints{o.M, o.N}, floats: floats{o.Eps}}
}

// L2Norm scales each row of A-Center (Center may be absent) to length Scale:
//
//	t := A[m,:] - center[:]
//	dst[m,n] = t[n] * Scale / max(sqrt(sum(t*t)), 1e-12)
//
// N is a multiple of 4. Dst may be A.
type L2Norm struct {
	Dst, A, Center View
	M, N           int
	Scale          float32
}

func (o L2Norm) record() record {
	rowShape(o.M, o.N)
	return record{kind: KindL2Norm, views: views{o.Dst, o.A, o.Center}, ints: ints{o.M, o.N},
		floats: floats{o.Scale}}
}

// L1Norm divides each row of A, whose numbers are not negative, by its sum:
//
//	dst[m,n] = A[m,n] / max(sum(A[m,:]), 1e-12)
//
// N is a multiple of 4. Dst may be A.
type L1Norm struct {
	Dst, A View
	M, N   int
}

func (o L1Norm) record() record {
	rowShape(o.M, o.N)
	return record{kind: KindL1Norm, views: views{o.Dst, o.A}, ints: ints{o.M, o.N}}
}

// Add adds B's rows, repeated from the top when M is larger than MB:
//
//	dst[m,n] = A[m,n] + B[m%MB,n]
//
// N is a multiple of 4. Dst may be A.
type Add struct {
	Dst, A, B View
	M, N, MB  int
}

func (o Add) record() record {
	rowShape(o.M, o.N)
	if o.MB <= 0 {
		panic("kernel: Add needs MB above 0")
	}
	return record{kind: KindAdd, views: views{o.Dst, o.A, o.B}, ints: ints{o.M, o.N, o.MB}}
}

// AddPosition adds a separable position code to a channels-last map:
//
//	dst[y,x,c] = A[y,x,c] + (c < C/2 ? PY[y,c] : PX[x,c-C/2])
//
// PY and PX have rows of C/2. C is a multiple of 8. Dst may be A.
type AddPosition struct {
	Dst, A, PY, PX View
	H, W, C        int
}

func (o AddPosition) record() record {
	if o.H <= 0 || o.W <= 0 || o.C <= 0 || o.C%8 != 0 {
		panic("kernel: AddPosition needs sides above 0 and C a multiple of 8")
	}
	return record{kind: KindAddPosition, views: views{o.Dst, o.A, o.PY, o.PX}, ints: ints{o.H, o.W, o.C}}
}

// Attention is multi-head attention between NQ queries and NK keys, D
// channels shared by Heads heads of D/Heads (a multiple of 8) each:
//
//	n := NK, or the int32 in Count if it is given (1 ≤ n ≤ NK)
//	for h, q { for j in 0..n { s[j] = Scale * sum_c Q[q*LDQ + h*hd+c] * K[j, h*hd+c] }
//		if Mask: s[j] = -inf where Mask[q*NK+j] < 0, unless that holds for every j < n
//		p := softmax(s[0..n])
//		for c { dst[q*D + h*hd+c] = sum_j p[j] * V[j, h*hd+c] } }
//
// K and V are packed, matrices of NK rows and D columns: a panel holds Panel
// channels, so that a head's part of all keys lies together. A mask row is
// dense, NK wide; with Mask, NK must be a multiple of 4. LDQ of 0 means D.
// There are at most 1024 heads.
type Attention struct {
	Dst, Q, K, V, Mask, Count View
	NQ, NK, D, Heads          int
	LDQ                       int
	Scale                     float32
}

func (o Attention) record() record {
	if o.NQ <= 0 || o.NK <= 0 || o.D <= 0 || o.Heads <= 0 {
		panic("kernel: Attention with an empty side")
	}
	if o.D%o.Heads != 0 || o.D/o.Heads%8 != 0 || o.Heads > 1024 {
		panic("kernel: Attention needs heads of a multiple of 8 channels, at most 1024 of them")
	}
	if o.Mask.Valid() && o.NK%4 != 0 {
		panic("kernel: Attention with a mask needs NK to be a multiple of 4")
	}
	return record{kind: KindAttention, views: views{o.Dst, o.Q, o.K, o.V, o.Mask, o.Count},
		ints:   ints{o.NQ, o.NK, o.D, o.Heads, or(o.LDQ, o.D)},
		floats: floats{o.Scale}}
}

// Pack brings a matrix of K rows and N columns into panels. From a row-major
// A[k*LDA+n], or, if Transposed, from A[n*LDA+k]:
//
//	dst[k,n] (packed) = A[k,n], zero for the columns that fill the last panel
type Pack struct {
	Dst, A     View
	K, N, LDA  int
	Transposed bool
}

func (o Pack) record() record {
	if o.K <= 0 || o.N <= 0 {
		panic("kernel: Pack with an empty side")
	}
	t := 0
	lda := or(o.LDA, o.N)
	if o.Transposed {
		t, lda = 1, or(o.LDA, o.K)
	}
	return record{kind: KindPack, views: views{o.Dst, o.A}, ints: ints{o.K, o.N, lda, t}}
}

// Activate applies an activation to N numbers, a multiple of 4:
//
//	dst[n] = act(A[n])
//
// Dst may be A.
type Activate struct {
	Dst, A View
	N      int
	Act    Act
}

func (o Activate) record() record {
	rowShape(1, o.N)
	return record{kind: KindActivate, act: o.Act, views: views{o.Dst, o.A}, ints: ints{o.N}}
}

// Classify joins the two stages' logits of Q queries for S phrases, takes
// the best phrase of each prompt, and turns the T prompts and void into
// probabilities:
//
//	for q { for t { z[t] = -inf }
//		for s with owner[s] >= 0 { z[owner[s]] = max(z[owner[s]], coef[0,s]*A[q,s] + coef[1,s]*B[q,s] + coef[2,s]) }
//		p := softmax(z[0..T], void[q*LDVoid])
//		for t { dst[t*Q+q] = p[t] }
//		dst[T*Q+q] = p[T] }
//
// owner holds S int32s; prompts without phrases get probability 0. dst has
// T+1 rows of Q, the last is void's.
type Classify struct {
	Dst, A, B, Coef, Owner, Void View
	Q, S, T                      int
	LDVoid                       int
}

func (o Classify) record() record {
	if o.Q <= 0 || o.S <= 0 || o.T <= 0 || o.LDVoid <= 0 {
		panic("kernel: Classify with an empty side")
	}
	return record{kind: KindClassify, views: views{o.Dst, o.A, o.B, o.Coef, o.Owner, o.Void},
		ints: ints{o.Q, o.S, o.T, o.LDVoid}}
}

// Picture resizes 8-bit RGBA pixels and normalises them into four float32
// channels, the fourth 0:
//
//	for y < H, x < W, c < 3 { s := 0
//		for i < tapsX[x].n { t := 0
//			for j < tapsY[y].n { t += tapsY[y].w[j] * src[(tapsY[y].first+j)*WI + tapsX[x].first+i, c] }
//			s += tapsX[x].w[i] * t }
//		dst[(y*WP+x)*4+c] = (s - 127) / 128 }
//
// in this order, with each product and each sum rounded by itself, so that
// every device computes the same bits: what integers make of a picture
// amplifies differences. It is zero for H ≤ y < HP or W ≤ x < WP. Taps are made
// by Taps; HI, WI are the source's rows and columns. SizeX is at most MaxTaps.
type Picture struct {
	Dst, Src, TapsY, TapsX View
	H, W, HP, WP, HI, WI   int
	// SizeY and SizeX are the weights kept for each output row and column
	// (entries of a tap table are 2+Size words: first, n, weights).
	SizeY, SizeX int
}

// MaxTaps is how many columns of a picture an output may see.
const MaxTaps = 1 << 14

func (o Picture) record() record {
	if o.H <= 0 || o.W <= 0 || o.HP < o.H || o.WP < o.W || o.HI <= 0 || o.WI <= 0 || o.SizeX <= 0 || o.SizeY <= 0 || o.SizeX > MaxTaps {
		panic("kernel: Picture with an impossible shape")
	}
	return record{kind: KindPicture, views: views{o.Dst, o.Src, o.TapsY, o.TapsX},
		ints: ints{o.H, o.W, o.HP, o.WP, o.HI, o.WI, o.SizeY, o.SizeX}}
}

// Paint resizes maps A of HI rows and WI columns to the picture's resolution.
// It marks where a single map is above 0 in Mask, or, in Label, which of some
// maps is highest there:
//
//	n := T, or the int32 in Count if it is given (1 ≤ n ≤ T)
//	if Label and *Index = 0 { best, label = 0, NoLabel everywhere }
//	for t < n, y < H, x < W {
//		s := sum of tapsY[y].w[j] * tapsX[x].w[i] * A[(t*HI+tapsY[y].first+j)*WI + tapsX[x].first+i]
//		if Pixels { s = s · (red, green, blue, 1) of the pixel }
//		if Mask { mask[y*W+x] = s > 0 ? 1 : 0 }
//		if Label and s > best[y*W+x] { best[y*W+x] = s; label[y*W+x] = *Index + t } }
//
// Mask and Label are bytes, Best is float32, Index one int32. Either Mask is
// there, and T is 1, or Label, Best and Index are. Tap tables have two weights
// an entry (SizeY = SizeX = 2), so this is bilinear. An Index other than 0 goes
// on with what the maps before have left in Best and Label. With Pixels, which are RGBA
// bytes, A has what Guided makes, four numbers a cell. WI is at most 2^14.
type Paint struct {
	Mask, Label, Best, A, TapsY, TapsX, Index, Count, Pixels View
	H, W, HI, WI, T                                          int
}

// NoLabel marks pixels of a label map that no map claims.
const NoLabel = 255

func (o Paint) record() record {
	if o.H <= 0 || o.W <= 0 || o.HI <= 0 || o.WI <= 0 || o.T <= 0 {
		panic("kernel: Paint with an empty side")
	}
	if o.WI > 1<<14 {
		panic("kernel: Paint with rows that are too long")
	}
	label := o.Label.Valid()
	if o.Mask.Valid() == label || label != o.Best.Valid() || label != o.Index.Valid() || !label && (o.T != 1 || o.Count.Valid()) {
		panic("kernel: Paint needs a mask of one map, or label, best and index")
	}
	r := record{kind: KindPaint, views: views{o.Mask, o.A, o.TapsY, o.TapsX, o.Index, o.Pixels, o.Best, o.Count},
		ints: ints{o.H, o.W, o.HI, o.WI, o.T}}
	if label {
		r.views[0] = o.Label
	}
	if o.Pixels.Valid() {
		r.kind = KindPaintGuided
	}
	return r
}

func rowShape(m, n int) {
	if m <= 0 || n <= 0 || n%4 != 0 {
		panic("kernel: rows need M above 0 and N a multiple of 4")
	}
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func or(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// PackInto brings a matrix of K rows and N columns, given element by
// element, into panels; dst has PackedLen(k, n) numbers.
func PackInto(dst []float32, k, n int, at func(k, n int) float32) {
	for first := 0; first < n; first += Panel {
		for row := range k {
			out := dst[(first/Panel*k+row)*Panel:][:Panel]
			for j := range out {
				out[j] = 0
				if first+j < n {
					out[j] = at(row, first+j)
				}
			}
		}
	}
}
