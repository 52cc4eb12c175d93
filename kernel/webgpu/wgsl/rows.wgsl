// Matrix products with few rows or few columns, whose tiles would leave most
// of the card idle.
//
// A workgroup of 64 makes 4 rows and 4 panels of 8 columns of dst. Sixteen
// invocations share a panel: each takes every sixteenth step, then their sums
// are added in workgroup memory (8 KiB).
const PANELS = 4u;
const SLICES = 16u;
var<workgroup> slices: array<Sum, 8u * PANELS * SLICES>;

@compute @workgroup_size(PANELS, SLICES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_id) my: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let panels = op.n / 8u;
  let across = (panels + PANELS - 1u) / PANELS;
  let g = groupOf(id, count);
  let top = g / across * 4u;
  let left = g % across * PANELS;
  if (top >= op.m) { return; }

  var s0: Sum; var s1: Sum; var s2: Sum; var s3: Sum;
  var t0: Sum; var t1: Sum; var t2: Sum; var t3: Sum;
  let panel = min(left + my.x, panels - 1u);
  let a0 = rowOfA(top);
  let a1 = rowOfA(min(top + 1u, op.m - 1u));
  let a2 = rowOfA(min(top + 2u, op.m - 1u));
  let a3 = rowOfA(min(top + 3u, op.m - 1u));
  for (var k = my.y; k < steps(); k += SLICES) {
    let low = at4(2u, bOf(panel, k));
    let high = at4(2u, bOf(panel, k) + 4u);
    let a = vec4(at(1u, a0 + k), at(1u, a1 + k), at(1u, a2 + k), at(1u, a3 + k));
    s0 = madd(s0, a.x, low); t0 = madd(t0, a.x, high);
    s1 = madd(s1, a.y, low); t1 = madd(t1, a.y, high);
    s2 = madd(s2, a.z, low); t2 = madd(t2, a.z, high);
    s3 = madd(s3, a.w, low); t3 = madd(t3, a.w, high);
  }
  const STRIDE = PANELS * SLICES;
  slices[me] = s0; slices[me + STRIDE] = t0;
  slices[me + 2u * STRIDE] = s1; slices[me + 3u * STRIDE] = t1;
  slices[me + 4u * STRIDE] = s2; slices[me + 5u * STRIDE] = t2;
  slices[me + 6u * STRIDE] = s3; slices[me + 7u * STRIDE] = t3;
  workgroupBarrier();
  if (my.y >= 4u) { return; } // the first four of a panel take a row each
  let m = top + my.y;
  if (m >= op.m || left + my.x >= panels) { return; }
  var low: Sum;
  var high: Sum;
  for (var i = 0u; i < SLICES; i++) {
    low += slices[2u * my.y * STRIDE + i * PANELS + my.x];
    high += slices[(2u * my.y + 1u) * STRIDE + i * PANELS + my.x];
  }
  finish(m, left + my.x, low, high);
}
