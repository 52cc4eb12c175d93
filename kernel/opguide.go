package kernel

// Smooth takes from a picture what is finer than Guided can follow, which would
// be dust along borders. A and Dst are H×W RGBA bytes:
//
//	r(a, b) := (a + b + 1) / 2, without its fraction
//	for y < H, x < W { v[y,x] = r(r(A[y-1,x], A[y+1,x]), A[y,x]) }
//	for y < H, x < W { dst[y,x] = r(r(v[y,x-1], v[y,x+1]), v[y,x]) }
//
// byte by byte, where a pixel beyond an edge is the nearest one on it.
type Smooth struct {
	Dst, A View
	H, W   int
}

func (o Smooth) record() record {
	if o.H <= 0 || o.W <= 0 {
		panic("kernel: Smooth needs sides")
	}
	return record{kind: KindSmooth, views: views{o.Dst, o.A}, ints: ints{o.H, o.W}}
}

// Guide gathers what Guided needs to know of a picture: the colours of its
// cells of 4 pixels, and how they vary round each cell. A is what Picture
// leaves, HI rows of WI pixels, rows WP apart. Cell (y, x) is centred at pixel
// (4y+4, 4x+4), and a place beyond an edge is the nearest one that is not, for
// pixels and for cells:
//
//	for y < H, x < W { g[y,x] = mean of (red, green, blue, 1) of A over the pixels from (4y+2, 4x+2) to (4y+5, 4x+5) }
//	for y < H, x < W { m := mean of g·gᵀ over the cells from (y-1, x-1) to (y+1, x+1)
//		k[y,x] = inverse of m + Epsilon·diag(1, 1, 1, 0) }
//
// Dst holds g, 4 numbers a cell, and behind it k, 16 a cell. W is at most 2^11.
type Guide struct {
	Dst, A           View
	H, W, HI, WI, WP int
	Epsilon          float32
}

func (o Guide) record() record {
	guideShape(o.H, o.W)
	if o.HI <= 0 || o.WI <= 0 || o.WP < o.WI || !(o.Epsilon > 0) {
		panic("kernel: Guide needs sides and Epsilon above 0")
	}
	return record{kind: KindGuide, views: views{o.Dst, o.A}, ints: ints{o.H, o.W, o.HI, o.WI, o.WP}, floats: floats{o.Epsilon}}
}

// GuideLen is the number of float32s that Guide makes of a number of cells.
func GuideLen(cells int) int { return 20 * cells }

// Guided is the guided filter (He, Sun and Tang, 2013) of maps A, up to what
// Paint does: round each cell a map is fitted by a linear function of the
// colours, in windows of 3×3 cells, so that it can be asked at any pixel. The
// fit is ridge regression with what Guide left:
//
//	n := T, or the int32 in Count if it is given (1 ≤ n ≤ T)
//	for t < n {
//		for y, x { f[y,x] = (0, 0, 0, A[t,y,x]), but
//			if Everywhere or of the cells from (y-1, x-1) to (y+1, x+1) some are above 0 and others not {
//				f[y,x] = k[y,x] · mean of g·A[t,.,.] over these cells } }
//		for y, x { red, green, blue, one := mean of f over the same cells
//			dst[t,y,x] = (red, green, blue, 128*one - 127*(red+green+blue)) / 128 } }
//
// where places beyond an edge are as in Guide. So dst[t,y,x] · (red, green,
// blue, 1) is the map's value where a pixel's bytes are red, green and blue.
// Unless Everywhere, colours only count where the map's border is near: what
// is beyond them elsewhere would be dust. W is at most 2^11.
type Guided struct {
	Dst, A, Guide, Count View
	T, H, W              int
	Everywhere           bool
}

func (o Guided) record() record {
	guideShape(o.H, o.W)
	if o.T <= 0 {
		panic("kernel: Guided without maps")
	}
	return record{kind: KindGuided, views: views{o.Dst, o.A, o.Guide, o.Count}, ints: ints{o.T, o.H, o.W, flag(o.Everywhere)}}
}

func guideShape(h, w int) {
	if h <= 0 || w <= 0 || w > 1<<11 {
		panic("kernel: guidance needs sides above 0 and rows of at most 2^11 cells")
	}
}
