package main

import "github.com/pmp-seg/pmp/kernel"

// The words by which threads meet, below the addresses that a host hands
// out. Each that waiting threads look at has a cache line of its own.
const (
	wordArrived  = 64  // how many threads have come to the barrier
	wordTurn     = 128 // counts the barriers that all have passed; sleepers wait for it to change
	wordSleepers = 192 // how many sleep, or are about to
	wordFailed   = 256 // 1 after a trap
	wordRecords  = 320 // what run was called with
	wordCount    = 324
	wordTaken    = 384 // for each thread, how many of its parts of the op have been taken
	maxThreads   = 32
	// stateEnd is where threads' scratch may start.
	stateEnd = wordTaken + 64*maxThreads
)

// spareParts is how many parts each thread has of ops that are cheap to cut:
// who is done with its own takes what others have left. So a thread that was
// interrupted, or runs on a slow core, does not hold up the others for long.
const spareParts = 4

// undivided are ops that cost more the more parts there are, so that a thread has
// one: every part starts with work that others do too.
var undivided = []kernel.Kind{kernel.KindAttention, kernel.KindResidual8, kernel.KindMaps}

// A thread looks this often before it sleeps, at the least and at the most,
// about 20 µs and 1 ms. Twice as often after it did not need to sleep, and a
// quarter as often after it did: with a core of its own a thread is faster if
// it waits awake, but where threads share one it holds up those that it waits
// for. A barrier that only spins stands still for seconds then.
const leastSpins, mostSpins = 20_000, 1_000_000

// makeMeet makes meet(), which returns when all threads have called it. It
// traps, on every thread, once fail has been called.
func (k *kernels) makeMeet() *Func {
	f := k.Func("")
	base := Int(0)
	// The turn is read before failed, which fail sets the other way round:
	// who does not see that it failed does see the turn change.
	turn := f.Let(base.Atomic(wordTurn))
	stop := func() { f.If(base.Atomic(wordFailed), f.Unreachable) }
	waiting := turn.Eq(base.Atomic(wordTurn))
	stop()
	f.If(f.AtomicAdd(base, wordArrived, 1).Plus(1).Eq(k.threads.Get()), func() {
		f.AtomicStore(base, wordArrived, Int(0))
		f.For(Int(0), k.threads.Get().Shl(6), 64, func(i I32) { f.AtomicStore(i, wordTaken, Int(0)) })
		f.AtomicAdd(base, wordTurn, 1)
		// Who counts as a sleeper later finds that the turn has changed.
		f.If(base.Atomic(wordSleepers), func() { f.Notify(base, wordTurn) })
	}, func() {
		patience := f.Let(k.patience.Get().Max(Int(leastSpins)))
		left := f.Let(patience)
		f.While(waiting.AndI(Int(0).LessS(left)), func() { left.Inc(-1) })
		f.SetGlobal(k.patience, patience.Shl(1).Min(Int(mostSpins)))
		f.If(waiting, func() {
			f.SetGlobal(k.patience, patience.ShrU(2))
			f.AtomicAdd(base, wordSleepers, 1)
			f.While(waiting, func() { f.Wait(base, wordTurn, turn) })
			f.AtomicAdd(base, wordSleepers, -1)
		})
		stop()
	})
	return f
}

// shareRun makes what a module with threads exports: run(records, count) for
// thread 0, work() for the others, which never returns, and fail(). A thread
// that stopped at a trap must call fail, so that none waits for it: all others
// trap at their next barrier, and so does every later run.
func (k *kernels) shareRun(all *Func) {
	base := Int(0)
	f := k.Func("run")
	records, count := f.Param(), f.Param()
	f.If(Int(0).LessS(count), func() {
		f.Store(base, wordRecords, records)
		f.Store(base, wordCount, count)
		f.Call(k.meet)
		f.Call(all, records, count)
	})

	f = k.Func("work")
	f.Do(func() {
		f.Call(k.meet)
		f.Call(all, base.I32(wordRecords), base.I32(wordCount))
	}, Int(1))

	f = k.Func("fail")
	f.AtomicStore(base, wordFailed, Int(1))
	f.AtomicAdd(base, wordTurn, 1)
	f.Notify(base, wordTurn)
}

// shareOp runs an op on all threads, which take parts of it until none is
// left, each its own first: what an op reads of the one before often lies in
// the cache of the core that wrote it. Then they meet.
func (k *kernels) shareOp(f *Func, kind I32, run func()) {
	many := f.Let(Int(spareParts))
	for _, w := range undivided {
		f.If(kind.Eq(Int(int(w))), func() { many.Set(Int(1)) })
	}
	f.SetGlobal(k.parts, many.Mul(k.threads.Get()))
	owner := f.Let(k.thread.Get())
	f.Repeat(f.Let(k.threads.Get()), func() {
		taken := f.Int()
		f.While(owner.Shl(6).Atomic(wordTaken).LessS(many), func() {
			taken.Set(f.AtomicAdd(owner.Shl(6), wordTaken, 1))
			f.If(taken.LessS(many), func() {
				f.SetGlobal(k.number, owner.Mul(many).Add(taken))
				run()
			})
		})
		owner.Inc(1)
		f.If(owner.Eq(k.threads.Get()), func() { owner.Set(Int(0)) })
	})
	f.Call(k.meet)
}

// Atomic loads the word at p + offset, in one order with all other atomics.
func (x I32) Atomic(offset int) I32 { return I32{op(atomic(0x10, offset), x)} }

// AtomicStore, AtomicAdd, which gives what was there before, and Notify,
// which wakes all that Wait for the word at p + offset.
func (f *Func) AtomicStore(p I32, offset int, x I32) { f.emit(op(atomic(0x17, offset), p, x).code) }
func (f *Func) AtomicAdd(p I32, offset, n int) I32 {
	return f.Let(I32{op(atomic(0x1e, offset), p, Int(n))})
}
func (f *Func) Notify(p I32, offset int) {
	f.emit(op(atomic(0x00, offset), p, Int(-1)).code, []byte{opDrop})
}

// Wait sleeps until Notify, unless the word is not x. It may return early.
func (f *Func) Wait(p I32, offset int, x I32) {
	forever := []byte{opI64Const, 0x7f}
	f.emit(p.code, x.code, forever, atomic(0x01, offset), []byte{opDrop})
}

// atomic is an instruction on a word. Unlike that of others, its alignment
// must be given as it is.
func atomic(opcode byte, offset int) []byte {
	const fourBytes = 2
	return append([]byte{0xfe, opcode, fourBytes}, uleb(uint32(offset))...)
}

const (
	opDrop     = 0x1a
	opI64Const = 0x42
)

// share gives the part of a product of M rows and N columns: some
// rows where there are more rows than columns and some columns where not, so
// that the larger operand is read once. It returns the part's first row and
// column, one of which is 0, and sets M and N to its size.
func (k *kernels) share(f *Func, M, N I32, rowUnit int) (row, column I32) {
	row, column = f.Int(), f.Int()
	f.If(N.LessS(M), func() {
		from, to := k.part(f, M, rowUnit)
		row.Set(from)
		M.Set(to.Sub(from))
	}, func() {
		from, to := k.part(f, N, kernel.Panel)
		column.Set(from)
		N.Set(to.Sub(from))
	})
	return row, column
}
