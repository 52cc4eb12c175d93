// A service worker that tries to load the package.
import { Segmenter } from "../pmp/index.js";

onmessage = async ({ ports: [port] }) => {
  const { code, message } = await Segmenter.load().catch((e) => e);
  port.postMessage({ code, message });
};
