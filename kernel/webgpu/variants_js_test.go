package webgpu

import (
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// TestVariants compiles all shaders in all variants, and with all settings that
// tuning may choose. It needs no card: Dawn's "null" one has all features and
// computes nothing.
func TestVariants(t *testing.T) {
	if !variant("null") {
		t.Skip("run by ./build.sh test, in Node with the npm package webgpu")
	}
	d, err := New(Options{Half: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if subgroups := d.gpu.Get("features").Call("has", "subgroups").Bool(); !d.card.half || !d.card.dot || !subgroups {
		t.Fatalf("this card lacks something: %+v", d.card)
	}
	d.gpu.Call("pushErrorScope", "validation")
	names := map[string]bool{}
	for _, c := range cards() {
		for _, o := range everyOp() {
			names[d.pipeline(o.lay(&c))] = true
			if o.kind != kernel.KindMatMul && o.kind != kernel.KindMatMul8 && o.kind != kernel.KindAttention {
				continue
			}
			for part := range tuneParts {
				for _, c.tuning = range untuned.candidates(part) {
					names[d.pipeline(o.lay(&c))] = true
				}
				c.tuning = untuned
			}
		}
	}
	for name := range names {
		if _, err := d.compiled(name); err != nil {
			t.Error(err)
		}
	}
	if err := d.prepareDraw(); err != nil {
		t.Error(err)
	}
	if err := d.prepareShow("bgra8unorm"); err != nil {
		t.Error(err)
	}
	if e, ok := d.promises.wait(d.gpu.Call("popErrorScope")); !ok || e.Truthy() {
		t.Error(messageOf(e))
	}
	t.Logf("%d modules in %d settings", len(d.modules), len(names))
}
