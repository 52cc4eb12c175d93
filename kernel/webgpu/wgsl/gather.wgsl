// Gather: an invocation makes four numbers.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, index: u32, weight: u32, @size(16) res: u32,
  m: u32, n: u32, taps: u32, largest: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = (groupOf(id, count) * 64u + me) * 4u;
  if (i >= op.m * op.n) { return; }
  let m = i / op.n;
  let n = i % op.n;
  var s = vec4(0.0);
  if (op.largest != 0u) { s = vec4(bitcast<f32>(0xff800000u ^ op.zero)); } // -inf, which WGSL cannot write
  for (var t = m * op.taps; t < (m + 1u) * op.taps; t++) {
    let row = at(2u, op.index + t);
    if (row == ABSENT) { continue; } // -1
    let x = f4(1u, op.a + row * op.n + n);
    if (op.largest != 0u) {
      s = max(s, x);
    } else if (op.weight != ABSENT) {
      s += f(3u, op.weight + t) * x;
    } else {
      s += x;
    }
  }
  if (op.res != ABSENT) { s += f4(4u, op.res + i); }
  store4(op.dst + i, s);
}
