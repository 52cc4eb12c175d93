package model

import (
	"math"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// runOne runs a program of one stage after writing its inputs.
func runOne(t *testing.T, p *kernel.Program, device kernel.Device, inputs map[kernel.View][]byte) kernel.Session {
	t.Helper()
	p.Plan()
	must(t, device.Load(&kernel.Constants{}))
	s, err := device.Open(p)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	for v, data := range inputs {
		must(t, s.Write(v, data))
	}
	must(t, s.Run(0))
	return s
}

// Pictures are resized as Pillow's BILINEAR does, with which the training
// data were made, up and down, and lie in a frame of zeros.
func TestResizeLikePillow(t *testing.T) {
	// Pillow computes this in float32 with weights in float64; values go to 255.
	const tolerance = 1e-4
	const width, height = 37, 23
	f := readFixture(t, "network.safetensors")
	pixels := testPixels("resize", width, height)
	for i, size := range [][2]int{{16, 10}, {50, 31}, {37, 5}, {1, 23}, {37, 23}} {
		w, h := size[0], size[1]
		wp, hp := w+3, h+2
		p := &kernel.Program{}
		p.Stage()
		in, out := p.Input(len(pixels)), p.Keep(wp*hp*rgbx)
		tapsY, tapsX := kernel.Taps(height, h), kernel.Taps(width, w)
		p.Do(kernel.Picture{Dst: out, Src: in, TapsY: p.Data(tapsY.Encode()), TapsX: p.Data(tapsX.Encode()),
			H: h, W: w, HP: hp, WP: wp, HI: height, WI: width, SizeY: tapsY.Size, SizeX: tapsX.Size})
		s := runOne(t, p, scalar.New(), map[kernel.View][]byte{in: pixels})
		got := make([]float32, wp*hp*rgbx)
		must(t, s.Read(out, kernel.Bytes(got)))
		want := f.floats(t, "resize/"+itoa(i))
		worst := 0.0
		for y := range hp {
			for x := range wp {
				for c := range rgbx {
					v := float32(0)
					if y < h && x < w && c < 3 {
						v = (want[(y*w+x)*3+c] - 127) / 128
					}
					worst = max(worst, math.Abs(float64(got[(y*wp+x)*rgbx+c]-v)))
				}
			}
		}
		if worst > tolerance {
			t.Errorf("%d×%d to %d×%d: off by %.2g", width, height, w, h, worst)
		}
	}
}

// The weights of every output sum to one and lie inside the input, also for
// sizes that make no sense.
func TestTaps(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {1, 512}, {2, 1}, {3, 512}, {20000, 512}, {20000, 1}, {511, 512}, {513, 512}, {1000, 7}} {
		in, out := size[0], size[1]
		for name, table := range map[string]kernel.TapTable{
			"resize": kernel.Taps(in, out),
			"paint":  kernel.PaintTaps(in, out, float64(4*in)/float64(out), 4),
		} {
			for i := range out {
				sum := 0.0
				for _, w := range table.Weights[i*table.Size : i*table.Size+int(table.Count[i])] {
					if w < 0 {
						t.Fatalf("%s %d to %d: output %d has a negative weight", name, in, out, i)
					}
					sum += float64(w)
				}
				if math.Abs(sum-1) > 1e-5 || table.First[i] < 0 || int(table.First[i]+table.Count[i]) > in ||
					table.Count[i] < 1 || int(table.Count[i]) > table.Size {
					t.Fatalf("%s %d to %d: output %d has weights of sum %v from %d on, %d of them",
						name, in, out, i, sum, table.First[i], table.Count[i])
				}
			}
		}
	}
}

// A map whose cells hold the coordinate of their centre, 4i+4, comes back
// as the coordinate of each pixel: painting puts nothing off its place, by
// half a pixel or at all.
func TestPaintPlacesCells(t *testing.T) {
	const tolerance = 1e-4 // of coordinates up to 64, in float32
	const cells, frame = 16, 57
	for _, pixels := range []int{frame, 200, 23} {
		table := kernel.PaintTaps(cells, pixels, float64(frame)/float64(pixels), 4)
		for i := range pixels {
			at := 0.0
			for j := range table.Count[i] {
				at += float64(table.Weights[2*i+int(j)]) * float64(4*(table.First[i]+j)+4)
			}
			want := (float64(i) + 0.5) * frame / float64(pixels)
			want = min(max(want, 4), 4*cells)
			if math.Abs(at-want) > tolerance {
				t.Errorf("pixel %d of %d is taken from %v, want %v", i, pixels, at, want)
			}
		}
	}
}

// Pictures keep their proportions; no side becomes empty.
func TestFit(t *testing.T) {
	for _, c := range []struct{ width, height, w, h int }{
		{512, 512, 512, 512}, {1024, 512, 512, 256}, {512, 1024, 256, 512}, {1, 1, 512, 512},
		{20000, 3, 512, 1}, {3, 20000, 1, 512}, {640, 480, 512, 384}, {100, 67, 512, 343},
	} {
		if w, h := fit(c.width, c.height, 512); w != c.w || h != c.h {
			t.Errorf("%d×%d is encoded as %d×%d, want %d×%d", c.width, c.height, w, h, c.w, c.h)
		}
	}
}
