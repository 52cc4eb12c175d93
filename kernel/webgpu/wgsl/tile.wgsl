// Matrix products with many rows and columns.
//
// A workgroup of WX·WY invocations makes a tile of 4·WY rows and 8·WX columns
// of dst; an invocation makes 4 rows and one panel of 8 columns, in registers.
// KT steps of A and B at a time lie in workgroup memory: A by columns, four
// rows in a vector, B by rows, four columns in a vector. Rows there are longer
// by one vector than needed, so that what neighbours write falls into
// different banks. Memory: 16·KT·(WY+1 + 2·WX+1) bytes, or half of that for
// halves; 9 KiB for the widest tile that is taken by default.
override WX: u32 = 8u;
override WY: u32 = 16u;
const KT = 16u;

var<workgroup> partOfA: array<Part, KT * (WY + 1u)>;
var<workgroup> partOfB: array<Part, KT * (2u * WX + 1u)>;

// aOf reads steps k..k+3 of row m; beyond the ends it reads another row, or 0.
fn aOf(m: u32, k: u32) -> vec4<u32> {
  return select(vec4(0u), at4(1u, rowOfA(min(m, op.m - 1u)) + k), vec4(k, k + 1u, k + 2u, k + 3u) < vec4(steps()));
}

@compute @workgroup_size(WX, WY)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_id) my: vec3<u32>, @builtin(local_invocation_index) me: u32) {
  let panels = op.n / 8u;
  let across = (panels + WX - 1u) / WX;
  let g = groupOf(id, count);
  let top = g / across * 4u * WY;
  let left = g % across * WX;
  if (top >= op.m) { return; }

  var s0: Sum; var s1: Sum; var s2: Sum; var s3: Sum; // columns 0..3 of four rows
  var t0: Sum; var t1: Sum; var t2: Sum; var t3: Sum; // columns 4..7
  for (var k0 = 0u; k0 < steps(); k0 += KT) {
    workgroupBarrier();
    for (var i = me; i < WY * KT / 4u; i += WX * WY) { // four rows of four steps each
      let k = i % (KT / 4u) * 4u;
      let y = i / (KT / 4u);
      let m = top + 4u * y;
      let r0 = aOf(m, k0 + k);
      let r1 = aOf(m + 1u, k0 + k);
      let r2 = aOf(m + 2u, k0 + k);
      let r3 = aOf(m + 3u, k0 + k);
      partOfA[k * (WY + 1u) + y] = keep(vec4(r0.x, r1.x, r2.x, r3.x));
      partOfA[(k + 1u) * (WY + 1u) + y] = keep(vec4(r0.y, r1.y, r2.y, r3.y));
      partOfA[(k + 2u) * (WY + 1u) + y] = keep(vec4(r0.z, r1.z, r2.z, r3.z));
      partOfA[(k + 3u) * (WY + 1u) + y] = keep(vec4(r0.w, r1.w, r2.w, r3.w));
    }
    for (var i = me; i < WX * KT; i += WX * WY) { // a row of a panel each
      let k = i % KT;
      let x = i / KT;
      var low = vec4(0u);
      var high = vec4(0u);
      if (k0 + k < steps()) {
        let start = bOf(min(left + x, panels - 1u), k0 + k);
        low = at4(2u, start);
        high = at4(2u, start + 4u);
      }
      partOfB[k * (2u * WX + 1u) + x] = keep(low);
      partOfB[k * (2u * WX + 1u) + WX + x] = keep(high);
    }
    workgroupBarrier();
    for (var k = 0u; k < KT; k++) {
      let a = partOfA[k * (WY + 1u) + my.y];
      let low = partOfB[k * (2u * WX + 1u) + my.x];
      let high = partOfB[k * (2u * WX + 1u) + WX + my.x];
      s0 = madd(s0, a.x, low); t0 = madd(t0, a.x, high);
      s1 = madd(s1, a.y, low); t1 = madd(t1, a.y, high);
      s2 = madd(s2, a.z, low); t2 = madd(t2, a.z, high);
      s3 = madd(s3, a.w, low); t3 = madd(t3, a.w, high);
    }
  }

  let panel = left + my.x;
  let m = top + 4u * my.y;
  if (panel >= panels) { return; }
  if (m < op.m) { finish(m, panel, s0, t0); }
  if (m + 1u < op.m) { finish(m + 1u, panel, s1, t1); }
  if (m + 2u < op.m) { finish(m + 2u, panel, s2, t2); }
  if (m + 3u < op.m) { finish(m + 3u, panel, s3, t3); }
}
