package main

import "bytes"

// Module is a WebAssembly module under construction: functions over one
// memory.
type Module struct {
	// Shared imports the memory, which threads share, as env.memory.
	// Otherwise the module has one of its own, and imports nothing.
	Shared  bool
	funcs   []*Func
	types   []signature
	globals []Global
}

// Global is an i32 of the module, which each instance has for itself.
type Global struct {
	name    string // the export's name, or empty
	index   uint32
	initial int
	fixed   bool
}

// Global makes a variable that starts at 0.
func (m *Module) Global() Global {
	g := Global{index: uint32(len(m.globals))}
	m.globals = append(m.globals, g)
	return g
}

// Constant exports a number for the host to read.
func (m *Module) Constant(export string, n int) {
	m.globals = append(m.globals, Global{export, uint32(len(m.globals)), n, true})
}

// Get is the global's value.
func (g Global) Get() I32 { return I32{expr{code: append([]byte{opGlobalGet}, uleb(g.index)...)}} }

// SetGlobal assigns to a global.
func (f *Func) SetGlobal(g Global, x I32) {
	f.emit(x.code, []byte{opGlobalSet}, uleb(g.index))
}

type valueType byte

const (
	typeI32  valueType = 0x7f
	typeF32  valueType = 0x7d
	typeV128 valueType = 0x7b
)

// A signature is a function type: the parameters' types and the results',
// kept as strings so that signatures compare with ==.
type signature struct{ params, results string }

// Func is a function under construction. Statements are appended to its
// body in the order in which its methods are called.
type Func struct {
	name   string // the export's name, or empty
	index  uint32
	params []valueType
	result []valueType
	locals []valueType
	body   []byte
	// splats are the locals of constant vectors, which prologue sets.
	splats   map[float64]V128
	prologue []byte
}

// Func starts a new function; export is its name outside the module, empty
// for internal ones.
func (m *Module) Func(export string) *Func {
	f := &Func{name: export, index: uint32(len(m.funcs))}
	m.funcs = append(m.funcs, f)
	return f
}

// The sections of a module that we use, by their ids.
const (
	sectionType   = 1
	sectionImport = 2
	sectionFunc   = 3
	sectionMemory = 5
	sectionGlobal = 6
	sectionExport = 7
	sectionCode   = 10
)

const (
	exportFunc   = 0
	exportMemory = 2
	exportGlobal = 3
)

// Bytes encodes the module.
func (m *Module) Bytes() []byte {
	funcs, exports, code := vector{}, vector{}, vector{}
	exports.add(name("memory"), []byte{exportMemory, 0})
	for _, f := range m.funcs {
		funcs.add(uleb(m.typeOf(f)))
		code.add(f.encode())
		if f.name != "" {
			exports.add(name(f.name), []byte{exportFunc}, uleb(f.index))
		}
	}
	globals := vector{}
	for _, g := range m.globals {
		mutable := byte(1)
		if g.fixed {
			mutable = 0
		}
		globals.add([]byte{byte(typeI32), mutable}, Int(g.initial).code, []byte{opEnd})
		if g.name != "" {
			exports.add(name(g.name), []byte{exportGlobal}, uleb(g.index))
		}
	}
	types := vector{}
	for _, t := range m.types {
		types.add([]byte{0x60}, name(t.params), name(t.results))
	}
	imports, memory := vector{}, vector{}
	if m.Shared {
		// The maximum is what 32-bit addresses reach, so that a host may give
		// a memory with any other.
		imports.add(name("env"), name("memory"), []byte{exportMemory, 3, 1}, uleb(1<<16))
	} else {
		memory.add([]byte{0, 1}) // no maximum, one page to start with
	}

	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id   byte
		body vector
	}{
		{sectionType, types}, {sectionImport, imports}, {sectionFunc, funcs}, {sectionMemory, memory}, {sectionGlobal, globals}, {sectionExport, exports}, {sectionCode, code},
	} {
		if s.body.count == 0 {
			continue
		}
		body := s.body.bytes()
		out = append(out, s.id)
		out = append(out, uleb(uint32(len(body)))...)
		out = append(out, body...)
	}
	return out
}

// typeOf returns the index of f's signature among the module's types.
func (m *Module) typeOf(f *Func) uint32 {
	text := func(types []valueType) string {
		b := make([]byte, len(types))
		for i, t := range types {
			b[i] = byte(t)
		}
		return string(b)
	}
	s := signature{text(f.params), text(f.result)}
	for i, t := range m.types {
		if t == s {
			return uint32(i)
		}
	}
	m.types = append(m.types, s)
	return uint32(len(m.types) - 1)
}

// encode gives the function's entry of the code section: its size, its
// locals as runs of one type, its body.
func (f *Func) encode() []byte {
	locals := vector{}
	for i := 0; i < len(f.locals); {
		j := i
		for j < len(f.locals) && f.locals[j] == f.locals[i] {
			j++
		}
		locals.add(uleb(uint32(j-i)), []byte{byte(f.locals[i])})
		i = j
	}
	body := append(append(locals.bytes(), f.prologue...), f.body...)
	body = append(body, opEnd)
	return append(uleb(uint32(len(body))), body...)
}

// A vector is the format's list: a count and then the items.
type vector struct {
	count uint32
	items []byte
}

func (v *vector) add(parts ...[]byte) {
	v.count++
	v.items = append(v.items, bytes.Join(parts, nil)...)
}

func (v *vector) bytes() []byte { return append(uleb(v.count), v.items...) }

// name encodes a string, which is a vector of bytes.
func name(s string) []byte { return append(uleb(uint32(len(s))), s...) }

// uleb encodes n in unsigned LEB128: seven bits a byte, low bits first.
func uleb(n uint32) []byte {
	var b []byte
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// sleb encodes n in signed LEB128: the last byte's bit 6 is the sign.
func sleb(n int32) []byte {
	var b []byte
	for n < -0x40 || n >= 0x40 {
		b = append(b, byte(n&0x7f)|0x80)
		n >>= 7
	}
	return append(b, byte(n&0x7f))
}
