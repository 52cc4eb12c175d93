package kernel

// The ops of this file are what networks of public checkpoints need beside the
// others: rows that are taken from elsewhere, norms over groups of channels,
// and attention that samples, or stays within windows.

// Gather makes each row of N numbers of a few rows of A: their sum, or, if Max
// is set, the largest number in each place.
//
//	for m < M, n < N { s := 0, or -inf if Max
//		for t < Taps { i := Index[m*Taps+t]; if i < 0 { continue }
//			if Max { s = max(s, A[i*N+n]) } else { s += Weight[m*Taps+t] * A[i*N+n] } }
//		dst[m*N+n] = s + res[m*N+n] }
//
// Index holds int32s. Without Weight, which Max must not have, all weights are
// 1; res may be absent. One tap pads a map (with -1), takes every second cell,
// repeats cells or a row; four taps resize bilinearly; nine are the window of a
// pool. N is a multiple of 4.
type Gather struct {
	Dst, A, Index, Weight, Res View
	M, N, Taps                 int
	Max                        bool
}

func (o Gather) record() record {
	rowShape(o.M, o.N)
	if o.Taps <= 0 || o.Max && o.Weight.Valid() {
		panic("kernel: Gather needs Taps above 0, and no weights with Max")
	}
	return record{kind: KindGather, views: views{o.Dst, o.A, o.Index, o.Weight, o.Res},
		ints: ints{o.M, o.N, o.Taps, flag(o.Max)}}
}

// GroupNorm normalises the channels of M rows of N numbers in Groups groups of
// neighbours, over all rows:
//
//	for each group { t := A[m,n] for all m and the group's n
//		dst[m,n] = act((t-mean(t)) / sqrt(variance(t)+Eps) * gamma[n] + beta[n]) }
//
// A group has a multiple of 4 channels. Act is ActNone or ActReLU. Dst may be A.
type GroupNorm struct {
	Dst, A, Gamma, Beta View
	M, N, Groups        int
	Eps                 float32
	Act                 Act
}

func (o GroupNorm) record() record {
	rowShape(o.M, o.N)
	if o.Groups <= 0 || o.N%(4*o.Groups) != 0 || o.Act > ActReLU {
		panic("kernel: GroupNorm needs groups of a multiple of 4 channels and no activation but ReLU")
	}
	return record{kind: KindGroupNorm, act: o.Act, views: views{o.Dst, o.A, o.Gamma, o.Beta},
		ints: ints{o.M, o.N, o.Groups}, floats: floats{o.Eps}}
}

// MaxSides is how many maps a Deformable may sample.
const MaxSides = 4

// Deformable is the middle of multi-scale deformable attention: each query of
// each head looks at a few points of some maps, which it chooses itself. Sides
// has the maps' rows and columns; V has their cells' rows of D numbers, map by map.
// L is the number of maps, hd = D/Heads:
//
//	for q < Q, h < Heads { p := softmax(Weight[(q*Heads+h)*L*Points:][:L*Points])
//		for l < L, i < Points { j := l*Points + i; rows, columns := Sides[l]
//			x := At[2*q]  *columns + Offset[((q*Heads+h)*L*Points+j)*2]   - 1/2
//			y := At[2*q+1]*rows    + Offset[((q*Heads+h)*L*Points+j)*2+1] - 1/2
//			for c < hd { dst[q*D+h*hd+c] += p[j] * bilinear(map l of V, y, x, channel h*hd+c) } } }
//
// where cells have whole coordinates and a cell outside the map is 0. At is where
// a query is, from 0 to 1. hd is a multiple of 8, L*Points one of 4, at most 64.
type Deformable struct {
	Dst, V, Offset, Weight, At View
	Q, D, Heads, Points        int
	Sides                      [][2]int
}

func (o Deformable) record() record {
	n := len(o.Sides) * o.Points
	if o.Q <= 0 || o.D <= 0 || o.Heads <= 0 || n <= 0 || n%4 != 0 || n > 64 || len(o.Sides) > MaxSides {
		panic("kernel: Deformable needs queries, at most 4 maps, and a multiple of 4 points, at most 64")
	}
	if o.D%o.Heads != 0 || o.D/o.Heads%8 != 0 {
		panic("kernel: Deformable needs heads of a multiple of 8 channels")
	}
	r := record{kind: KindDeformable, views: views{o.Dst, o.V, o.Offset, o.Weight, o.At},
		ints: ints{o.Q, o.D, o.Heads, o.Points, len(o.Sides)}}
	for i, side := range o.Sides {
		if side[0] <= 0 || side[1] <= 0 {
			panic("kernel: Deformable with an empty map")
		}
		r.ints[5+2*i], r.ints[6+2*i] = side[0], side[1]
	}
	return r
}

// WindowAttention is Attention of windows of Size rows each, in which every row
// looks at the rows of its own window:
//
//	for w < Windows, h < Heads, i < Size { q := w*Size + i
//		for j < Size { s[j] = Scale * sum_c Q[q*LDQ + h*hd+c] * K[w*Size+j, h*hd+c] + Bias[(h*Size+i)*LDB + j] }
//		p := softmax(s)
//		for c { dst[q*D + h*hd+c] = sum_j p[j] * V[w*Size+j, h*hd+c] } }
//
// K and V are packed, matrices of Rows rows and D columns, of which the windows
// may be a part. LDB is Size rounded up to a multiple of 4. LDQ of 0 means D; hd =
// D/Heads is a multiple of 8. A window has at most MaxWindow rows.
type WindowAttention struct {
	Dst, Q, K, V, Bias           View
	Windows, Size, D, Heads, LDQ int
	Rows                         int
	Scale                        float32
}

// MaxWindow is how many rows a window may have.
const MaxWindow = 4096

func (o WindowAttention) record() record {
	if o.Windows <= 0 || o.Size <= 0 || o.Size > MaxWindow || o.D <= 0 || o.Heads <= 0 || o.Windows*o.Size > o.Rows {
		panic("kernel: WindowAttention needs windows of 1 to 4096 rows, which K and V have")
	}
	if o.D%o.Heads != 0 || o.D/o.Heads%8 != 0 {
		panic("kernel: WindowAttention needs heads of a multiple of 8 channels")
	}
	return record{kind: KindWindowAttention, views: views{o.Dst, o.Q, o.K, o.V, o.Bias},
		ints: ints{o.Windows, o.Size, o.D, o.Heads, or(o.LDQ, o.D), o.Rows}, floats: floats{o.Scale}}
}
