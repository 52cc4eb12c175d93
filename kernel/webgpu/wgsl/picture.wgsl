// Picture: an invocation makes one pixel, in the order and with the roundings
// of kernel/scalar, see conv.wgsl.
struct Op {
  zero: u32, act: u32,
  dst: u32, src: u32, tapsy: u32, @size(20) tapsx: u32,
  h: u32, w: u32, hp: u32, wp: u32, hi: u32, wi: u32, sizey: u32, sizex: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  if (i >= op.hp * op.wp) { return; }
  let x = i % op.wp;
  let y = i / op.wp;
  var s = vec4(0.0);
  if (x < op.w && y < op.h) {
    let down = op.tapsy + y * (2u + op.sizey); // first, n, weights
    let right = op.tapsx + x * (2u + op.sizex);
    for (var k = 0u; k < at(3u, right + 1u); k++) {
      let column = op.src + at(2u, down) * op.wi + at(3u, right) + k;
      var t = vec4(0.0);
      for (var j = 0u; j < at(2u, down + 1u); j++) {
        let rgba = (vec4(at(1u, column + j * op.wi)) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u);
        t += once(f(2u, down + 2u + j) * vec4<f32>(rgba));
      }
      s += once(f(3u, right + 2u + k) * t);
    }
    s = vec4((s.xyz - 127.0) * 0.0078125, 0.0);
  }
  store4(op.dst + 4u * i, s);
}
