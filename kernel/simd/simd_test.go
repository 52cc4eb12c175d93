package simd

import (
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/kerneltest"
)

// TestDevice runs natively through wazero, and in V8 with
//
//	GOOS=js GOARCH=wasm go test -exec "$(go env GOROOT)/lib/wasm/go_js_wasm_exec" ./kernel/simd
func TestDevice(t *testing.T) {
	kerneltest.Run(t, func() kernel.Device {
		d, err := New()
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
