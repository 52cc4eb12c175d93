// For roles that reduce rows: LANES invocations of a workgroup of 64 share a
// row, a power of two. Each gives one vector, all get the sum (or, in the
// last two components, the maximum) over the row.
override LANES: u32 = 64u;
var<workgroup> partial: array<vec4<f32>, 64>;

fn reduce(me: u32, v: vec4<f32>) -> vec4<f32> {
  workgroupBarrier(); // the last result has been read
  partial[me] = v;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (me % LANES < half) {
      let a = partial[me];
      let b = partial[me + half];
      partial[me] = vec4(a.xy + b.xy, max(a.zw, b.zw));
    }
  }
  workgroupBarrier();
  return partial[me / LANES * LANES];
}
