// Memory by single words, for operands that lie anywhere.
@group(0) @binding(0) var<storage, read_write> arena: array<u32>;

fn word(i: u32) -> u32 { return arena[i]; }
fn two(i: u32) -> vec2<u32> { return vec2(arena[i], arena[i + 1u]); }
fn four(i: u32) -> vec4<u32> { return vec4(arena[i], arena[i + 1u], arena[i + 2u], arena[i + 3u]); }
fn put(i: u32, v: u32) { arena[i] = v; }
fn put2(i: u32, v: vec2<u32>) {
  arena[i] = v.x;
  arena[i + 1u] = v.y;
}
fn put4(i: u32, v: vec4<u32>) {
  put2(i, v.xy);
  put2(i + 2u, v.zw);
}
