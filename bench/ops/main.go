// Command ops lists the ops that one picture and one set of words run
// through, as JSON for the benchmark's profile: what each op is, how much
// arithmetic it is, and the matrix products in it.
//
//	go run ./bench/ops [-precision int8] [-side 512] [-phrases 20]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
)

// list is what is printed.
type list struct {
	RecordSize int  `json:"recordSize"`
	Encode     []op `json:"encode"`
	Segment    []op `json:"segment"`
}

type op struct {
	Kind  string  `json:"kind"`
	Shape string  `json:"shape"`
	Flops float64 `json:"flops"` // two for each multiplication with its addition
	Gemms []gemm  `json:"gemms"`
}

// gemm is a matrix product in an op.
type gemm struct {
	Shape [3]int `json:"shape"` // rows, columns and depth
	Int8  bool   `json:"int8"`  // of bytes
}

func main() {
	precision := flag.String("precision", "int8", "int8 or f32")
	side := flag.Int("side", 512, "of the square picture")
	phrases := flag.Int("phrases", 20, "at once")
	flag.Parse()
	l, err := record(*precision, *side, *phrases)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ops:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(l); err != nil {
		fmt.Fprintln(os.Stderr, "ops:", err)
		os.Exit(1)
	}
}

func record(precision string, side, phrases int) (*list, error) {
	p, ok := model.PrecisionOf(precision, "")
	if !ok {
		return nil, fmt.Errorf("there is no precision %q", precision)
	}
	m, err := weights.Load(shipped.FS.ReadFile)
	if err != nil {
		return nil, err
	}
	d := &device{}
	loaded, err := model.Load(m, d, p)
	if err != nil {
		return nil, err
	}
	picture, err := loaded.NewPicture(side, side)
	if err != nil {
		return nil, err
	}
	l := &list{RecordSize: kernel.RecordSize}
	if err := picture.Encode(); err != nil {
		return nil, err
	}
	l.Encode = ops(d.last, phrases)
	words := make([]string, phrases)
	for i := range words {
		words[i] = fmt.Sprint("thing ", i)
	}
	if _, err := picture.Segment(words, model.Options{}); err != nil {
		return nil, err
	}
	l.Segment = ops(d.last, phrases)
	return l, nil
}

// device runs nothing: it only remembers what it was last told to run.
type device struct{ last []kernel.Op }

func (d *device) Name() string                     { return "recorder" }
func (d *device) Load(*kernel.Constants) error     { return nil }
func (d *device) Close() error                     { return nil }
func (s *session) Write(kernel.View, []byte) error { return nil }
func (s *session) Fetch(kernel.View, []byte) error { return nil }
func (s *session) Wait() error                     { return nil }
func (s *session) Read(kernel.View, []byte) error  { return nil }
func (s *session) Close() error                    { return nil }

func (d *device) Open(p *kernel.Program) (kernel.Session, error) { return &session{d, p}, nil }

type session struct {
	device  *device
	program *kernel.Program
}

func (s *session) Run(stage int) error {
	s.device.last = s.program.Ops(stage)
	return nil
}

func ops(list []kernel.Op, phrases int) []op {
	var out []op
	for _, o := range list {
		out = append(out, describe(o, phrases))
	}
	return out
}

// describe says of an op what a reader of a profile wants to know. An op
// that it does not know has the name of its type and no arithmetic.
func describe(o kernel.Op, phrases int) op {
	d := op{Kind: reflect.TypeOf(o).Name()}
	switch o := o.(type) {
	case kernel.MatMul:
		d.product(o.M, o.N, o.K, false)
		d.Shape = fmt.Sprintf("%d×%d→%d", o.M, o.K, o.N)
	case kernel.MatMul8:
		d.product(o.M, o.N, o.K, true)
		d.Shape = fmt.Sprintf("%d×%d→%d", o.M, o.K, o.N)
	case kernel.Conv:
		d.Flops = flops(o.H*o.W, o.N, o.Size*o.Size*o.C)
		d.Shape = window(o.H, o.W, o.N, o.Size, o.Stride)
	case kernel.Depthwise:
		d.Flops = flops(o.H*o.W, o.C, o.Size*o.Size)
		d.Shape = window(o.H, o.W, o.C, o.Size, o.Stride)
	case kernel.Depthwise8:
		d.Flops = flops(o.H*o.W, o.C, o.Size*o.Size)
		d.Shape = window(o.H, o.W, o.C, o.Size, o.Stride)
	case kernel.Residual8:
		d.Flops = flops(o.H*o.W, o.C, o.Size*o.Size)
		if o.Expand.Valid() {
			d.product(o.HI*o.WI, o.C, o.In, true)
		}
		d.product(o.H*o.W, o.Out, o.C, true)
		d.Shape = fmt.Sprintf("%d→ %s →%d", o.In, window(o.H, o.W, o.C, o.Size, o.Stride), o.Out)
	case kernel.Attention:
		d.Flops = flops(o.NQ, o.NK, 2*o.D)
		d.Shape = fmt.Sprintf("%d queries, %d keys", o.NQ, o.NK)
	case kernel.Maps:
		t := min(o.T, phrases)
		d.product(o.Q, o.N, o.K, o.Rows.Valid())
		d.product(t, o.N, o.Q, false)
		d.Shape = fmt.Sprintf("%d×%d→%d, %d maps", o.Q, o.K, o.N, t)
	}
	return d
}

// product counts a matrix product of m rows, n columns and depth k.
func (o *op) product(m, n, k int, int8 bool) {
	o.Gemms = append(o.Gemms, gemm{[3]int{m, n, k}, int8})
	o.Flops += flops(m, n, k)
}

func flops(m, n, k int) float64 { return 2 * float64(m) * float64(n) * float64(k) }

func window(h, w, c, size, stride int) string {
	return fmt.Sprintf("%d×%d×%d, %d×%d s%d", h, w, c, size, size, stride)
}
