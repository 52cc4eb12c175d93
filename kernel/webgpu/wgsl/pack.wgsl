// Pack: an invocation writes four columns of one row of a panel. Neighbours
// take neighbouring rows, which lie side by side in dst, and in a transposed A.
struct Op {
  zero: u32, act: u32,
  dst: u32, @size(28) a: u32,
  k: u32, n: u32, lda: u32, transposed: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = groupOf(id, count) * 64u + me;
  if (i >= (op.n + 7u) / 8u * op.k * 2u) { return; }
  let k = i / 2u % op.k;
  let n = i / 2u / op.k * 8u + i % 2u * 4u;
  var v: vec4<u32>;
  if (op.transposed == 0u && n + 3u < op.n) {
    v = at4(1u, op.a + k * op.lda + n);
  } else {
    let start = op.a + select(k * op.lda + n, n * op.lda + k, op.transposed != 0u);
    let step = select(1u, op.lda, op.transposed != 0u);
    if (n < op.n) { v.x = at(1u, start); }
    if (n + 1u < op.n) { v.y = at(1u, start + step); }
    if (n + 2u < op.n) { v.z = at(1u, start + 2u * step); }
    if (n + 3u < op.n) { v.w = at(1u, start + 3u * step); }
  }
  putPacked(op.dst, i * 4u, bitcast<vec4<f32>>(v));
}
