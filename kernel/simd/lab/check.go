package main

import (
	"fmt"
	"math"
	"reflect"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// check compares what a layer writes with what the scalar device writes. It
// only guards against timing what is broken; kerneltest is the test.
func check(device kernel.Device, l layer) error {
	got, err := result(device, l)
	if err != nil {
		return err
	}
	want, err := result(scalar.New(), l)
	if err != nil {
		return err
	}
	largest := 0.0
	for _, x := range want {
		largest = max(largest, math.Abs(x))
	}
	wrong := 0
	for i := range want {
		if d := math.Abs(got[i] - want[i]); !(d <= largest/100) {
			wrong++
			// Of two maps that are as high as each other rounding says which is higher.
			if wrong > len(want)/100_000 {
				return fmt.Errorf("%s: [%d] is %v, not %v", l.name, i, got[i], want[i])
			}
		}
	}
	return nil
}

// result runs a layer and returns the first operand that it has, where it
// writes to.
func result(device kernel.Device, l layer) ([]float64, error) {
	p, op := l.program()
	s, err := device.Open(p)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Run(0); err != nil {
		return nil, err
	}
	fields := reflect.ValueOf(op)
	first := 0
	for !fields.Field(first).Interface().(kernel.View).Valid() {
		first++
	}
	dst := fields.Field(first).Interface().(kernel.View)
	b := make([]byte, p.Size(dst))
	if err := s.Read(dst, b); err != nil {
		return nil, err
	}
	bytes := false
	switch op.(type) {
	case kernel.Quantize, kernel.Depthwise8, kernel.Paint, kernel.Colour:
		bytes = true
	}
	if f := fields.FieldByName("Bytes"); f.IsValid() && f.Bool() {
		bytes = true
	}
	var numbers []float64
	if bytes {
		for _, x := range b {
			numbers = append(numbers, float64(x))
		}
		return numbers, nil
	}
	for _, x := range kernel.Floats(b) {
		numbers = append(numbers, float64(x))
	}
	return numbers, nil
}
