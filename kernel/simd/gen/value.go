package main

import (
	"encoding/binary"
	"math"
)

// I32, F32 and V128 are expressions: code that leaves one value of that type
// on the stack. An expression that is used twice is computed twice; Let
// keeps its value in a local.
type (
	I32  struct{ expr }
	F32  struct{ expr }
	V128 struct{ expr }
)

type expr struct {
	code []byte
	f    *Func // the function that a local belongs to, nil for what is not a local
	slot uint32
}

// value is any of the three.
type value interface{ bytes() []byte }

func (e expr) bytes() []byte { return e.code }

// op is e's code followed by that of the other operands and an instruction.
func op(instruction []byte, operands ...value) expr {
	var code []byte
	for _, x := range operands {
		code = append(code, x.bytes()...)
	}
	return expr{code: append(code, instruction...)}
}

// local gives a new local its slot. Parameters come first.
func (f *Func) local(t valueType) expr {
	f.locals = append(f.locals, t)
	return f.slot(len(f.params) + len(f.locals) - 1)
}

func (f *Func) param(t valueType) expr {
	if len(f.locals) > 0 {
		panic("gen: a parameter after a local")
	}
	f.params = append(f.params, t)
	return f.slot(len(f.params) - 1)
}

func (f *Func) slot(i int) expr {
	return expr{code: append([]byte{opLocalGet}, uleb(uint32(i))...), f: f, slot: uint32(i)}
}

// Int, Float and Vec make a new local, which is 0 at first.
func (f *Func) Int() I32    { return I32{f.local(typeI32)} }
func (f *Func) Float() F32  { return F32{f.local(typeF32)} }
func (f *Func) Vec() V128   { return V128{f.local(typeV128)} }
func (f *Func) Param() I32  { return I32{f.param(typeI32)} }
func (f *Func) ParamF() F32 { return F32{f.param(typeF32)} }

// Let, LetF and LetV make a new local that holds x.
func (f *Func) Let(x I32) I32    { v := f.Int(); v.Set(x); return v }
func (f *Func) LetF(x F32) F32   { v := f.Float(); v.Set(x); return v }
func (f *Func) LetV(x V128) V128 { v := f.Vec(); v.Set(x); return v }

// Set assigns to a local.
func (x I32) Set(y I32)   { x.assign(y.expr) }
func (x F32) Set(y F32)   { x.assign(y.expr) }
func (x V128) Set(y V128) { x.assign(y.expr) }

func (e expr) assign(y expr) {
	if e.f == nil {
		panic("gen: Set of what is not a local")
	}
	e.f.emit(y.code)
	e.f.emit([]byte{opLocalSet}, uleb(e.slot))
}

// Inc adds n to a local.
func (x I32) Inc(n int) { x.Set(x.Plus(n)) }

// Int and Float are constants.
func Int(n int) I32 {
	return I32{expr{code: append([]byte{opI32Const}, sleb(int32(n))...)}}
}

func Float(x float64) F32 {
	return F32{expr{code: binary.LittleEndian.AppendUint32([]byte{opF32Const}, math.Float32bits(float32(x)))}}
}

// Splat is a vector of four times the same constant. It is made once, at the
// function's start, since not all engines move constants out of loops.
func (f *Func) Splat(x float64) V128 {
	if v, ok := f.splats[x]; ok {
		return v
	}
	if f.splats == nil {
		f.splats = map[float64]V128{}
	}
	v := f.Vec()
	f.splats[x] = v
	f.prologue = append(f.prologue, Float(x).Splat().code...)
	f.prologue = append(f.prologue, opLocalSet)
	f.prologue = append(f.prologue, uleb(v.slot)...)
	return v
}

// Bits is a vector of four words: the given ones, repeated.
func Bits(words ...uint32) V128 {
	code := simd(opV128Const)
	for i := range 4 {
		code = binary.LittleEndian.AppendUint32(code, words[i%len(words)])
	}
	return V128{expr{code: code}}
}

// Arithmetic on i32.
func (x I32) Add(y I32) I32  { return I32{op([]byte{0x6a}, x, y)} }
func (x I32) Sub(y I32) I32  { return I32{op([]byte{0x6b}, x, y)} }
func (x I32) Mul(y I32) I32  { return I32{op([]byte{0x6c}, x, y)} }
func (x I32) DivU(y I32) I32 { return I32{op([]byte{0x6e}, x, y)} }
func (x I32) RemU(y I32) I32 { return I32{op([]byte{0x70}, x, y)} }
func (x I32) And(n int) I32  { return I32{op([]byte{0x71}, x, Int(n))} }
func (x I32) Shl(n int) I32  { return I32{op([]byte{0x74}, x, Int(n))} }
func (x I32) ShrS(n int) I32 { return I32{op([]byte{0x75}, x, Int(n))} }
func (x I32) ShrU(n int) I32 { return I32{op([]byte{0x76}, x, Int(n))} }
func (x I32) Xor(y I32) I32  { return I32{op([]byte{0x73}, x, y)} }

// TrailingZeros is how many zeros lie below the lowest one of x's bits.
func (x I32) TrailingZeros() I32 { return I32{op([]byte{0x68}, x)} }

// AndI is And with an expression; for comparisons it is also the logical and.
func (x I32) AndI(y I32) I32 { return I32{op([]byte{0x71}, x, y)} }

// Plus and Times are Add and Mul with a constant.
func (x I32) Plus(n int) I32  { return x.Add(Int(n)) }
func (x I32) Times(n int) I32 { return x.Mul(Int(n)) }

// Comparisons of i32; S is for signed numbers, U for addresses.
func (x I32) Zero() I32       { return I32{op([]byte{0x45}, x)} }
func (x I32) Eq(y I32) I32    { return I32{op([]byte{0x46}, x, y)} }
func (x I32) LessS(y I32) I32 { return I32{op([]byte{0x48}, x, y)} }
func (x I32) LessU(y I32) I32 { return I32{op([]byte{0x49}, x, y)} }

// Select is x where the condition holds and y where not.
func (x I32) Select(y, condition I32) I32 { return I32{op([]byte{0x1b}, x, y, condition)} }
func (x F32) Select(y F32, condition I32) F32 {
	return F32{op([]byte{0x1b}, x, y, condition)}
}

// Min and Max compare signed numbers.
func (x I32) Min(y I32) I32 { return x.Select(y, x.LessS(y)) }
func (x I32) Max(y I32) I32 { return x.Select(y, y.LessS(x)) }

// Arithmetic on f32.
func (x F32) Add(y F32) F32  { return F32{op([]byte{0x92}, x, y)} }
func (x F32) Sub(y F32) F32  { return F32{op([]byte{0x93}, x, y)} }
func (x F32) Mul(y F32) F32  { return F32{op([]byte{0x94}, x, y)} }
func (x F32) Div(y F32) F32  { return F32{op([]byte{0x95}, x, y)} }
func (x F32) Max(y F32) F32  { return F32{op([]byte{0x97}, x, y)} }
func (x F32) Sqrt() F32      { return F32{op([]byte{0x91}, x)} }
func (x F32) Abs() F32       { return F32{op([]byte{0x8b}, x)} }
func (x F32) Floor() F32     { return F32{op([]byte{0x8e}, x)} }
func (x F32) Less(y F32) I32 { return I32{op([]byte{0x5d}, x, y)} }
func (x F32) Splat() V128    { return V128{op(simd(0x13), x)} }
func (x I32) ToFloat() F32   { return F32{op([]byte{0xb3}, x)} }

// ToInt cuts off what is behind the point; what does not fit traps.
func (x F32) ToInt() I32 { return I32{op([]byte{0xa8}, x)} }

// Loads from address x + offset.
func (x I32) I32(offset int) I32   { return I32{op(memory([]byte{0x28}, offset), x)} }
func (x I32) Byte(offset int) I32  { return I32{op(memory([]byte{0x2d}, offset), x)} }
func (x I32) F32(offset int) F32   { return F32{op(memory([]byte{0x2a}, offset), x)} }
func (x I32) V128(offset int) V128 { return V128{op(memory(simd(0x00), offset), x)} }

// Splat32 loads one word into all four lanes, Word into the first lane with
// zeros in the others, and Pair two words into the first two.
func (x I32) Splat32(offset int) V128 { return V128{op(memory(simd(0x09), offset), x)} }
func (x I32) Word(offset int) V128    { return V128{op(memory(simd(0x5c), offset), x)} }
func (x I32) Pair(offset int) V128    { return V128{op(memory(simd(0x5d), offset), x)} }

// HighPair loads two words into the last two lanes of low.
func (x I32) HighPair(offset int, low V128) V128 {
	return V128{op(append(memory(simd(0x57), offset), 1), x, low)}
}

// Arithmetic on four f32. PMin and PMax are single instructions everywhere,
// which min and max with their care for NaN are not: x.PMax(y) is y where
// x < y and x elsewhere, so that a NaN in x stays.
func (x V128) Add(y V128) V128  { return V128{op(simd(0xe4), x, y)} }
func (x V128) Sub(y V128) V128  { return V128{op(simd(0xe5), x, y)} }
func (x V128) Mul(y V128) V128  { return V128{op(simd(0xe6), x, y)} }
func (x V128) Div(y V128) V128  { return V128{op(simd(0xe7), x, y)} }
func (x V128) PMin(y V128) V128 { return V128{op(simd(0xea), x, y)} }
func (x V128) PMax(y V128) V128 { return V128{op(simd(0xeb), x, y)} }
func (x V128) Abs() V128        { return V128{op(simd(0xe0), x)} }
func (x V128) Less(y V128) V128 { return V128{op(simd(0x43), x, y)} }

// Operations on four i32 and on bits.
func (x V128) ShlI(n int) V128    { return V128{op(simd(0xab), x, Int(n))} }
func (x V128) AddI(y V128) V128   { return V128{op(simd(0xae), x, y)} }
func (x V128) EqI(y V128) V128    { return V128{op(simd(0x37), x, y)} }
func (x V128) LessI(y V128) V128  { return V128{op(simd(0x39), x, y)} }
func (x V128) And(y V128) V128    { return V128{op(simd(0x4e), x, y)} }
func (x V128) AndNot(y V128) V128 { return V128{op(simd(0x4f), x, y)} }
func (x V128) Or(y V128) V128     { return V128{op(simd(0x50), x, y)} }
func (x V128) AllTrue() I32       { return I32{op(simd(0xa3), x)} }
func (x I32) Splat() V128         { return V128{op(simd(0x11), x)} }

// Bitmask has a bit for each lane, its highest one.
func (x V128) Bitmask() I32 { return I32{op(simd(0xa4), x)} }

// Choose is x where mask has ones and y where it has zeros.
func (x V128) Choose(y, mask V128) V128 { return V128{op(simd(0x52), x, y, mask)} }

// Conversions: the first four bytes to i32, i32 to f32, and i32 that fit a
// byte back to the first four bytes.
func (x V128) BytesToInts() V128  { return V128{op(simd(0xa9), V128{op(simd(0x89), x)})} }
func (x V128) IntsToFloats() V128 { return V128{op(simd(0xfa), x)} }
func (x V128) IntsToBytes() V128 {
	words := V128{op(simd(0x85), x, x)}
	return V128{op(simd(0x66), words, words)}
}

// Lane and LaneI take one of four numbers out.
func (x V128) Lane(i int) F32  { return F32{op(append(simd(0x1f), byte(i)), x)} }
func (x V128) LaneI(i int) I32 { return I32{op(append(simd(0x1b), byte(i)), x)} }

// Shuffle picks four of the eight words of x and y, which count as 0..3 and 4..7.
func (x V128) Shuffle(y V128, words ...int) V128 {
	code := simd(0x0d)
	for _, w := range words {
		for b := range 4 {
			code = append(code, byte(4*w+b))
		}
	}
	return V128{op(code, x, y)}
}

// simd is a vector instruction: the prefix and the opcode.
func simd(opcode uint32) []byte { return append([]byte{0xfd}, uleb(opcode)...) }

// memory is an instruction with its memory argument. The alignment is given
// as 1 byte: it is only a hint, and engines ignore it.
func memory(instruction []byte, offset int) []byte {
	return append(append(instruction, 0), uleb(uint32(offset))...)
}

const (
	opLocalGet  = 0x20
	opLocalSet  = 0x21
	opGlobalGet = 0x23
	opGlobalSet = 0x24
	opI32Const  = 0x41
	opF32Const  = 0x43
	opV128Const = 0x0c
)
