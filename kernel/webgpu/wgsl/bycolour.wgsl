// What Paint makes of four cells with four numbers each, see Guided.
fn heightOf(pixel: u32, weight: vec4<f32>, a: u32, b: u32, c: u32, d: u32) -> f32 {
  let s = weight.x * f4(1u, op.a + 4u * a) + weight.y * f4(1u, op.a + 4u * b) + weight.z * f4(1u, op.a + 4u * c) + weight.w * f4(1u, op.a + 4u * d);
  let colour = at(5u, op.pixels + pixel);
  return dot(s, vec4(vec3<f32>(vec3(colour, colour >> 8u, colour >> 16u) & vec3(255u)), 1.0));
}
