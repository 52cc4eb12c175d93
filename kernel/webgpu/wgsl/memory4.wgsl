// Memory by fours of words: all operands and rows start at multiples of 4.
@group(0) @binding(0) var<storage, read_write> arena: array<vec4<u32>>;

fn word(i: u32) -> u32 { return arena[i >> 2u][i & 3u]; }
fn two(i: u32) -> vec2<u32> { return vec2(word(i), word(i + 1u)); }
fn four(i: u32) -> vec4<u32> { return arena[i >> 2u]; }
fn put4(i: u32, v: vec4<u32>) { arena[i >> 2u] = v; }
