package main

import "github.com/pmp-seg/pmp/kernel"

// Options chooses a variant of the module.
type Options struct {
	// Relaxed uses relaxed SIMD's fused multiply-add. Results differ in the
	// last bits from machine to machine.
	Relaxed bool
	// Threads is for several instances on one shared memory.
	Threads bool
}

// kernels is the module under construction with the functions that several
// ops share.
type kernels struct {
	*Module
	options Options

	// What begin sets: the number of this thread, of how many, and the
	// address of scratchSize bytes that are its own.
	thread, threads, scratch Global

	// Only with threads: the number of the part of an op that this thread
	// works on, of how many, how long it waits awake, and the barrier.
	number, parts, patience Global
	meet                    *Func

	strip        *Func
	exactStrip   *Func // without fused multiply-adds
	activateRow  *Func
	addRow       *Func
	activateRows *Func
	roundRow     *Func
	closing      *Func
}

// scratchSize is how many bytes of scratch a thread has: enough for what ops
// keep there, small enough for a second-level cache.
const scratchSize = 768 << 10

// Generate makes the module: memory, begin(scratch), run(records, count), and
// scratchSize. With threads the memory is imported, begin also gets the
// number of this thread and that of all, work and fail are there too, see
// shareRun, and scratchStart is the first address that is free.
func Generate(o Options) []byte {
	k := &kernels{Module: &Module{Shared: o.Threads}, options: o}
	k.begin()
	if o.Threads {
		k.meet = k.makeMeet()
	}
	k.exactStrip = k.makeStrip(false)
	k.strip = k.exactStrip
	if o.Relaxed {
		k.strip = k.makeStrip(true)
	}
	k.activateRow = k.makeActivateRow()
	k.addRow = k.makeAddRow()
	k.activateRows = k.makeActivateRows()
	k.roundRow = k.makeRoundRow()
	k.closing = k.makeClosing()
	inverted, list, row := k.inverted(), k.attentionList(), k.attentionRow()
	k.run([kernel.KindCount]*Func{
		kernel.KindMatMul:          k.matMul(),
		kernel.KindConv:            k.conv(),
		kernel.KindDepthwise:       k.depthwise(),
		kernel.KindUpsampleAdd:     k.upsampleAdd(),
		kernel.KindLayerNorm:       k.layerNorm(),
		kernel.KindL2Norm:          k.l2Norm(),
		kernel.KindL1Norm:          k.l1Norm(),
		kernel.KindAdd:             k.add(),
		kernel.KindAddPosition:     k.addPosition(),
		kernel.KindAttention:       k.attention(list, row),
		kernel.KindPack:            k.pack(),
		kernel.KindActivate:        k.activation(),
		kernel.KindClassify:        k.classify(),
		kernel.KindPicture:         k.picture(),
		kernel.KindPaint:           k.paint(),
		kernel.KindQuantize:        k.quantize(),
		kernel.KindMatMul8:         k.matMul8(),
		kernel.KindDepthwise8:      k.depthwise8(inverted),
		kernel.KindResidual8:       k.residual8(inverted),
		kernel.KindColumns8:        k.columns8(),
		kernel.KindMaps:            k.maps(),
		kernel.KindPeaks:           k.peaks(),
		kernel.KindTidy:            k.tidy(),
		kernel.KindColour:          k.colour(),
		kernel.KindGather:          k.gather(),
		kernel.KindGroupNorm:       k.groupNorm(),
		kernel.KindDeformable:      k.deformable(),
		kernel.KindWindowAttention: k.windowAttention(list, row),
		kernel.KindSmooth:          k.smooth(),
		kernel.KindGuide:           k.guide(),
		kernel.KindGuided:          k.guided(),
		kernel.KindPaintGuided:     k.paintGuided(),
	})
	return k.Bytes()
}

// begin(scratch), with threads begin(scratch, thread, threads), must be called
// before the first run.
func (k *kernels) begin() {
	k.Constant("scratchSize", scratchSize)
	k.scratch = k.Global()
	f := k.Func("begin")
	scratch := f.Param()
	if k.options.Threads {
		k.Constant("scratchStart", stateEnd)
		k.thread, k.threads, k.number, k.parts, k.patience = k.Global(), k.Global(), k.Global(), k.Global(), k.Global()
		thread, threads := f.Param(), f.Param()
		f.SetGlobal(k.thread, thread)
		f.SetGlobal(k.threads, threads)
	}
	f.SetGlobal(k.scratch, scratch)
}

// part is the part of n items that this call of an op is to work on, from and
// to; all borders but the last are multiples of unit.
func (k *kernels) part(f *Func, n I32, unit int) (from, to I32) {
	if !k.options.Threads {
		return f.Let(Int(0)), f.Let(n)
	}
	units := f.Let(n.Plus(unit - 1).DivU(Int(unit)))
	border := func(i I32) I32 { return units.Mul(i).DivU(k.parts.Get()).Times(unit) }
	return f.Let(border(k.number.Get())), f.Let(border(k.number.Get().Plus(1)).Min(n))
}

// run(records, count) runs the ops of count records. A kind that it does not
// know traps.
func (k *kernels) run(ops [kernel.KindCount]*Func) {
	export := "run"
	if k.options.Threads {
		export = ""
	}
	f := k.Func(export)
	record, count := f.Param(), f.Param()
	kind := f.Int()
	var choose func(i kernel.Kind)
	choose = func(i kernel.Kind) {
		if i == kernel.KindCount {
			f.Unreachable()
			return
		}
		f.If(kind.Eq(Int(int(i))), func() { f.Call(ops[i], record) }, func() { choose(i + 1) })
	}
	f.Repeat(count, func() {
		kind.Set(record.I32(0))
		if k.options.Threads {
			k.shareOp(f, kind, func() { choose(1) })
		} else {
			choose(1)
		}
		record.Inc(kernel.RecordSize)
	})
	if k.options.Threads {
		k.shareRun(f)
	}
}

// opFunc starts the function of an op, whose parameter is its record.
func (k *kernels) opFunc() (f *Func, record I32) {
	f = k.Func("")
	return f, f.Param()
}

// The parts of a record. views and ints read the first of them into locals.
func act(record I32) I32            { return record.I32(4) }
func view(record I32, i int) I32    { return record.I32(4 * (kernel.RecordViews + i)) }
func integer(record I32, i int) I32 { return record.I32(4 * (kernel.RecordInts + i)) }
func float(record I32, i int) F32   { return record.F32(4 * (kernel.RecordFloats + i)) }

func views(f *Func, record I32, n int) []I32 {
	v := make([]I32, n)
	for i := range v {
		v[i] = f.Let(view(record, i))
	}
	return v
}

func ints(f *Func, record I32, n int) []I32 {
	v := make([]I32, n)
	for i := range v {
		v[i] = f.Let(integer(record, i))
	}
	return v
}
