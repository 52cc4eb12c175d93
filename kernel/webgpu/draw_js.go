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

// drawing is what Draw needs, or Show, made when it is first called.
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
	if err := d.prepareDraw(); err != nil {
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
	d.flush() // what reads the pixels that were there
	if !d.copyImage(source, texture, size) {
		return ErrTexture
	}
	group := d.drawing.group(s, v, width, height, texture.Call("createView"))
	pass := d.beginPass.call(d.commands())
	d.setPipeline.call(pass, d.drawing.pipeline)
	d.setBindGroup.call(pass, 0, group)
	d.dispatch.call(pass, (width+7)/8, (height+7)/8)
	d.end.call(pass)
	d.flush() // before the texture is destroyed
	return s.state()
}

// Show puts a picture of RGBA pixels, four bytes each and not multiplied by
// alpha, from where the program has it onto a canvas, without bringing it to
// the CPU. The canvas, which may be an OffscreenCanvas, gets this width and
// height. It must not have had another context than WebGPU's. ErrTexture says
// that reading the pixels may still work.
func (s *Session) Show(v kernel.View, canvas js.Value, width, height int) error {
	if err := s.state(); err != nil {
		return err
	}
	if 4*width*height > s.program.Size(v) {
		panic("kernel/webgpu: Show beyond the end of the buffer")
	}
	d := s.device
	if !canvas.Truthy() || max(width, height) > d.gpu.Get("limits").Get("maxTextureDimension2D").Int() {
		return ErrTexture
	}
	format := js.Global().Get("navigator").Get("gpu").Call("getPreferredCanvasFormat").String()
	if err := d.prepareShow(format); err != nil {
		return err
	}
	canvas.Set("width", width)
	canvas.Set("height", height)
	context := canvas.Call("getContext", "webgpu")
	if !context.Truthy() {
		return ErrTexture
	}
	// Whatever goes wrong with a canvas must not count as our own failure.
	scopes := []string{"validation", "internal", "out-of-memory"}
	d.flush()
	for _, filter := range scopes {
		d.gpu.Call("pushErrorScope", filter)
	}
	context.Call("configure", map[string]any{"device": d.gpu, "format": format, "alphaMode": "premultiplied"})
	view := context.Call("getCurrentTexture").Call("createView")
	group := d.showing.group(s, v, width, height)
	pass := d.commands().Call("beginRenderPass", map[string]any{"colorAttachments": []any{
		map[string]any{"view": view, "loadOp": "clear", "storeOp": "store"}}})
	pass.Call("setPipeline", d.showing.pipeline)
	pass.Call("setBindGroup", 0, group)
	pass.Call("draw", 3)
	pass.Call("end")
	d.flush()
	fine := true
	for range scopes {
		e, ok := d.promises.wait(d.gpu.Call("popErrorScope"))
		fine = fine && ok && !e.Truthy()
	}
	if err := s.state(); err != nil {
		return err
	}
	if !fine {
		return ErrTexture
	}
	return nil
}

// group binds the arena from v on, the pixels' sides and what else there is.
func (w *drawing) group(s *Session, v kernel.View, width, height int, more ...any) js.Value {
	words := []byte{}
	for _, n := range []int{s.Address(v) / 4, width, height, 0} {
		words = append(words, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	s.device.write(w.params, 0, words)
	entries := []any{map[string]any{"binding": 0, "resource": map[string]any{"buffer": s.arena}},
		map[string]any{"binding": 1, "resource": map[string]any{"buffer": w.params}}}
	for i, resource := range more {
		entries = append(entries, map[string]any{"binding": 2 + i, "resource": resource})
	}
	return s.device.gpu.Call("createBindGroup", map[string]any{"layout": w.layout, "entries": entries})
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

func (d *Device) prepareDraw() error {
	return d.drawing.prepare(d, "image", func(module js.Value) js.Value {
		return d.gpu.Call("createComputePipelineAsync", map[string]any{"layout": "auto", "compute": map[string]any{"module": module}})
	})
}

func (d *Device) prepareShow(format string) error {
	return d.showing.prepare(d, "show", func(module js.Value) js.Value {
		return d.gpu.Call("createRenderPipelineAsync", map[string]any{"layout": "auto", "vertex": map[string]any{"module": module},
			"fragment": map[string]any{"module": module, "targets": []any{map[string]any{"format": format}}}})
	})
}

func (w *drawing) prepare(d *Device, shader string, pipelineOf func(module js.Value) js.Value) error {
	if w.pipeline.Truthy() {
		return nil
	}
	module := d.gpu.Call("createShaderModule", map[string]any{"code": code(shader)})
	pipeline, ok := d.promises.wait(pipelineOf(module))
	if !ok {
		if err := d.state(); err != nil {
			return err
		}
		return &deviceError{errFailed, messageOf(pipeline)}
	}
	if err := d.create(want{&w.params, 16, usageUniform | usageCopyDst}); err != nil {
		return err
	}
	w.pipeline, w.layout = pipeline, pipeline.Call("getBindGroupLayout", 0)
	return nil
}
