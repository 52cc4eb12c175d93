// Package webgpu runs programs on the graphics card, through a browser's
// WebGPU. What depends on neither a browser nor a card is in this file and in
// wgsl/: which shader computes an op, how it is set up and how many
// workgroups it takes. device_js.go records that once for each program and
// replays it for each run.
//
// An op of a new kind costs a file in wgsl/ and a line in roles. Telling
// operands what it reads and writes is worth having it counted, too.
package webgpu

import (
	_ "embed"
	"strings"

	"github.com/pmp-seg/pmp/kernel"
)

//go:generate go run ./gen

// shaders is what lies in wgsl/, see gen. An embedded folder would bring
// much of the standard library along.
//
//go:embed shaders.txt
var shaders string

// shader is the text of a file in wgsl/.
func shader(name string) string {
	_, text, ok := strings.Cut(shaders, "#"+name+"\n")
	if !ok {
		panic("kernel/webgpu: no shader " + name)
	}
	text, _, _ = strings.Cut(text, "#")
	return text
}

// code is the text of a module. What its files enable comes first, as WGSL wants.
func code(module string) string {
	var enabled, text string
	for name := range strings.FieldsSeq(module) {
		s := shader(name)
		if strings.HasPrefix(s, "enable ") {
			line, rest, _ := strings.Cut(s, "\n")
			enabled, s = enabled+line+"\n", rest
		}
		text += s
	}
	return enabled + text
}

// card is what a graphics card has of what not all have.
type card struct {
	dot bool // the language's product of four bytes
	// shuffled is how many invocations that lie side by side in a workgroup may
	// exchange what they have as a subgroup, a power of two, or 0.
	shuffled int
	half     bool // numbers of 16 bits in workgroup memory
	halves   bool // and in the arena, see halve
	tuning   Tuning
}

// files are those of a role on this card, for an op whose packed matrices are
// halves or not.
func (c *card) files(role string, halves bool) string {
	if halves {
		role = strings.Replace(role, "whole", "halves", 1)
	}
	if !c.dot {
		role = strings.Replace(role, "dot", "nodot", 1)
	}
	if c.shuffled > 0 {
		role = strings.Replace(role, "reduce", "shuffle", 1)
	}
	return role
}

// maxGroups is how many workgroups one dimension of a dispatch takes.
const maxGroups = 65535

// An op's record as shaders read it, see common.wgsl.
type op struct {
	kind      kernel.Kind
	act       uint32
	views     [8]uint32 // in words, or absent
	ints      [16]int
	floats    [6]uint32
	constants uint32 // bit i: view i is a constant
	halves    bool   // packed matrices are halves, see halve
}

const (
	absent = ^uint32(0)
	// opWords is the length of an op in words, the same as a record's.
	opWords = kernel.RecordSize / 4
	// Addresses that tell constants, the arena and absent views apart.
	constantsAt = 1 << 31
	arenaAt     = 64
)

// decode reads the records of a stage, which were made for constantsAt and
// arenaAt. The arena starts at word shift of its buffer.
func decode(records []byte, shift uint32) []op {
	ops := make([]op, len(records)/kernel.RecordSize)
	for i := range ops {
		var words [opWords]uint32
		for j := range words {
			b := records[i*kernel.RecordSize+4*j:]
			words[j] = uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		}
		o := &ops[i]
		o.kind, o.act = kernel.Kind(words[0]), words[1]
		for j := range o.views {
			switch at := words[kernel.RecordViews+j]; {
			case at == 0:
				o.views[j] = absent
			case at >= constantsAt:
				o.views[j] = (at - constantsAt) / 4
				o.constants |= 1 << j
			default:
				o.views[j] = (at-arenaAt)/4 + shift
			}
		}
		for j := range o.ints {
			o.ints[j] = int(int32(words[kernel.RecordInts+j]))
		}
		copy(o.floats[:], words[kernel.RecordFloats:])
	}
	return ops
}

// window chooses the part of the constants that the op sees, where a binding
// is too short for all. Parts are size bytes long and start at multiples of a
// quarter of that. No constant is longer than a quarter, and what was made
// together, as a layer's weights and bias are, lies close together, so there
// is a part that has it all. Views become relative to it.
func (o *op) window(size int) (part int) {
	low, high := absent, uint32(0)
	for i, v := range o.views {
		if o.constants>>i&1 != 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if low == absent {
		return 0
	}
	step := uint32(quarter(size) / 4)
	part = int(low / step)
	if high-uint32(part)*step > 3*step {
		panic("kernel/webgpu: constants of one op lie too far apart")
	}
	for i := range o.views {
		if o.constants>>i&1 != 0 {
			o.views[i] -= uint32(part) * step
		}
	}
	return part
}

// quarter of a binding's bytes, a multiple of what offsets of bindings must be.
func quarter(size int) int { return size / 4 &^ 255 }

// words is what shaders read of an op.
func (o *op) words() (w [opWords]uint32) {
	w[1] = o.act
	copy(w[kernel.RecordViews:], o.views[:])
	for j, n := range o.ints {
		w[kernel.RecordInts+j] = uint32(int32(n))
	}
	copy(w[kernel.RecordFloats:], o.floats[:])
	return w
}

// expand replaces an op that is several by those; what they leave for each
// other lies at word scratch and beyond. It returns the words of scratch.
func (o op) expand(scratch uint32) (ops []op, size int) {
	if o.kind != kernel.KindResidual8 {
		return []op{o}, 0
	}
	const dst, a, expand, depthwise, project, res = 0, 1, 2, 3, 4, 5
	h, w, hi, wi, c, in, out := o.ints[0], o.ints[1], o.ints[2], o.ints[3], o.ints[4], o.ints[8], o.ints[9]
	reserve := func(words int) uint32 {
		at := scratch + uint32(size)
		size += (words + 15) &^ 15
		return at
	}
	make := func(kind kernel.Kind, ints []int, views ...uint32) {
		p := op{kind: kind}
		copy(p.ints[:], ints)
		for i := range p.views {
			p.views[i] = absent
		}
		copy(p.views[:], views)
		ops = append(ops, p)
	}
	constant := func(view, of int) { ops[len(ops)-1].constants |= o.constants >> of & 1 << view }
	wide, wideConstant := o.views[a], a
	if o.views[expand] != absent {
		q, rows := reserve(hi*wi*in/4), reserve(2*hi*wi)
		make(kernel.KindQuantize, []int{hi * wi, in}, q, rows, o.views[a])
		constant(2, a)
		wide, wideConstant = reserve(hi*wi*c/4), 31
		make(kernel.KindMatMul8, []int{hi * wi, c, in, c, c, 1}, wide, q, o.views[expand], rows)
		constant(2, expand)
	}
	deep := reserve(h * w * c / 4)
	make(kernel.KindDepthwise8, o.ints[:8], deep, wide, o.views[depthwise])
	constant(1, wideConstant)
	constant(2, depthwise)
	make(kernel.KindMatMul8, []int{h * w, out, c, out, out}, o.views[dst], deep, o.views[project], absent, o.views[res])
	constant(2, project)
	constant(4, res)
	return ops, size
}

// setting is an override constant of a shader.
type setting struct {
	name  string
	value int
}

// dispatch is how an op is run.
type dispatch struct {
	module   string // files in wgsl/, without the extension
	settings []setting
	groups   int
}

func (d *dispatch) set(name string, value int) *dispatch {
	d.settings = append(d.settings, setting{name, value})
	return d
}

// role is how the ops of a kind are run.
type role struct {
	files string // in wgsl/, besides common and memory; see card.files, too
	// wide is how many words are moved at once where all views allow it and
	// so do these integers of the op, which are in words.
	wide    int
	strides []int
	// Invocations make per of things each, of which there are as many as the
	// product of these integers says.
	per    int
	things []int
	// shape is for roles that are not that simple: it gives the number of
	// workgroups and settings.
	shape func(c *card, o *op, d *dispatch)
	// shared is for roles whose invocations change the same words.
	shared bool
}

var roles = [kernel.KindCount]role{
	kernel.KindMatMul:      {files: "float", wide: 4, strides: []int{3, 4, 5, 6}, shape: product},
	kernel.KindMatMul8:     {files: "dot whole int8", wide: 2, shape: product},
	kernel.KindConv:        {files: "conv", wide: 2, per: 8, things: []int{0, 1, 2}},
	kernel.KindDepthwise:   {files: "depthwise", wide: 2, per: 8, things: []int{0, 1, 4}},
	kernel.KindDepthwise8:  {files: "depthwise8", wide: 2, per: 8, things: []int{0, 1, 4}},
	kernel.KindUpsampleAdd: {files: "upsample", wide: 4, per: 1, things: []int{0, 1, 2}},
	kernel.KindLayerNorm:   {files: "lanes reduce layernorm", wide: 4, shape: rows4},
	kernel.KindL2Norm:      {files: "lanes reduce l2norm", wide: 4, shape: rows4},
	kernel.KindL1Norm:      {files: "lanes reduce l1norm", wide: 4, shape: rows4},
	kernel.KindQuantize:    {files: "lanes reduce divide quantize", wide: 2, shape: rows8},
	kernel.KindAdd:         {files: "add", wide: 4, per: 4, things: []int{0, 1}},
	kernel.KindAddPosition: {files: "position", wide: 4, per: 4, things: []int{0, 1, 2}},
	kernel.KindAttention:   {files: "lanes reduce whole attention", wide: 4, strides: []int{4}, shape: heads},
	kernel.KindPack:        {files: "whole pack", wide: 4, strides: []int{2}, shape: panels},
	kernel.KindActivate:    {files: "activate", wide: 4, per: 4, things: []int{0}},
	kernel.KindClassify:    {files: "lanes reduce classify", wide: 1, shape: group(0)},
	kernel.KindPicture:     {files: "picture", wide: 4, per: 1, things: []int{2, 3}},
	kernel.KindPaint:       {files: "paint bilinear", wide: 1, per: 4, things: []int{0, 1}},
	kernel.KindColumns8:    {files: "lanes reduce divide columns8", wide: 1, shape: columns},
	kernel.KindMaps:        {files: "dot maps", wide: 4, strides: []int{2}, shape: cells},
	kernel.KindPeaks:       {files: "lanes reduce peaks", wide: 1, shape: group(0)},
	kernel.KindTidy:        {files: "tidy", wide: 1, shape: group(0), shared: true},
	kernel.KindColour:      {files: "colour", wide: 1, per: 4, things: []int{0}},
	kernel.KindGather:      {files: "gather", wide: 4, per: 4, things: []int{0, 1}},
	kernel.KindGroupNorm:   {files: "lanes reduce groupnorm", wide: 4, shape: normGroups},
	kernel.KindDeformable:  {files: "deformable", wide: 4, per: 4, things: []int{0, 1}},

	kernel.KindSmooth:      {files: "smooth", wide: 1, per: 1, things: []int{0, 1}},
	kernel.KindGuide:       {files: "guide", wide: 4, per: 1, things: []int{0, 1}},
	kernel.KindGuided:      {files: "guided", wide: 4, shape: tiles},
	kernel.KindPaintGuided: {files: "paint bycolour", wide: 1, per: 4, things: []int{0, 1}},

	kernel.KindWindowAttention: {files: "lanes reduce windows", wide: 4, strides: []int{4}, shape: windows},
}

// groupSize is the number of invocations of most workgroups.
const groupSize = 64

// lay says how an op is run, in no groups if no shader can. Its kind must not
// be one that expand replaces.
func (o *op) lay(c *card) dispatch {
	if o.kind >= kernel.KindCount || roles[o.kind].files == "" {
		panic("kernel/webgpu: unknown op")
	}
	r := &roles[o.kind]
	wide, aligned := r.wide, 1
	if o.halves {
		wide = min(wide, 2) // four halves are written at once
	}
	fit := func(n uint32) {
		for n%uint32(wide) != 0 {
			wide /= 2
		}
	}
	for i, v := range o.views {
		switch {
		case v == absent:
		case o.constants>>i&1 == 0:
			fit(v)
		case v%4 != 0:
			aligned = 0
		}
	}
	for _, i := range r.strides {
		fit(uint32(o.ints[i]))
		if o.ints[i]%4 != 0 {
			aligned = 0
		}
	}
	if ldd, bytes := o.ints[3], o.ints[5] != 0; o.kind == kernel.KindMatMul8 && (bytes && ldd%8 != 0 || !bytes && (ldd|o.ints[4])%2 != 0) {
		wide = 1
	}
	memory := "memory" + string(rune('0'+wide))
	if r.shared {
		memory = "memorya"
	}
	d := dispatch{module: "common " + memory + " " + c.files(r.files, o.halves)}
	d.set("CONSTANTS", int(o.constants)).set("ALIGNED", aligned)
	if c.shuffled > 0 && strings.Contains(r.files, "reduce") {
		d.set("SHUFFLED", c.shuffled)
	}
	if r.shape != nil {
		r.shape(c, o, &d)
		return d
	}
	things := 1
	for _, i := range r.things {
		things *= o.ints[i]
	}
	d.groups = (things + r.per*groupSize - 1) / (r.per * groupSize)
	return d
}

// fold brings groups into the dimensions of a dispatch.
func fold(groups int) (x, y int) {
	if groups <= maxGroups {
		return groups, 1
	}
	y = (groups + maxGroups - 1) / maxGroups
	return (groups + y - 1) / y, y
}

// product is the shape of matrix products. Those of few tiles are left to
// rows.wgsl, which makes many more and smaller workgroups.
func product(c *card, o *op, d *dispatch) {
	m, panels := o.ints[0], o.ints[1]/kernel.Panel
	t := c.tuning.or()
	most := t.Int8
	if o.kind == kernel.KindMatMul {
		most = t.Float
	}
	// The width of a tile that wastes least; the height fits 48 queries.
	wx := most.Across
	if panels < wx {
		wx = panels
	} else {
		for _, w := range []int{most.Across * 3 / 4, most.Across * 5 / 8} {
			if w > 0 && (panels+w-1)/w*w < (panels+wx-1)/wx*wx {
				wx = w
			}
		}
	}
	wy := most.Down
	if m <= 48 {
		n := (12 + wy - 1) / wy
		wy = (12 + n - 1) / n
	}
	tiles := (m + 4*wy - 1) / (4 * wy) * ((panels + wx - 1) / wx)
	if o.kind == kernel.KindMatMul { // rows.wgsl keeps nothing that could be halved
		d.module += map[bool]string{true: " half", false: " single"}[c.half && tiles >= t.Tiles]
	}
	if tiles >= t.Tiles {
		d.module += " tile"
		d.set("WX", wx).set("WY", wy).groups = tiles
		return
	}
	d.module += " rows"
	d.groups = (m + 3) / 4 * ((panels + 3) / 4)
}

// heads is the shape of attention. Where keys are few, as those of prompts
// are, fewer lanes share a query.
func heads(c *card, o *op, d *dispatch) { c.attend(d, o.ints[0], o.ints[1], o.ints[2], o.ints[3]) }

func windows(c *card, o *op, d *dispatch) {
	c.attend(d, o.ints[1], o.ints[1], o.ints[2], o.ints[3])
	d.groups *= o.ints[0]
}

// attend shares queries and keys of heads with channels in all among invocations.
func (c *card) attend(d *dispatch, queries, keys, channels, heads int) {
	fours := channels / heads / 4
	if fours > 16 {
		return // more than the shaders keep in registers: no groups
	}
	s := c.tuning.or().Heads
	if keys <= 64 {
		s = fewKeys
	}
	d.set("FOURS", fours).set("QUERIES", s.Down).set("LANES", s.Across).set("GROUP", s.Across*s.Down)
	d.groups = (queries + s.Down - 1) / s.Down * heads
}

// fewKeys are lanes of a query and queries of a workgroup.
var fewKeys = Shape{8, 8}

// shapes are those of workgroups whose invocations exchange what they have.
func (c *card) shapes() []Shape {
	return []Shape{{groupSize, 1}, {normSize, 1}, fewKeys, c.tuning.or().Heads}
}

// rows4 and rows8 are the shapes of roles where a number of lanes share a row
// and take four or eight numbers at a time.
func rows4(_ *card, o *op, d *dispatch) { lanes(o, d, 4) }
func rows8(_ *card, o *op, d *dispatch) { lanes(o, d, 8) }

func lanes(o *op, d *dispatch, numbers int) {
	n := 1
	for n < groupSize && n*numbers < o.ints[1] {
		n *= 2
	}
	d.set("LANES", n).groups = (o.ints[0]*n + groupSize - 1) / groupSize
}

// group is the shape of roles where a workgroup makes one of what integer i counts.
func group(i int) func(*card, *op, *dispatch) {
	return func(_ *card, o *op, d *dispatch) { d.groups = o.ints[i] }
}

// normSize is the number of invocations that share a group of channels, which
// may have all cells of a large map.
const normSize = 256

func normGroups(_ *card, o *op, d *dispatch) {
	d.set("LANES", normSize).set("GROUP", normSize).groups = o.ints[2]
}

func columns(_ *card, o *op, d *dispatch) {
	d.set("LANES", groupSize/kernel.Panel).groups = o.ints[1] / kernel.Panel
}

func tiles(_ *card, o *op, d *dispatch) {
	d.groups = o.ints[0] * ((o.ints[1] + 7) / 8) * ((o.ints[2] + 7) / 8)
}

func cells(_ *card, o *op, d *dispatch) { d.groups = o.ints[2] / kernel.Panel }

func panels(_ *card, o *op, d *dispatch) {
	d.groups = ((o.ints[1]+kernel.Panel-1)/kernel.Panel*o.ints[0]*2 + groupSize - 1) / groupSize
}
