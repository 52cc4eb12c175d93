package quantize

import (
	"fmt"
	"math"
	"strings"

	"github.com/x448/float16"

	"github.com/pmp-seg/pmp/weights"
)

const (
	// leastInt8 is the number of elements from which on a tensor is worth
	// int8. Everything smaller together is a few kilobytes.
	leastInt8 = 1024
	// mostFloat32 is the number of elements up to which a tensor stays
	// float32: temperatures and such, which may be exponents.
	mostFloat32 = 8
	// largestHalf is the largest finite float16.
	largestHalf = 65504
	// smallestHalf is the smallest positive float16.
	smallestHalf = 1.0 / (1 << 24)
)

// Precision is the type in which a tensor is stored.
//
// Matrices and the weights of convolutions become int8 with one scale for
// each output channel. The rest stays float16: biases and norms are small
// and enter every sum, while positions and the decoder's queries are added to
// activations as they are, and have no sum in which errors average out. What names
// are compared with stays, too.
func Precision(t Tensor) weights.DType {
	switch n := len(t.Data); {
	case n <= mostFloat32 || largest(t.Data) > largestHalf:
		return weights.F32
	case len(t.Shape) < 2 || n < leastInt8:
		return weights.F16
	case strings.Contains(t.Name, "position") || strings.HasPrefix(t.Name, "decoder.query_") || strings.HasPrefix(t.Name, "labels."):
		return weights.F16
	}
	return weights.I8
}

func largest(data []float32) float32 {
	var most float32
	for _, x := range data {
		most = max(most, x, -x)
	}
	return most
}

// encode returns a tensor of a type as entries of a shard: itself, and its scales
// if it is stored as int8.
func encode(t Tensor, d weights.DType) ([]weights.Entry, error) {
	n := numbers(t.Shape)
	if n != len(t.Data) || n == 0 {
		return nil, fmt.Errorf("tensor %q has %d numbers, which is not what its shape %v asks for", t.Name, len(t.Data), t.Shape)
	}
	for _, x := range t.Data {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return nil, fmt.Errorf("tensor %q has a number that is not finite; the training went wrong", t.Name)
		}
	}
	e := weights.Entry{Name: t.Name, Shape: t.Shape, DType: d}
	switch e.DType {
	case weights.F32:
		for _, x := range t.Data {
			b := math.Float32bits(x)
			e.Data = append(e.Data, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
		}
	case weights.F16:
		for _, x := range t.Data {
			e.Data = appendHalf(e.Data, float16.Fromfloat32(x))
		}
	case weights.I8:
		s := weights.Entry{Name: t.Name + weights.ScaleSuffix, Shape: t.Shape[:1], DType: weights.F16}
		width := n / t.Shape[0]
		for i := range t.Shape[0] {
			row := t.Data[i*width : (i+1)*width]
			scale := scaleFor(row)
			s.Data = appendHalf(s.Data, scale)
			e.Data = appendInt8(e.Data, row, scale.Float32())
		}
		if inPanels(t) {
			e.Data, e.Shape = panels(e.Data, width), []int{t.Shape[0] / weights.PanelRows, width / weights.PanelQuad, weights.PanelRows, weights.PanelQuad}
		}
		return []weights.Entry{e, s}, nil
	}
	return []weights.Entry{e}, nil
}

// inPanels tells whether a tensor is a matrix that kernels multiply with, by
// its name and shape: those are packed here, once, and never again.
func inPanels(t Tensor) bool {
	if !strings.HasSuffix(t.Name, ".weight") || t.Shape[0]%weights.PanelRows != 0 || t.Shape[1]%weights.PanelQuad != 0 {
		return false
	}
	for _, n := range t.Shape[2:] {
		if n != 1 {
			return false
		}
	}
	return true
}

// panels brings a matrix from rows to panels.
func panels(rows []byte, width int) []byte {
	out := make([]byte, len(rows))
	for i, x := range rows {
		out[weights.InPanels(width, i/width, i%width)] = x
	}
	return out
}

// scaleFor returns the smallest float16 with which no number of the row is
// beyond ±127.
func scaleFor(row []float32) float16.Float16 {
	most := largest(row)
	if most == 0 {
		return 0
	}
	scale := float16.Fromfloat32(max(most/127, smallestHalf))
	if scale.Float32()*127 < most {
		scale++ // the next larger one
	}
	return scale
}

func appendInt8(dst []byte, row []float32, scale float32) []byte {
	for _, x := range row {
		q := 0.0
		if scale > 0 {
			q = math.RoundToEven(float64(x) / float64(scale))
		}
		dst = append(dst, byte(int8(max(-127, min(127, q)))))
	}
	return dst
}

func appendHalf(dst []byte, h float16.Float16) []byte {
	return append(dst, byte(h), byte(h>>8))
}
