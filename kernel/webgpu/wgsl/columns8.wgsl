// Columns8: a workgroup takes a panel of eight columns, LANES = 8 invocations
// each; an invocation makes every eighth word, four rows of a column.
struct Op {
  zero: u32, act: u32,
  dst: u32, @size(28) a: u32,
  k: u32, n: u32, transposed: u32,
}

fn numbers(n: u32, k: u32) -> vec4<f32> {
  if (op.transposed != 0u) { return f4(1u, op.a + n * op.k + k); }
  let i = op.a + k * op.n + n;
  return vec4(f(1u, i), f(1u, i + op.n), f(1u, i + 2u * op.n), f(1u, i + 3u * op.n));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let panel = groupOf(id, count);
  if (panel * 8u >= op.n) { return; }
  let n = panel * 8u + me / LANES;
  let first = me % LANES * 4u;
  var high = vec4(0.0);
  for (var k = first; k < op.k; k += 4u * LANES) { high = max(high, abs(numbers(n, k))); }
  let top = rowMax(me, vec4(max(max(high.x, high.y), max(high.z, high.w)))).x;
  var inv = 0.0;
  if (top > 0.0) { inv = divide(127.0, top); }
  var sum = 0.0; // of integers, exact
  for (var k = first; k < op.k; k += 4u * LANES) {
    let w = round(numbers(n, k) * inv);
    sum += dot(w, vec4(1.0));
    let b = (vec4<u32>(vec4<i32>(w)) & vec4(255u)) << vec4(0u, 8u, 16u, 24u);
    put(op.dst + 3u * op.n + (panel * op.k / 4u + k / 4u) * 8u + me / LANES, b.x | b.y | b.z | b.w);
  }
  sum = rowSum(me, vec4(sum)).x;
  if (first != 0u) { return; }
  let scale = divide(top, 127.0);
  put(op.dst + n, bitcast<u32>(scale));
  put(op.dst + op.n + n, 0u);
  put(op.dst + 2u * op.n + n, bitcast<u32>(scale * sum));
}
