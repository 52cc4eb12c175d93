package webgpu

import (
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
)

// Every kind has a role whose files are there, or is replaced by others.
func TestRoles(t *testing.T) {
	for kind := kernel.Kind(1); kind < kernel.KindCount; kind++ {
		o := op{kind: kind}
		for i := range o.ints {
			o.ints[i] = 16
		}
		o.ints[6], o.ints[7] = 1, 1
		ops, _ := o.expand(0)
		for i := range ops {
			for _, c := range []card{{}, {dot: true}, {shuffled: 8}, {half: true}} {
				d := ops[i].lay(&c)
				code := code(d.module)
				for _, s := range d.settings {
					if !strings.Contains(code, "override "+s.name+": ") {
						t.Errorf("%s: %s is not a setting of %q", kind, s.name, d.module)
					}
				}
				if strings.Count(code, "struct Op {") != 1 || strings.Count(code, "fn main(") != 1 {
					t.Errorf("%s: %q is not one shader", kind, d.module)
				}
				if strings.Contains(code, "enable ") != (strings.HasPrefix(code, "enable ")) {
					t.Errorf("%s: %q enables something too late", kind, d.module)
				}
				if d.groups <= 0 {
					t.Errorf("%s: %d groups", kind, d.groups)
				}
			}
		}
	}
}

func TestFold(t *testing.T) {
	for _, groups := range []int{1, 65535, 65536, 65537, 131070, 131071, 1 << 24} {
		x, y := fold(groups)
		if x > maxGroups || y > maxGroups || x*y < groups || x*y >= groups+y {
			t.Errorf("%d groups are folded into %d × %d", groups, x, y)
		}
	}
}

// What lies at multiples of 16 bytes is moved by fours of words, what does
// not by fewer.
func TestWide(t *testing.T) {
	for _, c := range []struct {
		at, n int
		want  string
	}{{0, 8, "memory4"}, {2, 8, "memory2"}, {5, 8, "memory1"}, {4, 12, "memory4"}} {
		o := op{kind: kernel.KindAdd}
		for i := range o.views {
			o.views[i] = absent
		}
		o.views[0], o.views[1], o.views[2] = 16, uint32(c.at), 32
		o.ints[0], o.ints[1], o.ints[2] = 1, c.n, 1
		if d := o.lay(&card{}); !strings.Contains(d.module, c.want) {
			t.Errorf("at word %d, rows of %d: got %s, want %s", c.at, c.n, d.module, c.want)
		}
	}
}
