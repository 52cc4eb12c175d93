// Guided: a workgroup makes 8×8 cells of a map, out of the fits of 10×10.
struct Op {
  zero: u32, act: u32,
  dst: u32, a: u32, guide: u32, @size(20) count: u32,
  t: u32, h: u32, w: u32, everywhere: u32,
}

var<workgroup> fits: array<vec4<f32>, 100>;

fn inside(i: i32, n: u32) -> u32 { return u32(clamp(i, 0, i32(n) - 1)); }

fn fit(y: u32, x: u32, map: u32) -> vec4<f32> {
  var m = vec4(0.0);
  var above = 0u;
  for (var i = -1; i <= 1; i++) {
    for (var j = -1; j <= 1; j++) {
      let cell = inside(i32(y) + i, op.h) * op.w + inside(i32(x) + j, op.w);
      let s = f(1u, map + cell);
      above += select(0u, 1u, s > 0.0);
      m += f4(2u, op.guide + 4u * cell) * s;
    }
  }
  if (op.everywhere == 0u && (above == 0u || above == 9u)) { return vec4(0.0, 0.0, 0.0, f(1u, map + y * op.w + x)); }
  let k = op.guide + 4u * op.h * op.w + 16u * (y * op.w + x);
  return (f4(2u, k) * m.x + f4(2u, k + 4u) * m.y + f4(2u, k + 8u) * m.z + f4(2u, k + 12u) * m.w) * (1.0 / 9.0);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let across = (op.w + 7u) / 8u;
  let tiles = across * ((op.h + 7u) / 8u);
  let group = groupOf(id, count);
  let t = group / tiles;
  let y0 = group % tiles / across * 8u;
  let x0 = group % tiles % across * 8u;
  let wanted = t < op.t && (op.count == ABSENT || t < at(3u, op.count));
  if (wanted) {
    for (var i = me; i < 100u; i += 64u) {
      fits[i] = fit(inside(i32(y0 + i / 10u) - 1, op.h), inside(i32(x0 + i % 10u) - 1, op.w), op.a + t * op.h * op.w);
    }
  }
  workgroupBarrier();
  let y = y0 + me / 8u;
  let x = x0 + me % 8u;
  if (!wanted || y >= op.h || x >= op.w) { return; }
  var sum = vec4(0.0);
  for (var i = 0u; i < 9u; i++) { sum += fits[(me / 8u + i / 3u) * 10u + me % 8u + i % 3u]; }
  sum *= 1.0 / 9.0;
  let colours = sum.xyz / 128.0;
  store4(op.dst + 4u * ((t * op.h + y) * op.w + x), vec4(colours, sum.w - 127.0 * (colours.x + colours.y + colours.z)));
}
