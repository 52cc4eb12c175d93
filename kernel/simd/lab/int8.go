package main

import (
	"fmt"

	"github.com/pmp-seg/pmp/kernel"
)

// The ops on bytes, as the head of main.go has it for those on float32s: the
// best GOP/s seen on one core of an Intel Xeon (model 167, with AVX-VNNI),
// November 2026. The ceiling is two dots of 16 products in each cycle.
//
//	                                   Chromium 156      Firefox 153   wazero 1.12
//	                                  plain   relaxed     relaxed
//	ceiling                                     240
//	matmul8 48x512 -> 128               77      230         100           18
//	matmul8 256x672 -> 192              84      240          98           17
//	matmul8 1024x672 -> 112             82      228          94           15
//	matmul8 1024x112 -> 672 bytes       76      205          90           15
//	matmul8 16384x144 -> 24             67      189          80           16
//	matmul8 65536x16 -> 96 bytes        41       96          52           11   (the end of a sum takes longer than the sum)
//	depthwise8 3x3 s1 128x128x144       30       53          35           22
//	depthwise8 5x5 s1 64x64x240         46       86          49           35
//	residual8 256x256 16-96-24 s2       41       99          59           11
//	residual8 128x128 24-144-24         50      131          70           16
//	residual8 64x64 40-240-40 5x5       58      150          78           17
//	residual8 32x32 112-672-112 5x5     69      188          94           18
//	residual8 16x16 192-1152-192 5x5    80      200          99           18
//	all residuals of the encode, ms     65       24          46          235
//
// What helped: four rows at a time in Quantize (16384x16: 0.50 to 0.09 ms); A as
// i16s in memory without relaxed SIMD (64 to 75 GOP/s); depthwise and project
// as one op after an expansion apart (32x32x672: 1.27 to 1.04 ms). What did not:
// blocks of rows from 8 to 96 KiB, strips of columns that stay in the
// first-level cache. Depthwise taps lie by columns of the window because then an
// interleaved quad serves all columns and two rows; by rows it would take 18
// unpacks, and not 8, for 24 dots.

// sevenBits is a buffer of n bytes from 0 to 127.
func sevenBits(p *kernel.Program, n int) kernel.View {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed.Uint32N(128))
	}
	return p.Data(b)
}

// constants8 is a block of constants: floats float32s and then words of int8.
func constants8(p *kernel.Program, floats, total int) kernel.View {
	b := make([]byte, 4*total)
	for i := range b {
		b[i] = byte(seed.Uint32())
	}
	for i := range floats {
		kernel.Floats(b)[i] = seed.Float32() / 1000
	}
	return p.Data(b)
}

// taps8 are the constants of a depthwise convolution. Beyond the window they
// are 0.
func taps8(p *kernel.Program, size, c int) kernel.View {
	b := make([]byte, 4*kernel.Depthwise8Len(size, c))
	for i := range 2 * c {
		kernel.Floats(b)[i] = seed.Float32() / 1000
	}
	for ky := range size {
		for kx := range size {
			for i := range c {
				b[8*c+kernel.PackDepthwise8(size, c, ky, kx, i)] = byte(seed.Uint32())
			}
		}
	}
	return p.Data(b)
}

// layers8 are the ops on bytes.
func layers8() []layer {
	var all []layer
	matMul := func(times, m, n, k int, bytes bool) {
		name, size := fmt.Sprintf("matmul8 %dx%d -> %d", m, k, n), 4
		if bytes {
			name, size = name+" bytes", 1
		}
		all = append(all, layer{
			name, times,
			func(p *kernel.Program) kernel.Op {
				o := kernel.MatMul8{Dst: p.KeepBytes(size * m * n), A: sevenBits(p, m*k), B: constants8(p, 3*n, kernel.MatMul8Len(k, n)), M: m, N: n, K: k, Bytes: bytes}
				if bytes {
					o.Rows = random(p, 2*m)
				}
				return o
			}, 2 * float64(m*n*k), float64(m*n*size + m*k + k*n),
		})
	}
	depthwise := func(times, side, c, size, stride int) {
		out := side / stride
		all = append(all, layer{
			fmt.Sprintf("depthwise8 %dx%d s%d, %dx%dx%d", size, size, stride, side, side, c), times,
			func(p *kernel.Program) kernel.Op {
				return kernel.Depthwise8{Dst: p.KeepBytes(out * out * c), A: sevenBits(p, side*side*c), B: taps8(p, size, c),
					H: out, W: out, HI: side, WI: side, C: c, Size: size, Stride: stride, Pad: ((out-1)*stride + size - side) / 2}
			}, 2 * float64(out*out*c*size*size), float64(side*side*c + out*out*c),
		})
	}
	residual := func(times, side, in, c, n, size, stride int) {
		out := side / stride
		all = append(all, layer{
			fmt.Sprintf("residual8 %dx%d: %d-%d-%d %dx%d s%d", side, side, in, c, n, size, size, stride), times,
			func(p *kernel.Program) kernel.Op {
				o := kernel.Residual8{Dst: p.Keep(out * out * n), H: out, W: out, HI: side, WI: side, C: c, Size: size, Stride: stride,
					Pad: ((out-1)*stride + size - side) / 2, In: in, Out: n,
					Depthwise: taps8(p, size, c), Project: constants8(p, 3*n, kernel.MatMul8Len(c, n))}
				if in == 0 {
					o.A = sevenBits(p, side*side*c)
				} else {
					o.A, o.Expand = random(p, side*side*in), constants8(p, 3*c, kernel.MatMul8Len(in, c))
				}
				return o
			}, 2 * float64(out*out*c*(n+size*size)+side*side*in*c), float64(4*side*side*in + 4*out*out*n),
		})
	}
	matMul(0, 48, 8, 512, false) // all in the first-level cache: the ceiling

	in, side := 32, 256
	for _, stage := range trunk {
		size, stride, expansion, out, repeats := stage[0], stage[1], stage[2], stage[3], stage[4]
		block := func(times, stride int) {
			wide := in * expansion
			if expansion == 1 {
				residual(times, side, 0, wide, out, size, stride)
			} else {
				residual(times, side, in, wide, out, size, stride)
			}
			if expansion > 1 {
				matMul(0, side*side, wide, in, true)
			}
			depthwise(0, side, wide, size, stride)
			side /= stride
			matMul(0, side*side, out, wide, false)
			in = out
		}
		block(1, stride)
		if repeats > 1 {
			block(repeats-1, 1)
		}
	}
	matMul(1, side*side, 1280, in, false)
	matMul(1, 128*128, 64, 24, false)
	residual(1, 128, 0, 64, 64, 3, 1)
	matMul(0, 128*128, 64, 64, false)
	matMul(1, 64*64, 128, 40, false)
	matMul(2, 1024, 128, 128, false)
	matMul(3, 4096, 128, 128, false)
	matMul(6, 48, 512, 128, false)
	matMul(6, 48, 128, 512, false)
	for _, l := range [][2]int{{128 * 128, 16}, {4096, 40}, {256, 128}, {48, 128}} {
		m, k := l[0], l[1]
		all = append(all, layer{
			fmt.Sprintf("quantize %dx%d", m, k), 1,
			func(p *kernel.Program) kernel.Op {
				return kernel.Quantize{Dst: p.KeepBytes(m * k), Rows: p.Keep(2 * m), A: random(p, m*k), M: m, K: k}
			}, float64(m * k), 5 * float64(m*k),
		})
	}
	return all
}

// trunk is EfficientNet-Lite0: kernel, stride, expansion, channels, repeats.
var trunk = [][5]int{{3, 1, 1, 16, 1}, {3, 2, 6, 24, 2}, {5, 2, 6, 40, 2}, {3, 2, 6, 80, 3}, {5, 1, 6, 112, 3}, {5, 2, 6, 192, 4}, {3, 1, 6, 320, 1}}
