package model

import (
	"math"

	"github.com/pmp-seg/pmp/kernel"
)

// Precision is how the network's products with weights are computed.
type Precision uint8

// Int8 multiplies 7-bit activations with int8 weights. Float32 takes the same
// weights as float32s: slower, and what Int8 is measured against.
const (
	Int8 Precision = iota
	Float32
)

// PrecisionOf returns the precision of a name, "int8" or "f32". Without one it
// is what suits the network: those of public checkpoints were not made for
// integers, so only who asks for these gets them.
func PrecisionOf(name, arch string) (p Precision, ok bool) {
	if name == "" && arch == shippedArch {
		name = "int8"
	}
	switch name {
	case "int8":
		return Int8, true
	case "", "f32":
		return Float32, true
	}
	return 0, false
}

func (p Precision) String() string {
	if p == Int8 {
		return "int8"
	}
	return "f32"
}

// reluScale is the scale of bytes that stand for what ReLU6 leaves: 0..127
// are 0..6, exactly.
const reluScale = float32(6.0 / 127)

// format says what a layer reads and writes when it computes with integers.
type format struct {
	in, out float32 // factors of the weights
}

var (
	// fromRows reads rows that were quantized each in a scale of its own, and
	// writes float32s: linear outputs have no range that could be known before.
	fromRows = format{1, 1}
	// rowsToBytes ends in a ReLU6.
	rowsToBytes = format{1, 1 / reluScale}
	// fromBytes reads what a ReLU6 has left.
	fromBytes = format{reluScale, 1}
)

// Int8Matrix is a tensor as rows of int8, each with a scale.
type Int8Matrix struct {
	Values []byte
	Scale  func(row int) float32
	Panels bool // the values are in the order of kernel.Pack8, not row by row
}

// Int8Source is a Source that has int8 weights already. Int8 returns ok false
// for a tensor that it keeps in another form.
type Int8Source interface {
	Int8(name string) (m Int8Matrix, ok bool)
}

// int8Matrix reads a tensor as rows of int8.
func (l *loader) int8Matrix(name string, rows, width int) Int8Matrix {
	if s, is := l.source.(Int8Source); is {
		if m, ok := s.Int8(name); ok {
			return m
		}
	}
	floats, scales := l.floats(rows*width), make([]float32, rows)
	l.source.Read(name, floats)
	values := make([]byte, rows*width)
	for r := range rows {
		row := floats[r*width : (r+1)*width]
		for _, x := range row {
			scales[r] = max(scales[r], x/127, -x/127)
		}
		for i, x := range row {
			if x != 0 {
				values[r*width+i] = byte(int8(math.RoundToEven(float64(x / scales[r]))))
			}
		}
	}
	return Int8Matrix{Values: values, Scale: func(row int) float32 { return scales[row] }}
}

// block registers a layer for MatMul8.
func (l *loader) block(name string, in, out int, f format) kernel.Const {
	return l.constants.AddBytes(kernel.MatMul8Len(in, out), func(dst []byte) {
		m := l.int8Matrix(name+".weight", out, in)
		floats, packed := kernel.Floats(dst[:12*out]), dst[12*out:]
		if m.Panels {
			copy(packed, m.Values)
		} else {
			for n := range out {
				row, at := m.Values[n*in:(n+1)*in], packed[kernel.Pack8(in, 0, n):]
				for k := 0; k < in; k += kernel.Quad {
					copy(at[k*kernel.Panel:], row[k:k+kernel.Quad])
				}
			}
		}
		scale, bias, sums := floats[:out], floats[out:2*out], floats[2*out:]
		l.source.Read(name+".bias", bias)
		for n := range out {
			sum := 0
			column := packed[kernel.Pack8(in, 0, n):]
			for k := 0; k < in; k += kernel.Quad {
				q := column[k*kernel.Panel:][:kernel.Quad]
				sum += int(int8(q[0])) + int(int8(q[1])) + int(int8(q[2])) + int(int8(q[3]))
			}
			scale[n] = m.Scale(n) * f.in * f.out
			bias[n] *= f.out
			sums[n] = scale[n] * float32(sum)
		}
	})
}

// bytesDepthwise registers a depthwise convolution between ReLU6s for
// Depthwise8.
func (l *loader) bytesDepthwise(name string, channels, size int) depthwise {
	l.check(name+".weight", channels, 1, size, size)
	l.check(name+".bias", channels)
	block := l.constants.AddBytes(kernel.Depthwise8Len(size, channels), func(dst []byte) {
		m := l.int8Matrix(name+".weight", channels, size*size)
		floats, taps := kernel.Floats(dst[:8*channels]), dst[8*channels:]
		scale, bias := floats[:channels], floats[channels:]
		l.source.Read(name+".bias", bias)
		for c := range channels {
			scale[c] = m.Scale(c)
			bias[c] /= reluScale
			for y := range size {
				for x := range size {
					taps[kernel.PackDepthwise8(size, channels, y, x, c)] = m.Values[(c*size+y)*size+x]
				}
			}
		}
	})
	return depthwise{block: block, channels: channels, size: size}
}

// rows8 are quantized rows: their bytes, and their scales and lowest values.
type rows8 struct{ bytes, rows kernel.View }

// quantize quantizes m rows of k numbers, once for all that reads them in a
// stage. What x holds must not change before the stage ends.
func (g graph) quantize(x kernel.View, m, k int) rows8 {
	key := float{x, g.Stages(), k}
	if q, ok := g.quantized[key]; ok {
		return q
	}
	q := rows8{g.TempBytes(m * k), g.Temp(2 * m)}
	g.Do(kernel.Quantize{Dst: q.bytes, Rows: q.rows, A: x, M: m, K: k})
	g.quantized[key] = q
	return q
}
