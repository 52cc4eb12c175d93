// Depthwise8: an invocation makes eight channels of one pixel, two words.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, @size(24) b: u32,
  h: u32, w: u32, hi: u32, wi: u32, c: u32, size: u32, stride: u32, pad: u32,
}

// unpack gives the bytes of a word, which lie in 0..127.
fn unpack(w: u32) -> vec4<i32> { return vec4<i32>((vec4(w) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u)); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  let eights = op.c / 8u;
  if (i >= op.h * op.w * eights) { return; }
  let c = i % eights * 8u;
  let x = i / eights % op.w;
  let y = i / eights / op.w;
  var s = vec4(0);
  var t = vec4(0);
  for (var kx = 0u; kx < op.size; kx++) {
    let ix = x * op.stride + kx - op.pad; // wraps round before the first column
    if (ix >= op.wi) { continue; }
    for (var four = 0u; four < op.size; four += 4u) {
      // A word has four taps of a column of the window.
      let taps = op.b + (2u + kx * ((op.size + 3u) / 4u) + four / 4u) * op.c + c;
      let v = bitcast<vec4<i32>>(at4(2u, taps));
      let w = bitcast<vec4<i32>>(at4(2u, taps + 4u));
      for (var ky = four; ky < min(four + 4u, op.size); ky++) {
        let iy = y * op.stride + ky - op.pad;
        if (iy < op.hi) {
          let a = at2(1u, op.a + ((iy * op.wi + ix) * op.c + c) / 4u);
          let left = vec4(24u - 8u * (ky - four));
          s += unpack(a.x) * ((v << left) >> vec4(24u));
          t += unpack(a.y) * ((w << left) >> vec4(24u));
        }
      }
    }
  }
  put2(op.dst + i * 2u, vec2(
    round7(once(vec4<f32>(s) * f4(2u, op.b + c)) + f4(2u, op.b + op.c + c)),
    round7(once(vec4<f32>(t) * f4(2u, op.b + c + 4u)) + f4(2u, op.b + op.c + c + 4u))));
}
