// Package serve is a small web server for the built site: static files with the right
// types and with the headers that the site itself names, nothing else.
package serve

import (
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

func init() {
	// What the machine's own table says about these varies, and browsers refuse modules and
	// stream-compiled WebAssembly under other types.
	for ext, kind := range map[string]string{
		".js":          "text/javascript; charset=utf-8",
		".txt":         "text/plain; charset=utf-8",
		".json":        "application/json",
		".wasm":        "application/wasm",
		".safetensors": "application/octet-stream",
		".webp":        "image/webp",
	} {
		mime.AddExtensionType(ext, kind)
	}
}

// Handler serves the files of dir with the headers that its _headers names. Isolated pages may
// share memory between threads, which needs two of them; without isolated these are left out.
func Handler(dir string, isolated bool) http.Handler {
	files := http.FileServer(http.Dir(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Read each time, as files are, so that a rebuild shows at once.
		headers, err := ReadHeaders(dir)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if r.URL.Path == "/"+headersFile {
			http.NotFound(w, r) // as hosts answer, for which it is no page
			return
		}
		h := w.Header()
		// Cloudflare's own rule: the browser keeps files but asks each time whether they changed.
		h.Set("Cache-Control", "public, max-age=0, must-revalidate")
		for name, values := range headers.For(r.URL.Path) {
			h[name] = values
		}
		if !isolated {
			h.Del(opener)
			h.Del(embedder)
		}
		files.ServeHTTP(w, r)
	})
}

// Isolate sets the headers that make a page cross-origin isolated.
func Isolate(h http.Header) {
	h.Set(opener, "same-origin")
	h.Set(embedder, "require-corp")
}

const (
	opener   = "Cross-Origin-Opener-Policy"
	embedder = "Cross-Origin-Embedder-Policy"
)

// ListenAndServe serves dir on addr until something fails, and prints where. If the port is
// taken, it takes one of the next ten.
func ListenAndServe(addr, dir string, isolated bool) error {
	if _, err := os.Stat(filepath.Join(dir, "index.html")); err != nil {
		return fmt.Errorf("there is no site in %s: run ./build.sh first", dir)
	}
	l, err := listen(addr)
	if err != nil {
		return err
	}
	fmt.Printf("http://%s (stop with Ctrl+C)\n", shown(l.Addr().String()))
	return http.Serve(l, Handler(dir, isolated))
}

func listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("the address %q is not of the form host:port, like localhost:8080", addr)
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("the port %q is not a number", port)
	}
	for n := first; ; n++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(n)))
		if err == nil || first == 0 || n == first+10 || !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
}

// shown is an address as a person opens it: browsers allow more on "localhost" than on
// a number.
func shown(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())) {
		return "localhost:" + port
	}
	return addr
}
