// For roles that reduce rows: LANES invocations of a workgroup of GROUP share a
// row, a power of two, side by side. Each gives a vector, all get the sum or
// the maximum over the row. All invocations of a workgroup must come here. How
// they join is in reduce.wgsl, for all cards, and in shuffle.wgsl.
override LANES: u32 = 64u;
override GROUP: u32 = 64u;

fn rowSum(me: u32, v: vec4<f32>) -> vec4<f32> { return reduce(me, v, false); }
fn rowMax(me: u32, v: vec4<f32>) -> vec4<f32> { return reduce(me, v, true); }
fn either(a: vec4<f32>, b: vec4<f32>, top: bool) -> vec4<f32> { return select(a + b, max(a, b), top); }
