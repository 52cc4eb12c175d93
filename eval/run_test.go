package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folder is a data set that a test writes.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder {
	return folder{t, t.TempDir()}
}

func (f folder) file(name string, data []byte) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) png(name string, img image.Image) {
	f.t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		f.t.Fatal(err)
	}
	f.file(name, out.Bytes())
}

// picture writes a photo whose red channel is the label map that goes with
// it, so that a test's model can see the truth.
func (f folder) picture(name, masks string, width int, ids ...uint8) {
	f.t.Helper()
	bounds := image.Rect(0, 0, width, len(ids)/width)
	photo, mask := image.NewNRGBA(bounds), image.NewGray(bounds)
	for i, id := range ids {
		photo.SetNRGBA(i%width, i/width, color.NRGBA{id, 0, 0, 255})
	}
	copy(mask.Pix, ids)
	f.png("images/"+name+".png", photo)
	f.png(masks+"/"+name+".png", mask)
}

func (f folder) open(o DataOptions) *Dataset {
	f.t.Helper()
	o.Dir = f.dir
	d, err := OpenDataset(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestReadMask(t *testing.T) {
	f := newFolder(t)
	want := []uint16{0, 1, 3, 2, 1, 0}
	gray16 := image.NewGray16(image.Rect(0, 0, 3, 2))
	gray := image.NewGray(gray16.Rect)
	paletted := image.NewPaletted(gray16.Rect, color.Palette{color.Black, color.White, color.RGBA{1, 2, 3, 255}, color.RGBA{9, 9, 9, 255}})
	for i, id := range want {
		gray16.SetGray16(i%3, i/3, color.Gray16{id * 300})
		gray.Pix[i], paletted.Pix[i] = uint8(id), uint8(id)
	}
	f.png("8.png", gray)
	f.png("16.png", gray16)
	f.png("palette.png", paletted)
	// The encoder does not write grey of 2 bits, so here is one: want, as
	// 00 01 11 and 10 01 00.
	f.file("2.png", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x03\x00\x00\x00\x02\x02\x00\x00\x00\x00"+
		"\xf2\xaf\x21\x67\x00\x00\x00\x0c\x49\x44\x41\x54\x78\x9c\x63\x90\x61\x98\x00\x00\x00\xe8\x00\xad\x84\x42\x49\xe8\x00\x00"+
		"\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82"))
	f.png("colour.png", image.NewNRGBA(gray.Rect))
	for _, test := range []struct {
		name    string
		times   uint16
		highest int
	}{{"8", 1, 255}, {"16", 300, 65535}, {"palette", 1, 255}, {"2", 1, 255}} {
		m, err := readMask(filepath.Join(f.dir, test.name+".png"))
		if err != nil || m.width != 3 || m.height != 2 || m.highest != test.highest {
			t.Errorf("%s: %+v, %v", test.name, m, err)
			continue
		}
		for i, id := range m.ids {
			if id != want[i]*test.times {
				t.Errorf("%s: pixel %d is %d, want %d", test.name, i, id, want[i]*test.times)
			}
		}
	}
	if _, err := readMask(filepath.Join(f.dir, "colour.png")); err == nil || !strings.Contains(err.Error(), "has colours") {
		t.Errorf("a label map with colours gives %v", err)
	}
}

func TestDatasetGuesses(t *testing.T) {
	const (
		i = Ignore
		n = NoLabel
	)
	for _, test := range []struct {
		name       string
		classes    string
		settings   string
		options    DataOptions
		ids        []uint8
		want       []uint16
		background bool
	}{
		{"unlabeled", `{"0":"unlabeled","3":"cat","1":"dog"}`, "", DataOptions{}, []uint8{0, 1, 3, 1}, []uint16{i, 0, 1, 0}, false},
		{"null", `{"0":"null","1":"dog"}`, "", DataOptions{}, []uint8{0, 1, 1, 1}, []uint16{n, 0, 0, 0}, true},
		{"no name, with 255", `{"1":"dog"}`, "", DataOptions{}, []uint8{0, 1, 255, 1}, []uint16{n, 0, i, 0}, true},
		{"no name", `{"1":"dog"}`, "", DataOptions{}, []uint8{0, 1, 1, 1}, []uint16{i, 0, 0, 0}, false},
		{"a class 0", `{"0":"wall","1":"dog"}`, "", DataOptions{}, []uint8{0, 1, 255, 1}, []uint16{0, 1, i, 1}, false},
		{"a class 255", `{"1":"dog","255":"cat"}`, "", DataOptions{}, []uint8{0, 1, 255, 1}, []uint16{i, 0, 1, 0}, false},
		{"said in the folder", `{"1":"dog","2":"cat"}`, `{"ignore":[2],"background":0}`, DataOptions{}, []uint8{0, 1, 2, 1}, []uint16{n, 0, i, 0}, true},
		{"none, said in the folder", `{"0":"null","1":"dog"}`, `{"background":null}`, DataOptions{}, []uint8{0, 1, 1, 1}, []uint16{i, 0, 0, 0}, false},
		{"flags win", `{"1":"dog","2":"cat"}`, `{"ignore":[2],"background":0}`, DataOptions{Ignore: "0, 255", Background: "2"}, []uint8{0, 1, 2, 255}, []uint16{i, 0, n, i}, true},
		{"other folder", `{"1":"dog"}`, `{"masks":"masks_full"}`, DataOptions{}, []uint8{0, 1, 255, 1}, []uint16{n, 0, i, 0}, true},
	} {
		f := newFolder(t)
		masks := "masks"
		if strings.Contains(test.settings, "masks_full") {
			masks = "masks_full"
		}
		f.picture("a", masks, 2, test.ids...)
		f.file("classes.json", []byte(test.classes))
		if test.settings != "" {
			f.file("dataset.json", []byte(test.settings))
		}
		d := f.open(test.options)
		_, truth, err := d.Read(d.Items[0])
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if !slices.Equal(truth.Labels, test.want) || d.Background != test.background {
			t.Errorf("%s: labels %v, background %v", test.name, truth.Labels, d.Background)
		}
	}
}

func TestDatasetChoice(t *testing.T) {
	f := newFolder(t)
	for _, name := range []string{"d", "a", "c", "b"} {
		f.png("set/images/"+name+".png", image.NewGray(image.Rect(0, 0, 1, 1)))
		f.png("set/masks/"+name+".png", &image.Gray{Pix: []uint8{1}, Stride: 1, Rect: image.Rect(0, 0, 1, 1)})
	}
	f.png("set/images/without.png", image.NewGray(image.Rect(0, 0, 1, 1)))
	f.file("set/images/notes.txt", nil)
	f.file("classes.json", []byte(`{"1":"dog"}`))
	f.file("list.txt", []byte("c\n# not b\n\na\nc\nz\n"))
	f.file("splits.json", []byte(`{"about":"x","val":["b","d"]}`))
	f.dir = filepath.Join(f.dir, "set")
	path := func(name string) string { return filepath.Join(f.dir, "..", name) }
	for _, test := range []struct {
		options DataOptions
		want    string
	}{
		{DataOptions{}, "abcd"},
		{DataOptions{List: path("list.txt")}, "ca"},
		{DataOptions{Split: path("splits.json") + ":val"}, "bd"},
		{DataOptions{Limit: 2}, "ac"},
		{DataOptions{Limit: 9}, "abcd"},
	} {
		names := ""
		for _, item := range f.open(test.options).Items {
			names += item.Name
		}
		if names != test.want {
			t.Errorf("%+v: got %s, want %s", test.options, names, test.want)
		}
	}
	for name, o := range map[string]DataOptions{
		"no folder": {}, "missing folder": {Dir: path("none")}, "no masks": {Dir: f.dir, Masks: "none"},
		"both": {Dir: f.dir, List: "x", Split: "y"}, "no list": {Dir: f.dir, List: path("none")},
		"no member": {Dir: f.dir, Split: path("splits.json") + ":none"}, "about": {Dir: f.dir, Split: path("splits.json") + ":about"},
		"no colon": {Dir: f.dir, Split: "x"}, "ignore": {Dir: f.dir, Ignore: "a"}, "background": {Dir: f.dir, Background: "a"},
	} {
		if _, err := OpenDataset(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	f := newFolder(t)
	f.file("classes.json", []byte(`{"1":"dog"}`))
	f.picture("a", "masks", 2, 1, 7)
	f.picture("b", "masks", 2, 1, 1)
	f.png("images/b.png", image.NewGray(image.Rect(0, 0, 3, 1)))
	d := f.open(DataOptions{})
	for i, want := range []string{"does not name", "3×1 pixels"} {
		if _, _, err := d.Read(d.Items[i]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// model sees the ids in a photo's red channel. It finds what it is asked for,
// but for the left column, which it takes for the first prompt.
type model struct{ ids map[string]uint8 }

func (m model) Segment(img image.Image, prompts []string) (*Result, error) {
	b := img.Bounds()
	n := b.Dx() * b.Dy()
	r := &Result{Width: b.Dx(), Height: b.Dy(), Labels: make([]uint16, n)}
	for j, p := range prompts {
		mask := make([]byte, n)
		score := 0.0
		for i := range n {
			red, _, _, _ := img.At(i%b.Dx(), i/b.Dx()).RGBA()
			if j == 0 {
				r.Labels[i] = NoLabel
			}
			if uint8(red>>8) == m.ids[p] && i%b.Dx() > 0 || j == 0 && i%b.Dx() == 0 {
				mask[i], r.Labels[i], score = 1, uint16(j), 1
			}
		}
		r.Masks, r.Scores = append(r.Masks, mask), append(r.Scores, score)
	}
	r.Proposals = func() [][]byte { return r.Masks }
	return r, nil
}

func TestRun(t *testing.T) {
	f := newFolder(t)
	f.file("classes.json", []byte(`{"1":"dog","2":"cat","3":"sofa,couch"}`))
	f.picture("a", "masks", 3,
		1, 1, 0,
		2, 2, 0,
		2, 255, 0)
	f.picture("b", "masks", 3,
		3, 3, 3,
		0, 0, 0)
	f.picture("c", "masks", 3, 0, 0, 0)
	d := f.open(DataOptions{})
	seg := model{map[string]uint8{"dog": 1, "cat": 2, "sofa,couch": 3}}
	nan := math.NaN()
	for _, test := range []struct {
		prompts string
		want    Figures
	}{
		// dog: 2 pixels, both found, and 2+2+1 more in the left column; cat 1
		// of 3; sofa 2 of 3; background 8, of which 6 are left: 3+2+2-1.
		{PromptsAll, Figures{MIoU: Figure((2.0/7 + 1.0/3 + 2.0/3 + 7.0/9) / 4), MIoUD2: Figure((2.0/7 + 1.0/3 + 2.0/3 + 7.0/9) / 4),
			MIoUForeground: Figure((2.0/7 + 1.0/3 + 2.0/3) / 3), SingleIoU: Figure(nan), Recall50: Figure(2.0 / 3), Recall75: 0}},
		// With the present names alone, the left column of b is the sofa's.
		{PromptsPresent, Figures{MIoU: Figure((2.0/4 + 1.0/3 + 3.0/4 + 8.0/9) / 4), MIoUD2: Figure((2.0/4 + 1.0/3 + 3.0/4 + 8.0/9) / 4),
			MIoUForeground: Figure((2.0/4 + 1.0/3 + 3.0/4) / 3), SingleIoU: Figure(nan), Recall50: Figure(2.0 / 3), Recall75: Figure(1.0 / 3)}},
		// dog 2 of 4, cat 3 of 4, sofa 3 of 4.
		{PromptsSingle, Figures{MIoU: Figure(2.0 / 3), MIoUD2: Figure(nan), MIoUForeground: Figure(2.0 / 3), SingleIoU: Figure(2.0 / 3),
			Recall50: 1, Recall75: Figure(2.0 / 3)}},
	} {
		var first string
		for _, workers := range []int{1, 3} {
			var progress strings.Builder
			got, err := Run(Options{Data: d, Prompts: test.prompts, Workers: workers}, always(seg), &progress)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(progress.String(), "3 of 3 pictures") {
				t.Errorf("%s: progress %q", test.prompts, progress.String())
			}
			for _, x := range []struct {
				name      string
				got, want Figure
			}{
				{"miou", got.MIoU, test.want.MIoU}, {"miou_d2", got.MIoUD2, test.want.MIoUD2},
				{"miou_foreground", got.MIoUForeground, test.want.MIoUForeground}, {"single_iou", got.SingleIoU, test.want.SingleIoU},
				{"recall50", got.Recall50, test.want.Recall50}, {"recall75", got.Recall75, test.want.Recall75},
			} {
				if d := math.Abs(float64(x.got - x.want)); d > 1e-15 || math.IsNaN(float64(x.got)) != math.IsNaN(float64(x.want)) {
					t.Errorf("%s: %s is %v, want %v", test.prompts, x.name, x.got, x.want)
				}
			}
			if got.Pictures != 3 || got.Classes != 3 || got.Background != (test.prompts != PromptsSingle) || len(got.PerClass) != 3 {
				t.Errorf("%s: %+v", test.prompts, got)
			}
			// The number of workers changes nothing but the time.
			got.Seconds = 0
			data, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = string(data)
			} else if first != string(data) {
				t.Errorf("%s: %s with one worker, %s with three", test.prompts, first, data)
			}
			var text strings.Builder
			if err := got.Write(&text); err != nil || !strings.Contains(text.String(), "recall75") {
				t.Errorf("%s: %v, %s", test.prompts, err, text.String())
			}
		}
	}
}

// A perfect model is perfect in every figure.
type perfect struct{ model }

func (m perfect) Segment(img image.Image, prompts []string) (*Result, error) {
	r, err := m.model.Segment(img, append([]string{"nothing"}, prompts...))
	b := img.Bounds()
	r.Masks, r.Scores = r.Masks[1:], r.Scores[1:]
	for i := range r.Labels {
		r.Labels[i] = NoLabel
		red, _, _, _ := img.At(i%b.Dx(), i/b.Dx()).RGBA()
		for j, p := range prompts {
			if uint8(red>>8) == m.ids[p] {
				r.Masks[j][i], r.Labels[i], r.Scores[j] = 1, uint16(j), 1
			}
		}
	}
	return r, err
}

func TestRunPerfect(t *testing.T) {
	f := newFolder(t)
	f.file("classes.json", []byte(`{"1":"dog","2":"cat"}`))
	f.picture("a", "masks", 2, 1, 1, 2, 0)
	f.picture("b", "masks", 2, 0, 255, 2, 0)
	d := f.open(DataOptions{})
	seg := perfect{model{map[string]uint8{"dog": 1, "cat": 2, "nothing": 99}}}
	for _, prompts := range []string{PromptsAll, PromptsPresent, PromptsSingle} {
		got, err := Run(Options{Data: d, Prompts: prompts}, always(seg), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []Figure{got.MIoU, got.MIoUD2, got.MIoUForeground, got.SingleIoU, got.Recall50, got.Recall75, got.OracleMIoU, got.PresenceAUC} {
			if x != 1 && !math.IsNaN(float64(x)) {
				t.Errorf("%s: %+v", prompts, got)
			}
		}
		if prompts == PromptsAll && (got.PresenceAUC != 1 || got.OracleMIoU != 1) || prompts == PromptsSingle && got.SingleIoU != 1 {
			t.Errorf("%s: %+v", prompts, got)
		}
	}
}

// wrong answers what it is told to.
type wrong struct {
	result Result
	err    error
}

func (w wrong) Segment(image.Image, []string) (*Result, error) { return &w.result, w.err }

func TestRunRefuses(t *testing.T) {
	f := newFolder(t)
	f.file("classes.json", []byte(`{"1":"dog"}`))
	for _, name := range []string{"a", "b", "c", "d"} {
		f.picture(name, "masks", 2, 1, 1)
	}
	d := f.open(DataOptions{})
	for _, test := range []struct {
		name, prompts string
		seg           wrong
		want          string
	}{
		{"prompts", "some", wrong{}, "all, present or single"},
		{"error", PromptsAll, wrong{err: errors.New("no memory")}, "no memory"},
		{"size", PromptsAll, wrong{result: Result{Width: 2, Height: 2}}, "2×2 pixels"},
		{"labels", PromptsAll, wrong{result: Result{Width: 2, Height: 1}}, "a label for each pixel"},
		{"label", PromptsAll, wrong{result: Result{Width: 2, Height: 1, Labels: []uint16{0, 1}}}, "label 1 to 1 prompts"},
		{"scores", PromptsAll, wrong{result: Result{Width: 2, Height: 1, Labels: []uint16{0, 0}, Scores: []float64{1, 2}}}, "2 scores"},
		{"masks", PromptsSingle, wrong{result: Result{Width: 2, Height: 1}}, "a mask for each prompt"},
		{"mask", PromptsSingle, wrong{result: Result{Width: 2, Height: 1, Masks: [][]byte{{1}}}}, "a mask for each prompt"},
	} {
		for _, workers := range []int{1, 2} {
			_, err := Run(Options{Data: d, Prompts: test.prompts, Workers: workers}, always(test.seg), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
			}
		}
	}
}

// always gives every worker the same model; those of these tests may be
// called from several goroutines.
func always(seg Segmenter) func() (Segmenter, error) {
	return func() (Segmenter, error) { return seg, nil }
}

func TestRunCannotOpen(t *testing.T) {
	d := &Dataset{Items: make([]Item, 3)}
	broken := errors.New("no memory")
	_, err := Run(Options{Data: d, Workers: 2}, func() (Segmenter, error) { return nil, broken }, nil)
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of open", err)
	}
}

func TestPrompt(t *testing.T) {
	for name, want := range map[string]string{
		"dog": "dog", "sofa,couch": "sofa,couch", "traffic_light": "traffic light",
		"tree-merged": "tree", "floor-other-merged": "floor", "water-other": "water", "door-stuff": "door",
		"wall-brick": "wall-brick", "t-shirt": "t-shirt", "sky-other-merged,clouds": "sky,clouds",
	} {
		if got := (Class{Name: name}).Prompt(); got != want {
			t.Errorf("%q is asked for as %q, want %q", name, got, want)
		}
	}
}
