// Attention in one pass over keys and values; scores never leave registers.
//
// A workgroup takes one head and QUERIES queries; LANES invocations share a
// query, and each takes every LANES-th key. It keeps the largest score so far,
// the sum of e^(score - largest) and the values weighted by it (online
// softmax), four keys at a time, so that one rescaling serves four. At the end
// the lanes of a query are joined, see lanes.wgsl, one vector of channels at a
// time. A head has at most 64 channels; FOURS is a quarter of them.
struct Op {
  zero: u32, act: u32,
  dst: u32, q: u32, k: u32, v: u32, mask: u32, @size(12) count: u32,
  nq: u32, nk: u32, d: u32, heads: u32, @size(48) ldq: u32,
  scale: f32,
}

override FOURS: u32 = 4u;
override QUERIES: u32 = 4u;

var<workgroup> some: array<atomic<u32>, QUERIES>; // not 0 if a query has a key that its mask leaves

@compute @workgroup_size(LANES, QUERIES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_id) my: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let g = groupOf(id, count);
  let head = g % op.heads;
  let first = g / op.heads * QUERIES;
  if (first >= op.nq) { return; }
  let query = min(first + my.y, op.nq - 1u);
  var keys = op.nk;
  if (op.count != ABSENT) { keys = at(5u, op.count); }
  let mask = op.mask + query * op.nk;

  if (op.mask != ABSENT) {
    var left = 0u;
    for (var j = my.x; j < keys; j += LANES) {
      if (!(f(4u, mask + j) < 0.0)) { left = 1u; }
    }
    atomicOr(&some[my.y], left);
  }
  workgroupBarrier();
  let masked = op.mask != ABSENT && atomicLoad(&some[my.y]) != 0u;

  let channel = head * FOURS * 4u;
  var q: array<vec4<f32>, 16>;
  var o: array<vec4<f32>, 16>;
  // Powers of 2 are what cards compute.
  for (var c = 0u; c < FOURS; c++) { q[c] = f4(1u, op.q + query * op.ldq + channel + 4u * c) * (op.scale * 1.4426950408889634); }
  var top = LOWEST;
  var total = 0.0;
  for (var j0 = my.x; j0 < keys; j0 += 4u * LANES) {
    let j = vec4(j0, j0 + LANES, j0 + 2u * LANES, j0 + 3u * LANES);
    let at = min(j, vec4(keys - 1u)) * 8u;
    var s = vec4(0.0);
    for (var c = 0u; c < FOURS; c++) {
      let k = ((channel + 4u * c) / 8u * op.nk) * 8u + (c % 2u) * 4u;
      s += vec4(dot(q[c], packed4(2u, op.k, k + at.x)), dot(q[c], packed4(2u, op.k, k + at.y)),
        dot(q[c], packed4(2u, op.k, k + at.z)), dot(q[c], packed4(2u, op.k, k + at.w)));
    }
    var use_ = j < vec4(keys);
    if (masked) {
      use_ &= vec4(!(f(4u, mask + at.x / 8u) < 0.0), !(f(4u, mask + at.y / 8u) < 0.0), !(f(4u, mask + at.z / 8u) < 0.0), !(f(4u, mask + at.w / 8u) < 0.0));
    }
    s = select(vec4(LOWEST), s, use_);
    let higher = max(max(top, max(s.x, s.y)), max(s.z, s.w));
    let p = select(vec4(0.0), exp2(s - higher), use_);
    let fade = exp2(top - higher);
    top = higher;
    total = total * fade + dot(p, vec4(1.0));
    for (var c = 0u; c < FOURS; c++) {
      let v = ((channel + 4u * c) / 8u * op.nk) * 8u + (c % 2u) * 4u;
      o[c] = o[c] * fade + p.x * packed4(3u, op.v, v + at.x) + p.y * packed4(3u, op.v, v + at.y)
        + p.z * packed4(3u, op.v, v + at.z) + p.w * packed4(3u, op.v, v + at.w);
    }
  }

  let weight = exp2(top - rowMax(me, vec4(top)).x);
  total = rowSum(me, vec4(total * weight)).x;
  for (var c = 0u; c < FOURS; c++) { o[c] = rowSum(me, o[c] * weight); }
  if (first + my.y >= op.nq || my.x != 0u) { return; }
  for (var c = 0u; c < FOURS; c++) { store4(op.dst + query * op.d + channel + 4u * c, o[c] / total); }
}
