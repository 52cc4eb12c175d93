package main

import (
	"flag"
	"fmt"
	"image"
	"os"
	"path/filepath"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
	shipped "github.com/pmp-seg/pmp/weights/default"
)

// engineFlags are the flags of every command that runs the model.
type engineFlags struct {
	weights, device, precision string
}

func (f *engineFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.weights, "weights", "", "folder of weights (default: the shipped model)")
	flags.StringVar(&f.device, "device", "auto", "auto, simd or scalar")
	flags.StringVar(&f.precision, "precision", "int8", "int8 or f32: how products with weights are computed (always f32 for a public checkpoint)")
}

// readWeights reads a folder of weights, or the shipped ones if dir is empty.
func readWeights(dir string) (*weights.Manifest, error) {
	if dir == "" {
		return weights.Load(shipped.FS.ReadFile)
	}
	return weights.Load(func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
}

// newDevice makes the device with a name; auto is the fastest one that works.
func newDevice(name string) (kernel.Device, error) {
	switch name {
	case "scalar":
		return scalar.New(), nil
	case "simd":
		return simd.New()
	case "auto":
		if d, err := simd.New(); err == nil {
			return d, nil
		}
		return scalar.New(), nil
	}
	return nil, fmt.Errorf("there is no device %q; take auto, simd or scalar", name)
}

// load makes the device and loads the model on it.
func (f engineFlags) load() (*model.Model, kernel.Device, error) {
	precision, ok := model.PrecisionOf(f.precision)
	if !ok {
		return nil, nil, fmt.Errorf("there is no precision %q; take int8 or f32", f.precision)
	}
	m, err := readWeights(f.weights)
	if err != nil {
		return nil, nil, err
	}
	device, err := newDevice(f.device)
	if err != nil {
		return nil, nil, err
	}
	loaded, err := build(m, device, precision)
	if err != nil {
		device.Close()
		return nil, nil, err
	}
	return loaded, device, nil
}

// build makes the network that a manifest describes.
func build(m *weights.Manifest, device kernel.Device, precision model.Precision) (*model.Model, error) {
	switch m.Arch {
	case model.Mask2Former, model.MaskFormer:
		return model.LoadBase(m, device)
	}
	return model.Load(m, device, precision)
}

// encode puts a photo on the model's device and encodes it.
func encode(m *model.Model, img *image.RGBA) (*model.Picture, error) {
	p, err := m.NewPicture(img.Rect.Dx(), img.Rect.Dy())
	if err != nil {
		return nil, err
	}
	if err := p.Write(img.Pix); err != nil {
		return nil, err
	}
	if err := p.Encode(); err != nil {
		return nil, err
	}
	return p, nil
}
