// Package simd runs programs on a small WebAssembly module of SIMD kernels.
// The module is made by a Go program, see gen; it holds the loop over op
// records as well, so that a stage is a single call. Constants, arenas and
// records all lie in the module's own memory.
//
// In a browser the module is instantiated by the engine's own runtime
// (host_js.go), elsewhere the same bytes run through wazero
// (host_wazero.go).
package simd

import (
	_ "embed"
	"errors"

	"github.com/pmp-seg/pmp/kernel"
)

//go:generate go run ./gen

// plainModule needs SIMD128 only, which every current browser has.
//
//go:embed simd.wasm
var plainModule []byte

// errTrap can only come from a broken record or a broken module.
var errTrap = errors.New("kernel/simd: the module stopped at a trap")

// Device is a kernel.Device on an instance of the module. Nothing in it may
// be used by two goroutines at once.
type Device struct {
	host      *host
	memory    allocator
	constants int // address
	sessions  []*Session
	closed    bool
}

// New instantiates the module, for one thread.
func New() (*Device, error) {
	h, err := newHost()
	if err != nil {
		return nil, err
	}
	return newDevice(h, firstAddress)
}

// newDevice makes a device of a host whose memory is free from start on. A
// host that has no scratch yet gets it from there.
func newDevice(h *host, start int) (*Device, error) {
	d := &Device{host: h}
	d.memory.grow = h.grow
	d.memory.end = h.size()
	d.memory.release(start, d.memory.end-start)
	if h.scratchSize > 0 {
		scratch, ok := d.memory.reserve(h.scratchSize)
		if !ok {
			return nil, kernel.ErrMemory
		}
		h.begin(scratch)
	}
	return d, nil
}

// Name tells the device from others in reports.
func (d *Device) Name() string { return d.host.name() }

// Load reserves room for the constants and writes them one after the other.
func (d *Device) Load(c *kernel.Constants) error {
	if d.closed {
		return kernel.ErrClosed
	}
	if c.Size() == 0 {
		return nil
	}
	at, ok := d.memory.reserve(c.Size())
	if !ok {
		return kernel.ErrMemory
	}
	d.constants = at
	return c.Each(func(offset int, data []byte) error {
		d.host.write(at+offset, data)
		return nil
	})
}

// Open reserves the arena and the records of a planned program.
func (d *Device) Open(p *kernel.Program) (kernel.Session, error) {
	if d.closed {
		return nil, kernel.ErrClosed
	}
	ops := 0
	for i := range p.Stages() {
		ops += len(p.Ops(i))
	}
	s := &Session{device: d, program: p}
	s.recordsSize, s.arenaSize = ops*kernel.RecordSize, p.ArenaSize()
	var ok bool
	if s.arena, ok = d.memory.reserve(s.arenaSize); !ok {
		return nil, kernel.ErrMemory
	}
	if s.records, ok = d.memory.reserve(s.recordsSize); !ok {
		d.memory.release(s.arena, s.arenaSize)
		return nil, kernel.ErrMemory
	}
	p.Initial(func(address int, data []byte) { d.host.write(s.arena+address, data) })
	at := s.records
	for i := range p.Stages() {
		records := p.Records(i, d.constants, s.arena)
		d.host.write(at, records)
		s.stages = append(s.stages, stage{at, len(records) / kernel.RecordSize})
		at += len(records)
	}
	d.sessions = append(d.sessions, s)
	return s, nil
}

// Close ends the device and all its sessions. Closing again does nothing.
func (d *Device) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	for _, s := range d.sessions {
		s.closed = true
	}
	return d.host.close()
}

// Session is a program in the module's memory.
type Session struct {
	device               *Device
	program              *kernel.Program
	arena, arenaSize     int
	records, recordsSize int
	stages               []stage
	closed               bool
}

// stage is where the records of a stage lie, and how many there are.
type stage struct{ address, count int }

// Address is where v lies in the module's memory, for whoever writes there
// without us. It is good as long as the session is open.
func (s *Session) Address(v kernel.View) int {
	return s.program.Address(v, s.device.constants, s.arena)
}

// Write copies data to v.
func (s *Session) Write(v kernel.View, data []byte) error {
	if s.closed {
		return kernel.ErrClosed
	}
	if len(data) > s.program.Size(v) {
		panic("kernel/simd: Write beyond the end of the buffer")
	}
	s.device.host.write(s.Address(v), data)
	return nil
}

// Run runs the ops of a stage.
func (s *Session) Run(stage int) error {
	if s.closed {
		return kernel.ErrClosed
	}
	st := s.stages[stage]
	return s.device.host.run(st.address, st.count)
}

// Read copies from v.
func (s *Session) Read(v kernel.View, data []byte) error {
	if s.closed {
		return kernel.ErrClosed
	}
	if len(data) > s.program.Size(v) {
		panic("kernel/simd: Read beyond the end of the buffer")
	}
	s.device.host.read(s.Address(v), data)
	return nil
}

// Fetch is Read, since Run has ended when it returns.
func (s *Session) Fetch(v kernel.View, data []byte) error { return s.Read(v, data) }

// Wait has nothing to wait for.
func (s *Session) Wait() error {
	if s.closed {
		return kernel.ErrClosed
	}
	return nil
}

// Close gives the session's memory back to the device. Closing again does nothing.
func (s *Session) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	d := s.device
	d.memory.release(s.arena, s.arenaSize)
	d.memory.release(s.records, s.recordsSize)
	for i, other := range d.sessions {
		if other == s {
			d.sessions = append(d.sessions[:i], d.sessions[i+1:]...)
			break
		}
	}
	return nil
}
