package webgpu

import "github.com/pmp-seg/pmp/kernel"

// halve finds packed matrices that only attention reads, as keys or values, and
// makes their writers and readers take them as halves, in the first half of
// where they lie. Nothing else may ever see them: it follows what each op reads
// back to the op that wrote it.
//
// Stages run in order the first time, and each may be run again, so it goes
// through each twice, and then through all once more. What an op reads that
// nothing has written the first time is the host's, who writes it again before
// it is read again.
func halve(stages [][]op) {
	var ops []*op
	var order []int // of runs
	for i := range stages {
		first := len(ops)
		for j := range stages[i] {
			ops = append(ops, &stages[i][j])
		}
		for range 2 {
			for j := first; j < len(ops); j++ {
				order = append(order, j)
			}
		}
	}
	order = append(order, order...)
	// A piece is words of the arena, with the op that wrote them.
	type piece struct {
		first, end uint32
		writer     int
	}
	var pieces []piece
	type use struct{ writer, reader, view int }
	uses := map[use]bool{}
	const host = -1
	type place struct{ op, part, view int }
	hosts := map[place]bool{}
	leaves, finds := make([]bool, len(ops)), make([]bool, len(ops)) // float32s, the op must
	for i, o := range ops {
		leaves[i] = !(o.kind == kernel.KindPack || o.kind == kernel.KindMatMul8 && o.ints[6] != 0)
	}
	for _, i := range order {
		o := ops[i]
		for j, part := range o.parts() {
			for _, x := range part.operands() {
				if part.constants>>x.view&1 != 0 || part.views[x.view] >= outside {
					finds[i] = finds[i] || o.kind == kernel.KindAttention && isKeys(x.view)
					continue
				}
				first := part.views[x.view]
				end := first + uint32(x.extent+3)/4
				if at := (place{i, j, x.view}); !x.write {
					if hosts[at] {
						continue
					}
					seen := uint32(0)
					for _, p := range pieces {
						if p.first < end && p.end > first {
							uses[use{p.writer, i, x.view}] = true
							seen += min(p.end, end) - max(p.first, first)
						}
					}
					if seen < end-first {
						uses[use{host, i, x.view}], hosts[at] = true, true
					}
					continue
				}
				var rest []piece
				for _, p := range pieces {
					if p.first >= end || p.end <= first {
						rest = append(rest, p)
						continue
					}
					if x.part {
						leaves[p.writer] = true // some of it may still be there
					}
					if p.first < first {
						rest = append(rest, piece{p.first, first, p.writer})
					}
					if p.end > end {
						rest = append(rest, piece{end, p.end, p.writer})
					}
				}
				pieces = append(rest, piece{first, end, i})
			}
		}
	}
	// Each attention has one writer of its keys and one of its values.
	writer := map[use]int{} // by reader and view
	for u := range uses {
		o := ops[u.reader]
		if o.kind != kernel.KindAttention || !isKeys(u.view) {
			if u.writer != host {
				leaves[u.writer] = true
			}
			continue
		}
		if before, ok := writer[use{host, u.reader, u.view}]; u.writer == host || ok && before != u.writer {
			finds[u.reader] = true
			continue
		}
		writer[use{host, u.reader, u.view}] = u.writer
		w := ops[u.writer]
		if o.views[u.view] < w.views[0] || (o.views[u.view]-w.views[0])%8 != 0 {
			finds[u.reader] = true
		}
	}
	// What one of them cannot, none of those may that it is joined with.
	for changed := true; changed; {
		changed = false
		for u := range uses {
			if u.writer != host && ops[u.reader].kind == kernel.KindAttention && isKeys(u.view) && leaves[u.writer] != finds[u.reader] {
				leaves[u.writer], finds[u.reader], changed = true, true, true
			}
		}
	}
	for u, w := range writer {
		if !finds[u.reader] {
			o := ops[u.reader]
			start := ops[w].views[0]
			o.views[u.view] = start + (o.views[u.view]-start)/2
			o.halves, ops[w].halves = true, true
		}
	}
}

// isKeys tells whether a view of attention is its keys or its values.
func isKeys(view int) bool { return view == 2 || view == 3 }

// outside is beyond all words of the arena: where parts of an op leave
// something for each other while nothing needs to know where.
const outside = 1 << 29

// parts are what expand makes of an op, with scratch outside of the arena.
func (o *op) parts() []op {
	ops, _ := o.expand(outside)
	return ops
}
