// Keeps the page, the engine and the package, so that the site opens at once and without a network. The weights are not
// its business: the package keeps them itself. build.sh fills in the files and their common hash.
const FILES = ["./"];
const VERSION = "unbuilt";
const CACHE = `pmp-site-${VERSION}`;

// All files of a version come together. A page that is open goes on with those that it began with: the next version
// takes over when no page of this one is left.
self.addEventListener("install", (e) => {
  e.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES.map((f) => new Request(f, { cache: "reload" })))));
});

self.addEventListener("activate", (e) => {
  e.waitUntil(caches.keys().then((names) => Promise.all(names.filter((n) => n.startsWith("pmp-site-") && n !== CACHE).map((n) => caches.delete(n)))));
});

self.addEventListener("fetch", (e) => {
  if (e.request.method === "GET" && new URL(e.request.url).origin === location.origin) e.respondWith(answer(e.request));
});

async function answer(request) {
  const kept = await (await caches.open(CACHE)).match(request, { ignoreSearch: true });
  return kept ? isolated(kept) : fetch(request);
}

/** Hosts without headers of one's own get those that let threads share memory, from the second visit on. */
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, headers });
}
