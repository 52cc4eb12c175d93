// dot4 where the language lacks it.
fn dot4(a: u32, b: u32) -> i32 {
  let x = vec4<i32>((vec4(a) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u));
  let y = vec4<i32>(vec4(b) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u);
  return x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
}
