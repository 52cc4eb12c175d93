package mask

import (
	"bytes"
	"slices"
)

// Point is a corner of pixels: (0, 0) is the top left corner of the picture,
// (width, height) the bottom right one.
type Point struct{ X, Y int }

// Polygon is one connected part of a mask. Its boundary and those of its
// holes run along the edges of pixels. Seen on a screen, the boundary goes
// clockwise and the holes counter-clockwise. The last point is joined to the
// first one, which is not repeated.
type Polygon struct {
	Outer []Point
	Holes [][]Point
}

// run is a stretch of set pixels in a row: from low up to, without, high.
type run struct {
	low, high int
	// parent leads to another run of the same part of the mask, or to the run
	// itself.
	parent int
}

// loop is a boundary, with a run of the part that it belongs to.
type loop struct {
	points []Point
	run    int
}

// Polygons returns the parts of a mask, from top to bottom. Pixels that only
// touch at a corner do not connect.
//
// With a tolerance of 0 the polygons are exact: filled by the even-odd rule
// they give back the mask. Otherwise points are left out as long as no
// boundary moves by more than that many pixels (Douglas and Peucker), and
// parts and holes that have no area then are left out altogether.
func Polygons(m []byte, width, height int, tolerance float64) []Polygon {
	check(m, width, height)
	t := tracer{m: m, width: width, height: height}

	// Row by row: the runs, joined to those that they touch in the row above.
	// A boundary has somewhere a piece that has set pixels below and none
	// above. It is followed from the first such piece that is met.
	var runs []run
	var loops []loop
	find := func(i int) int {
		for runs[i].parent != i {
			runs[i].parent = runs[runs[i].parent].parent
			i = runs[i].parent
		}
		return i
	}
	for y, above := 0, 0; y < height; y++ {
		row := m[y*width:][:width]
		first := len(runs)
		for x := firstSet(row); x < width; {
			high := width
			if n := bytes.IndexByte(row[x:], 0); n >= 0 {
				high = x + n
			}
			r := len(runs)
			runs = append(runs, run{x, high, r})

			// free is where the next piece without anything above begins.
			free := x
			for above < first && runs[above].high <= x {
				above++
			}
			for a := above; a < first && runs[a].low < high; a++ {
				runs[find(r)].parent = find(a)
				if free < runs[a].low && !t.seen(free, y) {
					loops = append(loops, loop{t.follow(free, y), r})
				}
				free = runs[a].high
			}
			if free < high && !t.seen(free, y) {
				loops = append(loops, loop{t.follow(free, y), r})
			}
			x = high + firstSet(row[high:])
		}
		above = first
	}

	// Each part has one outer boundary, which was found before its holes.
	var out []Polygon
	index := map[int]int{}
	for _, l := range loops {
		part, outer := find(l.run), twiceArea(l.points) > 0
		points := l.points
		if tolerance > 0 {
			points = simplify(points, tolerance)
		}
		if twiceArea(points) == 0 {
			points = nil
		}
		switch i, ok := index[part]; {
		case outer:
			index[part] = len(out)
			out = append(out, Polygon{Outer: points})
		case ok && points != nil:
			out[i].Holes = append(out[i].Holes, points)
		}
	}
	return slices.DeleteFunc(out, func(p Polygon) bool { return p.Outer == nil })
}

// tracer follows boundaries.
type tracer struct {
	m             []byte
	width, height int
	// A bit for each pixel: a piece of a boundary that was followed begins at
	// its top left corner and goes right.
	followed []uint64
}

func (t *tracer) seen(x, y int) bool {
	i := y*t.width + x
	return t.followed != nil && t.followed[i/64]>>(i%64)&1 != 0
}

func (t *tracer) set(x, y int) bool {
	return uint(x) < uint(t.width) && uint(y) < uint(t.height) && t.m[y*t.width+x] != 0
}

// follow returns the boundary that goes right from the top left corner of a
// set pixel, with the mask always to the right of it. Its points are the
// corners at which it turns.
func (t *tracer) follow(x, y int) []Point {
	if t.followed == nil {
		t.followed = make([]uint64, (len(t.m)+63)/64)
	}
	var points []Point
	startX, startY := x, y
	dx, dy := 1, 0
	turned := true
	for {
		if turned {
			points = append(points, Point{x, y})
			if dx == 1 {
				i := y*t.width + x
				t.followed[i/64] |= 1 << (i % 64)
			}
		}
		x, y = x+dx, y+dy
		// The pixels ahead to the right and to the left. The pixel with the
		// corner (x, y) at its top left is (x, y).
		var right, left bool
		switch {
		case dx == 1:
			right, left = t.set(x, y), t.set(x, y-1)
		case dy == 1:
			right, left = t.set(x-1, y), t.set(x, y)
		case dx == -1:
			right, left = t.set(x-1, y-1), t.set(x-1, y)
		default:
			right, left = t.set(x, y-1), t.set(x-1, y-1)
		}
		turned = true
		switch {
		case !right: // where two pixels only touch at the corner, too
			dx, dy = -dy, dx
		case left:
			dx, dy = dy, -dx
		default:
			turned = false
		}
		// The piece that goes right from the start begins with a turn, and no
		// other piece goes right from there.
		if x == startX && y == startY && dx == 1 {
			return points
		}
	}
}

// twiceArea is positive for loops that go clockwise on a screen.
func twiceArea(points []Point) int {
	sum := 0
	for i, p := range points {
		q := points[(i+1)%len(points)]
		sum += p.X*q.Y - q.X*p.Y
	}
	return sum
}

// simplify leaves points of a loop out (Douglas and Peucker). The first
// point and the one farthest from it stay; both sides between them are
// treated as lines.
func simplify(points []Point, tolerance float64) []Point {
	farthest := 0
	squared := func(p, q Point) int { return (p.X-q.X)*(p.X-q.X) + (p.Y-q.Y)*(p.Y-q.Y) }
	for i, p := range points {
		if squared(p, points[0]) > squared(points[farthest], points[0]) {
			farthest = i
		}
	}
	n := len(points)
	keep := make([]bool, n)
	keep[0], keep[farthest] = true, true
	// Stretches of the loop that are still to be looked at; index n is the
	// first point again.
	stack := [][2]int{{0, farthest}, {farthest, n}}
	for len(stack) > 0 {
		low, high := stack[len(stack)-1][0], stack[len(stack)-1][1]
		stack = stack[:len(stack)-1]
		a, b := points[low], points[high%n]
		worst, at := tolerance*tolerance, -1
		for i := low + 1; i < high; i++ {
			if d := fromSegment(points[i], a, b); d > worst {
				worst, at = d, i
			}
		}
		if at >= 0 {
			keep[at] = true
			stack = append(stack, [2]int{low, at}, [2]int{at, high})
		}
	}
	var out []Point
	for i, p := range points {
		if keep[i] {
			out = append(out, p)
		}
	}
	return out
}

// fromSegment is the squared distance of p from the straight line between a
// and b.
func fromSegment(p, a, b Point) float64 {
	dx, dy := float64(b.X-a.X), float64(b.Y-a.Y)
	px, py := float64(p.X-a.X), float64(p.Y-a.Y)
	if length := dx*dx + dy*dy; length > 0 {
		at := max(0, min(1, (px*dx+py*dy)/length))
		px, py = px-at*dx, py-at*dy
	}
	return px*px + py*py
}
