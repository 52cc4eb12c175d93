package mask

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"go/build"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestAgainstCOCO compares with pycocotools; testdata/fixture.py has made the
// cases.
func TestAgainstCOCO(t *testing.T) {
	var cases []struct {
		Width, Height int
		Bits, Counts  string
		Runs          []uint32
		Area          int
		BBox          [4]int
	}
	data, err := os.ReadFile("testdata/coco.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 60 {
		t.Errorf("the fixture has only %d cases", len(cases))
	}
	for i, c := range cases {
		packed, err := hex.DecodeString(c.Bits)
		if err != nil {
			t.Fatal(err)
		}
		m := make([]byte, c.Width*c.Height)
		for j := range m {
			m[j] = packed[j/8] >> (7 - j%8) & 1
		}
		counts := Counts(m, c.Width, c.Height)
		if c.Runs != nil && !slices.Equal(counts, c.Runs) {
			t.Errorf("case %d, %d×%d: run lengths %v, want %v", i, c.Width, c.Height, counts, c.Runs)
		}
		if got := Compress(counts); got != c.Counts {
			t.Errorf("case %d, %d×%d: compressed %q, want %q", i, c.Width, c.Height, got, c.Counts)
		}
		if got, err := FromRLE(c.Counts, c.Width, c.Height); err != nil || !bytes.Equal(got, m) {
			t.Errorf("case %d, %d×%d: read back as another mask (%v)", i, c.Width, c.Height, err)
		}
		if got := Area(m); got != c.Area {
			t.Errorf("case %d, %d×%d: area %d, want %d", i, c.Width, c.Height, got, c.Area)
		}
		if b := BBox(m, c.Width, c.Height); [4]int{b.X, b.Y, b.W, b.H} != c.BBox {
			t.Errorf("case %d, %d×%d: box %v, want %v", i, c.Width, c.Height, b, c.BBox)
		}
		checkPolygons(t, m, c.Width, c.Height)

		// Any byte but 0 counts.
		other := bytes.Clone(m)
		for j := range other {
			other[j] *= byte(1 + j%255)
		}
		if RLE(other, c.Width, c.Height) != c.Counts || Area(other) != c.Area || len(Polygons(other, c.Width, c.Height, 0)) != len(Polygons(m, c.Width, c.Height, 0)) {
			t.Errorf("case %d: other values than 1 make a difference", i)
		}
	}
}

func draw(rows ...string) (m []byte, width, height int) {
	for _, r := range rows {
		for _, c := range r {
			m = append(m, map[rune]byte{'#': 1}[c])
		}
	}
	return m, len(rows[0]), len(rows)
}

func TestPolygons(t *testing.T) {
	for _, test := range []struct {
		name string
		rows []string
		want []Polygon
	}{
		{"empty", []string{"...", "..."}, nil},
		{"pixel", []string{"...", ".#."}, []Polygon{{Outer: []Point{{1, 1}, {2, 1}, {2, 2}, {1, 2}}}}},
		{"full", []string{"##", "##"}, []Polygon{{Outer: []Point{{0, 0}, {2, 0}, {2, 2}, {0, 2}}}}},
		{"corner", []string{"##", "#."}, []Polygon{{Outer: []Point{{0, 0}, {2, 0}, {2, 1}, {1, 1}, {1, 2}, {0, 2}}}}},
		{"diagonal", []string{"#.", ".#"}, []Polygon{{Outer: []Point{{0, 0}, {1, 0}, {1, 1}, {0, 1}}}, {Outer: []Point{{1, 1}, {2, 1}, {2, 2}, {1, 2}}}}},
		{"hole", []string{"###", "#.#", "###"}, []Polygon{{Outer: []Point{{0, 0}, {3, 0}, {3, 3}, {0, 3}}, Holes: [][]Point{{{1, 2}, {2, 2}, {2, 1}, {1, 1}}}}}},
		{"joined below", []string{"#.#", "###"}, []Polygon{{Outer: []Point{{0, 0}, {1, 0}, {1, 1}, {2, 1}, {2, 0}, {3, 0}, {3, 2}, {0, 2}}}}},
		{"island in a hole", []string{"#####", "#...#", "#.#.#", "#...#", "#####"}, []Polygon{
			{Outer: []Point{{0, 0}, {5, 0}, {5, 5}, {0, 5}}, Holes: [][]Point{{{1, 4}, {4, 4}, {4, 1}, {1, 1}}}},
			{Outer: []Point{{2, 2}, {3, 2}, {3, 3}, {2, 3}}},
		}},
	} {
		m, width, height := draw(test.rows...)
		got := Polygons(m, width, height, 0)
		if !slices.EqualFunc(got, test.want, func(a, b Polygon) bool {
			return slices.Equal(a.Outer, b.Outer) && slices.EqualFunc(a.Holes, b.Holes, slices.Equal[[]Point])
		}) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// checkPolygons fills the exact polygons, which must give back the mask, and
// compares their number with that of the connected parts.
func checkPolygons(t *testing.T, m []byte, width, height int) {
	t.Helper()
	polygons := Polygons(m, width, height, 0)
	filled := make([]byte, len(m))
	area := 0
	fill := func(loop []Point) {
		area += twiceArea(loop)
		for i, p := range loop {
			q := loop[(i+1)%len(loop)]
			if (p.X == q.X) == (p.Y == q.Y) {
				t.Fatalf("an edge from %v to %v", p, q)
			}
			for y := min(p.Y, q.Y); y < max(p.Y, q.Y); y++ {
				for x := p.X; x < width; x++ {
					filled[y*width+x] ^= 1
				}
			}
		}
	}
	for _, p := range polygons {
		fill(p.Outer)
		if twiceArea(p.Outer) <= 0 {
			t.Errorf("an outer boundary goes counter-clockwise")
		}
		for _, h := range p.Holes {
			fill(h)
			if twiceArea(h) >= 0 {
				t.Errorf("a hole goes clockwise")
			}
			// A corner of the hole's first pixel lies inside the outer boundary's box.
			if b := box(p.Outer); h[0].X < b.X || h[0].X > b.X+b.W || h[0].Y < b.Y || h[0].Y > b.Y+b.H {
				t.Errorf("a hole outside its part")
			}
		}
	}
	if !bytes.Equal(filled, m) {
		t.Errorf("the filled polygons of a mask of %d×%d are not the mask", width, height)
	}
	if area != 2*Area(m) {
		t.Errorf("the polygons' area is %d/2, the mask's %d", area, Area(m))
	}
	if parts := countParts(m, width, height); len(polygons) != parts {
		t.Errorf("%d polygons for %d connected parts", len(polygons), parts)
	}
}

func box(points []Point) Box {
	low, high := points[0], points[0]
	for _, p := range points {
		low = Point{min(low.X, p.X), min(low.Y, p.Y)}
		high = Point{max(high.X, p.X), max(high.Y, p.Y)}
	}
	return Box{low.X, low.Y, high.X - low.X, high.Y - low.Y}
}

func countParts(m []byte, width, height int) int {
	rest := bytes.Clone(m)
	parts := 0
	for i := range rest {
		if rest[i] == 0 {
			continue
		}
		parts++
		rest[i] = 0
		for stack := []int{i}; len(stack) > 0; {
			j := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			for _, d := range [][2]int{{1, 0}, {-1, 0}, {0, 1}, {0, -1}} {
				x, y := j%width+d[0], j/width+d[1]
				if x >= 0 && x < width && y >= 0 && y < height && rest[y*width+x] != 0 {
					rest[y*width+x] = 0
					stack = append(stack, y*width+x)
				}
			}
		}
	}
	return parts
}

func TestSimplify(t *testing.T) {
	const width, height, radius, tolerance = 200, 160, 60, 1.5
	m := disc(width, height, radius)
	exact, simple := Polygons(m, width, height, 0), Polygons(m, width, height, tolerance)
	if len(simple) != 1 || len(simple[0].Outer)*4 > len(exact[0].Outer) || len(simple[0].Holes) != 0 {
		t.Fatalf("of %d points %d are left", len(exact[0].Outer), len(simple[0].Outer))
	}
	// No point of the exact boundary is far from the simple one.
	for _, p := range exact[0].Outer {
		nearest := math.Inf(1)
		for i, a := range simple[0].Outer {
			nearest = min(nearest, fromSegment(p, a, simple[0].Outer[(i+1)%len(simple[0].Outer)]))
		}
		if nearest > tolerance*tolerance {
			t.Errorf("%v is %v pixels from the simplified boundary", p, math.Sqrt(nearest))
		}
	}
	speck := make([]byte, 9)
	speck[4] = 1
	if got := Polygons(speck, 3, 3, 5); len(got) != 0 {
		t.Errorf("a pixel that is smaller than the tolerance gives %v", got)
	}
}

func disc(width, height, radius int) []byte {
	m := make([]byte, width*height)
	for y := range height {
		for x := range width {
			if dx, dy := x-width/2, y-height/2; dx*dx+dy*dy < radius*radius {
				m[y*width+x] = 1
			}
		}
	}
	return m
}

func TestRefuses(t *testing.T) {
	for _, s := range []string{"x", "o", "\x01", "4 ", "ooooooooooo4", "é", "0000", "oooooooo?", "@@@@", "O", strings.Repeat("P", 99)} {
		if m, err := FromRLE(s, 3, 3); err == nil {
			t.Errorf("%q was read as %v", s, m)
		}
	}
	for _, counts := range [][]uint32{nil, {8}, {10}, {5, 5}, {math.MaxUint32, 10}, {math.MaxUint32, math.MaxUint32}} {
		if m, err := FromCounts(counts, 3, 3); err == nil {
			t.Errorf("%v was read as %v", counts, m)
		}
	}
	if m, err := FromRLE("", 0, 5); err != nil || len(m) != 0 {
		t.Errorf("a mask without pixels: %v, %v", m, err)
	}
	defer func() {
		if recover() != badLength {
			t.Error("a mask of another size is accepted")
		}
	}()
	BBox(make([]byte, 5), 2, 3)
}

func TestImports(t *testing.T) {
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range p.Imports {
		switch name {
		case "bytes", "cmp", "errors", "math", "slices":
		default:
			t.Errorf("the package imports %s, which the engine would then contain", name)
		}
	}
}

func FuzzRLE(f *testing.F) {
	f.Add("`02", 7, 9)
	f.Add("5M1N3L", 3, 3)
	f.Add("5M1N3", 3, 3)
	f.Add("", 0, 7)
	f.Add(strings.Repeat("o", 40), 8, 8) // a number without an end
	f.Add(strings.Repeat("`", 40), 8, 8) // zeros
	f.Fuzz(func(t *testing.T, s string, width, height int) {
		if width < 0 || height < 0 || width > 64 || height > 64 {
			return
		}
		m, err := FromRLE(s, width, height)
		if err != nil {
			return
		}
		if again, err := FromRLE(RLE(m, width, height), width, height); err != nil || !bytes.Equal(again, m) {
			t.Fatalf("%q, %d×%d: does not come back (%v)", s, width, height, err)
		}
		if len(m) > 0 {
			checkPolygons(t, m, width, height)
		}
	})
}

func TestRandomPolygons(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		width, height := 1+r.IntN(24), 1+r.IntN(24)
		m := make([]byte, width*height)
		share := r.Float64()
		for i := range m {
			if r.Float64() < share {
				m[i] = 1
			}
		}
		checkPolygons(t, m, width, height)
	}
}

func Benchmark12Megapixels(b *testing.B) {
	const width, height = 4000, 3000
	m := disc(width, height, 1400)
	b.Run("Area", func(b *testing.B) {
		for b.Loop() {
			Area(m)
		}
	})
	b.Run("BBox", func(b *testing.B) {
		for b.Loop() {
			BBox(m, width, height)
		}
	})
	b.Run("RLE", func(b *testing.B) {
		for b.Loop() {
			RLE(m, width, height)
		}
	})
	b.Run("FromRLE", func(b *testing.B) {
		s := RLE(m, width, height)
		for b.Loop() {
			FromRLE(s, width, height)
		}
	})
	b.Run("Polygons", func(b *testing.B) {
		for b.Loop() {
			Polygons(m, width, height, 1)
		}
	})
}
