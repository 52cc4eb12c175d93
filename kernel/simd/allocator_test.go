package simd

import (
	"math/rand/v2"
	"testing"
)

// TestAllocator reserves and releases at random and checks that blocks never
// overlap, and that all memory comes together again in the end.
func TestAllocator(t *testing.T) {
	const limit = 64 // pages
	a := allocator{end: pageSize}
	a.grow = func(pages int) bool { return a.end/pageSize+pages <= limit }
	a.release(firstAddress, a.end-firstAddress)

	random := rand.New(rand.NewPCG(1, 1))
	type block struct{ at, n int }
	var blocks []block
	refused := 0
	for range 5000 {
		if len(blocks) > 0 && random.IntN(2) == 0 {
			i := random.IntN(len(blocks))
			a.release(blocks[i].at, blocks[i].n)
			blocks = append(blocks[:i], blocks[i+1:]...)
			continue
		}
		n := 1 + random.IntN(6*pageSize)
		at, ok := a.reserve(n)
		if !ok {
			refused++
			continue
		}
		if at%blockAlign != 0 || at < firstAddress || at+n > a.end {
			t.Fatalf("%d bytes at %d of %d", n, at, a.end)
		}
		for _, b := range blocks {
			if at < b.at+b.n && b.at < at+n {
				t.Fatalf("[%d, %d) overlaps [%d, %d)", at, at+n, b.at, b.at+b.n)
			}
		}
		blocks = append(blocks, block{at, n})
	}
	if refused == 0 {
		t.Error("the test never filled the memory")
	}
	for _, b := range blocks {
		a.release(b.at, b.n)
	}
	if len(a.gaps) != 1 || a.gaps[0] != (gap{firstAddress, a.end}) {
		t.Errorf("gaps left: %v", a.gaps)
	}
}
