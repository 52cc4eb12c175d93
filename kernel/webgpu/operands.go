package webgpu

import "github.com/pmp-seg/pmp/kernel"

// operand is what an op reads or writes of a view, in bytes.
type operand struct {
	view   int
	bytes  int // each counted once
	extent int // from the first to the last
	write  bool
	part   bool // not all of the extent need be written
}

// collector gathers the operands of an op, but for views that it was not given.
// None of its methods is inlined: sixty calls would be a hundredth of the engine.
type collector struct {
	views []uint32
	all   []operand
}

//go:noinline
func (c *collector) add(x operand) {
	if c.views[x.view] != absent {
		c.all = append(c.all, x)
	}
}

//go:noinline
func (c *collector) read(view, bytes int) { c.add(operand{view: view, bytes: bytes, extent: bytes}) }

//go:noinline
func (c *collector) write(view, bytes int) {
	c.add(operand{view: view, bytes: bytes, extent: bytes, write: true})
}

//go:noinline
func (c *collector) part(view, bytes int) {
	c.add(operand{view: view, bytes: bytes, extent: bytes, write: true, part: true})
}

// rows are m of float32s that start ld apart.
//
//go:noinline
func (c *collector) rows(view, m, length, ld int) {
	c.add(operand{view: view, bytes: 4 * m * length, extent: span(m, length, ld)})
}

//go:noinline
func (c *collector) writeRows(view, m, length, ld int) {
	c.add(operand{view: view, bytes: 4 * m * length, extent: span(m, length, ld), write: true, part: length != ld})
}

// span is from the first to the last byte of rows of float32s that start ld apart.
func span(rows, length, ld int) int { return 4 * ((rows-1)*ld + length) }

// operands are those of an op that expand has nothing to replace of. Rows that
// are read with gaps between them have an extent beyond their bytes; what an
// op adds to or goes on with is both read and written.
func (o *op) operands() []operand {
	if o.kind == kernel.KindResidual8 {
		panic("kernel/webgpu: operands of an op that is several")
	}
	n := &o.ints
	c := collector{views: o.views[:]}
	add, read, write, part, rows, writeRows := c.add, c.read, c.write, c.part, c.rows, c.writeRows
	size := func(bytes bool, n int) int { // of numbers
		if bytes {
			return n
		}
		return 4 * n
	}
	packed := func(n int) int { // of numbers of a packed matrix
		if o.halves {
			return 2 * n
		}
		return 4 * n
	}
	const everything = 1 << 30 // that lies behind a view
	switch o.kind {
	case kernel.KindMatMul:
		rows(1, n[0], n[2], n[3])
		if n[4] == 0 {
			read(2, 4*n[1]*n[2])
		} else {
			rows(2, n[2], n[1], n[4])
		}
		read(3, 4*n[1])
		rows(4, n[0], n[1], n[6])
		writeRows(0, n[0], n[1], n[5])
	case kernel.KindMatMul8:
		read(1, n[0]*n[2])
		read(2, 4*kernel.MatMul8Len(n[2], n[1]))
		read(3, 8*n[0])
		rows(4, n[0], n[1], n[4])
		switch {
		case n[6] != 0:
			write(0, packed(n[0]*n[1]))
		case n[5] != 0:
			add(operand{view: 0, bytes: n[0] * n[1], extent: (n[0]-1)*n[3] + n[1], write: true, part: n[1] != n[3]})
		default:
			writeRows(0, n[0], n[1], n[3])
		}
	case kernel.KindConv:
		h, w, out, side, stride, c, wp := n[0], n[1], n[2], n[3], n[4], n[5], n[6]
		read(1, span((h-1)*stride+side, ((w-1)*stride+side)*c, wp*c))
		read(2, 4*side*side*c*out)
		read(3, 4*out)
		write(0, size(n[7] != 0, h*w*out))
	case kernel.KindDepthwise:
		read(1, 4*n[2]*n[3]*n[4])
		read(2, 4*n[5]*n[5]*n[4])
		read(3, 4*n[4])
		write(0, size(n[8] != 0, n[0]*n[1]*n[4]))
	case kernel.KindDepthwise8:
		read(1, n[2]*n[3]*n[4])
		read(2, 4*kernel.Depthwise8Len(n[5], n[4]))
		write(0, n[0]*n[1]*n[4])
	case kernel.KindUpsampleAdd:
		read(1, 4*n[0]*n[1]*n[2])
		read(2, 16*n[0]*n[1]*n[2])
		write(0, 16*n[0]*n[1]*n[2])
	case kernel.KindLayerNorm, kernel.KindL2Norm, kernel.KindL1Norm:
		read(1, 4*n[0]*n[1])
		if o.kind == kernel.KindL2Norm {
			read(2, 4*n[1])
		} else {
			read(2, 4*n[0]*n[1])
		}
		read(3, 4*n[1])
		read(4, 4*n[1])
		write(0, 4*n[0]*n[1])
	case kernel.KindQuantize:
		read(2, 4*n[0]*n[1])
		write(0, n[0]*n[1])
		write(1, 8*n[0])
	case kernel.KindAdd:
		read(1, 4*n[0]*n[1])
		read(2, 4*min(n[0], n[2])*n[1])
		write(0, 4*n[0]*n[1])
	case kernel.KindAddPosition:
		read(1, 4*n[0]*n[1]*n[2])
		read(2, 2*n[0]*n[2])
		read(3, 2*n[1]*n[2])
		write(0, 4*n[0]*n[1]*n[2])
	case kernel.KindAttention:
		rows(1, n[0], n[2], n[4])
		read(2, packed(n[1]*n[2]))
		read(3, packed(n[1]*n[2]))
		read(4, 4*n[0]*n[1])
		read(5, 4)
		write(0, 4*n[0]*n[2])
	case kernel.KindWindowAttention:
		rows(1, n[0]*n[1], n[2], n[4])
		rows(2, n[2]/kernel.Panel, kernel.Panel*n[0]*n[1], kernel.Panel*n[5])
		rows(3, n[2]/kernel.Panel, kernel.Panel*n[0]*n[1], kernel.Panel*n[5])
		read(4, 4*n[3]*n[1]*((n[1]+3)&^3))
		write(0, 4*n[0]*n[1]*n[2])
	case kernel.KindPack:
		if n[3] == 0 {
			rows(1, n[0], n[1], n[2])
		} else {
			rows(1, n[1], n[0], n[2])
		}
		write(0, packed(kernel.PackedLen(n[0], n[1])))
	case kernel.KindActivate:
		read(1, 4*n[0])
		write(0, 4*n[0])
	case kernel.KindClassify:
		read(1, 4*n[0]*n[1])
		read(2, 4*n[0]*n[1])
		read(3, 12*n[1])
		read(4, 4*n[1])
		rows(5, n[0], 1, n[3])
		write(0, 4*(n[2]+1)*n[0])
	case kernel.KindPicture:
		read(1, 4*n[4]*n[5])
		read(2, 4*n[0]*(2+n[6]))
		read(3, 4*n[1]*(2+n[7]))
		write(0, 16*n[2]*n[3])
	case kernel.KindPaint, kernel.KindPaintGuided:
		numbers := 1 // a cell has
		if o.kind == kernel.KindPaintGuided {
			numbers = 4
		}
		read(1, 4*numbers*n[4]*n[2]*n[3])
		read(2, 16*n[0])
		read(3, 16*n[1])
		for _, i := range []int{4, 7} {
			read(i, 4)
		}
		read(5, 4*n[0]*n[1])
		if o.views[6] != absent {
			read(0, n[0]*n[1])
		}
		write(0, n[0]*n[1])
		read(6, 4*n[0]*n[1])
		write(6, 4*n[0]*n[1])
	case kernel.KindSmooth:
		read(1, 4*n[0]*n[1])
		write(0, 4*n[0]*n[1])
	case kernel.KindGuide:
		add(operand{view: 1, bytes: 16 * n[2] * n[3], extent: 16 * n[2] * n[4]})
		write(0, 4*kernel.GuideLen(n[0]*n[1]))
	case kernel.KindGuided:
		read(1, 4*n[0]*n[1]*n[2])
		read(2, 4*kernel.GuideLen(n[1]*n[2]))
		read(3, 4)
		part(0, 16*n[0]*n[1]*n[2])
	case kernel.KindColumns8:
		read(1, 4*n[0]*n[1])
		write(0, 4*kernel.MatMul8Len(n[0], n[1]))
	case kernel.KindMaps:
		bytes := o.views[2] != absent
		read(1, size(bytes, n[0]*n[1]))
		read(2, 8*n[0])
		if bytes {
			read(3, 4*kernel.MatMul8Len(n[1], n[2]))
		} else {
			read(3, 4*n[1]*n[2])
		}
		read(4, 4*n[0]*n[3])
		read(5, 4)
		part(0, 4*n[3]*n[2])
	case kernel.KindPeaks:
		add(operand{view: 1, bytes: 4 * n[0] * (n[1] / 2) * (n[2] / 2), extent: 4 * n[0] * n[1] * n[2]})
		read(2, 4)
		part(0, 4*n[0])
	case kernel.KindTidy:
		read(1, 4*n[0]*n[1]*n[2])
		read(2, 4*n[0])
		read(3, 4)
		if n[3] > 0 {
			read(4, 8*n[0]*n[1]*n[2])
			write(4, 8*n[0]*n[1]*n[2])
		}
		part(0, 4*n[0]*n[1]*n[2])
	case kernel.KindColour:
		read(1, n[0])
		read(2, 4*256)
		write(0, 4*n[0])
	case kernel.KindGather:
		// The op does not say how many rows A has; it counts as many as are made.
		add(operand{view: 1, bytes: 4 * n[0] * n[1], extent: everything})
		read(2, 4*n[0]*n[2])
		read(3, 4*n[0]*n[2])
		read(4, 4*n[0]*n[1])
		write(0, 4*n[0]*n[1])
	case kernel.KindGroupNorm:
		read(1, 4*n[0]*n[1])
		read(2, 4*n[1])
		read(3, 4*n[1])
		write(0, 4*n[0]*n[1])
	case kernel.KindDeformable:
		q, d, heads, points, cells := n[0], n[1], n[2], n[3]*n[4], 0
		for i := range min(n[4], kernel.MaxSides) {
			cells += n[5+2*i] * n[6+2*i]
		}
		read(1, 4*cells*d)
		read(2, 8*q*heads*points)
		read(3, 4*q*heads*points)
		read(4, 8*q)
		write(0, 4*q*d)
	default:
		// An op of a kind that is not listed may read all from its views on, and
		// write from its first on. It counts no bytes, and nothing near it becomes
		// halves; listing it is worth both.
		for view := 1; view < len(o.views); view++ {
			add(operand{view: view, extent: everything})
		}
		add(operand{view: 0, extent: everything, write: true, part: true})
	}
	return c.all
}
