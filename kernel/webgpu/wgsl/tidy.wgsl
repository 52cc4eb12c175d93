// Tidy: a workgroup of 256 takes a map. Regions are found by union-find
// without locks (after Playne and Hawick, and Komura): each cell of the side in
// question, above the threshold for islands and not above for holes, leads to
// one of its region, and only the region's first cell leads to itself.
//
// A cell never leads to a later one: it starts with the first cell of its run,
// or of that part of the run which lies in its span of SPAN cells, and leads
// are only ever lowered, by atomicMin. So each way to a root goes down and
// ends. Where two regions meet, join makes the later of two roots lead to the
// earlier one. If that was no root any more, some other invocation has made it
// lead somewhere else; then what it led to is what still has to be joined. The
// later of the two cells gets earlier in each round, so join ends as well, and
// no invocation waits for another but at barriers.
//
// Scratch has two words for each cell of a map: where it leads to, and how
// many cells there are, at first in the run that starts there, then, at a
// root, in the region. The map itself lies in dst from the start.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, theta: u32, count: u32, @size(16) scratch: u32,
  t: u32, h: u32, w: u32, speck: u32, island: u32,
}

const NOWHERE = 1073741824.0; // kernel.Nowhere
const SIZE = 256u;
const SPAN = 16u; // short, so that all invocations have some

var<workgroup> threshold: f32;
var<workgroup> largest: atomic<u32>;
var<private> map: u32;
var<private> leads: u32;
var<private> sizes: u32;
var<private> theta: f32;

fn above(i: u32) -> bool { return f(0u, map + i) > theta; }

fn root(start: u32) -> u32 {
  var i = start;
  var next = word(leads + i);
  while (next != i) {
    let after = word(leads + next);
    atomicMin(&arena[leads + i], after); // so that the way is shorter the next time
    i = next;
    next = after;
  }
  return i;
}

fn join(i: u32, j: u32) {
  var late = root(i);
  var early = root(j);
  while (late != early) {
    let high = max(late, early);
    early = min(late, early);
    late = atomicMin(&arena[leads + high], early);
    if (late == high) { return; }
  }
}

// find makes out the regions of a side.
fn find(me: u32, side: bool) {
  let cells = op.h * op.w;
  let across = (op.w + SPAN - 1u) / SPAN;
  for (var s = me; s < op.h * across; s += SIZE) {
    let end = s / across * op.w + min((s % across + 1u) * SPAN, op.w);
    var start = s / across * op.w + s % across * SPAN;
    for (var i = start; i < end; i++) {
      put(sizes + i, 0u);
      if (above(i) != side) {
        start = i + 1u;
        continue;
      }
      put(leads + i, start);
      put(sizes + start, i + 1u - start);
    }
  }
  storageBarrier();
  for (var s = me; s < op.h * across; s += SIZE) { // runs that a span has cut
    let i = s / across * op.w + s % across * SPAN;
    if (s % across > 0u && above(i) == side && above(i - 1u) == side) { join(i, i - 1u); }
  }
  for (var i = me; i < cells; i += SIZE) { // runs below each other, where they start to touch
    if (i < op.w || above(i) != side || above(i - op.w) != side) { continue; }
    if (i % op.w == 0u || above(i - 1u) != side || above(i - op.w - 1u) != side) { join(i, i - op.w); }
  }
  storageBarrier();
  for (var i = me; i < cells; i += SIZE) { // the sizes of runs go to their roots
    let size = word(sizes + i);
    if (size == 0u) { continue; }
    let r = root(i);
    // Whoever adds last to a region sees all of it; a region of one run has nobody who adds.
    if (r != i) { atomicMax(&largest, atomicAdd(&arena[sizes + r], size) + size); } else { atomicMax(&largest, size); }
  }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let t = groupOf(id, count);
  if (t >= op.t) { return; }
  if (me == 0u) {
    threshold = -1.0; // a map that is not wanted
    if (op.count == ABSENT || t < at(3u, op.count)) { threshold = f(2u, op.theta + t); }
  }
  let cut = workgroupUniformLoad(&threshold); // known to be the same for all, as barriers demand
  if (cut < 0.0) { return; }
  theta = cut;
  let cells = op.h * op.w;
  map = op.dst + t * cells;
  leads = op.scratch + 2u * t * cells;
  sizes = leads + cells;
  for (var i = me; i < cells; i += SIZE) {
    var s = at(1u, op.a + t * cells + i);
    if (cut >= NOWHERE) { s = bitcast<u32>(-1.0); }
    put(map + i, s);
  }
  if (cut >= NOWHERE) { return; }
  if (op.speck > 0u) {
    for (var round = 0u; round < 2u; round++) { // islands, then holes
      storageBarrier();
      let islands = round == 0u;
      find(me, islands);
      storageBarrier();
      workgroupBarrier();
      let most = atomicLoad(&largest);
      let filled = select((1.0 + theta) * 0.5, theta * 0.5, islands);
      for (var i = me; i < cells; i += SIZE) {
        if (above(i) != islands) { continue; }
        let size = word(sizes + root(i));
        if (size * op.speck < cells || (islands && size * op.island < most)) { put(map + i, bitcast<u32>(filled)); }
      }
    }
  }
  for (var i = me; i < cells; i += SIZE) { // the same that the invocation has just filled
    put(map + i, bitcast<u32>(f(0u, map + i) - theta));
  }
}
