package simd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall/js"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// variant and threads are what the page asks for: PMP_VARIANT is plain or
// relaxed, PMP_THREADS numbers of threads like 1,2,8.
func variant() Variant {
	return map[string]Variant{"plain": Plain, "relaxed": Relaxed}[os.Getenv("PMP_VARIANT")]
}

func threads() (all []int) {
	for s := range strings.SplitSeq(os.Getenv("PMP_THREADS"), ",") {
		if n, err := strconv.Atoi(s); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// open makes a device for each number of threads. To the suite they are one,
// see alike.
func open(t *testing.T) kernel.Device {
	a := &alike{t: t}
	for _, n := range threads() {
		a.devices = append(a.devices, openOne(t, n))
	}
	if len(a.devices) == 0 {
		a.devices = append(a.devices, openOne(t, 1))
	}
	return a
}

func openOne(t *testing.T, n int) *Device {
	var d *Device
	var err error
	if n == 1 {
		d, err = NewVariant(variant())
	} else {
		d, err = NewThreads(variant(), takePool(t, n))
	}
	if err != nil {
		t.Fatal(err)
	}
	if v := variant(); v == Relaxed != d.host.relaxed {
		t.Fatalf("got the device %s", d.Name())
	}
	if d.Threads() != n {
		t.Fatalf("%d threads, want %d", d.Threads(), n)
	}
	return d
}

func memory(d kernel.Device) int {
	sum := 0
	for _, d := range d.(*alike).devices {
		sum += d.host.size()
	}
	return sum
}

// idle are pools that no device uses, by their number of threads. Starting
// threads takes longer than most tests.
var idle = map[int][]js.Value{}

// takePool gives a pool that Close of the device puts back among the idle.
func takePool(t *testing.T, n int) js.Value {
	if pools := idle[n]; len(pools) > 0 {
		idle[n] = pools[1:]
		return pools[0]
	}
	pool := startPool(t, n)
	shared := js.Global().Get("Object").Call("assign", map[string]any{}, pool)
	shared.Set("close", js.FuncOf(func(js.Value, []js.Value) any {
		idle[n] = append(idle[n], shared)
		return nil
	}))
	return shared
}

func startPool(t *testing.T, n int) js.Value {
	module := ThreadsModule(variant())
	promise := js.Global().Get("startThreads").Invoke(map[string]any{"module": toJS(module), "threads": n})
	done := make(chan js.Value, 1)
	then := js.FuncOf(func(_ js.Value, args []js.Value) any { done <- args[0]; return nil })
	defer then.Release()
	promise.Call("then", then, then)
	pool := <-done
	if pool.Get("exports").IsUndefined() {
		t.Fatalf("%d threads did not start: %s", n, pool.Get("message").String())
	}
	return pool
}

// TestProbe expects the relaxed dot product to work where the page asks for
// it, as it does in all current browsers, and another instruction in its
// place to be found out.
func TestProbe(t *testing.T) {
	if variant() != Relaxed {
		t.Skip("not asked for relaxed SIMD")
	}
	if !probeRelaxed() {
		t.Error("the relaxed dot product is not what the kernels need")
	}
	dot, madd := []byte{0xfd, 0x93, 0x02}, []byte{0xfd, 0x85, 0x02}
	if bytes.Count(probeModule, dot) != 1 {
		t.Fatal("the probe is not what the test thinks")
	}
	defer func(m []byte) { probeModule = m }(probeModule)
	probeModule = bytes.Replace(probeModule, dot, madd, 1)
	if !validates(probeModule) || probeRelaxed() {
		t.Error("a wrong instruction passes for the relaxed dot product")
	}
}

// TestTrap runs records that make one thread stop at a trap, or all. Run must
// return with an error, now and later.
func TestTrap(t *testing.T) {
	for _, n := range threads() {
		if n == 1 {
			continue
		}
		d, err := NewThreads(variant(), startPool(t, n))
		if err != nil {
			t.Fatal(err)
		}
		record := func(kind kernel.Kind, words map[int]uint32) []byte {
			b := make([]byte, kernel.RecordSize)
			binary.LittleEndian.PutUint32(b, uint32(kind))
			for i, w := range words {
				binary.LittleEndian.PutUint32(b[4*i:], w)
			}
			return b
		}
		// Only the last thread's part lies beyond the end of the memory.
		size := uint32(d.host.size())
		last := record(kernel.KindActivate, map[int]uint32{
			kernel.RecordViews: size - 1024*uint32(n-1), kernel.RecordViews + 1: size - 1024*uint32(n-1), kernel.RecordInts: 256 * uint32(n)})
		good := record(kernel.KindActivate, map[int]uint32{
			kernel.RecordViews: size - 1024, kernel.RecordViews + 1: size - 1024, kernel.RecordInts: 256})
		at, _ := d.memory.reserve(2 * kernel.RecordSize)
		d.host.write(at, good)
		if err := d.host.run(at, 1); err != nil {
			t.Fatal(err)
		}
		d.host.write(at, append(last, good...))
		for range 2 {
			if err := d.host.run(at, 2); !errors.Is(err, errTrap) {
				t.Errorf("%d threads: got %v", n, err)
			}
		}
		d.Close()

		d, err = NewThreads(variant(), startPool(t, n))
		if err != nil {
			t.Fatal(err)
		}
		d.host.write(at, record(kernel.KindCount, nil))
		for range 2 {
			if err := d.host.run(at, 1); !errors.Is(err, errTrap) {
				t.Errorf("%d threads, an unknown kind: got %v", n, err)
			}
		}
		d.Close()
	}
}

// alike is several devices as one. All must do the same, to the last bit.
type alike struct {
	t       *testing.T
	devices []*Device
}

func (a *alike) Name() string { return a.devices[0].Name() }

// agree calls f for each member; their errors must be the same.
func (a *alike) agree(what string, n int, f func(i int) error) error {
	a.t.Helper()
	first := f(0)
	for i := 1; i < n; i++ {
		if err := f(i); !errors.Is(err, first) {
			a.t.Errorf("%s: %v on device %d, %v on the first", what, err, i, first)
		}
	}
	return first
}

func (a *alike) Load(c *kernel.Constants) error {
	return a.agree("Load", len(a.devices), func(i int) error { return a.devices[i].Load(c) })
}

func (a *alike) Open(p *kernel.Program) (kernel.Session, error) {
	s := &alikeSession{alike: a}
	err := a.agree("Open", len(a.devices), func(i int) error {
		session, err := a.devices[i].Open(p)
		s.sessions = append(s.sessions, session)
		return err
	})
	return s, err
}

func (a *alike) Close() error {
	return a.agree("Close", len(a.devices), func(i int) error { return a.devices[i].Close() })
}

type alikeSession struct {
	*alike
	sessions []kernel.Session
}

func (s *alikeSession) Write(v kernel.View, data []byte) error {
	return s.agree("Write", len(s.sessions), func(i int) error { return s.sessions[i].Write(v, data) })
}

func (s *alikeSession) Run(stage int) error {
	return s.agree("Run", len(s.sessions), func(i int) error { return s.sessions[i].Run(stage) })
}

func (s *alikeSession) Fetch(v kernel.View, data []byte) error { return s.Read(v, data) }

func (s *alikeSession) Wait() error {
	return s.agree("Wait", len(s.sessions), func(i int) error { return s.sessions[i].Wait() })
}

func (s *alikeSession) Read(v kernel.View, data []byte) error {
	other := make([]byte, len(data))
	return s.agree("Read", len(s.sessions), func(i int) error {
		if i == 0 {
			return s.sessions[0].Read(v, data)
		}
		err := s.sessions[i].Read(v, other)
		if err == nil && !bytes.Equal(data, other) {
			s.t.Errorf("%d threads gave other bits than %d", s.devices[i].Threads(), s.devices[0].Threads())
		}
		return err
	})
}

func (s *alikeSession) Close() error {
	return s.agree("Close", len(s.sessions), func(i int) error { return s.sessions[i].Close() })
}
