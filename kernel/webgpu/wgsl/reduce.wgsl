// Rows by workgroup memory, 16 bytes for each invocation. Joining all that but
// FEW invocations have takes one step, and each reads those FEW itself: that
// is fewer barriers than halving would take.
const FEW = 8u;
var<workgroup> partial: array<vec4<f32>, GROUP>;

fn reduce(me: u32, v: vec4<f32>, top: bool) -> vec4<f32> {
  workgroupBarrier(); // the last result has been read
  partial[me] = v;
  workgroupBarrier();
  if (LANES > FEW) {
    if (me % LANES < FEW) {
      var r = v;
      for (var i = FEW; i < LANES; i += FEW) { r = either(r, partial[me + i], top); }
      partial[me] = r;
    }
    workgroupBarrier();
  }
  let first = me / LANES * LANES;
  var r = partial[first];
  for (var i = 1u; i < min(LANES, FEW); i++) { r = either(r, partial[first + i], top); }
  return r;
}
