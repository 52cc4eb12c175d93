package simd

const (
	// firstAddress is where blocks start. What is below stays unused, so that
	// address 0 can mean an absent operand.
	firstAddress = 1024
	// blockAlign keeps every block on cache lines of its own.
	blockAlign = 64
	// pageSize is the unit in which a WebAssembly memory grows.
	pageSize = 64 << 10
	// maxMemory is what 32-bit addresses reach.
	maxMemory = 1 << 32
)

// allocator hands out blocks of a linear memory, the first gap that is large
// enough each time. A device holds a handful of blocks, so gaps are kept in
// a plain list, by address. Memory that was once grown never shrinks; what
// is released is used again.
type allocator struct {
	gaps []gap
	end  int                  // size of the memory
	grow func(pages int) bool // false if the memory cannot grow
}

type gap struct{ start, end int }

// reserve returns the address of n bytes, or false.
func (a *allocator) reserve(n int) (int, bool) {
	if n < 0 || n > maxMemory {
		return 0, false
	}
	n = roundUp(n, blockAlign)
	for i := range a.gaps {
		if g := &a.gaps[i]; g.end-g.start >= n {
			at := g.start
			g.start += n
			if g.start == g.end {
				a.gaps = append(a.gaps[:i], a.gaps[i+1:]...)
			}
			return at, true
		}
	}
	missing := n
	if len(a.gaps) > 0 {
		if last := a.gaps[len(a.gaps)-1]; last.end == a.end {
			missing -= last.end - last.start
		}
	}
	missing = roundUp(missing, pageSize)
	if a.end+missing > maxMemory || !a.grow(missing/pageSize) {
		return 0, false
	}
	a.end += missing
	a.release(a.end-missing, missing)
	return a.reserve(n)
}

// release makes n bytes at address at free again.
func (a *allocator) release(at, n int) {
	n = roundUp(n, blockAlign)
	if n == 0 {
		return
	}
	i := 0
	for i < len(a.gaps) && a.gaps[i].start < at {
		i++
	}
	a.gaps = append(a.gaps, gap{})
	copy(a.gaps[i+1:], a.gaps[i:])
	a.gaps[i] = gap{at, at + n}
	if i+1 < len(a.gaps) && a.gaps[i].end == a.gaps[i+1].start {
		a.gaps[i].end = a.gaps[i+1].end
		a.gaps = append(a.gaps[:i+1], a.gaps[i+2:]...)
	}
	if i > 0 && a.gaps[i-1].end == a.gaps[i].start {
		a.gaps[i-1].end = a.gaps[i].end
		a.gaps = append(a.gaps[:i], a.gaps[i+1:]...)
	}
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
