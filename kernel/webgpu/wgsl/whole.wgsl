// Packed matrices of float32s, from a word on, by the index of a number.
fn putPacked(start: u32, i: u32, v: vec4<f32>) { store4(start + i, v); }
fn packed4(view: u32, start: u32, i: u32) -> vec4<f32> { return f4(view, start + i); }
