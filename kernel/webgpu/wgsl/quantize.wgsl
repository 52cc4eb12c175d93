// Quantize: LANES invocations share a row and take eight numbers at a time,
// which become two words.
struct Op {
  zero: u32, act: u32,
  dst: u32, rows: u32, @size(24) a: u32,
  m: u32, k: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let m = (groupOf(id, count) * 64u + me) / LANES;
  let row = min(m, op.m - 1u) * op.k;
  let first = me % LANES * 8u;
  var low = vec4(-LOWEST);
  var high = vec4(LOWEST);
  for (var k = first; k < op.k; k += 8u * LANES) {
    let x = f4(2u, op.a + row + k);
    let y = f4(2u, op.a + row + k + 4u);
    low = min(low, min(x, y));
    high = max(high, max(x, y));
  }
  let ends = rowMax(me, vec4(max(-low.xy, -low.zw), max(high.xy, high.zw)));
  let lowest = -max(ends.x, ends.y);
  let range = max(ends.z, ends.w) - lowest;
  if (m >= op.m) { return; }
  var inv = 0.0;
  if (range > 0.0) { inv = divide(127.0, range); }
  if (first == 0u) {
    put2(op.rows + 2u * m, bitcast<vec2<u32>>(vec2(divide(range, 127.0), lowest)));
  }
  for (var k = first; k < op.k; k += 8u * LANES) {
    let x = once(f4(2u, op.a + row + k) - lowest) * inv;
    let y = once(f4(2u, op.a + row + k + 4u) - lowest) * inv;
    put2(op.dst + (row + k) / 4u, vec2(round7(once(x)), round7(once(y))));
  }
}
