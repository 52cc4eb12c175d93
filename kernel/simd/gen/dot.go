package main

// What the ops on bytes need beyond the instructions of value.go, and the tile
// of sums that their products share.

// Pair64 loads eight bytes into both halves. Load8S and Load8U load eight
// bytes that become i16s, with or without sign.
func (x I32) Pair64(offset int) V128 { return V128{op(memory(simd(0x0a), offset), x)} }
func (x I32) Load8S(offset int) V128 { return V128{op(memory(simd(0x01), offset), x)} }
func (x I32) Load8U(offset int) V128 { return V128{op(memory(simd(0x02), offset), x)} }

// LowU and HighU are the first or the last eight bytes as i16.
func (x V128) LowU() V128  { return V128{op(simd(0x89), x)} }
func (x V128) HighU() V128 { return V128{op(simd(0x8a), x)} }

// LowInts and HighInts are the first or the last four i16s, which are not below
// 0, as i32s.
func (x V128) LowInts() V128  { return V128{op(simd(0xa9), x)} }
func (x V128) HighInts() V128 { return V128{op(simd(0xaa), x)} }

// SubI subtracts i32s. NarrowI makes i16s of the i32s of x and y, and NarrowU
// unsigned bytes of their i16s; both saturate. MinU compares unsigned bytes.
func (x V128) SubI(y V128) V128    { return V128{op(simd(0xb1), x, y)} }
func (x V128) NarrowI(y V128) V128 { return V128{op(simd(0x85), x, y)} }
func (x V128) NarrowU(y V128) V128 { return V128{op(simd(0x66), x, y)} }
func (x V128) MinU(y V128) V128    { return V128{op(simd(0x77), x, y)} }

// ShrI shifts i32s without sign, Shl16 and Shr16 shift i16s, the latter with.
func (x V128) ShrI(n int) V128  { return V128{op(simd(0xad), x, Int(n))} }
func (x V128) Shl16(n int) V128 { return V128{op(simd(0x8b), x, Int(n))} }
func (x V128) Shr16(n int) V128 { return V128{op(simd(0x8c), x, Int(n))} }

// ZipLow16 takes turns between the first four i16s of x and of y, ZipHigh16
// between the last four; ZipLow8 and ZipHigh8 do so with bytes.
func (x V128) ZipLow16(y V128) V128  { return x.zip(y, 2, 0) }
func (x V128) ZipHigh16(y V128) V128 { return x.zip(y, 2, 8) }
func (x V128) ZipLow8(y V128) V128   { return x.zip(y, 1, 0) }
func (x V128) ZipHigh8(y V128) V128  { return x.zip(y, 1, 8) }

func (x V128) zip(y V128, width, from int) V128 {
	code := simd(0x0d)
	for i := from; i < from+8; i += width {
		for _, operand := range []int{0, 16} {
			for b := range width {
				code = append(code, byte(operand+i+b))
			}
		}
	}
	return V128{op(code, x, y)}
}

// StoreHalf stores the first or the last eight bytes of x.
func (f *Func) StoreHalf(p I32, offset int, x V128, half int) {
	f.emit(op(append(memory(simd(0x5b), offset), byte(half)), p, x).code)
}

// dot is sum plus, in each lane, the products of four int8 weights with four
// bytes up to 127. It needs relaxed SIMD.
func dot(sum, weights, x V128) V128 { return V128{op(simd(0x113), weights, x, sum)} }

// dot2 is the i32s of products of pairs of i16, which are added.
func dot2(x, y V128) V128 { return V128{op(simd(0xba), x, y)} }

// sevens are 16 times the largest byte.
func (f *Func) sevens() V128 { return f.LetV(Bits(0x7f7f7f7f)) }

// magic is 1.5·2^23: a float32 of less than 2^22 added to it is rounded to an
// integer, ties to even, and this integer is the difference of their bits.
const magic = 12582912

// round is the nearest integers of four float32s as i32s.
func (f *Func) round(x V128) V128 { return x.Add(f.Splat(magic)).SubI(f.Splat(magic)) }

// tileHeights are the heights of tiles: as many rows as registers allow, and
// what remains. The sums of six rows by eight columns, two vectors of weights
// and one of A are the 15 registers that V8 has on x86. Without relaxed SIMD a
// sum is two, see dotTile.
func (k *kernels) tileHeights() []int {
	if k.options.Relaxed {
		return []int{6, 4, 2, 1}
	}
	return []int{4, 2, 1}
}

// tiles goes down count rows in tiles. A rest of seven to nine is better
// taken as four and some than as six and few, whose latency shows.
func (k *kernels) tiles(f *Func, count I32, heights []int, tile func(height int)) {
	n := f.Let(count)
	for _, height := range heights {
		more := Int(height - 1).LessS(n)
		if height == 6 {
			more = n.Eq(Int(6)).OrI(Int(9).LessS(n))
		}
		f.While(more, func() {
			tile(height)
			n.Inc(-height)
		})
	}
}

// OrI is the bits of both, and the logical or of comparisons; Or is OrI with a
// constant. ShlI shifts by an expression. MinU is for addresses.
func (x I32) OrI(y I32) I32  { return I32{op([]byte{0x72}, x, y)} }
func (x I32) Or(n int) I32   { return x.OrI(Int(n)) }
func (x I32) ShlI(y I32) I32 { return I32{op([]byte{0x74}, x, y)} }
func (x I32) MinU(y I32) I32 { return x.Select(y, x.LessU(y)) }

// Rows that are factors of a product lie in quads: the first four bytes of all
// rows side by side, then, some step behind, the next four of all rows. So one
// pointer is enough for a tile, and the step may be one that caches like.
// Without relaxed SIMD, whose products take i16s, the bytes of a quad are i16s.

// quadBytes is what a row takes in a quad.
func (k *kernels) quadBytes() int {
	if k.options.Relaxed {
		return 4
	}
	return 8
}

// quadStride is from quad to quad of count rows: whole cache lines, and an odd
// number of them, since quads at a power of two would share few lines of the
// first-level cache. It has room for three rows more.
func (k *kernels) quadStride(count I32) I32 {
	return count.Plus(3).Times(k.quadBytes()).Plus(63).ShrU(6).Or(1).Shl(6)
}

// storeQuad stores the quad of four rows, loadQuad loads it.
func (k *kernels) storeQuad(f *Func, p I32, x V128) {
	if k.options.Relaxed {
		f.StoreV(p, 0, x)
		return
	}
	x = f.LetV(x)
	f.StoreV(p, 0, x.LowU())
	f.StoreV(p, 16, x.HighU())
}

func (k *kernels) loadQuad(p I32) V128 {
	if k.options.Relaxed {
		return p.V128(0)
	}
	return p.V128(0).NarrowU(p.V128(16))
}

// dotTile is the sums of a tile of height rows by a panel. A lies in quads,
// nextA from one to the next. The panel at b ends at end; its quads are even in
// number.
func (k *kernels) dotTile(f *Func, height int, a, nextA, b, end I32) [][2]V128 {
	sums := make([][2]V128, height)
	if k.options.Relaxed {
		for r := range sums {
			sums[r] = [2]V128{f.LetV(f.Splat(0)), f.LetV(f.Splat(0))}
		}
		p, q := f.Let(a), f.Let(b)
		f.Do(func() {
			for step := range 2 {
				w0, w1 := f.LetV(q.V128(step*panelBytes)), f.LetV(q.V128(step*panelBytes+16))
				for r := range sums {
					x := f.LetV(p.Splat32(4 * r))
					sums[r][0].Set(dot(sums[r][0], w0, x))
					sums[r][1].Set(dot(sums[r][1], w1, x))
				}
				next(f, nextA, p)
			}
			q.Inc(2 * panelBytes)
		}, q.LessU(end))
		return sums
	}
	// A vector of weights as i16s serves two columns, so half a panel has as
	// many sums as a whole one above: products are added in pairs, and the two
	// pairs of a column only at the end.
	for half := range 2 {
		pairs := make([][2]V128, height)
		for r := range pairs {
			pairs[r] = [2]V128{f.LetV(f.Splat(0)), f.LetV(f.Splat(0))}
		}
		p, q := f.Let(a), f.Let(b)
		f.Do(func() {
			w0, w1 := f.LetV(q.Load8S(16*half)), f.LetV(q.Load8S(16*half+8))
			for r := range pairs {
				x := f.LetV(p.Pair64(8 * r))
				pairs[r][0].Set(pairs[r][0].AddI(dot2(x, w0)))
				pairs[r][1].Set(pairs[r][1].AddI(dot2(x, w1)))
			}
			next(f, nextA, p)
			q.Inc(panelBytes)
		}, q.LessU(end))
		for r, p := range pairs {
			sums[r][half] = f.LetV(p[0].Shuffle(p[1], 0, 2, 4, 6).AddI(p[0].Shuffle(p[1], 1, 3, 5, 7)))
		}
	}
	return sums
}
