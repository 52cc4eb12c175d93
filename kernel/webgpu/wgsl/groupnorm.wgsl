// GroupNorm: a workgroup takes a group of channels, in which neighbours read
// four numbers each that lie side by side.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, gamma: u32, @size(20) beta: u32,
  m: u32, n: u32, @size(56) groups: u32,
  eps: f32,
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let group = groupOf(id, count);
  if (group >= op.groups) { return; }
  let width = op.n / op.groups;
  let fours = width / 4u;
  let first = group * width;
  let all = op.m * fours;
  var s = vec4(0.0);
  for (var i = me; i < all; i += GROUP) { s += f4(1u, op.a + i / fours * op.n + first + i % fours * 4u); }
  let mean = rowSum(me, vec4(dot(s, vec4(1.0)))).x / f32(op.m * width);
  var q = vec4(0.0);
  for (var i = me; i < all; i += GROUP) {
    let t = f4(1u, op.a + i / fours * op.n + first + i % fours * 4u) - mean;
    q += t * t;
  }
  let variance = rowSum(me, vec4(dot(q, vec4(1.0)))).x / f32(op.m * width);
  let r = 1.0 / sqrt(variance + op.eps);
  for (var i = me; i < all; i += GROUP) {
    let n = first + i % fours * 4u;
    let to = i / fours * op.n + n;
    store4(op.dst + to, activate((f4(1u, op.a + to) - mean) * r * f4(2u, op.gamma + n) + f4(3u, op.beta + n)));
  }
}
