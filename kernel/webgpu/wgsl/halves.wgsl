// Packed matrices of halves, two in a word, see halve in halves.go. What is
// beyond their range becomes its end.
fn putPacked(start: u32, i: u32, v: vec4<f32>) {
  let c = clamp(v, vec4(-65504.0), vec4(65504.0));
  put2(start + i / 2u, vec2(pack2x16float(c.xy), pack2x16float(c.zw)));
}
fn packed4(view: u32, start: u32, i: u32) -> vec4<f32> {
  let w = at2(view, start + i / 2u);
  return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}
