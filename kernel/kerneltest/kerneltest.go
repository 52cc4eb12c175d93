// Package kerneltest is one suite for any kernel.Device. Every op is run with
// the same random operands on the device and on kernel/scalar; results must
// agree within a tolerance, operands that are only read must stay as they
// were, and so must guard words round every operand.
package kerneltest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

const (
	// guardWords lie before and after each operand. They are NaNs, so that
	// reading them spoils the result as well; their number is odd, so that
	// operands are aligned to 4 bytes only, which views may be.
	guardWords = 5
	guardWord  = 0x7fc0beef
	guardBytes = 4 * guardWords
)

// tolerance allows a difference of abs + rel·|want|.
type tolerance struct{ abs, rel float64 }

const (
	// epsilon is the distance of float32s between 1 and 2. Operands lie
	// between -1 and 1, so each addition may err by about half of it; a
	// device that adds in another order, or fuses, errs differently.
	epsilon = 1.0 / (1 << 23)
	// expError and erfError are what a device's exp (relative) and erf
	// (absolute) may be off, see kernel.Act.
	expError = 1e-6
	erfError = 2e-7
)

// exact is for what only moves numbers.
var exact = tolerance{}

// sumOf is for sums of n products of numbers up to 1.
func sumOf(n int) tolerance { return tolerance{abs: float64(n+2) * epsilon, rel: 2 * epsilon} }

// halfEpsilon is what rounding an operand between -1 and 1 to 16 bits may
// change: they keep 11 bits.
const halfEpsilon = 1.0 / (1 << 11)

// An Option changes what Run asks of devices.
type Option func(s *suite)

// Half is for devices that round operands of matrix products to 16 bits, but
// not their sums.
func Half(s *suite) { s.half = true }

// product is sumOf for products of matrices, and for devices that round both
// operands to 16 bits. Roundings have nothing to do with each other, so they
// grow as the root of n does: four deviations of products below 1.
func (s *suite) product(n int) tolerance {
	t := sumOf(n)
	if s.half {
		t.abs += 4 * halfEpsilon * math.Sqrt(float64(n))
	}
	return t
}

// after widens t by what an activation adds to it.
func (t tolerance) after(act kernel.Act, largest float64) tolerance {
	switch act {
	case kernel.ActGelu:
		// The slope of gelu is at most 1.13.
		return tolerance{1.13*t.abs + largest*erfError, 2*t.rel + 2*epsilon}
	case kernel.ActQuickGelu:
		return tolerance{1.13*t.abs + largest*expError, 2*t.rel + 2*epsilon}
	case kernel.ActSigmoid:
		return tolerance{t.abs/4 + expError, t.rel}
	case kernel.ActExp:
		return tolerance{t.abs, t.abs + t.rel*largest + expError}
	}
	return t
}

func (t tolerance) allows(got, want float32) bool {
	if got == want || math.IsNaN(float64(got)) && math.IsNaN(float64(want)) {
		return true
	}
	return math.Abs(float64(got)-float64(want)) <= t.abs+t.rel*math.Abs(float64(want))
}

// Run tests devices made by open.
func Run(t *testing.T, open func() kernel.Device, options ...Option) {
	s := &suite{open: open}
	for _, o := range options {
		o(s)
	}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"MatMul", matMul}, {"Conv", conv}, {"Depthwise", depthwise}, {"UpsampleAdd", upsampleAdd},
		{"LayerNorm", layerNorm}, {"L2Norm", l2Norm}, {"L1Norm", l1Norm}, {"Add", add}, {"AddPosition", addPosition},
		{"Attention", attention}, {"Pack", pack}, {"Activate", activate}, {"Classify", classify},
		{"Picture", picture}, {"Paint", paint}, {"ConvBytes", convBytes}, {"DepthwiseBytes", depthwiseBytes}, {"Quantize", quantize}, {"MatMul8", matMul8},
		{"Depthwise8", depthwise8}, {"Residual8", residual8},
		{"Columns8", columns8}, {"Maps", maps}, {"Peaks", peaks}, {"Tidy", tidy}, {"Colour", colour},
		{"Smooth", smooth}, {"Guide", guide}, {"Guided", guided}, {"PaintGuided", paintGuided},
		{"Gather", gather}, {"GroupNorm", groupNorm}, {"Deformable", deformable}, {"WindowAttention", windowAttention},
		{"Constants", constants}, {"Stages", stages}, {"Fetches", fetches}, {"Lifetime", lifetime}, {"Memory", memory},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.T = t
			s.device = open()
			defer s.device.Close()
			test.run(s)
		})
	}
}

type suite struct {
	*testing.T
	open   func() kernel.Device
	device kernel.Device // a fresh one for each test
	half   bool          // see Half
}

// trial is one program with a single stage over guarded operands.
type trial struct {
	*suite
	name     string
	random   *rand.Rand
	program  *kernel.Program
	operands []operand
}

type operand struct {
	view    kernel.View // of the whole buffer, guards included
	content []byte      // before the run
	role    role
}

type role int

const (
	input       role = iota // must not change
	output                  // float32s that must agree
	outputBytes             // bytes that must agree
)

// try runs the ops that build gives and compares the operands afterwards.
func (s *suite) try(name string, tol tolerance, build func(t *trial) []kernel.Op) {
	s.Helper()
	t := &trial{suite: s, name: name, random: rand.New(rand.NewPCG(1, uint64(len(name)))), program: new(kernel.Program)}
	t.program.Stage()
	for _, op := range build(t) {
		t.program.Do(op)
	}
	t.program.Plan()
	reference := scalar.New()
	defer reference.Close()
	want := t.run(reference)
	got := t.run(s.device)
	for i, o := range t.operands {
		t.compare(i, o, got[i], want[i], tol)
	}
}

// run writes the operands, runs the program and reads them back.
func (t *trial) run(d kernel.Device) [][]byte {
	t.Helper()
	session, err := d.Open(t.program)
	if err != nil {
		t.Fatalf("%s: Open: %v", t.name, err)
	}
	defer session.Close()
	for _, o := range t.operands {
		if err := session.Write(o.view, o.content); err != nil {
			t.Fatalf("%s: Write: %v", t.name, err)
		}
	}
	if err := session.Run(0); err != nil {
		t.Fatalf("%s: Run on %s: %v", t.name, d.Name(), err)
	}
	var after [][]byte
	for _, o := range t.operands {
		b := make([]byte, len(o.content))
		if err := session.Read(o.view, b); err != nil {
			t.Fatalf("%s: Read: %v", t.name, err)
		}
		after = append(after, b)
	}
	return after
}

func (t *trial) compare(i int, o operand, got, want []byte, tol tolerance) {
	t.Helper()
	end := len(got) - guardBytes
	for j := range got {
		if (j < guardBytes || j >= end || o.role == input) && got[j] != o.content[j] {
			t.Errorf("%s: operand %d of %d bytes: byte %d was overwritten", t.name, i, end-guardBytes, j-guardBytes)
			return
		}
	}
	switch o.role {
	case output:
		for j := guardBytes; j < end; j += 4 {
			g := math.Float32frombits(binary.LittleEndian.Uint32(got[j:]))
			w := math.Float32frombits(binary.LittleEndian.Uint32(want[j:]))
			if !tol.allows(g, w) {
				t.Errorf("%s: operand %d [%d]: got %v, want %v ± %.2g", t.name, i, (j-guardBytes)/4, g, w,
					tol.abs+tol.rel*math.Abs(float64(w)))
				return
			}
		}
	case outputBytes:
		for j := guardBytes; j < end; j++ {
			if !tol.allows(float32(got[j]), float32(want[j])) {
				t.Errorf("%s: operand %d byte %d: got %d, want %d", t.name, i, j-guardBytes, got[j], want[j])
				return
			}
		}
	}
}

// operand adds a buffer that holds content between its guards.
func (t *trial) operand(r role, content []byte) kernel.View {
	b := guard(nil)
	b = append(b, content...)
	b = guard(b)
	o := operand{view: t.program.Input(len(b)), content: b, role: r}
	t.operands = append(t.operands, o)
	return o.view.At(guardWords)
}

func guard(b []byte) []byte {
	for range guardWords {
		b = binary.LittleEndian.AppendUint32(b, guardWord)
	}
	return b
}

// in is an operand of n random numbers between -1 and 1.
func (t *trial) in(n int) kernel.View { return t.floats(t.numbers(n)) }

// inOut is one that the op may change.
func (t *trial) inOut(n int) kernel.View { return t.operand(output, encode(t.numbers(n))) }

// floats is an operand with the given numbers.
func (t *trial) floats(f []float32) kernel.View { return t.operand(input, encode(f)) }

// ints is an operand of int32s.
func (t *trial) ints(n ...int) kernel.View {
	var b []byte
	for _, x := range n {
		b = binary.LittleEndian.AppendUint32(b, uint32(int32(x)))
	}
	return t.operand(input, b)
}

// out is an operand of n float32s that the op fills; until then they are NaN.
func (t *trial) out(n int) kernel.View { return t.operand(output, unset(4*n)) }

// outBytes is out for n bytes.
func (t *trial) outBytes(n int) kernel.View { return t.operand(outputBytes, unset(n)) }

// packed is an operand with a random matrix of K rows and N columns in panels.
func (t *trial) packed(k, n int) kernel.View {
	numbers := t.numbers(k * n)
	dst := make([]float32, kernel.PackedLen(k, n))
	kernel.PackInto(dst, k, n, func(k, col int) float32 { return numbers[k*n+col] })
	return t.floats(dst)
}

// numbers are random, between -1 and 1.
func (t *trial) numbers(n int) []float32 {
	f := make([]float32, n)
	for i := range f {
		f[i] = 2*t.random.Float32() - 1
	}
	return f
}

func unset(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff // a NaN, whatever the alignment
	}
	return b
}

func encode(f []float32) []byte {
	b := make([]byte, 0, 4*len(f))
	for _, x := range f {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func decode(b []byte) []float32 {
	f := make([]float32, len(b)/4)
	for i := range f {
		f[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return f
}

// one is a program's only op.
func one(op kernel.Op) []kernel.Op { return []kernel.Op{op} }

// shape names a trial.
func shape(numbers ...any) string { return fmt.Sprint(numbers...) }

// acts are all activations.
var acts = []kernel.Act{kernel.ActNone, kernel.ActReLU, kernel.ActReLU6, kernel.ActGelu, kernel.ActSigmoid, kernel.ActExp, kernel.ActQuickGelu}
