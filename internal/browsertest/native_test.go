package browsertest

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/model/mask"
	"github.com/pmp-seg/pmp/weights"
)

// scoreTolerance is how far a browser's score may lie from the command line's: decoders of JPEG
// differ by a few grey values, and the SIMD kernels add in another order than pure Go.
const scoreTolerance = 0.03

// answered is what the suite sends of a segmented photo.
type answered struct {
	Photo     string
	Base      string  // a public checkpoint's network, if it was not the shipped one
	Threshold float32 // of the masks, if it was not the model's own
	Tolerance float64 // the least intersection over union
	Report    json.RawMessage
	Masks     []struct {
		Text    string
		Score   float64
		Present bool
		Area    int
		BBox    [4]int
		RLE     struct {
			Size   [2]int
			Counts string
		}
	}
}

// checkData compares a photo's masks from the browser with those of the same model run here.
func checkData(t *testing.T, s *testServer, data []byte) {
	var a answered
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	if a.Photo == "" {
		t.Logf("%s", data)
		return
	}
	if len(a.Report) > 0 {
		t.Logf("%s", a.Report)
	}
	var prompts []string
	for _, m := range a.Masks {
		prompts = append(prompts, m.Text)
	}
	asking.Lock()
	defer asking.Unlock()
	picture, result := native(t, a.Base, filepath.Join(s.site, "examples", a.Photo), prompts, model.Options{Threshold: a.Threshold})
	defer picture.Close()
	pixels := make([]byte, picture.Width*picture.Height)
	for i, m := range a.Masks {
		want := result.Prompts[i]
		if err := result.Mask(i, pixels); err != nil {
			t.Fatal(err)
		}
		if m.RLE.Size != [2]int{picture.Height, picture.Width} {
			t.Fatalf("%s: size %v, want %d×%d", m.Text, m.RLE.Size, picture.Height, picture.Width)
		}
		got, err := mask.FromRLE(m.RLE.Counts, picture.Width, picture.Height)
		if err != nil {
			t.Fatal(err)
		}
		iou := overlap(got, pixels)
		t.Logf("%-12s score %.4f here %.4f, area %d here %d, IoU %.5f", m.Text, m.Score, want.Score, m.Area, mask.Area(pixels), iou)
		if math.Abs(m.Score-float64(want.Score)) > scoreTolerance {
			t.Errorf("%s: score %.4f in the browser, %.4f here", m.Text, m.Score, want.Score)
		}
		if m.Present != want.Present {
			t.Errorf("%s: present is %v in the browser, %v here", m.Text, m.Present, want.Present)
		}
		if iou < a.Tolerance {
			t.Errorf("%s: IoU with the command line's mask is %.5f, want at least %.3f", m.Text, iou, a.Tolerance)
		}
		if m.Area != mask.Area(got) || m.BBox != box(mask.BBox(got, picture.Width, picture.Height)) {
			t.Errorf("%s: area %d and box %v are not the mask's", m.Text, m.Area, m.BBox)
		}
		if counts := mask.RLE(got, picture.Width, picture.Height); counts != m.RLE.Counts {
			t.Errorf("%s: Go writes the same mask's run lengths differently", m.Text)
		}
	}
}

func box(b mask.Box) [4]int { return [4]int{b.X, b.Y, b.W, b.H} }

// overlap is intersection over union; two empty masks are the same.
func overlap(a, b []byte) float64 {
	both, any := 0, 0
	for i := range a {
		both += int(a[i] & b[i])
		any += int(a[i] | b[i])
	}
	if any == 0 {
		return 1
	}
	return float64(both) / float64(any)
}

// asking is held by the one test that asks the command line's engine.
var asking sync.Mutex

var loadNative = sync.OnceValues(func() (*model.Model, error) {
	m, err := weights.Load(func(name string) ([]byte, error) {
		return os.ReadFile(filepath.Join(root, "weights/default", name))
	})
	if err != nil {
		return nil, err
	}
	return engine.Options{Device: "auto"}.Open(m)
})

// native segments a photo with the command line's engine.
func native(t *testing.T, base, name string, prompts []string, o model.Options) (*model.Picture, *model.Result) {
	m, err := loadNative()
	if base != "" {
		var files *weights.Manifest
		if files, err = basesOf(t)[base].Open(); err == nil {
			m, err = engine.Options{Device: "auto"}.Open(files)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	img, err := photo.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.NewPicture(img.Rect.Dx(), img.Rect.Dy())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(img.Pix); err != nil {
		t.Fatal(err)
	}
	if err := p.Encode(); err != nil {
		t.Fatal(err)
	}
	r, err := p.Segment(prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, r
}
