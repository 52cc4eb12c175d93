package browsertest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"image/png"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
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
//	/nowasmfile/… a page where the engine should be, as hosts answer that know no "not found"
//	/tight/…    an engine that gets little memory, see tight
//	/both/…     the strict policy and isolated, as the demo is served
//	/nothreads/… isolated, but without the file for threads
//	/deafthreads/… isolated, with a file for threads that never answers
//	/cors/…     for pages of any origin
//	/foreign/…  for pages of any origin to show, but not to read
//	/doc/…      with the headers of a document's section
//	/nosimd/…   a worker whose browser seems to have no SIMD
//	/card/… /badcard/…  the strict policy, and a graphics card that tests can lose and fill, see card
//	/nocard/… /hungcard/… /smallcard/… /realcard/…  the same with other cards, see cards
//	/mortal/… /full/… /slowdisk/… /nogrow/… /nohash/… /misled/…  a worker that tests can end, and others with troubles, see troubles
//	/bases/BASE/NAME the weights of a small public checkpoint, see basesOf; those in the folder PMP_CHECKPOINT if BASE is own
//	/damage/…   the weights, with one file spoilt, see damage
//	/heal/… /break/…  says to /damage/… that a file is whole again, that a connection breaks
//	/threads    the browser's worker threads, see threadsOf
//	/asked/PATH how often PATH was asked for; /sent/PATH how often it was sent rather than "not modified"
//	/ended/PATH how often the browser ended a connection over which PATH was on its way
//	/violated   what browsers report of the strict policy
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
	sent     map[string]int // how often it was sent
	ended    map[string]int // how often the browser did not want the rest
	violated []string       // reports of violations of the strict policy
	group    int            // the browser's process group
	said     chan struct{}  // something, since it was looked at
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
// has said nothing for as long as the browser's patience. It returns what the browser printed.
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
	for {
		select {
		case <-s.finished:
			return stop(), true, nil
		case <-s.said:
		case <-time.After(b.patience()):
			return stop(), false, nil
		}
	}
}

func newTestServer(t *testing.T, site, suite string) *testServer {
	headers, err := serve.ReadHeaders(site)
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{site: site, suite: suite, policy: headers.For("/").Get("Content-Security-Policy"), said: make(chan struct{}, 1), finished: make(chan struct{}),
		asked: map[string]int{}, sent: map[string]int{}, ended: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *testServer) serve(w http.ResponseWriter, r *http.Request) {
	s.count(s.asked, r.URL.Path)
	mode, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	h := w.Header()
	switch mode {
	case "report":
		s.report(w, r)
		return
	case "kernels.wasm":
		http.ServeFile(w, r, s.kernels)
		return
	case "violated":
		report, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		s.mu.Lock()
		defer s.mu.Unlock()
		s.violated = append(s.violated, string(report))
		return
	case "strict":
		h.Set("Content-Security-Policy", s.policy+"; report-uri /violated")
		h.Set("X-Content-Type-Options", "nosniff")
	case "isolated":
		serve.Isolate(h)
		if strings.HasSuffix(rest, ".wasm") || strings.HasSuffix(rest, ".json") {
			h.Set("Content-Type", "text/html")
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
	case "foreign":
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	case "cors":
		h.Set("Access-Control-Allow-Origin", "*")
	case "nowasm":
		h.Set("Content-Security-Policy", strings.ReplaceAll(s.policy, "'wasm-unsafe-eval'", ""))
	case "nofile":
		if strings.HasSuffix(rest, "wasm_exec.js") {
			http.NotFound(w, r)
			return
		}
	case "nowasmfile":
		if strings.HasSuffix(rest, "engine.wasm") {
			h.Set("Content-Type", "text/html")
			io.WriteString(w, "<!doctype html><title>Not found</title>")
			return
		}
	case "tight":
		if strings.HasSuffix(rest, "engine.wasm") {
			s.tight(w)
			return
		}
	case "nosimd":
		if strings.HasSuffix(rest, "/worker.js") {
			s.script(w, "WebAssembly.validate = () => false;\n", rest)
			return
		}
	case "card", "badcard", "nocard", "hungcard", "smallcard", "realcard":
		h.Set("Content-Security-Policy", s.policy)
		if strings.HasSuffix(rest, "/worker.js") {
			s.script(w, cards[mode]+card, rest)
			return
		}
		if strings.HasSuffix(rest, "/card.js") && mode != "hungcard" {
			s.patient(w, rest)
			return
		}
	case "mortal", "full", "slowdisk", "nogrow", "nohash", "misled":
		if strings.HasSuffix(rest, "/worker.js") {
			s.script(w, troubles[mode], rest)
			return
		}
	case "damage":
		s.damage(w, r, rest)
		return
	case "bases":
		base, name, _ := strings.Cut(rest, "/")
		for _, f := range bases[base] {
			if f.Name == name {
				w.Write(f.Data)
				return
			}
		}
		if dir := os.Getenv("PMP_CHECKPOINT"); base == "own" && dir != "" {
			http.ServeFileFS(w, r, os.DirFS(dir), name)
			return
		}
		http.NotFound(w, r)
		return
	case "threads":
		s.mu.Lock()
		defer s.mu.Unlock()
		json.NewEncoder(w).Encode(threadsOf(s.group))
		return
	case "asked", "sent", "ended":
		counts := map[string]map[string]int{"asked": s.asked, "sent": s.sent, "ended": s.ended}[mode]
		s.mu.Lock()
		defer s.mu.Unlock()
		json.NewEncoder(w).Encode(counts["/"+rest])
		return
	case "heal", "break":
		return // damage looks for it
	default:
		http.NotFound(w, r)
		return
	}
	h.Set("Cache-Control", "no-cache")
	dir := s.site
	if inner, ok := strings.CutPrefix(rest, "test/"); ok {
		rest, dir = inner, s.suite
		if mode == "strict" { // the suite shows the demo page in a frame
			h.Set("Content-Security-Policy", s.policy+"; frame-src 'self'; report-uri /violated")
		}
	}
	if name, ok := strings.CutSuffix(rest, ".as-png"); ok {
		s.asPNG(w, name)
		return
	}
	if rest == "" {
		rest = "index.html"
	}
	http.ServeFileFS(&counter{w, s, r.URL.Path}, r, os.DirFS(dir), path.Clean("/" + rest)[1:])
}

// was says whether the page has asked for /WHAT/KIND/FILE/AT, where name is a file of /damage/KIND/FILE/AT/.
func (s *testServer) was(what, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked["/"+what+"/"+path.Dir(name)] > 0
}

func (s *testServer) count(in map[string]int, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in[path]++
}

// counter notes when a file is sent.
type counter struct {
	http.ResponseWriter
	s    *testServer
	path string
}

func (c *counter) WriteHeader(code int) {
	if code == http.StatusOK {
		c.s.count(c.s.sent, c.path)
	}
	c.ResponseWriter.WriteHeader(code)
}

// tight sends the engine with a limit to its memory: enough to load the weights, but not for all that a huge picture
// needs.
func (s *testServer) tight(w http.ResponseWriter) {
	data, err := os.ReadFile(filepath.Join(s.site, "pmp/engine.wasm"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	const memories, most = 5, 40 << 20 / (64 << 10) // the section's number; in pages
	out := bytes.Clone(data[:8])
	for rest := data[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		body := rest[1+n : 1+n+int(size)]
		if rest[0] == memories { // one memory: flags, which say that there is no limit, and the pages at the start
			pages, _ := binary.Uvarint(body[2:])
			body = binary.AppendUvarint(binary.AppendUvarint([]byte{1, 1}, pages), most)
		}
		out = append(binary.AppendUvarint(append(out, rest[0]), uint64(len(body))), body...)
		rest = rest[1+n+int(size):]
	}
	w.Header().Set("Content-Type", "application/wasm")
	w.Write(out)
}

// script sends one of the site's scripts with something before it.
func (s *testServer) script(w http.ResponseWriter, before, name string) {
	data, _ := os.ReadFile(filepath.Join(s.site, path.Clean("/"+name)))
	w.Header().Set("Content-Type", "text/javascript")
	w.Write(append([]byte(before), data...))
}

// patient sends the package's search for a card with more patience: a card made of software, on a machine that has more
// to do, takes longer to answer than any that is worth waiting for.
func (s *testServer) patient(w http.ResponseWriter, name string) {
	const usual = "const ANSWER = 10_000;"
	data, _ := os.ReadFile(filepath.Join(s.site, path.Clean("/"+name)))
	if !bytes.Contains(data, []byte(usual)) {
		http.Error(w, "there is no "+usual, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/javascript")
	w.Write(bytes.Replace(data, []byte(usual), []byte("const ANSWER = 300_000;"), 1))
}

// card lets the page lose the card of a worker, at once or with the next that is sent to it, fill its memory, and count
// what was made on it and not destroyed.
const card = `
{
  const devices = [];
  let full = false, doomed = false;
  const living = new Map(), made = { pipelines: 0 };
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
  const { createBuffer, createComputePipelineAsync, destroy: end } = GPUDevice.prototype, { destroy } = GPUBuffer.prototype;
  GPUDevice.prototype.destroy = function () {
    const at = devices.indexOf(this);
    if (at >= 0) devices.splice(at, 1);
    return end.call(this);
  };
  GPUDevice.prototype.createBuffer = function (options) {
    const buffer = createBuffer.call(this, options);
    living.set(buffer, options.size);
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    living.delete(this);
    return destroy.call(this);
  };
  GPUDevice.prototype.createComputePipelineAsync = function (options) {
    made.pipelines++;
    return createComputePipelineAsync.call(this, options);
  };
  const channel = new BroadcastChannel("card");
  channel.onmessage = ({ data: { say } }) => {
    if (!devices.length) return; // another worker's card is meant
    if (say === "lose") devices.at(-1).destroy();
    if (say === "doom") doomed = true;
    if (say === "fill" || say === "free") full = say === "fill";
    channel.postMessage({ done: say, pipelines: made.pipelines, buffers: living.size, bytes: [...living.values()].reduce((a, b) => a + b, 0) });
  };
}
`

// troubles are a worker that ends without a word when the page says so, a disk without room, a disk that takes its time,
// a memory that does not grow while the page says so, a page that is not secure, where browsers hash nothing, and hashes
// of other bytes.
var troubles = map[string]string{
	"mortal": "new BroadcastChannel('mortal').onmessage = () => self.close();\n",
	"full":   "Cache.prototype.put = async () => { throw new DOMException('no room', 'QuotaExceededError'); };\n",
	"slowdisk": `{
  const { put } = Cache.prototype;
  Cache.prototype.put = async function (...args) {
    await new Promise((r) => setTimeout(r, 700));
    return put.apply(this, args);
  };
}
`,
	"nogrow": `{
  const { grow } = WebAssembly.Memory.prototype;
  let full = false;
  WebAssembly.Memory.prototype.grow = function (pages) {
    if (full) throw new RangeError("no room");
    return grow.call(this, pages);
  };
  const channel = new BroadcastChannel("nogrow");
  channel.onmessage = ({ data: { say } }) => {
    full = say === "fill";
    channel.postMessage({ done: say });
  };
}
`,
	"nohash": "Object.defineProperty(Crypto.prototype, 'subtle', { value: undefined });\n",
	"misled": "SubtleCrypto.prototype.digest = async () => new ArrayBuffer(32);\n",
}

// cards are other cards: none, one that never answers, to a page with little patience, one with the least that WebGPU promises, and one
// that seems not to be made of software.
var cards = map[string]string{
	"nocard": "GPU.prototype.requestAdapter = async () => null;",
	"hungcard": `GPU.prototype.requestAdapter = () => new Promise(() => {});
{
  const { setTimeout } = self;
  self.setTimeout = (f, ms) => setTimeout(f, ms / 20); // nobody need wait
}`,
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

// damage sends weights. /damage/KIND/FILE/AT/NAME is one of them, and FILE is spoilt: "cut" ends it at byte AT, "flip"
// changes a bit there, "held" waits there for /break/KIND/FILE/AT and then drops the connection, "dropped" does so at once,
// but only if the whole file was asked for, and "gone" has no such file. /damage/KIND/NAME: "html" has a page where the manifest should be, "slow" takes
// its time with shards.
func (s *testServer) damage(w http.ResponseWriter, r *http.Request, rest string) {
	parts := strings.Split(rest, "/")
	kind, name := parts[0], parts[len(parts)-1]
	at := 0
	if len(parts) == 4 {
		at, _ = strconv.Atoi(parts[2])
		if name != parts[1] || s.was("heal", rest) {
			kind = "none"
		}
	}
	data, err := os.ReadFile(filepath.Join(s.site, "pmp/weights", path.Clean("/"+name)))
	if err != nil || kind == "gone" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case kind == "html" && name == "manifest.json":
		w.Header().Set("Content-Type", "text/html")
		data = []byte("<!doctype html><title>Not found</title>")
	case kind == "cut":
		data = data[:at]
	case kind == "flip":
		data[at] ^= 1 << (at % 8)
	case kind == "held", kind == "dropped" && r.Header.Get("Range") == "":
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:at])
		w.(http.Flusher).Flush()
		time.Sleep(300 * time.Millisecond) // a browser forgets what arrived but was not read yet
		for kind == "held" && r.Context().Err() == nil && !s.was("break", rest) {
			time.Sleep(20 * time.Millisecond)
		}
		panic(http.ErrAbortHandler)
	case kind == "slow" && strings.HasSuffix(name, ".safetensors"):
		for len(data) > 0 {
			n := min(len(data), 1<<16)
			w.Write(data[:n])
			w.(http.Flusher).Flush()
			data = data[n:]
			select {
			case <-r.Context().Done():
				s.count(s.ended, r.URL.Path)
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		return
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
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
	select {
	case s.said <- struct{}{}:
	default:
	}
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
