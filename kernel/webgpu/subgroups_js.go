//go:build js

package webgpu

import "syscall/js"

// exchanging is how many invocations of an adapter may exchange what they
// have: the fewest that a subgroup has, or 0 if those of workgroups of the
// shapes in use do not lie in subgroups as they do in workgroups.
func (d *Device) exchanging(info js.Value) int {
	if !info.Truthy() || !info.Get("subgroupMinSize").Truthy() {
		return 0
	}
	size := min(info.Get("subgroupMinSize").Int(), groupSize)
	if size < 2 || size&(size-1) != 0 || !d.probe(size, d.card.shapes()...) {
		return 0
	}
	return size
}

// probe looks whether that many invocations of workgroups of these shapes may
// exchange what they have, see probe.wgsl.
func (d *Device) probe(size int, shapes ...Shape) bool {
	const groups = 16
	d.gpu.Call("pushErrorScope", "validation")
	module := d.gpu.Call("createShaderModule", map[string]any{"code": code("probe"), "label": "probe"})
	var promises []any
	for _, s := range shapes {
		promises = append(promises, d.gpu.Call("createComputePipelineAsync", map[string]any{"layout": "auto", "compute": map[string]any{
			"module": module, "constants": map[string]any{"SHUFFLED": size, "ACROSS": s.Across, "DOWN": s.Down}}}))
	}
	pipelines, ok := d.promises.wait(js.Global().Get("Promise").Call("all", promises))
	if e, fine := d.promises.wait(d.gpu.Call("popErrorScope")); !ok || !fine || e.Truthy() {
		return false
	}
	var wrong js.Value
	if d.create(want{&wrong, 4, usageStorage | usageCopySrc}) != nil {
		return false
	}
	defer wrong.Call("destroy")
	pass := d.beginPass.call(d.commands())
	for i := range promises {
		pipeline := pipelines.Index(i)
		group := d.gpu.Call("createBindGroup", map[string]any{"layout": pipeline.Call("getBindGroupLayout", 0), "entries": []any{
			map[string]any{"binding": 0, "resource": map[string]any{"buffer": wrong}}}})
		d.setPipeline.call(pass, pipeline)
		d.setBindGroup.call(pass, 0, group)
		d.dispatch.call(pass, groups, 1)
	}
	d.end.call(pass)
	found := []byte{1, 0, 0, 0}
	return d.fetch(wrong, 0, found) == nil && d.wait() == nil && string(found) == "\x00\x00\x00\x00"
}
