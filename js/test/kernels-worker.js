import "../pmp/wasm_exec.js";
import { startThreads } from "../pmp/threads.js";

// Tests ask for threads by this name, and take an error as a value.
self.startThreads = (options) => startThreads(options).catch((e) => ({ message: e.message }));

const decoder = new TextDecoder();
let line = "";
self.fs.writeSync = (_, bytes) => {
  line += decoder.decode(bytes, { stream: true });
  const lines = line.split("\n");
  line = lines.pop();
  for (const l of lines) self.postMessage({ line: l });
  return bytes.length;
};

self.onmessage = async ({ data: { env, args } }) => {
  const go = new self.Go();
  go.argv = ["kernels", ...args];
  go.env = env;
  let code = 2; // what Go answers after a panic
  go.exit = (c) => (code = c);
  const { instance } = await WebAssembly.instantiate(await (await fetch("/kernels.wasm")).arrayBuffer(), go.importObject);
  await go.run(instance);
  self.postMessage({ code });
};
