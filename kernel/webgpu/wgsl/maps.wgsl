// Maps: a workgroup takes a panel of eight cells. Its proposals lie in
// workgroup memory (at most 8 KiB), from where each prompt's map is summed.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, rows: u32, b: u32, p: u32, @size(12) count: u32,
  q: u32, k: u32, n: u32, t: u32,
}

var<workgroup> proposals: array<vec4<f32>, 512>; // two for each proposal

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let panel = groupOf(id, count);
  if (panel * 8u >= op.n) { return; }
  for (var q = me; q < op.q; q += 64u) {
    var low = vec4(0.0);
    var high = vec4(0.0);
    if (op.rows != ABSENT) {
      let steps = op.k / 4u;
      var s = vec4(0);
      var t = vec4(0);
      for (var k = 0u; k < steps; k++) {
        let a = at(1u, op.a + q * steps + k);
        let w = op.b + 3u * op.n + (panel * steps + k) * 8u;
        let v = at4(3u, w);
        s += vec4(dot4(a, v.x), dot4(a, v.y), dot4(a, v.z), dot4(a, v.w));
        let u = at4(3u, w + 4u);
        t += vec4(dot4(a, u.x), dot4(a, u.y), dot4(a, u.z), dot4(a, u.w));
      }
      low = scaled(q, panel * 8u, s);
      high = scaled(q, panel * 8u + 4u, t);
    } else {
      for (var k = 0u; k < op.k; k++) {
        let a = f(1u, op.a + q * op.k + k);
        let w = op.b + (panel * op.k + k) * 8u;
        low += a * f4(3u, w);
        high += a * f4(3u, w + 4u);
      }
    }
    proposals[2u * q] = 1.0 / (1.0 + exp4(-low));
    proposals[2u * q + 1u] = 1.0 / (1.0 + exp4(-high));
  }
  workgroupBarrier();
  var prompts = op.t;
  if (op.count != ABSENT) { prompts = at(5u, op.count); }
  for (var i = me; i < 2u * prompts; i += 64u) {
    var s = vec4(0.0);
    for (var q = 0u; q < op.q; q++) { s += f(4u, op.p + i / 2u * op.q + q) * proposals[2u * q + i % 2u]; }
    store4(op.dst + i / 2u * op.n + panel * 8u + i % 2u * 4u, s);
  }
}

fn scaled(q: u32, n: u32, s: vec4<i32>) -> vec4<f32> {
  return vec4<f32>(s) * (f(2u, op.rows + 2u * q) * f4(3u, op.b + n))
    + f(2u, op.rows + 2u * q + 1u) * f4(3u, op.b + 2u * op.n + n) + f4(3u, op.b + op.n + n);
}
