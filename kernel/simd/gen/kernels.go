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

	strip        *Func
	activateRow  *Func
	addRow       *Func
	activateRows *Func
}

// Generate makes the module: memory and run(records, count).
func Generate(o Options) []byte {
	k := &kernels{Module: new(Module), options: o}
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

// run(records, count) runs the ops of count records. A kind that it does not
// know traps.
func (k *kernels) run(ops [kernel.KindCount]*Func) {
	f := k.Func("run")
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
