package model

import (
	"image"
	"image/draw"
	_ "image/jpeg"
	"math"
	"os"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
)

// panelled is a source whose matrices are int8 already, in panels.
type panelled struct{ random }

func (p panelled) Int8(name string) (Int8Matrix, bool) {
	shape := p.shapes[name]
	rows, width := shape[0], shape[1]
	l := &loader{source: p.random}
	m := l.int8Matrix(name, rows, width)
	values := make([]byte, len(m.Values))
	for i, x := range m.Values {
		values[weights.InPanels(width, i/width, i%width)] = x
	}
	return Int8Matrix{values, m.Scale, true}, true
}

// A layer in integers is the layer in real numbers up to the rounding of its
// weights and of each row of its input, whatever the order in which its
// weights are stored.
func TestInt8Layer(t *testing.T) {
	const rows, in, out = 9, 40, 24
	source := newRandom()
	x := make([]float32, rows*in)
	s := newStream("x")
	for i := range x {
		x[i] = float32(s.at(i)>>40)/(1<<24)*7 - 2
	}
	weight, bias := make([]float32, out*in), make([]float32, out)
	must(t, source.Check("layer.weight", out, in))
	must(t, source.Check("layer.bias", out))
	source.Read("layer.weight", weight)
	source.Read("layer.bias", bias)
	for _, test := range []struct {
		name   string
		source Source
	}{{"rows", source}, {"panels", panelled{source}}} {
		device := scalar.New()
		constants := &kernel.Constants{}
		l := &loader{source: test.source, constants: constants}
		layer := l.linear("layer", in, out)
		must(t, l.err)
		must(t, device.Load(constants))
		p := &kernel.Program{}
		p.Stage()
		dst := p.Keep(rows * out)
		newGraph(p).linearTo(dst, p.Floats(x), rows, layer, kernel.ActNone, kernel.View{})
		p.Plan()
		session, err := device.Open(p)
		must(t, err)
		must(t, session.Run(0))
		got := make([]float32, rows*out)
		must(t, session.Read(dst, kernel.Bytes(got)))
		for i, y := range got {
			a, w := x[i/out*in:][:in], weight[i%out*in:][:in]
			want := float64(bias[i%out])
			low, high, largest, absA, absW := float64(a[0]), float64(a[0]), 0.0, 0.0, 0.0
			for k := range a {
				want += float64(a[k]) * float64(w[k])
				low, high = min(low, float64(a[k])), max(high, float64(a[k]))
				largest = max(largest, math.Abs(float64(w[k])))
				absA += math.Abs(float64(a[k]))
				absW += math.Abs(float64(w[k]))
			}
			// Half a step of each input times its weight, half a step of each
			// weight times its input, and a little for both at once.
			bound := 1.01*((high-low)/254*absW+largest/254*absA) + in*(high-low)/254*largest/254
			if d := math.Abs(float64(y) - want); !(d <= bound) {
				t.Fatalf("%s: number %d is %v, want %v ± %.2g", test.name, i, y, want, bound)
			}
		}
	}
}

// On a photo the integers' answer is the float32s' but for a little.
func TestInt8Network(t *testing.T) {
	const (
		scoreError = 0.1  // of presence, between 0 and 1
		mapError   = 0.02 // mean difference of a map, whose values lie between 0 and 1
	)
	photo := readPhoto(t, "../site/examples/cat.jpg")
	prompts := []string{"cat", "sofa, couch", "dog"}
	segment := func(device kernel.Device, precision Precision) *Result {
		w, err := weights.Load(shipped.FS.ReadFile)
		must(t, err)
		m, err := Load(w, device, precision)
		must(t, err)
		t.Cleanup(func() { m.Close() })
		p, err := m.NewPicture(photo.Rect.Dx(), photo.Rect.Dy())
		must(t, err)
		must(t, p.Write(photo.Pix))
		must(t, p.Encode())
		r, err := p.Segment(prompts, Options{})
		must(t, err)
		return r
	}
	want := segment(scalar.New(), Float32)
	for _, d := range devices {
		t.Run(d.name, func(t *testing.T) {
			device, err := d.open()
			must(t, err)
			got := segment(device, Int8)
			for i, a := range got.Prompts {
				b := want.Prompts[i]
				if math.Abs(float64(a.Score-b.Score)) > scoreError || a.Present != b.Present {
					t.Errorf("%s has score %v, want %v", a.Text, a.Score, b.Score)
				}
				x, _ := got.Map(i)
				y, _ := want.Map(i)
				var sum float64
				for j := range x {
					sum += math.Abs(float64(x[j] - y[j]))
				}
				if mean := sum / float64(len(x)); !(mean <= mapError) {
					t.Errorf("the map of %s is off by %.3f on average", a.Text, mean)
				} else {
					t.Logf("%-12s score %.4f, in float32 %.4f; its map is off by %.4f on average", a.Text, a.Score, b.Score, mean)
				}
			}
		})
	}
}

func readPhoto(t *testing.T, file string) *image.RGBA {
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	img, _, err := image.Decode(f)
	must(t, err)
	rgba := image.NewRGBA(img.Bounds())
	draw.Draw(rgba, rgba.Rect, img, img.Bounds().Min, draw.Src)
	return rgba
}
