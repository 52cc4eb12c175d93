// Conv: an invocation makes eight channels of one pixel. Sums are short, so
// nothing is shared; neighbours write side by side and read the same or
// overlapping pixels, which caches keep. The order and the roundings are those
// of kernel/scalar: one byte of a stem that is off by one changes all that
// integers make of it.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, b: u32, @size(20) bias: u32,
  h: u32, w: u32, n: u32, size: u32, stride: u32, c: u32, wp: u32, bytes: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  let panels = op.n / 8u;
  if (i >= op.h * op.w * panels) { return; }
  let panel = i % panels;
  let cell = i / panels;
  let span = op.size * op.c;
  var s = vec4(0.0);
  var t = vec4(0.0);
  if (op.bias != ABSENT) {
    s = f4(3u, op.bias + panel * 8u);
    t = f4(3u, op.bias + panel * 8u + 4u);
  }
  for (var y = 0u; y < op.size; y++) {
    let in = op.a + ((cell / op.w * op.stride + y) * op.wp + cell % op.w * op.stride) * op.c;
    let weights = op.b + (panel * op.size + y) * span * 8u;
    for (var k = 0u; k < span; k++) {
      let a = f(1u, in + k);
      s += once(a * f4(2u, weights + k * 8u));
      t += once(a * f4(2u, weights + k * 8u + 4u));
    }
  }
  let to = op.dst + cell * op.n / (1u + 3u * op.bytes) + panel * 8u / (1u + 3u * op.bytes);
  if (op.bytes != 0u) {
    put2(to, vec2(round7(s), round7(t)));
    return;
  }
  store4(to, activate(s));
  store4(to + 4u, activate(t));
}
