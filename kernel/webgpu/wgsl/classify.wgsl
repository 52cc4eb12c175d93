// Classify: a workgroup takes one query, its invocations the prompts.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, b: u32, coef: u32, owner: u32, @size(12) void_: u32,
  q: u32, s: u32, t: u32, ldvoid: u32,
}

// logit is prompt t's, or void's if t is the number of prompts.
fn logit(q: u32, t: u32) -> f32 {
  if (t == op.t) { return f(5u, op.void_ + q * op.ldvoid); }
  var z = LOWEST;
  for (var s = 0u; s < op.s; s++) {
    if (at(4u, op.owner + s) == t) {
      z = max(z, f(3u, op.coef + s) * f(1u, op.a + q * op.s + s) + f(3u, op.coef + op.s + s) * f(2u, op.b + q * op.s + s)
        + f(3u, op.coef + 2u * op.s + s));
    }
  }
  return z;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let q = groupOf(id, count);
  if (q >= op.q) { return; }
  var top = LOWEST;
  for (var t = me; t <= op.t; t += 64u) {
    let z = logit(q, t);
    put(op.dst + t * op.q + q, bitcast<u32>(z)); // for this invocation's next loop
    top = max(top, z);
  }
  top = rowMax(me, vec4(top)).x;
  var sum = 0.0;
  for (var t = me; t <= op.t; t += 64u) {
    let e = exp4(vec4(f(0u, op.dst + t * op.q + q) - top)).x;
    put(op.dst + t * op.q + q, bitcast<u32>(e));
    sum += e;
  }
  sum = rowSum(me, vec4(sum)).x;
  for (var t = me; t <= op.t; t += 64u) {
    put(op.dst + t * op.q + q, bitcast<u32>(f(0u, op.dst + t * op.q + q) / sum));
  }
}
