package webgpu

import (
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// cards are all that a card may have and lack.
func cards() (all []card) {
	for i := range 8 {
		c := card{dot: i&1 != 0, half: i&4 != 0}
		if i&2 != 0 {
			c.shuffled = 8
		}
		all = append(all, c)
	}
	return all
}

// everyOp has ops of all kinds such that all shaders are taken, in each width
// of memory and with operands that are constants and not.
func everyOp() (all []op) {
	var shapes []op
	for kind := kernel.Kind(1); kind < kernel.KindCount; kind++ {
		o := op{kind: kind}
		for i := range o.ints {
			o.ints[i] = 16
		}
		shapes = append(shapes, o)
		tall := o
		tall.ints[0], tall.ints[1] = 1<<12, 1<<8
		halves := o
		halves.halves = true
		switch kind {
		case kernel.KindMatMul:
			shapes = append(shapes, tall)
		case kernel.KindMatMul8:
			shapes = append(shapes, tall, halves)
			halves.ints[0], halves.ints[1] = tall.ints[0], tall.ints[1]
			shapes = append(shapes, halves)
		case kernel.KindPack:
			shapes = append(shapes, halves)
		case kernel.KindAttention:
			tall.ints[2], tall.ints[3] = 512, 8
			shapes = append(shapes, tall, halves)
			halves.ints = tall.ints
			shapes = append(shapes, halves)
		}
	}
	for _, o := range shapes {
		for _, at := range []uint32{16, 18, 17} {
			for i := range o.views {
				o.views[i] = at
			}
			for _, o.constants = range []uint32{0, 1 << 2} {
				parts, _ := o.expand(16)
				all = append(all, parts...)
			}
		}
	}
	return all
}

// All shaders are in use, and each module is one.
func TestEveryShader(t *testing.T) {
	used := map[string]bool{"image": true, "show": true, "probe": true} // see Draw, Show and probe
	modules := map[string]bool{}
	for _, c := range cards() {
		for _, o := range everyOp() {
			d := o.lay(&c)
			if modules[d.module] {
				continue
			}
			modules[d.module] = true
			for name := range strings.FieldsSeq(d.module) {
				used[name] = true
			}
			text := code(d.module)
			if strings.Count(text, "fn main(") != 1 || strings.Contains(strings.TrimLeft(text, "enable subgroupsf16;\n"), "enable ") {
				t.Errorf("%q is not one shader", d.module)
			}
		}
	}
	for part := range strings.SplitSeq(shaders, "#") {
		if name, _, _ := strings.Cut(part, "\n"); name != "" && !used[name] {
			t.Errorf("nothing takes %s.wgsl", name)
		}
	}
}
