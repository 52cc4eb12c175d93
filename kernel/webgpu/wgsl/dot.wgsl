// dot4 where the language has it: four products of bytes, of which those of a lie in 0..127.
fn dot4(a: u32, b: u32) -> i32 { return dot4I8Packed(a, b); }
