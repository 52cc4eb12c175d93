// Depthwise: an invocation makes eight channels of one pixel, in the order and
// with the roundings of kernel/scalar, see conv.wgsl.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, b: u32, @size(20) bias: u32,
  h: u32, w: u32, hi: u32, wi: u32, c: u32, size: u32, stride: u32, pad: u32, bytes: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  let eights = op.c / 8u;
  if (i >= op.h * op.w * eights) { return; }
  let c = i % eights * 8u;
  let x = i / eights % op.w;
  let y = i / eights / op.w;
  var s = vec4(0.0);
  var t = vec4(0.0);
  if (op.bias != ABSENT) {
    s = f4(3u, op.bias + c);
    t = f4(3u, op.bias + c + 4u);
  }
  for (var ky = 0u; ky < op.size; ky++) {
    let iy = y * op.stride + ky - op.pad; // wraps round above the first row
    if (iy >= op.hi) { continue; }
    for (var kx = 0u; kx < op.size; kx++) {
      let ix = x * op.stride + kx - op.pad;
      if (ix < op.wi) {
        let a = op.a + (iy * op.wi + ix) * op.c + c;
        let b = op.b + (ky * op.size + kx) * op.c + c;
        s += once(f4(1u, a) * f4(2u, b));
        t += once(f4(1u, a + 4u) * f4(2u, b + 4u));
      }
    }
  }
  if (op.bytes != 0u) {
    put2(op.dst + i * 2u, vec2(round7(s), round7(t)));
    return;
  }
  store4(op.dst + i * 8u, activate(s));
  store4(op.dst + i * 8u + 4u, activate(t));
}
