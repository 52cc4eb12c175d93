//go:build !js

package simd

import (
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

func open(t *testing.T) kernel.Device {
	d, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// memory is how many bytes a device from open takes.
func memory(d kernel.Device) int { return d.(*Device).host.size() }
