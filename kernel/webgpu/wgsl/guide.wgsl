// Guide: an invocation makes a cell, and for that the colours of its neighbours.
struct Op {
  zero: u32, act: u32,
  dst: u32, @size(28) a: u32,
  h: u32, w: u32, hi: u32, wi: u32, @size(48) wp: u32, epsilon: f32,
}

fn inside(i: u32, n: u32) -> u32 { return min(i, n - 1u); }

// The neighbours of i are numbered from 0; that in front of the first one is the first one.
fn neighbour(i: u32, j: u32, n: u32) -> u32 { return inside(max(i + j, 1u) - 1u, n); }

fn colour(y: u32, x: u32) -> vec4<f32> {
  var total = vec4(0.0);
  for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u; j++) {
      total += f4(1u, op.a + 4u * (inside(4u * y + 2u + i, op.hi) * op.wp + inside(4u * x + 2u + j, op.wi)));
    }
  }
  return vec4(total.xyz / 16.0, 1.0);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let cell = groupOf(id, count) * 64u + me;
  if (cell >= op.h * op.w) { return; }
  let y = cell / op.w;
  let x = cell % op.w;
  var m = mat4x4<f32>();
  for (var i = 0u; i < 3u; i++) {
    for (var j = 0u; j < 3u; j++) {
      let g = colour(neighbour(y, i, op.h), neighbour(x, j, op.w));
      if (i == 1u && j == 1u) { store4(op.dst + 4u * cell, g); }
      m += mat4x4(g * g.x, g * g.y, g * g.z, g);
    }
  }
  m = m * (1.0 / 9.0);
  let mean = m[3].xyz;
  // How colours vary; a matrix of cross products is its inverse, but for the scale.
  let a = m[0].xyz - mean * mean.x + vec3(op.epsilon, 0.0, 0.0);
  let b = m[1].xyz - mean * mean.y + vec3(0.0, op.epsilon, 0.0);
  let c = m[2].xyz - mean * mean.z + vec3(0.0, 0.0, op.epsilon);
  let inverse = mat3x3(cross(b, c), cross(c, a), cross(a, b)) * (1.0 / dot(a, cross(b, c)));
  let one = -(inverse * mean);
  let to = op.dst + 4u * op.h * op.w + 16u * cell;
  store4(to, vec4(inverse[0], one.x));
  store4(to + 4u, vec4(inverse[1], one.y));
  store4(to + 8u, vec4(inverse[2], one.z));
  store4(to + 12u, vec4(one, 1.0 - dot(one, mean)));
}
