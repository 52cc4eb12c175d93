// Gives Node what a browser has: navigator.gpu, by the npm package webgpu (PMP_DAWN is its
// dawn.node). So tests and benchmarks run without a browser, on a card or on SwiftShader:
//
//   GOOS=js GOARCH=wasm go test -c -o webgpu.wasm ./kernel/webgpu
//   PMP_VARIANT=webgpu node --stack-size=8192 --require ./kernel/webgpu/node.cjs \
//     "$(go env GOROOT)/lib/wasm/wasm_exec_node.js" webgpu.wasm -test.v -test.bench .
//
// Vulkan's loader must be found; VK_ICD_FILENAMES names the driver where there are several. With
// the word "null" in PMP_VARIANT the card is one that compiles shaders, with all features that
// there are, and computes nothing: see TestVariants.
const { create, globals } = require(process.env.PMP_DAWN);
Object.assign(globalThis, globals);
const card = /\bnull\b/.test(process.env.PMP_VARIANT) ? ["backend=null"] : [];
Object.defineProperty(globalThis, "navigator", { value: { gpu: create(card) }, configurable: true });
