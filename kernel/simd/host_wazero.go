//go:build !js

package simd

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// compiled keeps the machine code of the module between devices.
var compiled = wazero.NewCompilationCache()

// host is an instance of the module in wazero.
type host struct {
	runtime            wazero.Runtime
	memory             api.Memory
	runFunc, beginFunc api.Function
	stack              [2]uint64 // arguments of runFunc
	scratchSize        int
}

func newHost() (*host, error) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled))
	m, err := r.Instantiate(ctx, plainModule)
	if err != nil {
		r.Close(ctx)
		return nil, err
	}
	return &host{runtime: r, memory: m.Memory(), runFunc: m.ExportedFunction("run"), beginFunc: m.ExportedFunction("begin"),
		scratchSize: int(m.ExportedGlobal("scratchSize").Get())}, nil
}

func (h *host) name() string { return "simd (wazero)" }

func (h *host) size() int { return int(h.memory.Size()) }

func (h *host) grow(pages int) bool {
	_, ok := h.memory.Grow(uint32(pages))
	return ok
}

func (h *host) write(at int, data []byte) { h.memory.Write(uint32(at), data) }

func (h *host) read(at int, data []byte) {
	if b, ok := h.memory.Read(uint32(at), uint32(len(data))); ok {
		copy(data, b)
	}
}

func (h *host) run(records, count int) error {
	h.stack = [2]uint64{uint64(records), uint64(count)}
	if err := h.runFunc.CallWithStack(context.Background(), h.stack[:]); err != nil {
		return errTrap
	}
	return nil
}

func (h *host) begin(scratch int) {
	h.beginFunc.Call(context.Background(), uint64(scratch))
}

func (h *host) close() error { return h.runtime.Close(context.Background()) }
