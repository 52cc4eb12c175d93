// Paint: an invocation takes four pixels, a word of the mask and of the label
// map. The last word may hold bytes that are not ours, which stay.
struct Op {
  zero: u32, act: u32,
  mask: u32, a: u32, tapsy: u32, tapsx: u32, index: u32, label: u32, @size(8) best: u32,
  h: u32, w: u32, @size(56) wi: u32,
  theta: f32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  let pixels = op.h * op.w;
  if (4u * i >= pixels) { return; }
  let index = at(4u, op.index);
  var mask = word(op.mask + i);
  var label = word(op.label + i);
  for (var b = 0u; b < min(4u, pixels - 4u * i); b++) {
    let pixel = 4u * i + b;
    let down = op.tapsy + pixel / op.w * 4u; // first, n, two weights
    let right = op.tapsx + pixel % op.w * 4u;
    var s = 0.0;
    for (var j = 0u; j < at(2u, down + 1u); j++) {
      let line = op.a + (at(2u, down) + j) * op.wi + at(3u, right);
      for (var k = 0u; k < at(3u, right + 1u); k++) {
        s += f(2u, down + 2u + j) * f(3u, right + 2u + k) * f(1u, line + k);
      }
    }
    let byte = 255u << (8u * b);
    mask &= ~byte;
    if (s > op.theta) { mask |= 1u << (8u * b); }
    var best = f(6u, op.best + pixel);
    if (index == 0u) {
      label |= byte; // NoLabel
      best = 0.0;
    }
    if (s > max(best, op.theta)) {
      best = s;
      label = (label & ~byte) | (index << (8u * b));
    }
    put(op.best + pixel, bitcast<u32>(best));
  }
  put(op.mask + i, mask);
  put(op.label + i, label);
}
