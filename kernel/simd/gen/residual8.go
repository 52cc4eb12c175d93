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

// stepArgs are the operands of the two ops. In, Out and the addresses of
// Residual8 alone are not set for Depthwise8.
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

// stepper is an op under construction: what holds for all of it, and then for
// the columns of the output that are taken at a time.
type stepper struct {
	*kernels
	in    inverted
	o     stepArgs
	f     *Func
	whole bool // Residual8

	pairs, rows    I32 // that a step reads, and of outputs that it makes
	groups, inputs I32 // fours of C, and of In
	x, width, full I32 // the first column, how many, and filled up to a multiple of deepWidth
	left           I32 // columns of zeros on the left of the input's,
	first, columns I32 // its first one and how many

	table, deep, quads            I32 // where things lie in scratch
	nextPair, nextDeep, nextQuads I32 // from four channels to the next
	pairBytes                     I32
	slots                         [3]I32 // of pairs, from top to bottom
}

func (k *kernels) steps(f *Func, in inverted, o stepArgs, whole bool) {
	s := &stepper{kernels: k, in: in, o: o, f: f, whole: whole}
	s.pairs = f.Let(o.Size.Plus(1).ShrU(1))
	s.rows = f.Let(Int(3).Sub(o.Stride))
	s.groups, s.inputs = f.Let(o.C.ShrU(2)), Int(0)
	if whole {
		s.inputs = f.Let(o.In.ShrU(2).Select(Int(0), o.expand))
	}
	from, to := k.part(f, o.H.Add(s.rows).Plus(-1).DivU(s.rows), 1)
	f.If(to.LessS(from.Plus(1)), f.Return)

	block := s.block()
	s.x = f.Let(Int(0))
	f.While(s.x.LessS(o.W), func() {
		s.width = f.Let(o.W.Sub(s.x).Min(block))
		s.layOut()
		top := f.Let(from.Shl(1).Sub(o.Pad)) // the upper row of the next pair
		f.For(from.Sub(s.pairs).Plus(1), to, 1, func(j I32) {
			s.addPair(top)
			top.Inc(2)
			f.If(from.Plus(-1).LessS(j), func() { s.outputs(f.Let(j.Mul(s.rows))) })
		})
		next(f, s.width, s.x)
	})
}

// block is how many columns of the output are taken at a time: as many as there
// is room for, mostly all.
func (s *stepper) block() I32 {
	// What a column needs, and what there is besides: windows are wider than
	// the step from one to the next, and the steps between quads are rounded up.
	each := s.f.Let(s.o.Stride.Mul(s.pairs.Mul(s.o.C).Add(s.inputs.Times(s.quadBytes())).Plus(8)).Shl(1).
		Add(s.rows.Mul(s.groups).Times(s.quadBytes())))
	besides := s.f.Let(s.pairs.Times(64).Plus(192).Mul(s.groups).Add(s.inputs.Plus(1).Times(256)))
	room := func(bytes int) I32 { return Int(bytes).Sub(besides).Max(Int(0)).DivU(each).And(-deepWidth) }
	return s.f.Let(room(stepBytes).Max(Int(stepWidth)).Min(room(scratchSize - tableBytes)).Max(Int(deepWidth)))
}

// layOut finds the columns of the input that width outputs from x on see, and
// the places in scratch.
func (s *stepper) layOut() {
	f := s.f
	s.full = f.Let(s.width.Plus(deepWidth - 1).And(-deepWidth))
	s.first = f.Let(s.x.Mul(s.o.Stride).Sub(s.o.Pad))
	s.left = f.Let(Int(0).Sub(s.first).Max(Int(0)))
	end := f.Let(s.first.Add(s.width.Plus(-1).Mul(s.o.Stride)).Add(s.o.Size).Min(s.o.WI))
	s.first.Set(s.first.Add(s.left))
	s.columns = f.Let(end.Sub(s.first).Max(Int(0)))

	s.nextPair = f.Let(s.full.Plus(-1).Mul(s.o.Stride).Add(s.o.Size).Plus(1).And(-2).Shl(3))
	s.pairBytes = f.Let(s.groups.Mul(s.nextPair))
	s.nextDeep = f.Let(s.quadStride(s.rows.Mul(s.full)))
	s.nextQuads = f.Let(s.quadStride(s.columns.Shl(1)))
	s.table = f.Let(s.scratch.Get())
	ring := f.Let(s.table.Plus(tableBytes))
	s.deep = f.Let(ring.Add(s.pairs.Mul(s.pairBytes)))
	s.quads = f.Let(s.deep.Add(s.groups.Mul(s.nextDeep)))
	s.slots = [3]I32{f.Let(ring), f.Let(ring.Add(s.pairBytes)), f.Let(s.deep.Sub(s.pairBytes))}
	f.Fill(ring, 0, s.pairs.Mul(s.pairBytes)) // what is outside of the input stays 0
}

// addPair makes the pair whose upper row is y of the input, where the topmost
// pair is now, which is not needed any more.
func (s *stepper) addPair(y I32) {
	f := s.f
	slot := f.Let(s.slots[0])
	s.slots[0].Set(s.slots[1])
	s.slots[1].Set(s.slots[2].Select(slot, Int(2).LessS(s.pairs)))
	s.slots[2].Set(slot)

	upperIn, lowerIn := f.Let(y.LessU(s.o.HI)), f.Let(y.Plus(1).LessU(s.o.HI))
	f.If(upperIn.OrI(lowerIn), func() {
		// A row outside is made like the other one and wiped out.
		cell := func(y I32) I32 { return f.Let(y.Mul(s.o.WI).Add(s.first)) }
		upper, lower := cell(y.Plus(1).Sub(upperIn)), cell(y.Add(lowerIn))
		into := f.Let(slot.Add(s.left.Shl(3)))
		fromBytes := func() {
			f.Call(s.in.pairRows, into, s.o.a.Add(upper.Mul(s.o.C)), s.o.a.Add(lower.Mul(s.o.C)), s.columns, s.o.C, s.nextPair)
		}
		if s.whole {
			f.If(s.o.expand, func() {
				bytes := f.Let(s.o.In.Shl(2))
				rows := f.Let(s.quads.Add(s.inputs.Mul(s.nextQuads)))
				f.Call(s.in.quantizePair, s.quads, rows, s.o.a.Add(upper.Mul(bytes)), s.o.a.Add(lower.Mul(bytes)), s.columns, s.o.In, s.nextQuads)
				s.callProduct(f, s.in.expand, productArgs{
					dst: into, a: s.quads, b: s.o.expand.Add(s.o.C.Times(12)), constants: s.o.expand, nextC: s.o.C.Shl(2),
					rows: rows, res: Int(0), count: s.columns.Shl(1), panels: s.o.C.ShrU(3),
					nextA: s.nextQuads, sizeB: s.o.In.Shl(3), ldd: s.nextPair, ldr: Int(0), nextD: Int(0), act: Int(0),
				})
			}, fromBytes)
		} else {
			fromBytes()
		}
		f.If(upperIn.AndI(lowerIn).Zero(), func() { f.Call(s.in.keepRow, slot, slot.Add(s.pairBytes), upperIn) })
	}, func() { f.Fill(slot, 0, s.pairBytes) })
}

// outputs makes row y of the output, and the one below if a step makes two.
func (s *stepper) outputs(y I32) {
	f := s.f
	below := f.Let(s.full.Times(s.quadBytes()))
	args := deepArgs{dst: s.deep, nextDst: s.nextDeep, lower: below, pairs: s.slots, nextPair: s.nextPair,
		constants: s.o.depthwise, channels: s.o.C, width: s.full, table: s.table}
	call := func(size, stride int) func() {
		return func() { f.Call(s.in.deep[window{size, stride}], args.values()...) }
	}
	f.If(s.o.Size.Eq(Int(3)), func() {
		f.If(s.o.Stride.Eq(Int(1)), call(3, 1), call(3, 2))
	}, func() {
		f.If(s.o.Stride.Eq(Int(1)), call(5, 1), call(5, 2))
	})

	count := f.Let(s.rows.Min(s.o.H.Sub(y)))
	cell := f.Let(y.Mul(s.o.W).Add(s.x))
	a := f.Let(s.deep)
	if !s.whole {
		f.Repeat(count, func() {
			f.Call(s.in.spread, s.o.dst.Add(cell.Mul(s.o.C)), a, s.nextDeep, s.width, s.o.C)
			next(f, below, a)
			next(f, s.o.W, cell)
		})
		return
	}
	// Two rows are one product if nothing lies between them.
	cells := f.Let(s.width)
	f.If(s.full.Eq(s.o.W), func() {
		cells.Set(s.width.Mul(count))
		count.Set(Int(1))
	})
	ldd := f.Let(s.o.Out.Shl(2))
	f.Repeat(count, func() {
		s.callProduct(f, s.in.project, productArgs{
			dst: s.o.dst.Add(cell.Mul(ldd)), a: a, b: s.o.project.Add(s.o.Out.Times(12)), constants: s.o.project, nextC: ldd,
			rows: Int(0), res: s.o.res.Add(cell.Mul(ldd)).Select(Int(0), s.o.res), count: cells, panels: s.o.Out.ShrU(3),
			nextA: s.nextDeep, sizeB: s.o.C.Shl(3), ldd: ldd, ldr: ldd, nextD: Int(panelBytes), act: Int(0),
		})
		next(f, below, a)
		next(f, s.o.W, cell)
	})
}
