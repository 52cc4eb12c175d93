// Package scalar is the pure-Go device: the truth that every other device is
// tested against, and what runs where nothing else can. Its loops are those
// of the ops' doc comments, reordered only where the plain order would be
// slower by an order of magnitude.
package scalar

import (
	"unsafe"

	"github.com/pmp-seg/pmp/kernel"
)

// maxArena refuses arenas that no picture within the engine's limits needs,
// since a failed allocation ends a Go program instead of returning an error.
const maxArena = 3 << 30

type device struct {
	constants []byte
	closed    bool
}

// New returns the scalar device.
func New() kernel.Device { return &device{} }

func (d *device) Name() string { return "scalar" }

func (d *device) Load(c *kernel.Constants) error {
	if d.closed {
		return kernel.ErrClosed
	}
	if c.Size() > maxArena {
		return kernel.ErrMemory
	}
	d.constants = words(c.Size())
	return c.Each(func(offset int, data []byte) error {
		copy(d.constants[offset:], data)
		return nil
	})
}

func (d *device) Open(p *kernel.Program) (kernel.Session, error) {
	if d.closed {
		return nil, kernel.ErrClosed
	}
	if p.ArenaSize() > maxArena {
		return nil, kernel.ErrMemory
	}
	s := &session{device: d, program: p, arena: words(p.ArenaSize())}
	p.Initial(func(address int, data []byte) { copy(s.arena[address:], data) })
	return s, nil
}

func (d *device) Close() error {
	d.closed, d.constants = true, nil
	return nil
}

type session struct {
	device  *device
	program *kernel.Program
	arena   []byte
}

func (s *session) Write(v kernel.View, data []byte) error {
	if s.arena == nil {
		return kernel.ErrClosed
	}
	if len(data) > s.program.Size(v) {
		panic("kernel/scalar: write beyond the end of a buffer")
	}
	copy(s.bytes(v), data)
	return nil
}

func (s *session) Read(v kernel.View, data []byte) error {
	if s.arena == nil {
		return kernel.ErrClosed
	}
	if len(data) > s.program.Size(v) {
		panic("kernel/scalar: read beyond the end of a buffer")
	}
	copy(data, s.bytes(v))
	return nil
}

// Fetch is Read, since Run has ended when it returns.
func (s *session) Fetch(v kernel.View, data []byte) error { return s.Read(v, data) }

// Wait has nothing to wait for.
func (s *session) Wait() error {
	if s.arena == nil {
		return kernel.ErrClosed
	}
	return nil
}

func (s *session) Close() error {
	s.arena = nil
	return nil
}

func (s *session) Run(stage int) error {
	if s.arena == nil || s.device.closed {
		return kernel.ErrClosed
	}
	for _, op := range s.program.Ops(stage) {
		s.run(op)
	}
	return nil
}

func (s *session) run(op kernel.Op) {
	switch o := op.(type) {
	case kernel.MatMul:
		s.matMul(o.Dense())
	case kernel.Conv:
		s.conv(o)
	case kernel.Depthwise:
		s.depthwise(o)
	case kernel.UpsampleAdd:
		s.upsampleAdd(o)
	case kernel.LayerNorm:
		s.layerNorm(o)
	case kernel.L2Norm:
		s.l2Norm(o)
	case kernel.L1Norm:
		s.l1Norm(o)
	case kernel.Add:
		s.add(o)
	case kernel.AddPosition:
		s.addPosition(o)
	case kernel.Attention:
		s.attention(o)
	case kernel.Pack:
		s.pack(o)
	case kernel.Activate:
		s.activate(o)
	case kernel.Classify:
		s.classify(o)
	case kernel.Picture:
		s.picture(o)
	case kernel.Paint:
		s.paint(o)
	case kernel.Quantize:
		s.quantize(o)
	case kernel.MatMul8:
		s.matMul8(o)
	case kernel.Depthwise8:
		s.depthwise8(o)
	case kernel.Residual8:
		s.residual8(o)
	case kernel.Columns8:
		s.columns8(o)
	case kernel.Maps:
		s.maps(o)
	case kernel.Peaks:
		s.peaks(o)
	case kernel.Tidy:
		s.tidy(o)
	case kernel.Colour:
		s.colour(o)
	case kernel.Smooth:
		s.smooth(o)
	case kernel.Guide:
		s.guide(o)
	case kernel.Guided:
		s.guided(o)
	case kernel.Gather:
		s.gather(o)
	case kernel.GroupNorm:
		s.groupNorm(o)
	case kernel.Deformable:
		s.deformable(o)
	case kernel.WindowAttention:
		s.windowAttention(o)
	default:
		panic("kernel/scalar: unknown op")
	}
}

// bytes returns the memory from v to the end of its buffer.
func (s *session) bytes(v kernel.View) []byte {
	// Constants are addressed from constantsAt so that one address tells the
	// two spaces apart.
	const constantsAt = 1 << 40
	at := s.program.Address(v, constantsAt, 0)
	if at >= constantsAt {
		at -= constantsAt
		return s.device.constants[at : at+s.program.Size(v)]
	}
	return s.arena[at : at+s.program.Size(v)]
}

// f returns the float32s from v to the end of its buffer, nil if v is absent.
func (s *session) f(v kernel.View) []float32 {
	if !v.Valid() {
		return nil
	}
	return kernel.Floats(s.bytes(v))
}

// i is f for int32s.
func (s *session) i(v kernel.View) []int32 {
	b := s.bytes(v)
	return unsafe.Slice((*int32)(unsafe.Pointer(&b[0])), len(b)/4)
}

// words makes n zeroed bytes that float32s may lie in.
func words(n int) []byte {
	return kernel.Bytes(make([]float32, n/4+1))[:n]
}
