// The graphics card that WebGPU offers, and what earlier visits found out about it.

/** A browser whose driver hangs never answers. */
const ANSWER = 10_000; // ms
/** Drivers, browsers and this package change, so what was measured is measured again some time. */
const KEEP = 14 * 24 * 3600e3; // ms
const CACHE = "pmp-cards";

/**
 * @param {{precision?: string, threads: number, weights?: string}} options what the processor's time depends on
 * @returns {Promise<{adapter: GPUAdapter|null, noCard: string, remembered: object|null, remember: (facts: object) => Promise<void>}>}
 *   noCard says why there is no adapter; remembered is what `remember` was given for this adapter before
 */
export async function findCard({ precision, threads, weights }) {
  const none = (noCard) => ({ adapter: null, noCard, remembered: null, remember: async () => {} });
  if (!navigator.gpu) {
    return none(globalThis.isSecureContext === false
      ? "browsers offer WebGPU to secure pages only (https or localhost)"
      : "this browser has no WebGPU here");
  }
  let adapter, timer;
  try {
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`it did not answer within ${ANSWER / 1000} s`)), ANSWER)));
    adapter = await Promise.race([navigator.gpu.requestAdapter({ powerPreference: "high-performance" }), late]);
  } catch (e) {
    return none(`the browser was asked for a graphics card, but ${e.message}`);
  } finally {
    clearTimeout(timer);
  }
  if (!adapter) return none("the browser offers no graphics card to WebGPU");
  const { vendor, architecture, device, description } = adapter.info ?? {};
  const about = new URLSearchParams({ vendor, architecture, device, description, precision, threads, weights, browser: navigator.userAgent });
  const key = new URL(`card?${about}`, import.meta.url).href;
  const remembered = await recall(key);
  return { adapter, noCard: "", remembered, remember: (facts) => keep(key, facts) };
}

/** Browsers have no cache in private windows, say; then everything is measured at each visit. */
async function recall(key) {
  try {
    const facts = await (await (await caches.open(CACHE)).match(key))?.json();
    return facts && Date.now() - facts.at < KEEP ? facts : null;
  } catch {
    return null;
  }
}

async function keep(key, facts) {
  try {
    await (await caches.open(CACHE)).put(key, new Response(JSON.stringify({ ...facts, at: Date.now() })));
  } catch {
    // See recall.
  }
}
