package kernel

// Traffic is how many bytes the ops of a stage read and write, each operand of
// each op once, and how many a device must move at least: what the stage reads
// of constants, of the host and of other stages, and what it leaves for them,
// each once. What lies between is what fusing and caches can save.
func (p *Program) Traffic(stage int) (moved, least int) {
	p.mustBePlanned()
	inside := func(op int) bool {
		first := p.stages[stage]
		return op >= first && op < first+len(p.Ops(stage))
	}
	seen := map[int]bool{} // offsets of constants, and of buffers below 0
	for _, op := range p.Ops(stage) {
		for _, v := range op.record().views {
			if !v.Valid() {
				continue
			}
			size := p.Size(v)
			moved += size
			b := &p.buffers[v.buffer-1]
			key := b.offset
			if b.space == spaceArena {
				if !b.keep && !b.input && inside(b.first) && inside(b.last) {
					continue
				}
				key = -int(v.buffer)
			}
			if !seen[key] {
				seen[key] = true
				least += size
			}
		}
	}
	return moved, least
}
