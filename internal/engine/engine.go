// Package engine is the model as the host programs run it: cmd/pmp and the
// pipelines in batch/. It loads weights on a device, and it answers in the
// form that both print.
package engine

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

// Options say which model runs, and how.
type Options struct {
	Weights   string // a folder; empty means the shipped ones
	Device    string // auto, simd or scalar
	Precision string // int8 or f32; empty means what suits the network
}

// Flags defines the options as flags of a command.
func (o *Options) Flags(flags *flag.FlagSet) {
	flags.StringVar(&o.Weights, "weights", "", "folder of weights (default: the shipped model)")
	flags.StringVar(&o.Device, "device", "auto", "auto, simd or scalar")
	flags.StringVar(&o.Precision, "precision", "", "int8 or f32: how products with weights are computed (default: int8, for a public checkpoint f32)")
}

// ReadWeights reads a folder of weights, or the shipped ones if dir is empty.
func ReadWeights(dir string) (*weights.Manifest, error) {
	if dir == "" {
		return weights.Load(shipped.FS.ReadFile)
	}
	return weights.Load(func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
}

// NewDevice makes the device with a name; auto is the fastest one that works.
func NewDevice(name string) (kernel.Device, error) {
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

// Load reads the weights and loads them on a device.
func (o Options) Load() (*model.Model, error) {
	m, err := ReadWeights(o.Weights)
	if err != nil {
		return nil, err
	}
	return o.Open(m)
}

// Open loads weights on a device of its own. They are only read, so they may
// be opened any number of times.
func (o Options) Open(m *weights.Manifest) (*model.Model, error) {
	precision, err := o.precision(m)
	if err != nil {
		return nil, err
	}
	device, err := NewDevice(o.Device)
	if err != nil {
		return nil, err
	}
	loaded, err := Build(m, device, precision)
	if err != nil {
		device.Close()
		return nil, err
	}
	return loaded, nil
}

// precision is that of a network.
func (o Options) precision(m *weights.Manifest) (model.Precision, error) {
	p, ok := model.PrecisionOf(o.Precision, m.Arch)
	if !ok {
		return p, fmt.Errorf("there is no precision %q; take int8 or f32", o.Precision)
	}
	return p, nil
}

// Build makes the network that a manifest describes.
func Build(m *weights.Manifest, device kernel.Device, precision model.Precision) (*model.Model, error) {
	switch m.Arch {
	case model.Mask2Former, model.MaskFormer, model.FCCLIP:
		return model.LoadBase(m, device, precision)
	}
	return model.Load(m, device, precision)
}

// Encode puts a photo on the model's device and encodes it.
func Encode(m *model.Model, img *image.RGBA) (*model.Picture, error) {
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
