// What Paint makes of four cells.
fn heightOf(pixel: u32, weight: vec4<f32>, a: u32, b: u32, c: u32, d: u32) -> f32 {
  let s = once(weight * vec4(f(1u, op.a + a), f(1u, op.a + b), f(1u, op.a + c), f(1u, op.a + d)));
  return s.x + s.y + s.z + s.w;
}
