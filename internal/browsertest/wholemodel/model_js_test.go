// Package wholemodel runs the whole network on the graphics card of a browser
// and beside it on a CPU device. The package has only tests; internal/browsertest
// runs them.
package wholemodel

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall/js"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/kernel/webgpu"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
)

// differences are what devices may differ. Maps lie between 0 and 1; pixels at
// the very edge of a mask may fall on either side.
type differences struct {
	leastIoU             float64
	mapError, scoreError float32
}

var (
	// In float32 devices differ by rounding only.
	inFloats = differences{0.999, 1e-3, 1e-4}
	// In integers a byte that falls on the other side of a rounding is seen
	// further on, see ARCHITECTURE.md.
	inBytes = differences{0.995, 0.05, 5e-3}
	// Operands that are rounded to halves move more bytes.
	inHalves = differences{0.98, 1, 0.02}
)

// half says that halves are to be used where the card has them, as the engine
// does for int8.
var half = strings.Contains(os.Getenv("PMP_VARIANT"), "half")

// answer is what a device says of a photo.
type answer struct {
	scores []float32
	maps   [][]float32
	masks  [][]byte
	labels []byte
}

func TestWholeModel(t *testing.T) {
	if !strings.Contains(os.Getenv("PMP_VARIANT"), "webgpu") {
		t.Skip("run by internal/browsertest, in a browser that has WebGPU")
	}
	for _, c := range []struct {
		name      string
		precision model.Precision
		cpu       func() (kernel.Device, error)
		file      string
		prompts   []string
		may       differences
	}{
		{"int8", model.Int8, func() (kernel.Device, error) { return scalar.New(), nil }, "cat.jpg", []string{"cat", "sofa, couch", "dog"}, inBytes},
		{"f32", model.Float32, func() (kernel.Device, error) { return simd.New() }, "coffee.jpg", []string{"cup", "spoon", "table, desk", "person", "bowl", "fork", "knife", "chair", "book"}, inFloats},
	} {
		if half && c.precision != model.Int8 {
			continue // the engine takes no halves for float32
		}
		if half {
			c.may = inHalves
		}
		t.Run(c.name, func(t *testing.T) {
			pixels, width, height := decode(t, c.file)
			card, err := webgpu.New(webgpu.Options{Timestamps: true, Half: half})
			if err != nil {
				t.Fatal(err)
			}
			cpu, err := c.cpu()
			if err != nil {
				t.Fatal(err)
			}
			want := run(t, cpu, c.precision, pixels, width, height, c.prompts)
			got := run(t, card, c.precision, pixels, width, height, c.prompts)
			for i, prompt := range c.prompts {
				compare(t, prompt, i, got, want, c.may)
			}
			compareLabels(t, got, want, c.may)
		})
	}
}

// run asks a device, and closes it.
func run(t *testing.T, d kernel.Device, precision model.Precision, pixels []byte, width, height int, prompts []string) (a answer) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := weights.Load(shipped.FS.ReadFile)
	must(err)
	m, err := model.Load(w, d, precision)
	must(err)
	defer m.Close()
	p, err := m.NewPicture(width, height)
	must(err)
	defer p.Close()
	must(p.Write(pixels))
	start := time.Now()
	must(p.Encode())
	r, err := p.Segment(prompts, model.Options{})
	must(err)
	t.Logf("%s: encode and segment %v", d.Name(), time.Since(start))
	// Again, since what runs twice must not depend on what was there before.
	start = time.Now()
	r, err = p.Segment(prompts, model.Options{})
	must(err)
	t.Logf("%s: segment %v", d.Name(), time.Since(start))
	for i, answer := range r.Prompts {
		s, _ := r.Map(i)
		mask := make([]byte, width*height)
		must(r.Mask(i, mask))
		a.scores, a.maps, a.masks = append(a.scores, answer.Score), append(a.maps, s), append(a.masks, mask)
	}
	a.labels = make([]byte, width*height)
	must(r.LabelMap(a.labels))
	if s, ok := p.Session().(*webgpu.Session); ok {
		for stage, name := range []string{"encode", "segment"} {
			c := s.Counts(stage)
			t.Logf("%s: %s has %d dispatches, %d changes of pipeline, reads %.1f MB and writes %.1f MB",
				d.Name(), name, c.Dispatches, c.Pipelines, float64(c.Read)/1e6, float64(c.Written)/1e6)
			if strings.Contains(os.Getenv("PMP_VARIANT"), "profile") {
				profile(t, s, stage)
			}
		}
	}
	return a
}

// profile shows which of the card's kernels take most of a stage's time.
func profile(t *testing.T, s *webgpu.Session, stage int) {
	timings, err := s.Profile(stage)
	if err != nil {
		t.Log(err)
		return
	}
	times, dispatches := map[string]time.Duration{}, map[string]int{}
	var all time.Duration
	for _, x := range timings {
		times[x.Name] += x.Time
		dispatches[x.Name]++
		all += x.Time
	}
	names := slices.SortedFunc(maps.Keys(times), func(a, b string) int { return int(times[b] - times[a]) })
	for _, name := range names[:min(len(names), 8)] {
		t.Logf("%5.1f%% in %3d dispatches of %s", 100*float64(times[name])/float64(all), dispatches[name], name)
	}
	t.Logf("together %v", all)
}

func compare(t *testing.T, prompt string, i int, got, want answer, may differences) {
	t.Helper()
	worst := float32(0)
	for j, x := range want.maps[i] {
		if d := max(got.maps[i][j]-x, x-got.maps[i][j]); !(d <= worst) {
			worst = d
		}
	}
	both, either := 0, 0
	for j, x := range want.masks[i] {
		both += int(x & got.masks[i][j])
		either += int(x | got.masks[i][j])
	}
	iou := 1.0
	if either > 0 {
		iou = float64(both) / float64(either)
	}
	score := max(got.scores[i]-want.scores[i], want.scores[i]-got.scores[i])
	t.Logf("%q: score %.4f, off by %.2g; map off by %.2g; mask of %d pixels, IoU %.5f", prompt, want.scores[i], score, worst, either, iou)
	if !(iou >= may.leastIoU) || !(worst <= may.mapError) || !(score <= may.scoreError) {
		t.Errorf("%q differs", prompt)
	}
}

func compareLabels(t *testing.T, got, want answer, may differences) {
	t.Helper()
	same := 0
	for i, x := range want.labels {
		if x == got.labels[i] {
			same++
		}
	}
	if share := float64(same) / float64(len(want.labels)); !(share >= may.leastIoU) {
		t.Errorf("%.5f of the label maps agree", share)
	}
	if bytes.Count(want.labels, []byte{kernel.NoLabel}) == len(want.labels) {
		t.Error("nothing was found")
	}
}

// decode fetches one of the demo's photos.
func decode(t *testing.T, file string) (pixels []byte, width, height int) {
	t.Helper()
	response := wait(t, js.Global().Call("fetch", "/isolated/examples/"+file))
	body := js.Global().Get("Uint8Array").New(wait(t, response.Call("arrayBuffer")))
	data := make([]byte, body.Length())
	js.CopyBytesToGo(data, body)
	img, err := photo.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return img.Pix, img.Rect.Dx(), img.Rect.Dy()
}

func wait(t *testing.T, promise js.Value) js.Value {
	t.Helper()
	type result struct {
		value js.Value
		err   error
	}
	done := make(chan result, 1)
	then := js.FuncOf(func(_ js.Value, args []js.Value) any { done <- result{value: args[0]}; return nil })
	failed := js.FuncOf(func(_ js.Value, args []js.Value) any {
		done <- result{err: errors.New(args[0].Call("toString").String())}
		return nil
	})
	defer then.Release()
	defer failed.Release()
	promise.Call("then", then, failed)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.value
}
