package main

const (
	opUnreachable = 0x00
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opReturn      = 0x0f
	opCall        = 0x10
	blockVoid     = 0x40
)

func (f *Func) emit(parts ...[]byte) {
	for _, p := range parts {
		f.body = append(f.body, p...)
	}
}

// If runs then where the condition is not 0, and otherwise each of els, of
// which there is at most one.
func (f *Func) If(condition I32, then func(), els ...func()) {
	f.emit(condition.code, []byte{opIf, blockVoid})
	then()
	for _, e := range els {
		f.emit([]byte{opElse})
		e()
	}
	f.emit([]byte{opEnd})
}

// Do runs body once and again while the condition holds afterwards.
func (f *Func) Do(body func(), again I32) {
	f.emit([]byte{opLoop, blockVoid})
	body()
	f.emit(again.code, []byte{opBrIf, 0, opEnd})
}

// While runs body as long as the condition holds before it.
func (f *Func) While(condition I32, body func()) {
	f.If(condition, func() { f.Do(body, condition) })
}

// Walk runs body while the local p, an address, is below end, and moves p
// by step bytes each time. The test is at the bottom, where compilers like it.
func (f *Func) Walk(p, end I32, step int, body func()) {
	f.While(p.LessU(end), func() {
		body()
		p.Inc(step)
	})
}

// For counts a new local i from `from` to below `to` in steps.
func (f *Func) For(from, to I32, step int, body func(i I32)) {
	i := f.Let(from)
	f.While(i.LessS(to), func() {
		body(i)
		i.Inc(step)
	})
}

// Repeat runs body n times, counting the local n down to 0.
func (f *Func) Repeat(n I32, body func()) {
	f.While(Int(0).LessS(n), func() {
		body()
		n.Inc(-1)
	})
}

// Call is a statement that calls a function without a result.
func (f *Func) Call(g *Func, args ...value) {
	f.emit(op(append([]byte{opCall}, uleb(g.index)...), args...).code)
}

// Unreachable traps.
func (f *Func) Unreachable() { f.emit([]byte{opUnreachable}) }

// Return leaves a function without a result.
func (f *Func) Return() { f.emit([]byte{opReturn}) }

// Stores to address p + offset.
func (f *Func) Store(p I32, offset int, x I32)   { f.emit(op(memory([]byte{0x36}, offset), p, x).code) }
func (f *Func) StoreF(p I32, offset int, x F32)  { f.emit(op(memory([]byte{0x38}, offset), p, x).code) }
func (f *Func) StoreV(p I32, offset int, x V128) { f.emit(op(memory(simd(0x0b), offset), p, x).code) }
func (f *Func) StoreByte(p I32, offset int, x I32) {
	f.emit(op(memory([]byte{0x3a}, offset), p, x).code)
}

// Fill sets n bytes at p.
func (f *Func) Fill(p I32, b int, n I32) { f.emit(op([]byte{0xfc, 0x0b, 0}, p, Int(b), n).code) }
