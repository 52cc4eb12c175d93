// Brings a picture that the card has as a texture to where a program reads
// RGBA pixels, see Session.Draw. What is transparent counts as white. An
// invocation takes one pixel.
@group(0) @binding(0) var<storage, read_write> arena: array<u32>;
@group(0) @binding(1) var<uniform> op: vec4<u32>; // the first word, width, height
@group(0) @binding(2) var image: texture_2d<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= op.y || id.y >= op.z) { return; }
  let c = textureLoad(image, id.xy, 0);
  arena[op.x + id.y * op.y + id.x] = pack4x8unorm(vec4(c.rgb * c.a + 1.0 - c.a, 1.0));
}
