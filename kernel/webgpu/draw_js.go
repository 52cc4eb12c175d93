//go:build js

package webgpu

import (
	"errors"
	"syscall/js"

	"github.com/pmp-seg/pmp/kernel"
)

// ErrTexture says that a picture is too large for a texture, or that the
// browser does not give it to the card. Writing its pixels may still work.
var ErrTexture = errors.New("this picture cannot become a texture")

// drawing is what Draw needs, made when it is first called.
type drawing struct {
	layout, pipeline, params js.Value
}

// Draw puts a picture where the program reads RGBA pixels, without bringing
// it to the CPU. The source is whatever a card can copy: an ImageBitmap, a
// canvas, a video, a VideoFrame. It has to have this width and height.
func (s *Session) Draw(v kernel.View, source js.Value, width, height int) error {
	if err := s.state(); err != nil {
		return err
	}
	if 4*width*height > s.program.Size(v) {
		panic("kernel/webgpu: Draw beyond the end of the buffer")
	}
	d := s.device
	if max(width, height) > d.gpu.Get("limits").Get("maxTextureDimension2D").Int() {
		return ErrTexture
	}
	if err := d.prepareDrawing(); err != nil {
		return err
	}
	const (
		usageCopyDst          = 2
		usageTextureBinding   = 4
		usageRenderAttachment = 16 // what copies of images ask for
	)
	size := map[string]any{"width": width, "height": height}
	d.gpu.Call("pushErrorScope", "out-of-memory")
	texture := d.gpu.Call("createTexture", map[string]any{"size": size, "format": "rgba8unorm",
		"usage": usageCopyDst | usageTextureBinding | usageRenderAttachment})
	defer texture.Call("destroy") // once what was submitted is done
	if e, ok := d.promises.wait(d.gpu.Call("popErrorScope")); !ok || e.Truthy() {
		return kernel.ErrMemory
	}
	if !d.copyImage(source, texture, size) {
		return ErrTexture
	}
	words := []byte{}
	for _, w := range []int{s.Address(v) / 4, width, height, 0} {
		words = append(words, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	d.write(d.drawing.params, 0, words)
	group := d.gpu.Call("createBindGroup", map[string]any{"layout": d.drawing.layout, "entries": []any{
		map[string]any{"binding": 0, "resource": map[string]any{"buffer": s.arena}},
		map[string]any{"binding": 1, "resource": texture.Call("createView")},
		map[string]any{"binding": 2, "resource": map[string]any{"buffer": d.drawing.params}},
	}})
	encoder := d.createEncoder.call()
	pass := d.beginPass.call(encoder)
	d.setPipeline.call(pass, d.drawing.pipeline)
	d.setBindGroup.call(pass, 0, group)
	d.dispatch.call(pass, (width+7)/8, (height+7)/8)
	d.end.call(pass)
	d.send(encoder)
	return s.state()
}

// copyImage tells whether the browser let us; it throws for pictures of other
// origins and closed ones.
func (d *Device) copyImage(source, texture js.Value, size map[string]any) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	d.queue.Call("copyExternalImageToTexture", map[string]any{"source": source}, map[string]any{"texture": texture}, size)
	return true
}

func (d *Device) prepareDrawing() error {
	if d.drawing.pipeline.Truthy() {
		return nil
	}
	module := d.gpu.Call("createShaderModule", map[string]any{"code": code("image")})
	pipeline, ok := d.promises.wait(d.gpu.Call("createComputePipelineAsync", map[string]any{"layout": "auto", "compute": map[string]any{"module": module}}))
	if !ok {
		if err := d.state(); err != nil {
			return err
		}
		return &deviceError{errFailed, messageOf(pipeline)}
	}
	if err := d.create(want{&d.drawing.params, 16, usageUniform | usageCopyDst}); err != nil {
		return err
	}
	d.drawing.pipeline, d.drawing.layout = pipeline, pipeline.Call("getBindGroupLayout", 0)
	return nil
}
