package model

import "github.com/pmp-seg/pmp/kernel"

// fpn is MaskFormer's pixel decoder: a feature pyramid from stride 32 to mask
// features at stride 4. The mask decoder looks at the trunk's own cells of
// stride 32.
type fpn struct {
	memory  conv // stride 32 for the mask decoder
	top     normed
	lateral [3]normed // strides 16, 8 and 4
	out     [3]normed
	mask    conv
}

func (l *loader) fpn(width int, s decoderShape, trunk [4]int) fpn {
	p := fpn{memory: l.conv("decoder.memory", trunk[3], s.d, 1, true), top: l.normed("pixel.top", trunk[3], width, 3, false)}
	for i := range p.out {
		p.lateral[i] = l.normed("pixel.lateral."+itoa(i), trunk[2-i], width, 1, false)
		p.out[i] = l.normed("pixel.out."+itoa(i), width, width, 3, false)
	}
	p.mask = l.conv("pixel.mask", width, s.dm, 3, true)
	return p
}

func (p fpn) run(g graph, f features) pyramid {
	x := g.normed(f.f32, p.top, kernel.ActReLU)
	for i, from := range []grid{f.f16, f.f8, f.f4} {
		left := g.normed(from, p.lateral[i], kernel.ActNone)
		x = g.normed(g.nearest(x, left.h, left.w, left.View), p.out[i], kernel.ActReLU)
	}
	memory := g.conv(f.f32, p.memory, 1, kernel.ActNone)
	return pyramid{
		features:   map[int]grid{cellSize: memory},
		positioned: map[int]grid{cellSize: g.centred(memory)},
		mask:       map[int]grid{4: g.conv(x, p.mask, 1, kernel.ActNone)},
	}
}
