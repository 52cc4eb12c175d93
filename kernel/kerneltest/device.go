package kerneltest

import (
	"errors"
	"math/rand/v2"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// constants checks that constants arrive and are shared by programs.
func constants(s *suite) {
	const m, n, k = 5, 16, 7
	random := rand.New(rand.NewPCG(2, 2))
	numbers := func(dst []float32) {
		for i := range dst {
			dst[i] = 2*random.Float32() - 1
		}
	}
	weights, bias, a := make([]float32, kernel.PackedLen(k, n)), make([]float32, n), make([]float32, m*k)
	numbers(weights)
	numbers(bias)
	numbers(a)
	var c kernel.Constants
	weightsAt := c.Add(len(weights), func(dst []float32) { copy(dst, weights) })
	c.Add(20_000, numbers) // longer than what a device may send at once
	biasAt := c.Add(n, func(dst []float32) { copy(dst, bias) })

	var p kernel.Program
	p.Stage()
	dst := p.Keep(m * n)
	p.Do(kernel.MatMul{Dst: dst, A: p.Floats(a), B: p.Const(weightsAt), Bias: p.Const(biasAt), M: m, N: n, K: k})
	p.Plan()
	result := func(d kernel.Device) []float32 {
		if err := d.Load(&c); err != nil {
			s.Fatal("Load:", err)
		}
		var got []float32
		for range 2 {
			session := s.must(d.Open(&p))
			got = s.runAndRead(session, 0, dst, m*n)
		}
		return got
	}
	s.same("constants", result(s.device), result(scalar.New()), sumOf(k))
}

// stages checks that what later stages need outlives the stages between, and
// that a later stage can be run again with new input.
func stages(s *suite) {
	const n = 64
	var p kernel.Program
	p.Stage()
	x := p.ScratchInput(4 * n)
	kept, early := p.Keep(n), p.Temp(n)
	p.Do(kernel.Activate{Dst: early, A: x, N: n, Act: kernel.ActSigmoid})
	p.Do(kernel.Add{Dst: kept, A: early, B: early, M: 1, N: n, MB: 1})
	p.Stage()
	y := p.ScratchInput(4 * n)
	t1, t2, out := p.Temp(n), p.Temp(n), p.Keep(n)
	p.Do(kernel.Add{Dst: t1, A: kept, B: y, M: 1, N: n, MB: 1})
	p.Do(kernel.Activate{Dst: t2, A: t1, N: n, Act: kernel.ActGelu})
	p.Do(kernel.Add{Dst: out, A: t2, B: kept, M: 1, N: n, MB: 1})
	p.Plan()

	results := func(d kernel.Device) []float32 {
		random := rand.New(rand.NewPCG(3, 3))
		numbers := func() []byte {
			f := make([]float32, n)
			for i := range f {
				f[i] = 2*random.Float32() - 1
			}
			return encode(f)
		}
		session := s.must(d.Open(&p))
		defer session.Close()
		var all []float32
		s.ok(session.Write(x, numbers()))
		s.ok(session.Run(0))
		for range 3 {
			s.ok(session.Write(y, numbers()))
			all = append(all, s.runAndRead(session, 1, out, n)...)
		}
		return all
	}
	s.same("stages", results(s.device), results(scalar.New()), tolerance{abs: 4*expError + 2*erfError})
}

// fetches checks that what is fetched is what was there at that time, however
// much is run and fetched before one waits, from several programs.
func fetches(s *suite) {
	const n = 5000
	program := func() (p *kernel.Program, in, out kernel.View) {
		p = new(kernel.Program)
		p.Stage()
		in, out = p.Input(4*n), p.Keep(n)
		p.Do(kernel.Add{Dst: out, A: in, B: in, M: 1, N: n, MB: 1})
		p.Stage()
		p.Do(kernel.Add{Dst: out, A: out, B: in, M: 1, N: n, MB: 1})
		p.Plan()
		return p, in, out
	}
	var sessions [2]kernel.Session
	var in, out [2]kernel.View
	for i := range sessions {
		var p *kernel.Program
		p, in[i], out[i] = program()
		sessions[i] = s.must(s.device.Open(p))
	}
	numbers := func(x float32) []byte {
		f := make([]float32, n)
		for i := range f {
			f[i] = x
		}
		return encode(f)
	}
	var got [][]byte
	var want []float32
	expect := func(session kernel.Session, v kernel.View, size int, x float32) {
		s.Helper()
		b := make([]byte, size)
		s.ok(session.Fetch(v, b))
		got, want = append(got, b), append(want, x)
	}
	for round := range 3 {
		x := float32(1 + round)
		for i, session := range sessions {
			s.ok(session.Write(in[i], numbers(x)))
			s.ok(session.Run(0))
			expect(session, out[i], 4*n, 2*x)
		}
		for j := range 3 { // growing pieces
			for i, session := range sessions {
				s.ok(session.Run(1))
				expect(session, out[i].At(j), 4<<(4*j), float32(3+j)*x)
			}
		}
		if round == 1 { // the last round waits by reading
			s.ok(sessions[0].Wait())
		}
	}
	b := make([]byte, 4)
	for i, session := range sessions {
		s.ok(session.Read(in[i], b))
	}
	for i := range got {
		for _, x := range decode(got[i]) {
			if x != want[i] {
				s.Fatalf("fetch %d: got %v, want %v", i, x, want[i])
			}
		}
	}
}

// lifetime checks Close, and that programs which are open together or one
// after the other do not disturb each other.
func lifetime(s *suite) {
	program := func(n int, value float32) (*kernel.Program, kernel.View) {
		p := new(kernel.Program)
		p.Stage()
		f := make([]float32, n)
		for i := range f {
			f[i] = value
		}
		in, out := p.Floats(f), p.Keep(n)
		p.Do(kernel.Activate{Dst: out, A: in, N: n})
		p.Plan()
		return p, out
	}
	check := func(session kernel.Session, v kernel.View, n int, want float32) {
		s.Helper()
		for _, x := range s.runAndRead(session, 0, v, n) {
			if x != want {
				s.Fatalf("got %v, want %v", x, want)
			}
		}
	}
	const n1, n2, n3 = 1000, 300_000, 5000
	p1, v1 := program(n1, 1)
	p2, v2 := program(n2, 2)
	p3, v3 := program(n3, 3)
	s1, s2 := s.must(s.device.Open(p1)), s.must(s.device.Open(p2))
	check(s1, v1, n1, 1)
	check(s2, v2, n2, 2)
	s.ok(s1.Close())
	for _, err := range []error{s1.Run(0), s1.Write(v1, nil), s1.Read(v1, nil), s1.Fetch(v1, nil), s1.Wait()} {
		if !errors.Is(err, kernel.ErrClosed) {
			s.Errorf("after Close of the session: got %v", err)
		}
	}
	s3, s1 := s.must(s.device.Open(p3)), s.must(s.device.Open(p1))
	check(s2, v2, n2, 2)
	check(s3, v3, n3, 3)
	check(s1, v1, n1, 1)
	check(s3, v3, n3, 3)

	for name, misuse := range map[string]func() error{
		"Write": func() error { return s1.Write(v1, make([]byte, 4*n1+1)) },
		"Read":  func() error { return s1.Read(v1, make([]byte, 4*n1+1)) },
		"Fetch": func() error { return s1.Fetch(v1, make([]byte, 4*n1+1)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					s.Errorf("%s beyond the end of a buffer does not panic", name)
				}
			}()
			misuse()
		}()
	}

	d := s.open()
	session := s.must(d.Open(p1))
	s.ok(d.Close())
	if err := session.Run(0); !errors.Is(err, kernel.ErrClosed) {
		s.Errorf("Run after Close of the device: got %v", err)
	}
	if _, err := d.Open(p1); !errors.Is(err, kernel.ErrClosed) {
		s.Errorf("Open after Close: got %v", err)
	}
	if err := d.Load(new(kernel.Constants)); !errors.Is(err, kernel.ErrClosed) {
		s.Errorf("Load after Close: got %v", err)
	}
}

// memory checks that what cannot be had is refused, and that all else goes on.
func memory(s *suite) {
	var absurd kernel.Program
	absurd.Stage()
	a := absurd.Temp(1 << 40)
	absurd.Do(kernel.Activate{Dst: a, A: a, N: 4})
	absurd.Plan()
	if _, err := s.device.Open(&absurd); !errors.Is(err, kernel.ErrMemory) {
		s.Errorf("Open: got %v", err)
	}
	var weights kernel.Constants
	weights.Add(1<<40, func([]float32) { panic("constants were made before there was room") })
	if err := s.device.Load(&weights); !errors.Is(err, kernel.ErrMemory) {
		s.Errorf("Load: got %v", err)
	}
	lifetime(s)
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) must(session kernel.Session, err error) kernel.Session {
	s.Helper()
	s.ok(err)
	return session
}

func (s *suite) runAndRead(session kernel.Session, stage int, v kernel.View, n int) []float32 {
	s.Helper()
	s.ok(session.Run(stage))
	b := make([]byte, 4*n)
	s.ok(session.Read(v, b))
	return decode(b)
}

func (s *suite) same(name string, got, want []float32, tol tolerance) {
	s.Helper()
	for i := range want {
		if !tol.allows(got[i], want[i]) {
			s.Errorf("%s [%d]: got %v, want %v", name, i, got[i], want[i])
			return
		}
	}
}
