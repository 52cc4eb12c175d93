// Brings RGBA pixels from where a program has them to a canvas, see
// Session.Show, whose colours are multiplied by alpha. It is drawn, not
// computed, since not every browser lets shaders write to a canvas otherwise:
// one triangle that covers all pixels, each of which reads a word.
@group(0) @binding(0) var<storage, read> arena: array<u32>;
@group(0) @binding(1) var<uniform> op: vec4<u32>; // the first word, width, height

@vertex
fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4<f32> {
  return vec4(select(-1.0, 3.0, i == 1u), select(-1.0, 3.0, i == 2u), 0.0, 1.0);
}

@fragment
fn pixel(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
  let c = unpack4x8unorm(arena[op.x + u32(at.y) * op.y + u32(at.x)]);
  return vec4(c.rgb * c.a, c.a);
}
