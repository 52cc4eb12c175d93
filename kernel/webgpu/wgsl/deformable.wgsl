// Deformable: an invocation makes four channels of one query and head. Others
// of the same head find the same weights and cells, which costs less than
// waiting for each other.
struct Op {
  zero: u32, act: u32,
  dst: u32, v: u32, offset: u32, weight: u32, @size(16) place: u32,
  q: u32, d: u32, heads: u32, points: u32, maps: u32,
  h0: u32, w0: u32, h1: u32, w1: u32, h2: u32, w2: u32, h3: u32, w3: u32,
}

// sides are the columns and rows of a map.
fn sides(map: u32) -> vec2<u32> {
  switch map {
    case 0u: { return vec2(op.w0, op.h0); }
    case 1u: { return vec2(op.w1, op.h1); }
    case 2u: { return vec2(op.w2, op.h2); }
    default: { return vec2(op.w3, op.h3); }
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let i = (groupOf(id, count) * 64u + me) * 4u;
  if (i >= op.q * op.d) { return; }
  let q = i / op.d;
  let c = i % op.d;
  let n = op.maps * op.points;
  let first = (q * op.heads + c / (op.d / op.heads)) * n;
  let place = bitcast<vec2<f32>>(at2(4u, op.place + 2u * q));

  var tops = f4(3u, op.weight + first);
  for (var j = 4u; j < n; j += 4u) { tops = max(tops, f4(3u, op.weight + first + j)); }
  let top = max(max(tops.x, tops.y), max(tops.z, tops.w));

  var s = vec4(0.0);
  var total = vec4(0.0);
  var weights: vec4<f32>;
  var start = op.v + c; // of the map
  var j = 0u;
  for (var map = 0u; map < op.maps; map++) {
    let side = sides(map);
    for (var k = 0u; k < op.points; k++) {
      if (j % 4u == 0u) {
        weights = exp4(f4(3u, op.weight + first + j) - top);
        total += weights;
      }
      // What is far outside stays outside, but fits an integer.
      let point = clamp(place * vec2<f32>(side) + bitcast<vec2<f32>>(at2(2u, op.offset + 2u * (first + j))) - 0.5, vec2(-2.0), vec2<f32>(side) + 1.0);
      let corner = floor(point);
      let far = point - corner;
      for (var b = 0u; b < 4u; b++) {
        let more = vec2(b & 1u, b >> 1u);
        let cell = vec2<i32>(corner) + vec2<i32>(more);
        if (any(cell < vec2(0)) || any(cell >= vec2<i32>(side))) { continue; }
        let share = select(1.0 - far, far, more == vec2(1u));
        s += weights[j % 4u] * share.x * share.y * f4(1u, start + (u32(cell.y) * side.x + u32(cell.x)) * op.d);
      }
      j++;
    }
    start += side.x * side.y * op.d;
  }
  store4(op.dst + i, s / dot(total, vec4(1.0)));
}
