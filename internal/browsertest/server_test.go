package browsertest

import (
	"bytes"
	"encoding/json"
	"image/png"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/internal/serve"
)

// testServer serves the built site in several ways, the suite, and damaged weights, and
// collects what the suite reports.
//
//	/strict/…   the strict Content-Security-Policy, not isolated
//	/isolated/… cross-origin isolated, every file under a wrong type
//	/nowasm/…   a policy that forbids WebAssembly
//	/nofile/…   without the engine's wasm_exec.js
//	/both/…     the strict policy and isolated, as the demo is served
//	/nothreads/… isolated, but without the file for threads
//	/deafthreads/… isolated, with a file for threads that never answers
//	/cors/…     for pages of any origin
//	/doc/…      with the headers of a document's section
//	/nosimd/…   a worker whose browser seems to have no SIMD
//	/card/…     the strict policy, and a graphics card that tests can lose and fill, see card
//	/nocard/… /hungcard/… /smallcard/… /realcard/…  the same with other cards, see cards
//	/mortal/… /full/… /nohash/… /misled/…  a worker that tests can end, that has no room, that hashes nothing, or wrongly, see troubles
//	/small/NAME the weights as a network for smaller pictures
//	/damage/KIND/NAME  the weights, with one file spoilt
//	/threads    the browser's worker threads, see threadsOf
//	/asked/PATH how often PATH was asked for
//	/kernels.wasm the tests of kernel/simd
//	/report     what the suite sends: one JSON object for each test, and one at the end
type testServer struct {
	*httptest.Server
	site, suite string
	policy      string // the site's Content-Security-Policy
	headers     http.Header
	kernels     string // the file for /kernels.wasm

	mu       sync.Mutex
	results  []result
	asked    map[string]int // how often each path was asked for
	group    int            // the browser's process group
	finished chan struct{}
}

// result is what the suite says of one test.
type result struct {
	Test    string          `json:"test"`
	Error   string          `json:"error"` // empty: passed
	Skip    string          `json:"skip"`  // a reason
	Millis  float64         `json:"millis"`
	Data    json.RawMessage `json:"data"` // for checks on this side
	Log     string          `json:"log"`  // not a test, only something to show if one fails
	Finish  bool            `json:"finish"`
	Browser string          `json:"browser"`
}

// run opens a page, of the server unless it is a whole address, in a browser and waits until it reports that it has finished, or
// for as long as the browser's patience. It returns what the browser printed.
func (s *testServer) run(b browser, page string) (printed string, finished bool, err error) {
	s.mu.Lock()
	if !strings.HasPrefix(page, "http") {
		page = s.URL + page
	}
	group, stop, err := b.start(page)
	s.group = group
	s.mu.Unlock()
	if err != nil {
		return "", false, err
	}
	select {
	case <-s.finished:
		finished = true
	case <-time.After(b.patience()):
	}
	return stop(), finished, nil
}

func newTestServer(t *testing.T, site, suite string) *testServer {
	headers, err := serve.ReadHeaders(site)
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{site: site, suite: suite, policy: headers.For("/").Get("Content-Security-Policy"), asked: map[string]int{}, finished: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *testServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked[r.URL.Path]++
	s.mu.Unlock()
	mode, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	h := w.Header()
	switch mode {
	case "report":
		s.report(w, r)
		return
	case "kernels.wasm":
		http.ServeFile(w, r, s.kernels)
		return
	case "strict":
		h.Set("Content-Security-Policy", s.policy)
		h.Set("X-Content-Type-Options", "nosniff")
	case "isolated":
		serve.Isolate(h)
		if strings.HasSuffix(rest, ".wasm") || strings.HasSuffix(rest, ".json") {
			h.Set("Content-Type", "text/plain")
		}
	case "both":
		h.Set("Content-Security-Policy", s.policy)
		serve.Isolate(h)
	case "nothreads", "deafthreads":
		serve.Isolate(h)
		if strings.HasSuffix(rest, "kernel-worker.js") {
			if mode == "nothreads" {
				http.NotFound(w, r)
			} else {
				h.Set("Content-Type", "text/javascript")
			}
			return
		}
	case "doc":
		maps.Copy(h, s.headers)
	case "cors":
		h.Set("Access-Control-Allow-Origin", "*")
	case "nowasm":
		h.Set("Content-Security-Policy", strings.ReplaceAll(s.policy, "'wasm-unsafe-eval'", ""))
	case "nofile":
		if strings.HasSuffix(rest, "wasm_exec.js") {
			http.NotFound(w, r)
			return
		}
	case "nosimd":
		if strings.HasSuffix(rest, "/worker.js") {
			s.script(w, "WebAssembly.validate = () => false;\n", rest)
			return
		}
	case "card", "nocard", "hungcard", "smallcard", "realcard":
		h.Set("Content-Security-Policy", s.policy)
		if strings.HasSuffix(rest, "/worker.js") {
			s.script(w, cards[mode]+card, rest)
			return
		}
	case "mortal", "full", "nohash", "misled":
		if strings.HasSuffix(rest, "/worker.js") {
			s.script(w, troubles[mode], rest)
			return
		}
	case "damage":
		s.damage(w, r, rest)
		return
	case "small":
		s.small(w, r, rest)
		return
	case "threads":
		s.mu.Lock()
		defer s.mu.Unlock()
		json.NewEncoder(w).Encode(threadsOf(s.group))
		return
	case "asked":
		s.mu.Lock()
		defer s.mu.Unlock()
		json.NewEncoder(w).Encode(s.asked["/"+rest])
		return
	default:
		http.NotFound(w, r)
		return
	}
	h.Set("Cache-Control", "no-cache")
	dir := s.site
	if inner, ok := strings.CutPrefix(rest, "test/"); ok {
		rest, dir = inner, s.suite
		if mode == "strict" { // the suite shows the demo page in a frame
			h.Set("Content-Security-Policy", s.policy+"; frame-src 'self'")
		}
	}
	if name, ok := strings.CutSuffix(rest, ".as-png"); ok {
		s.asPNG(w, name)
		return
	}
	if rest == "" {
		rest = "index.html"
	}
	http.ServeFileFS(w, r, os.DirFS(dir), path.Clean("/" + rest)[1:])
}

// script sends one of the site's scripts with something before it.
func (s *testServer) script(w http.ResponseWriter, before, name string) {
	data, _ := os.ReadFile(filepath.Join(s.site, path.Clean("/"+name)))
	w.Header().Set("Content-Type", "text/javascript")
	w.Write(append([]byte(before), data...))
}

// card lets the page lose the card of a worker, at once or with the next that is sent to it, and fill
// its memory.
const card = `
{
  const devices = [];
  let full = false, doomed = false;
  const { requestDevice } = GPUAdapter.prototype, { popErrorScope } = GPUDevice.prototype, { submit } = GPUQueue.prototype;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await requestDevice.apply(this, args);
    devices.push(device);
    return device;
  };
  GPUDevice.prototype.popErrorScope = async function () {
    const error = await popErrorScope.call(this);
    return full ? { message: "full" } : error;
  };
  GPUQueue.prototype.submit = function (...args) {
    submit.apply(this, args);
    if (doomed) devices.at(-1).destroy();
    doomed = false;
  };
  const channel = new BroadcastChannel("card");
  channel.onmessage = ({ data: { say } }) => {
    if (say === "lose") devices.at(-1)?.destroy();
    if (say === "doom") doomed = true;
    if (say === "fill" || say === "free") full = say === "fill";
    channel.postMessage({ done: say });
  };
}
`

// troubles are a worker that ends without a word when the page says so, a disk without room, a page that is not secure,
// where browsers hash nothing, and hashes of other bytes.
var troubles = map[string]string{
	"mortal": "new BroadcastChannel('mortal').onmessage = () => self.close();\n",
	"full":   "Cache.prototype.put = async () => { throw new DOMException('no room', 'QuotaExceededError'); };\n",
	"nohash": "Object.defineProperty(Crypto.prototype, 'subtle', { value: undefined });\n",
	"misled": "SubtleCrypto.prototype.digest = async () => new ArrayBuffer(32);\n",
}

// cards are other cards: none, one that never answers, one with the least that WebGPU promises, and one
// that seems not to be made of software.
var cards = map[string]string{
	"nocard":   "GPU.prototype.requestAdapter = async () => null;",
	"hungcard": "GPU.prototype.requestAdapter = () => new Promise(() => {});",
	"smallcard": `Object.defineProperty(GPUAdapter.prototype, "limits", { get: () => ({ maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27,
  maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 16384 }) });
Object.defineProperty(GPUAdapter.prototype, "features", { get: () => new Set() });`,
	"realcard": `Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });`,
}

// asPNG sends a photo as a PNG of the pixels that Go decodes from it, so that decoders cannot
// differ.
func (s *testServer) asPNG(w http.ResponseWriter, name string) {
	img, err := photo.Read(filepath.Join(s.site, path.Clean("/"+name)))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	png.Encode(w, img)
}

// small sends weights whose manifest says that pictures are looked at with 256 pixels on their long
// side: a quarter of the work.
func (s *testServer) small(w http.ResponseWriter, r *http.Request, name string) {
	data, err := os.ReadFile(filepath.Join(s.site, "pmp/weights", path.Clean("/"+name)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	if name == "manifest.json" {
		data = size.ReplaceAll(data, []byte("${1}256"))
	}
	w.Write(data)
}

var size = regexp.MustCompile(`("size": *)512\b`)

// damage sends weights with the first shard spoilt: "cut" ends it early, "flip" changes one
// bit, "broken" drops the connection in the middle, "gone" has no shard, "html" has a page
// where the manifest should be, "slow" takes its time.
func (s *testServer) damage(w http.ResponseWriter, r *http.Request, rest string) {
	kind, name, _ := strings.Cut(rest, "/")
	data, err := os.ReadFile(filepath.Join(s.site, "pmp/weights", path.Clean("/"+name)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	shard := strings.HasSuffix(name, ".safetensors")
	switch {
	case kind == "html" && name == "manifest.json":
		h.Set("Content-Type", "text/html")
		data = []byte("<!doctype html><title>Not found</title>")
	case kind == "cut" && shard:
		data = data[:len(data)/2]
	case kind == "flip" && shard:
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	case kind == "gone" && shard:
		http.NotFound(w, r)
		return
	case kind == "broken" && shard:
		h.Set("Content-Length", "1000000000")
		w.Write(data[:len(data)/2])
		panic(http.ErrAbortHandler)
	case kind == "slow" && shard:
		for len(data) > 0 {
			n := min(len(data), 1<<16)
			if _, err := w.Write(data[:n]); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			data = data[n:]
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		return
	}
	w.Write(data)
}

func (s *testServer) report(w http.ResponseWriter, r *http.Request) {
	var got result
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(&got); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, got)
	if got.Finish {
		close(s.finished)
	}
}

// log is what the suite has said so far, for a failure message.
func (s *testServer) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, r := range s.results {
		switch {
		case r.Log != "":
			b.WriteString("  page: " + r.Log + "\n")
		case r.Error != "":
			b.WriteString("  failed: " + r.Test + ": " + r.Error + "\n")
		case r.Test != "":
			b.WriteString("  passed: " + r.Test + "\n")
		}
	}
	return b.String()
}
