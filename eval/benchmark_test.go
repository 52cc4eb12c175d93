package eval

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/tiff"

	"github.com/pmp-seg/pmp/eval/tiny/shapes"
)

// knowing sees the shapes by their brightness. What is not labelled it takes
// for the first prompt, which is wrong unless such pixels count nowhere.
type knowing struct{}

func (knowing) Segment(img image.Image, prompts []string) (*Result, error) {
	b := img.Bounds()
	r := &Result{Width: b.Dx(), Height: b.Dy(), Labels: make([]uint16, b.Dx()*b.Dy())}
	of := map[int]int{-1: 0}
	for i, p := range prompts {
		if t := slices.Index(shapes.Names, p); t >= 0 {
			of[t] = i
		}
		if p == "background,wall" {
			of[3] = i
		}
	}
	r.Scores = make([]float64, len(prompts))
	r.Masks = make([][]byte, len(prompts))
	for i := range r.Masks {
		r.Masks[i] = make([]byte, len(r.Labels))
	}
	for i := range r.Labels {
		luma := int(color.GrayModel.Convert(img.At(i%b.Dx(), i/b.Dx())).(color.Gray).Y)
		thing, nearest := -1, abs(luma-shapes.Unlabelled)
		for t, l := range shapes.Luma {
			if d := abs(luma - int(l)); d < nearest {
				thing, nearest = t, d
			}
		}
		label, ok := of[thing]
		r.Labels[i] = NoLabel
		if ok {
			r.Labels[i] = uint16(label)
			r.Masks[label][i] = 1
			if thing >= 0 {
				r.Scores[label] = 1
			}
		}
	}
	r.Proposals = func() [][]byte { return r.Masks }
	return r, nil
}

func abs(x int) int { return max(x, -x) }

func openTiny(t *testing.T, l shapes.Layout) (*Dataset, string) {
	t.Helper()
	dir := t.TempDir()
	if err := l.Write(dir); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDataset(DataOptions{Dir: dir, Benchmark: l.Benchmark})
	if err != nil {
		t.Fatalf("%s: %v", l.Name, err)
	}
	return d, dir
}

// Who knows the shapes is right everywhere, in every official layout.
func TestOfficialLayouts(t *testing.T) {
	for _, l := range shapes.Layouts {
		d, dir := openTiny(t, l)
		b := d.Benchmark
		if len(d.Classes) != b.Classes || len(d.Items) != 3 || d.Background {
			t.Errorf("%s: %d classes, %d pictures, background %v", l.Name, len(d.Classes), len(d.Items), d.Background)
		}
		for _, prompts := range []string{PromptsAll, PromptsPresent} {
			f, err := Run(Options{Data: d, Prompts: prompts}, always(knowing{}), nil)
			if err != nil {
				t.Fatalf("%s: %v", l.Name, err)
			}
			if f.MIoU != 1 || f.MIoUD2 != 1 || f.OracleMIoU != 1 || f.Recall75 != 1 || prompts == PromptsAll && f.PresenceAUC != 1 {
				t.Errorf("%s: %+v", l.Name, f)
			}
			var ids []int
			for _, c := range f.PerClass {
				ids = append(ids, c.ID)
			}
			want := slices.Clone(l.IDs[:])
			slices.Sort(want)
			if !slices.Equal(ids, want) {
				t.Errorf("%s: classes %v, want %v", l.Name, ids, want)
			}
		}
		// The data set's own folder does as well as the one that holds it.
		top, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range top {
			if e.Name() == "labels" {
				continue
			}
			labels := filepath.Join(dir, "labels", b.Labels)
			if own, err := OpenDataset(DataOptions{Dir: filepath.Join(dir, e.Name()), Benchmark: l.Benchmark, Labels: labels}); err != nil || len(own.Items) != 3 {
				t.Errorf("%s from inside: %v", l.Name, err)
			}
		}
	}
}

// A wrong offset, ignored id or first class is noticed: pixels get ids that
// the benchmark does not have, or the figures are not 1.
func TestWrongDescriptions(t *testing.T) {
	for _, l := range shapes.Layouts {
		dir := t.TempDir()
		if err := l.Write(dir); err != nil {
			t.Fatal(err)
		}
		for name, spoil := range map[string]func(*Layout){
			"offset above": func(l *Layout) { l.Offset++ }, "offset below": func(l *Layout) { l.Offset-- },
			"nothing ignored": func(l *Layout) { l.Ignore = nil },
		} {
			b, err := FindBenchmark(l.Benchmark)
			if err != nil {
				t.Fatal(err)
			}
			wrong := *b
			wrong.Layouts = slices.Clone(b.Layouts)
			for i := range wrong.Layouts {
				spoil(&wrong.Layouts[i])
			}
			d, err := wrong.open(dir, "")
			if err != nil {
				continue
			}
			if l.Name == "cityscapes" {
				continue // its ids are a table, without offset and ignored ids
			}
			f, err := Run(Options{Data: d}, always(knowing{}), nil)
			if err == nil && f.MIoU == 1 {
				t.Errorf("%s: %s goes unnoticed", l.Name, name)
			}
		}
	}
}

// What users get wrong is told in one sentence.
func TestBenchmarkRefuses(t *testing.T) {
	layout := func(name string) shapes.Layout {
		for _, l := range shapes.Layouts {
			if l.Name == name {
				return l
			}
		}
		panic("no such layout")
	}
	first := func(dir, pattern string) string {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("nothing is %s", pattern)
		}
		return found[0]
	}
	put := func(path, data string) {
		if err := os.WriteFile(path, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		put(path, string(data[:len(data)/2]))
	}
	for _, test := range []struct {
		layout, what string
		spoil        func(dir string)
		want         string
	}{
		{"a847-d2", "a TIFF cut off", func(dir string) { cut(first(dir, "ADE*/annotations_detectron2/validation/*.tif")) }, "damaged"},
		{"a150", "a PNG cut off", func(dir string) { cut(first(dir, "ADE*/annotations/validation/*.png")) }, "damaged"},
		{"a150", "a photo cut off", func(dir string) { cut(first(dir, "ADE*/images/validation/*.jpg")) }, "photo"},
		{"a150", "no label file", func(dir string) { os.RemoveAll(filepath.Join(dir, "labels")) }, "ade20k_150_with_prompt_eng.txt"},
		{"a150", "no photos", func(dir string) { os.RemoveAll(filepath.Join(dir, "ADEChallengeData2016/images/validation")) }, "unpack"},
		{"pc459-d2", "an empty folder", func(dir string) {
			for range 3 {
				os.Remove(first(dir, "pascal_ctx_d2/annotations_ctx459/validation/*.tif"))
			}
		}, "no photo has a label map"},
		{"pas20", "a missing list", func(dir string) { os.Remove(first(dir, "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt")) }, "val.txt"},
		{"coco", "damaged JSON", func(dir string) { cut(first(dir, "coco/annotations/*.json")) }, "JSON"},
		{"coco", "another JSON", func(dir string) { put(first(dir, "coco/annotations/*.json"), `{"annotations":[]}`) }, "does not mention"},
		{"pc59-d2", "another size", func(dir string) {
			maps, _ := filepath.Glob(filepath.Join(dir, "pascal_ctx_d2/annotations_ctx59/validation/*.png"))
			data, _ := os.ReadFile(maps[1])
			put(maps[0], string(data))
		}, "pixels, and its label map"},
		{"pc59-d2", "the names of another", func(dir string) { put(first(dir, "labels/*"), "1:dog\n2:cat\n") }, "no name for id 3"},
		{"pc59-d2", "a name twice", func(dir string) { put(first(dir, "labels/*"), "1:dog\n1:cat\n") }, "already has a name in line 1"},
		{"pc59-d2", "no id", func(dir string) { put(first(dir, "labels/*"), "1:dog\nx:cat\n") }, "line 2"},
		{"pc59-d2", "no name", func(dir string) { put(first(dir, "labels/*"), "1: ,\n") }, "has no name"},
		{"pc59-d2", "an empty file", func(dir string) { put(first(dir, "labels/*"), "") }, "no class"},
	} {
		dir := t.TempDir()
		if err := layout(test.layout).Write(dir); err != nil {
			t.Fatal(err)
		}
		test.spoil(dir)
		d, err := OpenDataset(DataOptions{Dir: dir, Benchmark: layout(test.layout).Benchmark})
		if err == nil {
			_, err = Run(Options{Data: d}, always(knowing{}), nil)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want an error with %q", test.what, err, test.want)
		}
	}
	for _, o := range []DataOptions{{Dir: t.TempDir(), Benchmark: "a151"}, {Dir: t.TempDir(), Benchmark: "a150", Ignore: "0"}, {Dir: "/nowhere", Benchmark: "a150"}} {
		if _, err := OpenDataset(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestObjectInfo(t *testing.T) {
	f := newFolder(t)
	f.file("objectInfo150.txt", []byte("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t5\t6\t1\twall\n2\t0.1\t5\t6\t1\tbuilding, edifice\n"))
	got, err := readLabelFile(filepath.Join(f.dir, "objectInfo150.txt"))
	if want := []Class{{1, "wall"}, {2, "building,edifice"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

// Damaged label maps give errors, not panics.
func FuzzReadMask(f *testing.F) {
	var out bytes.Buffer
	if err := tiff.Encode(&out, image.NewGray16(image.Rect(0, 0, 3, 2)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Clone(out.Bytes()))
	f.Add(slices.Clone(out.Bytes()[:out.Len()/2]))
	f.Add([]byte("\x89PNG\r\n\x1a\n"))
	for _, img := range []image.Image{image.NewGray(image.Rect(0, 0, 3, 2)), image.NewGray16(image.Rect(0, 0, 3, 2)),
		image.NewPaletted(image.Rect(0, 0, 9, 1), color.Palette{color.Black, color.White})} {
		out.Reset()
		if err := png.Encode(&out, img); err != nil {
			f.Fatal(err)
		}
		f.Add(slices.Clone(out.Bytes()))
	}
	path := filepath.Join(f.TempDir(), "map")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		if m, err := readMask(path); err == nil && len(m.ids) != m.width*m.height {
			t.Errorf("%d ids of %d×%d pixels", len(m.ids), m.width, m.height)
		}
	})
}

// A run that was cut off goes on; other settings start anew; and the figures
// are those of a run in one piece.
func TestResume(t *testing.T) {
	d, _ := openTiny(t, shapes.Layouts[0])
	dir := t.TempDir()
	calls := 0
	open := func() (Segmenter, error) { return counting{&calls}, nil }
	run := func(setting string) (string, string, int) {
		t.Helper()
		calls = 0
		var notes strings.Builder
		f, err := Run(Options{Data: d, Report: dir, Settings: []Setting{{"weights", setting}}}, open, &notes)
		if err != nil {
			t.Fatal(err)
		}
		f.Seconds = 0
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(data), notes.String(), calls
	}
	const sheet = 3 // the pictures of the contact sheet are asked about again
	whole, _, n := run("a")
	if n != 3+sheet {
		t.Errorf("%d calls for 3 pictures", n)
	}
	path := filepath.Join(dir, journalName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	half := slices.Concat(lines[0], lines[1][:len(lines[1])/2])
	if err := os.WriteFile(path, half, 0o666); err != nil {
		t.Fatal(err)
	}
	if again, notes, n := run("a"); again != whole || n != 2+sheet || !strings.Contains(notes, "1 of 3 pictures were counted before") || !strings.Contains(notes, "cut off") {
		t.Errorf("after a cut: %d calls, %s, %s instead of %s", n, notes, again, whole)
	}
	if again, _, n := run("a"); again != whole || n != sheet {
		t.Errorf("the third time: %d calls", n)
	}
	if _, notes, n := run("b"); n != 3+sheet || !strings.Contains(notes, "other settings") {
		t.Errorf("other weights: %d calls, %s", n, notes)
	}
	html, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil || !bytes.Contains(html, []byte("worst-01.jpg")) || bytes.Contains(html, []byte("<script")) || bytes.Contains(html, []byte("http")) {
		t.Errorf("the page is not right: %v", err)
	}
}

// counting counts questions.
type counting struct{ calls *int }

func (c counting) Segment(img image.Image, prompts []string) (*Result, error) {
	*c.calls++
	return knowing{}.Segment(img, prompts)
}

// Merging in any grouping gives the same.
func TestMergeIsAssociative(t *testing.T) {
	d, _ := openTiny(t, shapes.Layouts[0])
	o := Options{Data: d, Prompts: PromptsAll}
	var c []*Counted
	for i := range d.Items {
		a, err := o.picture(knowing{}, i)
		if err != nil {
			t.Fatal(err)
		}
		a.counted.Seconds = 0
		c = append(c, a.counted)
	}
	figures := func(groups ...[]int) string {
		total := &Counted{}
		for _, g := range groups {
			part := &Counted{}
			for _, i := range g {
				part.Merge(c[i])
			}
			total.Merge(part)
		}
		data, err := json.Marshal(total.Figures(o))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	want := figures([]int{0, 1, 2})
	if figures([]int{2}, []int{1, 0}) != want || figures([]int{1}, []int{0}, []int{2}) != want {
		t.Error("the grouping changes the figures")
	}
}

// The area under the points of the plotted curve is the AUC.
func TestROC(t *testing.T) {
	p := Presence{Present: []float64{0.9, 0.8, 0.4, 0.4}, Absent: []float64{0.8, 0.3, 0.1}}
	area, points := 0.0, roc(p)
	for i := 1; i < len(points); i++ {
		area += (points[i][0] - points[i-1][0]) * (points[i][1] + points[i-1][1]) / 2
	}
	if math.Abs(area-p.AUC()) > 1e-12 {
		t.Errorf("the area is %v, the AUC %v", area, p.AUC())
	}
}
