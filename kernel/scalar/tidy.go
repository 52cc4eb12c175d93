package scalar

import "github.com/pmp-seg/pmp/kernel"

func (s *session) tidy(o kernel.Tidy) {
	dst, a, theta, cells := s.f(o.Dst), s.f(o.A), s.f(o.Theta), o.H*o.W
	for t := range s.count(o.Count, o.T) {
		m := dst[t*cells : (t+1)*cells]
		if theta[t] >= kernel.Nowhere {
			for i := range m {
				m[i] = -1
			}
			continue
		}
		copy(m, a[t*cells:])
		if o.Speck > 0 {
			r := regionsOf(m, o.W, theta[t])
			largest := r.largest(true)
			r.fill(m, true, theta[t]/2, func(size int) bool { return size*o.Speck < cells || size*o.Island < largest })
			r = regionsOf(m, o.W, theta[t]) // where an island was the background has grown
			r.fill(m, false, (1+theta[t])/2, func(size int) bool { return size*o.Speck < cells })
		}
		for i := range m {
			m[i] -= theta[t]
		}
	}
}

func (s *session) colour(o kernel.Colour) {
	dst, label, palette := s.i(o.Dst), s.bytes(o.Label), s.i(o.Palette)
	for i := range o.N {
		dst[i] = palette[label[i]]
	}
}

// A run is neighbouring cells of a row that are all above the threshold or
// all not. Runs that touch are one region, whose size its root knows: the run
// that the others lead to.
type run struct {
	first, end int32
	next       int32 // a run of the same region, itself for the root
	size       int32 // of the region
	above      bool
}

type regions []run

// regionsOf returns the runs of a map, row by row.
func regionsOf(s []float32, columns int, theta float32) regions {
	var all regions
	upper := 0 // first run of the row above
	for y := 0; y < len(s); y += columns {
		start := len(all)
		row := s[y : y+columns]
		for x := 0; x < columns; {
			above, first := row[x] > theta, x
			for x++; x < columns && (row[x] > theta) == above; x++ {
			}
			all = append(all, run{int32(y + first), int32(y + x), int32(len(all)), int32(x - first), above})
		}
		// The runs of the row above and those of this one, side by side.
		for i, j := upper, start; i < start && j < len(all); {
			a, b := all[i].end+int32(columns), all[j].end
			if all[i].above == all[j].above {
				all.join(int32(i), int32(j))
			}
			if a <= b {
				i++
			}
			if b <= a {
				j++
			}
		}
		upper = start
	}
	return all
}

// root is the root of run i's region.
func (r regions) root(i int32) int32 {
	for r[i].next != i {
		r[i].next = r[r[i].next].next // so that the way is shorter the next time
		i = r[i].next
	}
	return i
}

func (r regions) join(i, j int32) {
	a, b := r.root(i), r.root(j)
	if a == b {
		return
	}
	if r[a].size < r[b].size {
		a, b = b, a
	}
	r[b].next = a
	r[a].size += r[b].size
}

// largest is the size of the largest region above the threshold, or below.
func (r regions) largest(above bool) int {
	size := int32(0)
	for i := range r {
		if r[i].above == above {
			size = max(size, r[i].size) // a region's root has the largest of its sizes
		}
	}
	return int(size)
}

// fill sets the cells of regions that are too small to x.
func (r regions) fill(s []float32, above bool, x float32, small func(size int) bool) {
	for i := range r {
		if r[i].above != above || !small(int(r[r.root(int32(i))].size)) {
			continue
		}
		cells := s[r[i].first:r[i].end]
		for j := range cells {
			cells[j] = x
		}
	}
}
