package main

// probe makes a module of one function, dot, which tells how this browser's
// relaxed dot product behaves: the sums at 48 become those at 32 plus the
// products of the int8 numbers at 0 and those at 16, four for each sum.
func probe() []byte {
	m := new(Module)
	f := m.Func("dot")
	at := Int(0)
	f.StoreV(at, 48, V128{op(simd(0x113), at.V128(0), at.V128(16), at.V128(32))})
	return m.Bytes()
}
