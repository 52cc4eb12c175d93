//go:build js && wasm && bases

package main

import (
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model"
)

// build makes the network of the manifest, which is a public checkpoint's.
func build(device kernel.Device, precision model.Precision) (*model.Model, error) {
	return model.LoadBase(manifest, device, precision)
}
