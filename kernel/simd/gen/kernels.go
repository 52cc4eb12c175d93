package main

import "github.com/pmp-seg/pmp/kernel"

// Options chooses a variant of the module.
type Options struct {
	// Relaxed uses relaxed SIMD's fused multiply-add. Results differ in the
	// last bits from machine to machine.
	Relaxed bool
}

// kernels is the module under construction with the functions that several
// ops share.
type kernels struct {
	*Module
	options Options

	// What begin sets: the number of this thread, of how many, and the
	// address of scratchSize bytes that are its own.
	thread, threads, scratch Global

	strip        *Func
	activateRow  *Func
	addRow       *Func
	activateRows *Func
}

// scratchSize is how many bytes of scratch a thread has: enough for what ops
// keep there, small enough for a second-level cache.
const scratchSize = 768 << 10

// Generate makes the module: memory, begin(scratch, thread, threads),
// run(records, count), and scratchSize.
func Generate(o Options) []byte {
	k := &kernels{Module: new(Module), options: o}
	k.begin()
	k.strip = k.makeStrip()
	k.activateRow = k.makeActivateRow()
	k.addRow = k.makeAddRow()
	k.activateRows = k.makeActivateRows()
	k.run([kernel.KindCount]*Func{
		kernel.KindMatMul:      k.matMul(),
		kernel.KindConv:        k.conv(),
		kernel.KindDepthwise:   k.depthwise(),
		kernel.KindUpsampleAdd: k.upsampleAdd(),
		kernel.KindLayerNorm:   k.layerNorm(),
		kernel.KindL2Norm:      k.l2Norm(),
		kernel.KindL1Norm:      k.l1Norm(),
		kernel.KindAdd:         k.add(),
		kernel.KindAddPosition: k.addPosition(),
		kernel.KindAttention:   k.attention(),
		kernel.KindPack:        k.pack(),
		kernel.KindActivate:    k.activation(),
		kernel.KindClassify:    k.classify(),
		kernel.KindPicture:     k.picture(),
		kernel.KindPaint:       k.paint(),
	})
	return k.Bytes()
}

// begin(scratch, thread, threads) must be called before the first run.
func (k *kernels) begin() {
	k.Constant("scratchSize", scratchSize)
	k.thread, k.threads, k.scratch = k.Global(), k.Global(), k.Global()
	f := k.Func("begin")
	scratch, thread, threads := f.Param(), f.Param(), f.Param()
	f.SetGlobal(k.scratch, scratch)
	f.SetGlobal(k.thread, thread)
	f.SetGlobal(k.threads, threads)
}

// part is this thread's share of n items, from and to; all borders but the
// last are multiples of unit.
func (k *kernels) part(f *Func, n I32, unit int) (from, to I32) {
	units := f.Let(n.Plus(unit - 1).DivU(Int(unit)))
	border := func(i I32) I32 { return units.Mul(i).DivU(k.threads.Get()).Times(unit) }
	return f.Let(border(k.thread.Get())), f.Let(border(k.thread.Get().Plus(1)).Min(n))
}

// run(records, count) runs the ops of count records. A kind that it does not
// know traps.
func (k *kernels) run(ops [kernel.KindCount]*Func) {
	f := k.Func("run")
	record, count := f.Param(), f.Param()
	kind := f.Int()
	var choose func(i kernel.Kind)
	choose = func(i kernel.Kind) {
		if i == kernel.KindCount || ops[i] == nil {
			f.Unreachable()
			return
		}
		f.If(kind.Eq(Int(int(i))), func() { f.Call(ops[i], record) }, func() { choose(i + 1) })
	}
	f.Repeat(count, func() {
		kind.Set(record.I32(0))
		choose(1)
		record.Inc(kernel.RecordSize)
	})
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
