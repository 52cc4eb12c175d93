// Package serve is a small web server for the built site: static files with the right
// types, nothing else.
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
		".json":        "application/json",
		".wasm":        "application/wasm",
		".safetensors": "application/octet-stream",
		".webp":        "image/webp",
	} {
		mime.AddExtensionType(ext, kind)
	}
}

// CSP is the strictest Content-Security-Policy under which everything works: no inline
// script or style, no eval, no worker from a blob.
const CSP = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; " +
	"connect-src 'self'; img-src 'self' blob: data:; style-src 'self'; base-uri 'none'; form-action 'none'"

// Handler serves the files of dir. Isolated pages may share memory between threads, which
// needs two headers more.
func Handler(dir string, isolated bool) http.Handler {
	files := http.FileServer(http.Dir(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", CSP)
		h.Set("X-Content-Type-Options", "nosniff")
		// The browser keeps files but asks each time whether they changed, so a rebuild shows at once.
		h.Set("Cache-Control", "no-cache")
		if isolated {
			Isolate(h)
		}
		files.ServeHTTP(w, r)
	})
}

// Isolate sets the headers that make a page cross-origin isolated.
func Isolate(h http.Header) {
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
}

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
