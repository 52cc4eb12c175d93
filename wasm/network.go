//go:build js && wasm && !bases

package main

import (
	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/model"
)

// build makes the network of the manifest, which is this project's own. Those of
// public checkpoints have an engine of their own, see bases.go, so that nobody
// else downloads it.
func build(device kernel.Device, precision model.Precision) (*model.Model, error) {
	return model.Load(manifest, device, precision)
}
