// Numbers of products as they are.
alias Part = vec4<u32>;
fn keep(v: vec4<u32>) -> Part { return v; }
fn madd(s: vec4<f32>, a: u32, b: Part) -> vec4<f32> { return s + bitcast<f32>(a) * bitcast<vec4<f32>>(b); }
