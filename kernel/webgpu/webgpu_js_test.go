package webgpu

import (
	"errors"
	"os"
	"strings"
	"syscall/js"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/kerneltest"
)

// The page asks for variants by words in PMP_VARIANT: "nodot" does without
// the language's product of bytes, "nosubgroups" without subgroups, "half" rounds to 16 bits, "tune" takes its time, "aligned" shifts arenas so that the
// suite's operands lie at multiples of 16 bytes, as a model's do.
func variant(word string) bool { return strings.Contains(os.Getenv("PMP_VARIANT"), word) }

// needWebGPU leaves tests out where there is no WebGPU, unless the page says
// that there must be.
func needWebGPU(t *testing.T) {
	if !variant("webgpu") {
		t.Skip("run by internal/browsertest, in a browser that has WebGPU")
	}
}

// asked are the options with what the variant asks for.
func asked(o Options) Options {
	o.NoDot = o.NoDot || variant("nodot")
	o.Half = o.Half || variant("half")
	o.NoSubgroups = o.NoSubgroups || variant("nosubgroups")
	return o
}

func open(t *testing.T, o Options) *Device {
	t.Helper()
	o = asked(o)
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if d.card.dot == o.NoDot || (d.card.shuffled > 0) == o.NoSubgroups || d.card.half != o.Half {
		t.Fatalf("takes %+v of %+v", d.card, o)
	}
	if variant("aligned") {
		// Operands of the suite start 5 words into a buffer.
		d.shift = 3
	}
	return d
}

func TestDevice(t *testing.T) {
	needWebGPU(t)
	var options []kerneltest.Option
	if variant("half") {
		options = append(options, kerneltest.Half)
	}
	kerneltest.Run(t, func() kernel.Device { return open(t, Options{}) }, options...)
}

// program copies four numbers.
func program() (p *kernel.Program, in, out kernel.View) {
	p = new(kernel.Program)
	p.Stage()
	in, out = p.Input(16), p.Keep(4)
	p.Do(kernel.Activate{Dst: out, A: in, N: 4})
	p.Plan()
	return p, in, out
}

func TestLost(t *testing.T) {
	needWebGPU(t)
	d := open(t, Options{})
	p, _, out := program()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(0); err != nil {
		t.Fatal(err)
	}
	d.gpu.Call("destroy")
	data := make([]byte, 16)
	if err := s.Read(out, data); !errors.Is(err, ErrLost) {
		t.Errorf("Read: got %v", err)
	}
	if err := s.Run(0); !errors.Is(err, ErrLost) {
		t.Errorf("Run: got %v", err)
	}
	if _, err := d.Open(p); !errors.Is(err, ErrLost) {
		t.Errorf("Open: got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	again := open(t, Options{})
	defer again.Close()
	if s, err = again.Open(p); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Run(0), s.Read(out, data)); err != nil {
		t.Error(err)
	}
}

// TestSmallCard has a card with the least that WebGPU guarantees.
func TestSmallCard(t *testing.T) {
	needWebGPU(t)
	d := open(t, Options{Limits: map[string]int{"maxBufferSize": 1 << 28, "maxStorageBufferBindingSize": 1 << 27}})
	defer d.Close()
	// numbers are made 0 where they are below.
	program := func(n int) (*kernel.Program, kernel.View) {
		p := new(kernel.Program)
		p.Stage()
		a := p.Input(4 * n)
		p.Do(kernel.Activate{Dst: a, A: a, N: n, Act: kernel.ActReLU})
		p.Plan()
		return p, a
	}
	const most = 1<<25 - 64 // with room for the suite's shift
	if p, _ := program(most + 128); true {
		if _, err := d.Open(p); !errors.Is(err, kernel.ErrMemory) {
			t.Errorf("beyond the limit: got %v", err)
		}
	}
	// More groups than one dimension of a dispatch takes.
	p, a := program(most)
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, most / 2, most - 4} {
		got := []float32{-1, 2, -3, 4}
		if err := errors.Join(s.Write(a.At(at), kernel.Bytes(got)), s.Run(0), s.Read(a.At(at), kernel.Bytes(got))); err != nil {
			t.Fatal(err)
		}
		if got[0] != 0 || got[1] != 2 || got[2] != 0 || got[3] != 4 {
			t.Errorf("at %d: got %v", at, got)
		}
	}
}

// TestNoMemory has a card whose memory is full.
func TestNoMemory(t *testing.T) {
	needWebGPU(t)
	d := open(t, Options{})
	defer d.Close()
	p, _, out := program()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	full := js.FuncOf(func(js.Value, []js.Value) any {
		return js.Global().Get("Promise").Call("resolve", map[string]any{"message": "full"})
	})
	defer full.Release()
	d.gpu.Set("popErrorScope", full)
	if _, err := d.Open(p); !errors.Is(err, kernel.ErrMemory) {
		t.Errorf("Open: got %v", err)
	}
	d.gpu.Delete("popErrorScope")
	again, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 16)
	for _, s := range []kernel.Session{s, again} {
		if err := errors.Join(s.Run(0), s.Read(out, data)); err != nil {
			t.Error(err)
		}
	}
}

// TestWriteTail writes what does not end at a word.
func TestWriteTail(t *testing.T) {
	needWebGPU(t)
	d := open(t, Options{})
	defer d.Close()
	p, in, out := program()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	if err := errors.Join(s.Write(in, []byte("0123456789abcdef")), s.Write(in, []byte("vwxyz")), s.Run(0), s.Read(out, got)); err != nil {
		t.Fatal(err)
	}
	if string(got) != "vwxyz56789abcdef" {
		t.Errorf("got %q", got)
	}
}

func TestNoAdapter(t *testing.T) {
	if variant("webgpu") {
		t.Skip("there is WebGPU")
	}
	if _, err := New(Options{}); !errors.Is(err, ErrNoAdapter) && !errors.Is(err, ErrNoWebGPU) {
		t.Errorf("got %v", err)
	}
}

func TestProfile(t *testing.T) {
	needWebGPU(t)
	p, _, _ := program()
	d := open(t, Options{Timestamps: true})
	defer d.Close()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.(*Session).Profile(0)
	if errors.Is(err, ErrNoTimestamps) {
		t.Skip(err)
	}
	if err != nil || len(got) != 1 || got[0].Time < 0 || got[0].Groups != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	plain := open(t, Options{})
	defer plain.Close()
	if s, err = plain.Open(p); err != nil {
		t.Fatal(err)
	}
	if _, err := s.(*Session).Profile(0); !errors.Is(err, ErrNoTimestamps) {
		t.Errorf("without timestamps: got %v", err)
	}
}

// TestDraw compares pictures that go to the card as they are with their pixels.
func TestDraw(t *testing.T) {
	needWebGPU(t)
	const width, height = 37, 19
	canvas := js.Global().Get("OffscreenCanvas").New(width, height)
	context := canvas.Call("getContext", "2d")
	for i, color := range []string{"rgb(250 3 77)", "rgb(1 128 254)", "rgb(20 200 90 / 0.5)", "rgb(0 0 0)"} {
		context.Set("fillStyle", color)
		context.Call("fillRect", 9*i, i, 9, height-2*i) // the rest stays transparent
	}
	pixels := make([]byte, 4*width*height)
	image := js.Global().Get("Uint8Array").New(context.Call("getImageData", 0, 0, width, height).Get("data").Get("buffer"))
	js.CopyBytesToGo(pixels, image)

	p := new(kernel.Program)
	p.Stage()
	in, out := p.Input(4*width*height+16), p.Keep(width*height+1)
	p.Do(kernel.Activate{Dst: out, A: in.At(1), N: width*height + 1})
	p.Plan()
	d := open(t, Options{})
	defer d.Close()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"canvas", "bitmap"} {
		source := canvas
		if name == "bitmap" {
			source = canvas.Call("transferToImageBitmap")
		}
		got := make([]byte, 4*width*height+4)
		if err := errors.Join(s.(*Session).Draw(in.At(1), source, width, height), s.Run(0), s.Read(out, got)); err != nil {
			t.Fatal(err)
		}
		for i := range pixels {
			alpha := int(pixels[i|3])
			want := (int(pixels[i])*alpha + 255*(255-alpha)) / 255
			if i%4 == 3 {
				want = 255
			}
			// Canvases keep colours times alpha, which costs precision.
			if off := int(got[i]) - want; off < -2 || off > 2 || alpha == 255 && off != 0 {
				t.Fatalf("%s: byte %d is %d, want %d", name, i, got[i], want)
			}
		}
		if behind := string(got[4*width*height:]); behind != "\x00\x00\x00\x00" {
			t.Errorf("%s: the word behind the picture is %q", name, behind)
		}
	}
	if err := s.(*Session).Draw(in.At(1), js.Global().Get("Object").New(), width, height); !errors.Is(err, ErrTexture) {
		t.Errorf("what is no picture: got %v", err)
	}
}

func TestSoftware(t *testing.T) {
	needWebGPU(t)
	d := open(t, Options{})
	defer d.Close()
	if swiftshader := strings.Contains(d.Name(), "swiftshader"); d.Software() != swiftshader {
		t.Errorf("%s: Software is %v", d.Name(), d.Software())
	}
}

// TestManyConstants has more constants than a binding takes.
func TestManyConstants(t *testing.T) {
	needWebGPU(t)
	const layers, n = 40, 96
	var c kernel.Constants
	var a, b [layers]kernel.Const
	for i := range layers {
		fill := func(x float32) func(dst []float32) {
			return func(dst []float32) {
				for j := range dst {
					dst[j] = x + float32(j)
				}
			}
		}
		a[i], b[i] = c.Add(n, fill(float32(100*i))), c.Add(n, fill(0.5))
	}
	p := new(kernel.Program)
	p.Stage()
	out := p.Keep(layers * n)
	for i := range layers {
		p.Do(kernel.Add{Dst: out.At(i * n), A: p.Const(a[i]), B: p.Const(b[i]), M: 1, N: n, MB: 1})
	}
	p.Plan()
	d := open(t, Options{})
	defer d.Close()
	d.maxBinding = 1 << 14 // the arena fits, the constants do not
	if c.Size() <= d.maxBinding || p.ArenaSize() > d.maxBinding {
		t.Fatal("this tests nothing")
	}
	if err := d.Load(&c); err != nil {
		t.Fatal(err)
	}
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, layers*n)
	if err := errors.Join(s.Run(0), s.Read(out, kernel.Bytes(got))); err != nil {
		t.Fatal(err)
	}
	for i, x := range got {
		if want := float32(100*(i/n)) + 2*float32(i%n) + 0.5; x != want {
			t.Fatalf("layer %d, number %d: got %v, want %v", i/n, i%n, x, want)
		}
	}
}

// TestCounts counts an inverted residual, whose wide maps are read and written, too.
func TestCounts(t *testing.T) {
	needWebGPU(t)
	const side, c, in, out = 8, 32, 16, 24
	p := new(kernel.Program)
	p.Stage()
	expand, depthwise, project := kernel.MatMul8Len(in, c), kernel.Depthwise8Len(3, c), kernel.MatMul8Len(c, out)
	p.Do(kernel.Residual8{Dst: p.Keep(side * side * out), A: p.Input(4 * side * side * in), Expand: p.Input(4 * expand),
		Depthwise: p.Input(4 * depthwise), Project: p.Input(4 * project),
		H: side, W: side, HI: side, WI: side, C: c, Size: 3, Stride: 1, Pad: 1, In: in, Out: out})
	p.Plan()
	d := open(t, Options{})
	defer d.Close()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	const scratch = side * side * (in + 8 + c + c)
	want := Counts{Dispatches: 4, Pipelines: 4, Read: scratch + 4*int64(side*side*in+expand+depthwise+project), Written: scratch + 4*side*side*out}
	if got := s.(*Session).Counts(0); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRunAllocates runs a stage of one dispatch and one of many, which take as
// much of Go's memory.
func TestRunAllocates(t *testing.T) {
	needWebGPU(t)
	p := new(kernel.Program)
	a, b := p.Keep(16), p.Keep(16)
	for _, ops := range []int{1, 200} {
		p.Stage()
		for range ops {
			p.Do(kernel.Add{Dst: a, A: a, B: b, M: 1, N: 16, MB: 1})
			a, b = b, a
		}
	}
	p.Plan()
	d := open(t, Options{})
	defer d.Close()
	s, err := d.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	allocations := func(stage int) float64 {
		return testing.AllocsPerRun(20, func() {
			if err := errors.Join(s.Run(stage), s.Wait()); err != nil {
				t.Fatal(err)
			}
		})
	}
	allocations(1)
	if few, many := allocations(0), allocations(1); many > few+2 {
		t.Errorf("200 dispatches take %v allocations, one takes %v", many, few)
	}
}
