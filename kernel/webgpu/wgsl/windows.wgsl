// Attention within windows, as attention.wgsl does it: a workgroup takes one
// head and QUERIES queries of one window, whose bias may be far below 0 but
// leaves every query some key. Keys and values are float32 here.
struct Op {
  zero: u32, act: u32,
  dst: u32, q: u32, k: u32, v: u32, @size(16) bias: u32,
  windows: u32, size: u32, d: u32, heads: u32, ldq: u32, @size(44) rows: u32,
  scale: f32,
}

override FOURS: u32 = 4u;
override QUERIES: u32 = 4u;
const LOG2E = 1.4426950408889634; // powers of 2 are what cards compute

@compute @workgroup_size(LANES, QUERIES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_id) my: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let parts = (op.size + QUERIES - 1u) / QUERIES;
  let g = groupOf(id, count);
  let head = g % op.heads;
  let window = g / op.heads / parts;
  if (window >= op.windows) { return; }
  let mine = g / op.heads % parts * QUERIES + my.y;
  let i = min(mine, op.size - 1u);
  let query = window * op.size + i;
  let bias = op.bias + (head * op.size + i) * ((op.size + 3u) & ~3u);
  let channel = head * FOURS * 4u;

  var q: array<vec4<f32>, 16>;
  var o: array<vec4<f32>, 16>;
  for (var c = 0u; c < FOURS; c++) { q[c] = f4(1u, op.q + query * op.ldq + channel + 4u * c) * (op.scale * LOG2E); }
  var top = LOWEST;
  var total = 0.0;
  for (var j = my.x; j < op.size; j += LANES) {
    let key = (window * op.size + j) * 8u;
    var s = f(4u, bias + j) * LOG2E;
    for (var c = 0u; c < FOURS; c++) {
      s += dot(q[c], f4(2u, op.k + (channel + 4u * c) / 8u * op.rows * 8u + c % 2u * 4u + key));
    }
    let higher = max(top, s);
    let p = exp2(s - higher);
    let fade = exp2(top - higher);
    top = higher;
    total = total * fade + p;
    for (var c = 0u; c < FOURS; c++) {
      o[c] = o[c] * fade + p * f4(3u, op.v + (channel + 4u * c) / 8u * op.rows * 8u + c % 2u * 4u + key);
    }
  }

  let weight = exp2(top - rowMax(me, vec4(top)).x);
  total = rowSum(me, vec4(total * weight)).x;
  for (var c = 0u; c < FOURS; c++) { o[c] = rowSum(me, o[c] * weight); }
  if (mine >= op.size || my.x != 0u) { return; }
  for (var c = 0u; c < FOURS; c++) { store4(op.dst + query * op.d + channel + 4u * c, o[c] / total); }
}
