// Memory by twos of words: all operands and rows start at multiples of 2.
@group(0) @binding(0) var<storage, read_write> arena: array<vec2<u32>>;

fn word(i: u32) -> u32 { return arena[i >> 1u][i & 1u]; }
fn two(i: u32) -> vec2<u32> { return arena[i >> 1u]; }
fn four(i: u32) -> vec4<u32> { return vec4(arena[i >> 1u], arena[(i >> 1u) + 1u]); }
fn put2(i: u32, v: vec2<u32>) { arena[i >> 1u] = v; }
fn put4(i: u32, v: vec4<u32>) {
  put2(i, v.xy);
  put2(i + 2u, v.zw);
}
