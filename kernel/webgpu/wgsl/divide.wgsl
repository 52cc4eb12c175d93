// divide is a/b rounded once; WGSL's own quotient may be off by 2.5 ulps. It
// adds what the remainder a - q·b, in parts that are exact, says is missing.
fn divide(a: f32, b: f32) -> f32 {
  let q = a / b;
  let s = once(vec4(q, b, 0.0, 0.0) * 4097.0); // splits into halves of 12 bits
  let high = once(s - once(s - vec4(q, b, 0.0, 0.0)));
  let low = once(vec4(q, b, 0.0, 0.0) - high);
  let p = once(vec4(q * b, high.x * high.y, high.x * low.y, low.x * high.y));
  let error = once(vec4(once(once(once(vec4(p.y - p.x)) + p.z) + p.w).x + low.x * low.y)).x;
  return q + (once(vec4(a - p.x)).x - error) / b;
}
