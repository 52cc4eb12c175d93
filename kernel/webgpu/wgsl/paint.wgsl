// Paint: an invocation takes four pixels, a word of the mask or of the label
// map. Each pixel looks at all maps before the next one does, so that what is
// best so far stays in a register. The last word may hold bytes that are not
// ours, which stay. The order and the roundings are those of kernel/scalar: a
// pixel that is off by a bit may fall on the other side of 0.
struct Op {
  zero: u32, act: u32,
  out: u32, a: u32, tapsy: u32, tapsx: u32, index: u32, pixels: u32, best: u32, count: u32,
  h: u32, w: u32, hi: u32, wi: u32, t: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  let pixels = op.h * op.w;
  if (4u * i >= pixels) { return; }
  let labels = op.best != ABSENT;
  let marks = op.out + i;
  var marked = word(marks);
  var index = 0u;
  if (labels) { index = at(4u, op.index); }
  var maps = op.t;
  if (op.count != ABSENT) { maps = at(7u, op.count); }
  for (var b = 0u; b < min(4u, pixels - 4u * i); b++) {
    let pixel = 4u * i + b;
    // Four cells with their weights. Where an entry has only one weight, the
    // same cell again with none.
    let down = op.tapsy + pixel / op.w * 4u; // first, n, two weights
    let right = op.tapsx + pixel % op.w * 4u;
    var y = vec2(f(2u, down + 2u), 0.0);
    var x = vec2(f(3u, right + 2u), 0.0);
    var below = 0u;
    var beside = 0u;
    if (at(2u, down + 1u) > 1u) {
      y.y = f(2u, down + 3u);
      below = op.wi;
    }
    if (at(3u, right + 1u) > 1u) {
      x.y = f(3u, right + 3u);
      beside = 1u;
    }
    let cell = at(2u, down) * op.wi + at(3u, right);
    let weight = once(y.xxyy * x.xyxy);
    let byte = 255u << (8u * b);
    var best = 0.0;
    if (labels && index != 0u) { best = f(6u, op.best + pixel); } else {
      marked &= ~byte;
      if (labels) { marked |= byte; } // NoLabel
    }
    for (var t = 0u; t < maps; t++) {
      let c = cell + t * op.hi * op.wi;
      let height = heightOf(pixel, weight, c, c + beside, c + below, c + below + beside);
      if (height > best) {
        best = height;
        marked = (marked & ~byte) | (select(1u, index + t, labels) << (8u * b));
      }
    }
    if (labels) { put(op.best + pixel, bitcast<u32>(best)); }
  }
  put(marks, marked);
}
