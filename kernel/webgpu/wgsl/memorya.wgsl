// Memory by single words that the invocations of a dispatch change together.
@group(0) @binding(0) var<storage, read_write> arena: array<atomic<u32>>;

fn word(i: u32) -> u32 { return atomicLoad(&arena[i]); }
fn two(i: u32) -> vec2<u32> { return vec2(word(i), word(i + 1u)); }
fn four(i: u32) -> vec4<u32> { return vec4(two(i), two(i + 2u)); }
fn put(i: u32, v: u32) { atomicStore(&arena[i], v); }
fn put4(i: u32, v: vec4<u32>) {
  put(i, v.x);
  put(i + 1u, v.y);
  put(i + 2u, v.z);
  put(i + 3u, v.w);
}
