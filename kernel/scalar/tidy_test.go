package scalar

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// tidied is a map after Tidy, with its threshold added again.
func tidied(t *testing.T, s []float32, columns int, theta float32) []float32 {
	t.Helper()
	p := new(kernel.Program)
	p.Stage()
	m := p.Floats(s)
	p.Do(kernel.Tidy{Dst: m, A: m, Theta: p.Floats([]float32{theta}), Scratch: p.Temp(2 * len(s)), T: 1, H: len(s) / columns, W: columns, Speck: 1000, Island: 20})
	p.Plan()
	session, err := New().Open(p)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(s))
	if err := session.Run(0); err != nil {
		t.Fatal(err)
	}
	if err := session.Read(m, kernel.Bytes(out)); err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i] += theta
	}
	return out
}

// drawn turns a drawing into a map: '#' is well above the threshold of 0.5,
// anything else well below.
func drawn(rows []string) (s []float32, columns int) {
	for _, c := range strings.Join(rows, "") {
		x := float32(0.1)
		if c == '#' {
			x = 0.9
		}
		s = append(s, x)
	}
	return s, len(rows[0])
}

func TestTidy(t *testing.T) {
	// 60 × 50 cells: a speck is less than 3 cells, and beside a region of 400
	// cells an island needs 20.
	const columns, rows = 60, 50
	empty := func() [][]byte {
		var d [][]byte
		for range rows {
			d = append(d, []byte(strings.Repeat(".", columns)))
		}
		return d
	}
	box := func(d [][]byte, x, y, w, h int, c byte) {
		for j := y; j < y+h; j++ {
			for i := x; i < x+w; i++ {
				d[j][i] = c
			}
		}
	}
	for _, test := range []struct {
		about        string
		before, want func(d [][]byte)
	}{
		{"nothing", func(d [][]byte) {}, func(d [][]byte) {}},
		{"everything", func(d [][]byte) { box(d, 0, 0, columns, rows, '#') }, func(d [][]byte) { box(d, 0, 0, columns, rows, '#') }},
		{"a speck alone", func(d [][]byte) { box(d, 5, 5, 2, 1, '#') }, func(d [][]byte) {}},
		{"a small thing alone", func(d [][]byte) { box(d, 5, 5, 3, 1, '#') }, func(d [][]byte) { box(d, 5, 5, 3, 1, '#') }},
		{"an island beside a large one",
			func(d [][]byte) { box(d, 0, 0, 20, 20, '#'); box(d, 40, 30, 19, 1, '#'); box(d, 30, 40, 20, 1, '#') },
			func(d [][]byte) { box(d, 0, 0, 20, 20, '#'); box(d, 30, 40, 20, 1, '#') }},
		{"corners do not join",
			func(d [][]byte) { box(d, 0, 0, 20, 20, '#'); box(d, 20, 20, 4, 4, '#') },
			func(d [][]byte) { box(d, 0, 0, 20, 20, '#') }},
		{"rows do not wrap",
			func(d [][]byte) { box(d, 40, 0, 20, 20, '#'); box(d, 0, 1, 4, 4, '#') },
			func(d [][]byte) { box(d, 40, 0, 20, 20, '#') }},
		{"holes",
			func(d [][]byte) {
				box(d, 0, 0, 20, 20, '#')
				box(d, 3, 3, 2, 1, '.')
				box(d, 10, 10, 3, 1, '.')
			},
			func(d [][]byte) { box(d, 0, 0, 20, 20, '#'); box(d, 10, 10, 3, 1, '.') }},
	} {
		before, want := empty(), empty()
		test.before(before)
		test.want(want)
		text := func(d [][]byte) (rows []string) {
			for _, r := range d {
				rows = append(rows, string(r))
			}
			return rows
		}
		s, n := drawn(text(before))
		s = tidied(t, s, n, 0.5)
		wanted, _ := drawn(text(want))
		same := func(a, b []float32) bool {
			return slices.EqualFunc(a, b, func(x, y float32) bool { return (x > 0.5) == (y > 0.5) })
		}
		if !same(s, wanted) {
			t.Errorf("%s: not as drawn", test.about)
		}
		if !same(tidied(t, s, n, 0.5), s) {
			t.Errorf("%s: tidying twice changes more than tidying once", test.about)
		}
	}
}

// Regions are what flooding finds.
func TestRegions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		rows, columns := 1+random.IntN(20), 1+random.IntN(20)
		s := make([]float32, rows*columns)
		full := random.Float32()
		for j := range s {
			if random.Float32() < full {
				s[j] = 1
			}
		}
		r := regionsOf(s, columns, 0.5)
		size, cells := make([]int32, len(s)), 0
		for k := range r {
			cells += int(r[k].end - r[k].first)
			for j := r[k].first; j < r[k].end; j++ {
				size[j] = r[r.root(int32(k))].size
			}
		}
		if cells != len(s) {
			t.Fatalf("map %d: the runs have %d cells of %d", i, cells, len(s))
		}
		for _, above := range []bool{false, true} {
			largest := 0
			for _, want := range flooded(len(s), columns, func(j int) bool { return (s[j] > 0.5) == above }) {
				largest = max(largest, len(want))
				for _, j := range want {
					if int(size[j]) != len(want) {
						t.Fatalf("map %d: cell %d is in a region of %d cells, want %d", i, j, size[j], len(want))
					}
				}
			}
			if got := r.largest(above); got != largest {
				t.Fatalf("map %d: the largest region has %d cells, want %d", i, got, largest)
			}
		}
	}
}

// flooded returns the connected regions of the n cells for which in holds.
func flooded(n, columns int, in func(i int) bool) [][]int32 {
	var found [][]int32
	seen := make([]bool, n)
	// One slice holds all regions, one after the other.
	all := make([]int32, 0, n)
	for start := range n {
		if seen[start] || !in(start) {
			continue
		}
		first := len(all)
		add := func(i int) {
			if !seen[i] && in(i) {
				seen[i] = true
				all = append(all, int32(i))
			}
		}
		add(start)
		for next := first; next < len(all); next++ {
			i := int(all[next])
			if i >= columns {
				add(i - columns)
			}
			if i+columns < n {
				add(i + columns)
			}
			if i%columns > 0 {
				add(i - 1)
			}
			if i%columns < columns-1 {
				add(i + 1)
			}
		}
		found = append(found, all[first:len(all):len(all)])
	}
	return found
}
