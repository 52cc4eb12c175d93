// Looks whether invocations that lie side by side in a workgroup do so in
// subgroups, too, which WGSL does not promise: shuffle.wgsl needs that
// subgroupShuffleXor by less than SHUFFLED gives what the invocation has whose
// index differs by as much. Where it does not, a word becomes other than 0.
enable subgroups;
override SHUFFLED: u32 = 4u;
override ACROSS: u32 = 64u;
override DOWN: u32 = 1u;
@group(0) @binding(0) var<storage, read_write> wrong: atomic<u32>;

@compute @workgroup_size(ACROSS, DOWN)
fn main(@builtin(local_invocation_index) me: u32) {
  for (var i = 1u; i < SHUFFLED; i++) {
    if (subgroupShuffleXor(me, i) != (me ^ i)) { atomicOr(&wrong, 1u); }
  }
}
