// Rows by exchange within subgroups, and by workgroup memory between them, 16
// bytes for each invocation. SHUFFLED invocations side by side, a power of two,
// are known to be in one subgroup, see probe.wgsl.
enable subgroups;
override SHUFFLED: u32 = 4u;
var<workgroup> partial: array<vec4<f32>, GROUP>;

fn reduce(me: u32, v: vec4<f32>, top: bool) -> vec4<f32> {
  var r = v;
  for (var i = 1u; i < min(LANES, SHUFFLED); i *= 2u) { r = either(r, subgroupShuffleXor(r, i), top); }
  if (LANES > SHUFFLED) {
    workgroupBarrier(); // the last result has been read
    if (me % SHUFFLED == 0u) { partial[me / SHUFFLED] = r; }
    workgroupBarrier();
    let first = me / LANES * (LANES / SHUFFLED);
    r = partial[first];
    for (var i = 1u; i < LANES / SHUFFLED; i++) { r = either(r, partial[first + i], top); }
  }
  return r;
}
