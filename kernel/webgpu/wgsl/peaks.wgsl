// Peaks: a workgroup takes a map.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, @size(24) count: u32,
  t: u32, h: u32, w: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let t = groupOf(id, count);
  if (t >= op.t) { return; }
  let wanted = op.count == ABSENT || t < at(2u, op.count);
  var top = 0.0;
  if (wanted) {
    let across = op.w / 2u;
    for (var i = me; i < op.h / 2u * across; i += 64u) {
      top = max(top, f(1u, op.a + (t * op.h + 2u * (i / across) + 1u) * op.w + 2u * (i % across) + 1u));
    }
  }
  top = rowMax(me, vec4(top)).x;
  if (wanted && me == 0u) { put(op.dst + t, bitcast<u32>(top)); }
}
