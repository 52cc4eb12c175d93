// Numbers of products rounded to halves, which take half the room. Products
// and sums are float32. What is beyond the range of halves becomes their end.
enable f16;
alias Part = vec4<f16>;
fn keep(v: vec4<u32>) -> Part { return Part(clamp(bitcast<vec4<f32>>(v), vec4(-65504.0), vec4(65504.0))); }
fn madd(s: vec4<f32>, a: f16, b: Part) -> vec4<f32> { return s + f32(a) * vec4<f32>(b); }
