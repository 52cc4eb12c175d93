// Command lab times the kernels at the shapes of the pmp-s network, where
// each picture spends its time, and prints arithmetic and memory throughput.
// Of each kind of product the first line is near the ceiling: all operands lie in
// the first-level cache. Figures of the ops on bytes are in int8.go.
//
//	go run ./kernel/simd/lab [-in chromium] [-variant plain] [-check=false] [filter]
//
// The browser is a program's name; without -in it runs through wazero. What
// each layer writes is compared with the scalar device first.
//
// GFLOP/s on one core of an Intel Xeon (model 167, about 3.5 GHz), shortest
// of many runs, November 2026; "relaxed" is the module with a fused
// multiply-add and a dot product of bytes:
//
//	                                Chromium 156      Firefox 153   wazero 1.12
//	                               plain   relaxed     relaxed
//	ceiling, 48x512 -> 8            40       56          50            7
//	matmul 65536x16 -> 96           32       42          22            7   (bound by memory)
//	matmul 16384x144 -> 24          39       54                        7
//	matmul 4096x240 -> 40           40       56                        8
//	matmul 1024x672 -> 112          42       59                        7
//	matmul 256x1152 -> 192          44       60          45            7
//	matmul 256x320 -> 1280          40       55          42            7
//	conv 512x512x4 -> 32            37       52          38            7
//	depthwise 3x3 s2 256x256x96     14       15          19            5   (bound by memory, 16 GB/s)
//	depthwise 3x3 s1 128x128x144    24       30          42           11
//	depthwise 5x5 s1 64x64x240      30       36          49           15
//	attention 48 x 4096 keys        25       28          28            3
//	  15 % of them open, ms        1.0      0.9         0.9          2.0
//	maps of 20 prompts, ms         3.8      2.8         3.9           24
//	  from int8, ms                2.8      1.6         2.3           14
//	tidy of 20 maps, ms            0.3      0.3         0.3          0.7
//	labels of 20 maps, ms          1.9      1.9         2.2          5.8  (512x512)
//	exp, numbers a nanosecond      1.6      2.6         3.1          1.3
//	all of encode and segment, ms  128       97         109          637
//
// What did not help: unrolling the loop over k (see gen/strip.go; nor does it
// in wazero, whose splat loads are three dependent instructions), blocks of
// rows from 16 KiB to 512 KiB, eight channels a step
// in depthwise strips. What did: six rows a
// tile with relaxed SIMD (49 to 56), constants out of loops (exp 1.5 times
// faster), K and V of a head side by side, since at strides of 512 bytes and 4
// KiB they share few sets of the caches (4096 keys: 5.6 to 3.6 ms), looking at
// open keys only (to 0.9 ms), maps from proposals that stay in the first-level
// cache (4.7 to 2.8 ms), labels of all maps at a time, from rows blended before
// (20 ops took 5.7 ms).
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pmp-seg/pmp/kernel"
)

// A layer is an op to time.
type layer struct {
	name  string
	times int // it occurs in one encode and segment
	build func(p *kernel.Program) kernel.Op
	flops float64
	bytes float64 // that must at least be read and written
}

var (
	browser = flag.String("in", "", "the browser to run in, chromium or firefox-esr")
	variant = flag.String("variant", "", "of the module, plain or relaxed; the better one that works if empty")
	checks  = flag.Bool("check", true, "compare with the scalar device before timing")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run() error {
	if *browser != "" {
		return runIn(*browser, append([]string{"-variant=" + *variant, fmt.Sprintf("-check=%v", *checks)}, flag.Args()...))
	}
	device, err := open(*variant)
	if err != nil {
		return err
	}
	defer device.Close()
	fmt.Printf("%s\n%-36s %9s %9s %9s %9s\n", device.Name(), "", "first ms", "ms", "GFLOP/s", "GB/s")
	var kinds []string
	total, cold := map[string]float64{}, 0.0
	for _, l := range layers() {
		if !strings.Contains(l.name, flag.Arg(0)) {
			continue
		}
		first, seconds := measure(device, l)
		if *checks {
			if err := check(device, l); err != nil {
				return err
			}
		}
		kind, _, _ := strings.Cut(l.name, " ")
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
		total[kind] += seconds * float64(l.times)
		cold += first * float64(l.times)
		fmt.Printf("%-36s %9.3f %9.3f %9.1f %9.1f   x%d\n", l.name, first*1e3, seconds*1e3, l.flops/seconds/1e9, l.bytes/seconds/1e9, l.times)
	}
	fmt.Printf("total ms by kind:")
	for _, kind := range kinds {
		fmt.Printf(" %s %.1f", kind, total[kind]*1e3)
	}
	fmt.Printf(", of the first runs %.1f\n", cold*1e3)
	return nil
}

// program records a layer. Its numbers are the same each time.
func (l layer) program() (*kernel.Program, kernel.Op) {
	seed = rand.New(rand.NewPCG(1, 1))
	p := new(kernel.Program)
	p.Stage()
	op := l.build(p)
	p.Do(op)
	p.Plan()
	return p, op
}

var seed *rand.Rand

// measure returns the first run's time, which includes what the engine does
// to a cold module, and the shortest of many runs, since machines are rarely
// quiet. A sample is as many runs as take two milliseconds: browsers' clocks
// are coarse.
func measure(device kernel.Device, l layer) (first, best float64) {
	p, _ := l.program()
	s, err := device.Open(p)
	if err != nil {
		panic(err)
	}
	defer s.Close()
	const (
		patience = 300 * time.Millisecond
		sample   = 2 * time.Millisecond
	)
	start := time.Now()
	if err := s.Run(0); err != nil {
		panic(err)
	}
	first = time.Since(start).Seconds()
	shortest, runs := time.Hour, 1
	for start := time.Now(); time.Since(start) < patience; {
		t := time.Now()
		for range runs {
			if err := s.Run(0); err != nil {
				panic(err)
			}
		}
		took := time.Since(t)
		if took < sample {
			runs *= 2
			continue
		}
		shortest = min(shortest, took/time.Duration(runs))
	}
	return first, shortest.Seconds()
}

// random is a buffer of n numbers.
func random(p *kernel.Program, n int) kernel.View {
	f := make([]float32, n)
	for i := range f {
		f[i] = 2*seed.Float32() - 1
	}
	return p.Floats(f)
}

// photoMasks are maps like those of a photo: some blobs, with specks in one of
// 200 cells round them and holes in as many inside.
func photoMasks(p *kernel.Program, maps, side int) kernel.View {
	return p.Floats(photoMaps(maps, side))
}

func photoMaps(maps, side int) []float32 {
	f := make([]float32, maps*side*side)
	for t := range maps {
		const blobs = 3
		var y, x, r [blobs]float64
		for i := range blobs {
			y[i], x[i], r[i] = seed.Float64()*float64(side), seed.Float64()*float64(side), (0.05+0.15*seed.Float64())*float64(side)
		}
		for j := range side * side {
			v := 0.0
			for i := range blobs {
				d := math.Hypot(float64(j/side)-y[i], float64(j%side)-x[i]) / r[i]
				v = max(v, 1/(1+d*d*d*d))
			}
			if v += 0.1 * (seed.Float64() - 0.5); seed.IntN(200) == 0 {
				v = 1 - v
			}
			f[t*side*side+j] = float32(v)
		}
	}
	return f
}

// photoFits are what Guided makes of such maps, without a threshold of 0.5:
// colours matter where it is near.
func photoFits(p *kernel.Program, maps, h, w int) kernel.View {
	m := photoMaps(maps, max(h, w))
	f := make([]float32, 4*maps*h*w)
	for i := range maps * h * w {
		v := m[i] - 0.5
		f[4*i+3] = v
		for c := range 3 {
			f[4*i+c] = (seed.Float32() - 0.5) * max(0.05, 0.5-2*max(v, -v)) / 255
		}
	}
	return p.Floats(f)
}

func layers() []layer {
	all := layers8()
	matMul := func(times, m, n, k int) {
		all = append(all, layer{
			fmt.Sprintf("matmul %dx%d -> %d", m, k, n), times,
			func(p *kernel.Program) kernel.Op {
				return kernel.MatMul{Dst: p.Keep(m * n), A: random(p, m*k), B: random(p, k*n), Bias: random(p, n), M: m, N: n, K: k, Act: kernel.ActReLU6}
			}, 2 * float64(m*n*k), 4 * float64(m*n+m*k+k*n),
		})
	}
	depthwise := func(times, side, c, size, stride int) {
		out := side / stride
		all = append(all, layer{
			fmt.Sprintf("depthwise %dx%d s%d, %dx%dx%d", size, size, stride, side, side, c), times,
			func(p *kernel.Program) kernel.Op {
				return kernel.Depthwise{Dst: p.Keep(out * out * c), A: random(p, side*side*c), B: random(p, size*size*c), Bias: random(p, c),
					H: out, W: out, HI: side, WI: side, C: c, Size: size, Stride: stride, Pad: ((out-1)*stride + size - side) / 2, Act: kernel.ActReLU6}
			}, 2 * float64(out*out*c*size*size), 4 * float64(side*side*c+out*out*c),
		})
	}
	// A mask leaves every query one key in runs of 16 rows and columns, so
	// that open share of the panels is looked at.
	attention := func(times, nq, nk int, open float64) {
		const d, heads = 128, 8
		all = append(all, layer{
			fmt.Sprintf("attention %d queries, %d keys, %.0f%% open", nq, nk, 100*open), times,
			func(p *kernel.Program) kernel.Op {
				o := kernel.Attention{Dst: p.Keep(nq * d), Q: random(p, nq*d), K: random(p, nk*d), V: random(p, nk*d),
					NQ: nq, NK: nk, D: d, Heads: heads, Scale: 0.25}
				if open < 1 {
					side := int(math.Sqrt(float64(nk)))
					box := int(float64(side) * math.Sqrt(open))
					mask := make([]float32, nq*nk)
					for q := range nq {
						y0, x0 := seed.IntN(side-box+1), seed.IntN(side-box+1)
						for j := range nk {
							y, x := j/side-y0, j%side-x0
							mask[q*nk+j] = -1
							if 0 <= y && y < box && 0 <= x && x < box {
								mask[q*nk+j] = 1
							}
						}
					}
					o.Mask = p.Floats(mask)
				}
				return o
			}, 4 * float64(nq*nk*d) * open, 4 * float64(2*nk*d+2*nq*d),
		})
	}
	rows := func(name string, times, n, operands int, build func(p *kernel.Program) kernel.Op) {
		all = append(all, layer{"rows " + name, times, build, float64(n), 4 * float64(n*operands)})
	}

	matMul(0, 48, 8, 512) // all in the first-level cache: the ceiling
	all = append(all, layer{"conv 3x3 s2, 512x512x4 -> 32", 1, func(p *kernel.Program) kernel.Op {
		return kernel.Conv{Dst: p.Keep(256 * 256 * 32), A: random(p, 513*514*4), B: random(p, 36*32), Bias: random(p, 32),
			H: 256, W: 256, N: 32, Size: 3, Stride: 2, C: 4, WP: 514, Act: kernel.ActReLU6}
	}, 2 * 256 * 256 * 32 * 36, 4 * (512*512*4 + 256*256*32)})

	in, side := 32, 256
	for _, stage := range trunk {
		size, stride, expansion, out, repeats := stage[0], stage[1], stage[2], stage[3], stage[4]
		block := func(times, stride int) {
			wide := in * expansion
			if expansion > 1 {
				matMul(times, side*side, wide, in)
			}
			depthwise(times, side, wide, size, stride)
			side /= stride
			matMul(times, side*side, out, wide)
			in = out
		}
		block(1, stride)
		if repeats > 1 {
			block(repeats-1, 1)
		}
	}
	matMul(1, side*side, 1280, in)

	matMul(1, 128*128, 64, 24)
	depthwise(1, 128, 64, 3, 1)
	matMul(1, 128*128, 64, 64)
	matMul(1, 64*64, 128, 40)
	matMul(6, 48, 512, 128)
	matMul(6, 48, 128, 512)
	matMul(1, 48, 4096, 64)
	matMul(1, 48, 16384, 64)
	attention(1, 48, 4096, 0.15)
	attention(0, 48, 4096, 1)
	attention(1, 48, 1024, 0.15)
	attention(1, 48, 256, 0.15)
	attention(1, 256, 256, 1)
	attention(3, 48, 48, 1)
	attention(4, 48, 33, 1)

	for _, bytes := range []bool{false, true} {
		const q, k, n, t = 48, 64, 128 * 128, 20
		all = append(all, layer{fmt.Sprintf("maps of %d prompts, bytes %v", t, bytes), 1, func(p *kernel.Program) kernel.Op {
			o := kernel.Maps{Dst: p.Keep(t * n), P: random(p, t*q), Q: q, K: k, N: n, T: t}
			if bytes {
				block := make([]byte, 4*kernel.MatMul8Len(k, n))
				for i := range block[12*n:] {
					block[12*n+i] = byte(rand.Uint32())
				}
				for i := range kernel.Floats(block[:4*n]) {
					kernel.Floats(block)[i] = 1e-4
				}
				a := make([]byte, q*k)
				for i := range a {
					a[i] = byte(rand.Uint32N(128))
				}
				o.A, o.Rows, o.B = p.Data(a), random(p, 2*q), p.Data(block)
			} else {
				o.A, o.B = random(p, q*k), random(p, k*n)
			}
			return o
		}, 2 * q * n * (k + t), 4 * n * (k + t)})
	}
	rows("peaks of 20 maps", 1, 20*128*128, 1, func(p *kernel.Program) kernel.Op {
		return kernel.Peaks{Dst: p.Keep(20), A: random(p, 20*128*128), T: 20, H: 128, W: 128}
	})
	rows("tidy 20 maps", 1, 20*128*128, 2, func(p *kernel.Program) kernel.Op {
		const maps, side = 20, 128
		return kernel.Tidy{Dst: p.Keep(maps * side * side), A: photoMasks(p, maps, side), Theta: p.Floats(slices.Repeat([]float32{0.5}, maps)),
			T: maps, H: side, W: side, Speck: 1000, Island: 20, Scratch: p.Temp(2 * maps * side * side)}
	})
	rows("columns8 64x16384, transposed", 1, 64*16384, 1, func(p *kernel.Program) kernel.Op {
		return kernel.Columns8{Dst: p.Keep(kernel.MatMul8Len(64, 16384)), A: random(p, 64*16384), K: 64, N: 16384, Transposed: true}
	})
	rows("columns8 256x1280", 1, 256*1280, 1, func(p *kernel.Program) kernel.Op {
		return kernel.Columns8{Dst: p.Keep(kernel.MatMul8Len(256, 1280)), A: random(p, 256*1280), K: 256, N: 1280}
	})
	rows("layer norm 256x128", 10, 256*128, 2, func(p *kernel.Program) kernel.Op {
		return kernel.LayerNorm{Dst: p.Keep(256 * 128), A: random(p, 256*128), Gamma: random(p, 128), Beta: random(p, 128), M: 256, N: 128, Eps: 1e-5}
	})
	rows("l2 norm 256x1280", 1, 256*1280, 2, func(p *kernel.Program) kernel.Op {
		return kernel.L2Norm{Dst: p.Keep(256 * 1280), A: random(p, 256*1280), M: 256, N: 1280, Scale: 1}
	})
	for _, act := range []kernel.Act{kernel.ActReLU6, kernel.ActGelu, kernel.ActSigmoid, kernel.ActExp} {
		name := map[kernel.Act]string{kernel.ActReLU6: "relu6", kernel.ActGelu: "gelu", kernel.ActSigmoid: "sigmoid", kernel.ActExp: "exp"}[act]
		rows(name+" 48x1024", 1, 48*1024, 2, func(p *kernel.Program) kernel.Op {
			return kernel.Activate{Dst: p.Keep(48 * 1024), A: random(p, 48*1024), N: 48 * 1024, Act: act}
		})
	}
	rows("upsample-add 64x64x64", 1, 128*128*64, 2, func(p *kernel.Program) kernel.Op {
		return kernel.UpsampleAdd{Dst: p.Keep(128 * 128 * 64), A: random(p, 64*64*64), Res: random(p, 128*128*64), H: 64, W: 64, C: 64}
	})
	rows("add position 64x64x128", 1, 64*64*128, 2, func(p *kernel.Program) kernel.Op {
		return kernel.AddPosition{Dst: p.Keep(64 * 64 * 128), A: random(p, 64*64*128), PY: random(p, 64*64), PX: random(p, 64*64), H: 64, W: 64, C: 128}
	})
	for _, transposed := range []bool{false, true} {
		rows(fmt.Sprintf("pack 128x4096, transposed %v", transposed), 1, 128*4096, 2, func(p *kernel.Program) kernel.Op {
			return kernel.Pack{Dst: p.Keep(128 * 4096), A: random(p, 128*4096), K: 128, N: 4096, Transposed: transposed}
		})
	}
	rows("classify 48x80, 20 prompts", 1, 48*80, 2, func(p *kernel.Program) kernel.Op {
		owner := make([]byte, 4*80)
		for i := range 80 {
			owner[4*i] = byte(i % 20)
		}
		return kernel.Classify{Dst: p.Keep(21 * 48), A: random(p, 48*80), B: random(p, 48*80), Coef: random(p, 240), Owner: p.Data(owner), Void: random(p, 48), Q: 48, S: 80, T: 20, LDVoid: 1}
	})

	picture := func(times, hi, wi, h, w int) {
		y, x := kernel.Taps(hi, h), kernel.Taps(wi, w)
		all = append(all, layer{fmt.Sprintf("pixels picture %dx%d -> %dx%d", wi, hi, w, h), times, func(p *kernel.Program) kernel.Op {
			return kernel.Picture{Dst: p.Keep(h * w * 4), Src: sevenBits(p, 4*hi*wi), TapsY: p.Data(y.Encode()), TapsX: p.Data(x.Encode()),
				H: h, W: w, HP: h, WP: w, HI: hi, WI: wi, SizeY: y.Size, SizeX: x.Size}
		}, 4 * 2 * 4 * float64(hi*wi), 4 * float64(hi*wi+4*h*w)})
	}
	picture(1, 480, 640, 384, 512)
	picture(0, 3000, 4000, 384, 512)
	paint := func(times, maps, h, w int, guided bool) {
		const hi, wi = 96, 128
		taps := func(p *kernel.Program, in, out int) kernel.View {
			return p.Data(kernel.PaintTaps(in, out, 4*float64(in)/float64(out), 4).Encode())
		}
		name, bytes := fmt.Sprintf("pixels mask 128x96 -> %dx%d", w, h), h*w
		if maps > 0 {
			name, bytes = fmt.Sprintf("pixels labels %d x 128x96 -> %dx%d", maps, w, h), 5*h*w
		}
		if guided {
			name, bytes = name+", guided", bytes+4*h*w
		}
		all = append(all, layer{name, times, func(p *kernel.Program) kernel.Op {
			o := kernel.Paint{A: random(p, max(maps, 1)*hi*wi), TapsY: taps(p, hi, h), TapsX: taps(p, wi, w), H: h, W: w, HI: hi, WI: wi, T: max(maps, 1)}
			if guided {
				o.A, o.Pixels = photoFits(p, max(maps, 1), hi, wi), random(p, h*w)
			}
			if maps > 0 {
				o.Label, o.Best, o.Index = p.KeepBytes(h*w), p.Keep(h*w), p.Data([]byte{0, 0, 0, 0})
			} else {
				o.Mask = p.KeepBytes(h * w)
			}
			return o
		}, 7 * float64(max(maps, 1)*h*w), float64(bytes)})
	}
	for _, guided := range []bool{false, true} {
		paint(3, 0, 480, 640, guided)
		paint(0, 0, 512, 512, guided)
		paint(0, 0, 3000, 4000, guided)
		paint(1, 20, 512, 512, guided)
		paint(0, 20, 3000, 4000, guided)
	}
	rows("guide 128x96", 1, 512*384, 1, func(p *kernel.Program) kernel.Op {
		return kernel.Guide{Dst: p.Keep(kernel.GuideLen(96 * 128)), A: random(p, 4*384*512), H: 96, W: 128, HI: 384, WI: 512, WP: 512, Epsilon: 0.004}
	})
	rows("guided 20 x 128x96", 1, 20*96*128, 5, func(p *kernel.Program) kernel.Op {
		return kernel.Guided{Dst: p.Keep(20 * 4 * 96 * 128), A: random(p, 20*96*128), Guide: random(p, kernel.GuideLen(96*128)), T: 20, H: 96, W: 128}
	})
	for _, side := range []int{512, 4000} {
		all = append(all, layer{fmt.Sprintf("pixels colour %dx%d", side, side), 1, func(p *kernel.Program) kernel.Op {
			label := make([]byte, side*side)
			for i := range label {
				label[i] = byte(i / 100) // edges lie this far apart
			}
			return kernel.Colour{Dst: p.KeepBytes(4 * side * side), Label: p.Data(label), Palette: random(p, 256), N: side * side}
		}, 0, 5 * float64(side*side)})
	}
	return all
}
