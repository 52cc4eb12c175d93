// What all roles share. A file for each role follows, which declares Op: the
// op's record in words (see kernel.RecordSize), but with a zero in front, and
// views as numbers of words, ABSENT where there is none.
//
// The arena is one binding and so are the constants. Which operands are
// constants is known when a pipeline is made: bit i of CONSTANTS is view i.
@group(0) @binding(1) var<storage, read> constants: array<vec4<u32>>;
@group(0) @binding(2) var<uniform> op: Op;

override CONSTANTS: u32 = 0u;
// Constants that are read by fours or twos start at multiples of 4.
override ALIGNED: bool = true;

const ABSENT = 0xffffffffu;
const LOWEST = -3.0e38;

fn constant(i: u32) -> u32 { return constants[i >> 2u][i & 3u]; }

// at, at2 and at4 read words of a view from word i on.
fn at(view: u32, i: u32) -> u32 {
  if (((CONSTANTS >> view) & 1u) != 0u) { return constant(i); }
  return word(i);
}
fn at2(view: u32, i: u32) -> vec2<u32> {
  if (((CONSTANTS >> view) & 1u) != 0u) { return vec2(constant(i), constant(i + 1u)); }
  return two(i);
}
fn at4(view: u32, i: u32) -> vec4<u32> {
  if (((CONSTANTS >> view) & 1u) != 0u) {
    if (ALIGNED) { return constants[i >> 2u]; }
    return vec4(constant(i), constant(i + 1u), constant(i + 2u), constant(i + 3u));
  }
  return four(i);
}
fn f(view: u32, i: u32) -> f32 { return bitcast<f32>(at(view, i)); }
fn f4(view: u32, i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(at4(view, i)); }
fn store4(i: u32, v: vec4<f32>) { put4(i, bitcast<vec4<u32>>(v)); }

// Dispatches of more groups than one dimension takes are folded into two.
fn groupOf(id: vec3<u32>, count: vec3<u32>) -> u32 { return id.y * count.x + id.x; }

// once is x. It hides from compilers where x comes from, so that they cannot
// fuse a product with the sum behind it: what is specified as two roundings
// stays two.
fn once(x: vec4<f32>) -> vec4<f32> { return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) ^ vec4(op.zero)); }

// exp4 is e^x with a relative error below 2e-7, exactly 0 below -87. The
// built-in exp may be off by more than 1e-5 for large x.
fn exp4(x: vec4<f32>) -> vec4<f32> {
  let c = clamp(x, vec4(-88.0), vec4(88.3));
  let n = round(c * 1.4426950408889634);
  // ln 2 in two parts, of which the first times n is exact.
  let r = once(c - n * 0.693359375) + n * 2.12194440e-4;
  let p = 1.0 + r * (1.0 + r * (0.4999922215938568 + r * (0.16667120158672333 + r * (0.0418914258480072 + r * 0.00831238366663456))));
  return select(bitcast<vec4<f32>>(bitcast<vec4<i32>>(p) + (vec4<i32>(n) << vec4(23u))), vec4(0.0), x < vec4(-87.0));
}

// See kernel/simd/gen/math.go for where gelu's polynomial comes from.
fn gelu(x: vec4<f32>) -> vec4<f32> {
  let a = abs(x);
  let u = min(a, vec4(6.0));
  let p = 0.7978859543800354 + u * (0.3182913661003113 + u * (0.03641765937209129 + u * (-0.004950605798512697
    + u * (0.00014570193889085203 + u * (0.00010412189294584095 + u * (-2.118679003615398e-05 + u * 1.3798940017295536e-06))))));
  return max(x, vec4(0.0)) - 0.5 * a * exp4(-a * p);
}

fn activate(x: vec4<f32>) -> vec4<f32> {
  switch op.act {
    case 1u: { return max(x, vec4(0.0)); }
    case 2u: { return clamp(x, vec4(0.0), vec4(6.0)); }
    case 3u: { return gelu(x); }
    case 4u: { return 1.0 / (1.0 + exp4(-x)); }
    case 5u: { return exp4(x); }
    case 6u: { return x / (1.0 + exp4(-1.702 * x)); }
    default: { return x; }
  }
}

// round7 rounds to 0..127 and joins four bytes to a word; WGSL rounds ties to even.
fn round7(x: vec4<f32>) -> u32 {
  let b = vec4<u32>(clamp(round(x), vec4(0.0), vec4(127.0))) << vec4(0u, 8u, 16u, 24u);
  return b.x | b.y | b.z | b.w;
}
