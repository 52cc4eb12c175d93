package main

// inverted holds the functions of Depthwise8 and Residual8.
type inverted struct {
	deep                                    map[window]*Func
	pairRows, keepRow, spread, quantizePair *Func
	expand, project                         *Func
}

func (k *kernels) inverted() inverted {
	v := inverted{deep: map[window]*Func{}, pairRows: k.pairRows(), keepRow: k.keepRow(), spread: k.spread(),
		quantizePair: k.quantizePair(), expand: k.product(toPairs, true), project: k.product(toFloats, false)}
	for _, w := range windows {
		v.deep[w] = k.deep(w)
	}
	return v
}

// depthwise8 and residual8 go from top to bottom. A step makes one or two rows
// of outputs from two or three pairs of rows, of which all but the lowest are
// there from the step before; their places are taken in turns. Row i of the
// input is the upper one of its pair if i+Pad is even, so that windows start
// where pairs do.
func (k *kernels) depthwise8(in inverted) *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 3), ints(f, record, 8)
	k.steps(f, in, stepArgs{dst: v[0], a: v[1], depthwise: v[2],
		H: n[0], W: n[1], HI: n[2], WI: n[3], C: n[4], Size: n[5], Stride: n[6], Pad: n[7]}, false)
	return f
}

func (k *kernels) residual8(in inverted) *Func {
	f, record := k.opFunc()
	v, n := views(f, record, 6), ints(f, record, 10)
	k.steps(f, in, stepArgs{dst: v[0], a: v[1], expand: v[2], depthwise: v[3], project: v[4], res: v[5],
		H: n[0], W: n[1], HI: n[2], WI: n[3], C: n[4], Size: n[5], Stride: n[6], Pad: n[7], In: n[8], Out: n[9]}, true)
	return f
}

type stepArgs struct {
	dst, a, expand, depthwise, project, res     I32
	H, W, HI, WI, C, Size, Stride, Pad, In, Out I32
}

// stepBytes is how much of the scratch a step uses if it may choose, so that
// weights find room in the second-level cache too. Less than stepWidth columns
// do not pay, though: a step reads all weights.
const (
	stepBytes = 192 << 10
	stepWidth = 32
)

func (k *kernels) steps(f *Func, in inverted, o stepArgs, whole bool) {
	pairs := f.Let(o.Size.Plus(1).ShrU(1))
	rows := f.Let(Int(3).Sub(o.Stride)) // of outputs in a step
	groups := f.Let(o.C.ShrU(2))
	inQuads := Int(0)
	if whole {
		inQuads = f.Let(o.In.ShrU(2).Select(Int(0), o.expand))
	}

	// As many columns of the output are taken at a time as there is room
	// for, mostly all. What a column needs, and what there is besides:
	// windows are wider than the step from one to the next, and the steps
	// between quads are rounded up.
	each := f.Let(o.Stride.Mul(pairs.Mul(o.C).Add(inQuads.Times(k.quadBytes())).Plus(8)).Shl(1).
		Add(rows.Mul(groups).Times(k.quadBytes())))
	besides := f.Let(pairs.Times(64).Plus(192).Mul(groups).Add(inQuads.Plus(1).Times(256)))
	room := func(bytes int) I32 { return Int(bytes).Sub(besides).Max(Int(0)).DivU(each).And(-deepWidth) }
	block := f.Let(room(stepBytes).Max(Int(stepWidth)).Min(room(scratchSize - tableBytes)).Max(Int(deepWidth)))

	from, to := k.part(f, o.H.Add(rows).Plus(-1).DivU(rows), 1)
	f.If(to.LessS(from.Plus(1)), f.Return)

	f.For(Int(0), o.W, 0, func(x0 I32) {
		width := f.Let(o.W.Sub(x0).Min(block))
		full := f.Let(width.Plus(deepWidth - 1).And(-deepWidth))
		// The columns of the input that these outputs see, and how many
		// zeros are on their left.
		first := f.Let(x0.Mul(o.Stride).Sub(o.Pad))
		left := f.Let(Int(0).Sub(first).Max(Int(0)))
		end := f.Let(first.Add(width.Plus(-1).Mul(o.Stride)).Add(o.Size).Min(o.WI))
		first.Set(first.Add(left))
		columns := f.Let(end.Sub(first).Max(Int(0)))

		nextPair := f.Let(full.Plus(-1).Mul(o.Stride).Add(o.Size).Plus(1).And(-2).Shl(3))
		pairBytes := f.Let(groups.Mul(nextPair))
		table := f.Let(k.scratch.Get())
		ring := f.Let(table.Plus(tableBytes))
		deep := f.Let(ring.Add(pairs.Mul(pairBytes)))
		nextDeep := f.Let(k.quadStride(rows.Mul(full)))
		f.Fill(ring, 0, pairs.Mul(pairBytes))
		slots := [3]I32{f.Let(ring), f.Let(ring.Add(pairBytes)), f.Let(deep.Sub(pairBytes))}

		top := f.Let(from.Shl(1).Sub(o.Pad)) // the upper row of the next pair
		f.For(from.Sub(pairs).Plus(1), to, 1, func(j I32) {
			slot := f.Let(slots[0])
			slots[0].Set(slots[1])
			slots[1].Set(slots[2].Select(slot, Int(2).LessS(pairs)))
			slots[2].Set(slot)

			y := f.Let(top)
			top.Inc(2)
			upperIn, lowerIn := f.Let(y.LessU(o.HI)), f.Let(y.Plus(1).LessU(o.HI))
			f.If(upperIn.OrI(lowerIn), func() {
				// A row outside is made like the other one and wiped out.
				row := func(y I32) I32 { return y.Mul(o.WI).Add(first) }
				upper := f.Let(row(y.Plus(1).Sub(upperIn)))
				below := f.Let(row(y.Add(lowerIn)))
				into := f.Let(slot.Add(left.Shl(3)))
				fromBytes := func() {
					f.Call(in.pairRows, into, o.a.Add(upper.Mul(o.C)), o.a.Add(below.Mul(o.C)), columns, o.C, nextPair)
				}
				if whole {
					f.If(o.expand, func() {
						nextQ := f.Let(k.quadStride(columns.Shl(1)))
						q := f.Let(deep.Add(groups.Mul(nextDeep)))
						scales := f.Let(q.Add(inQuads.Mul(nextQ)))
						cell := f.Let(o.In.Shl(2))
						f.Call(in.quantizePair, q, scales, o.a.Add(upper.Mul(cell)), o.a.Add(below.Mul(cell)), columns, o.In, nextQ)
						k.callProduct(f, in.expand, productArgs{dst: into, a: q, b: o.expand.Add(o.C.Times(12)),
							constants: o.expand, nextC: o.C.Shl(2), rows: scales, res: Int(0), count: columns.Shl(1), panels: o.C.ShrU(3),
							nextA: nextQ, sizeB: o.In.Shl(3), ldd: nextPair, ldr: Int(0), nextD: Int(0), act: Int(0)})
					}, fromBytes)
				} else {
					fromBytes()
				}
				f.If(upperIn.AndI(lowerIn).Zero(), func() { f.Call(in.keepRow, slot, slot.Add(pairBytes), upperIn) })
			}, func() { f.Fill(slot, 0, pairBytes) })

			f.If(from.Plus(-1).LessS(j), func() {
				d := deepArgs{dst: deep, nextDst: nextDeep, lower: full.Times(k.quadBytes()), pairs: slots, nextPair: nextPair,
					constants: o.depthwise, channels: o.C, width: full, table: table}
				var args []value
				for _, p := range d.each() {
					args = append(args, *p)
				}
				call := func(size, stride int) func() { return func() { f.Call(in.deep[window{size, stride}], args...) } }
				f.If(o.Size.Eq(Int(3)), func() {
					f.If(o.Stride.Eq(Int(1)), call(3, 1), call(3, 2))
				}, func() {
					f.If(o.Stride.Eq(Int(1)), call(5, 1), call(5, 2))
				})

				y := f.Let(j.Mul(rows))
				count := f.Let(rows.Min(o.H.Sub(y)))
				cell := f.Let(y.Mul(o.W).Add(x0))
				a := f.Let(deep)
				if !whole {
					f.Repeat(count, func() {
						f.Call(in.spread, o.dst.Add(cell.Mul(o.C)), a, nextDeep, width, o.C)
						next(f, full.Times(k.quadBytes()), a)
						next(f, o.W, cell)
					})
					return
				}
				// Two rows are one product if nothing lies between them.
				cells := f.Let(width)
				f.If(full.Eq(o.W), func() {
					cells.Set(width.Mul(count))
					count.Set(Int(1))
				})
				f.Repeat(count, func() {
					ldd := f.Let(o.Out.Shl(2))
					k.callProduct(f, in.project, productArgs{dst: o.dst.Add(cell.Mul(ldd)), a: a, b: o.project.Add(o.Out.Times(12)),
						constants: o.project, nextC: ldd, rows: Int(0), res: o.res.Add(cell.Mul(ldd)).Select(Int(0), o.res),
						count: cells, panels: o.Out.ShrU(3), nextA: nextDeep, sizeB: o.C.Shl(3), ldd: ldd, ldr: ldd, nextD: Int(panelBytes), act: Int(0)})
					next(f, full.Times(k.quadBytes()), a)
					next(f, o.W, cell)
				})
			})
		})
		next(f, width, x0)
	})
}
