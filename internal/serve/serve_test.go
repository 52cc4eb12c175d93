package serve

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"index.html", "page.js", "engine.wasm", "manifest.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, kind := range map[string]string{
		"/":              "text/html",
		"/page.js":       "text/javascript",
		"/engine.wasm":   "application/wasm",
		"/manifest.json": "application/json",
	} {
		for _, isolated := range []bool{false, true} {
			w := httptest.NewRecorder()
			Handler(dir, isolated).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			h := w.Result().Header
			if w.Code != 200 || !strings.HasPrefix(h.Get("Content-Type"), kind) {
				t.Errorf("%s: status %d, type %q, want %q", path, w.Code, h.Get("Content-Type"), kind)
			}
			if got := h.Get("Cross-Origin-Embedder-Policy") != ""; got != isolated {
				t.Errorf("%s: isolation headers %v, want %v", path, got, isolated)
			}
			if h.Get("Content-Security-Policy") == "" {
				t.Errorf("%s: no Content-Security-Policy", path)
			}
		}
	}
}

func TestListenTakesTheNextPort(t *testing.T) {
	a, err := listen("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := listen(a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if a.Addr().String() == b.Addr().String() {
		t.Error("two listeners on one port")
	}
	if s := shown("127.0.0.1:8080"); s != "localhost:8080" {
		t.Errorf("shown: %s", s)
	}
}

func TestListenAndServeNamesWhatIsMissing(t *testing.T) {
	err := ListenAndServe("localhost:0", t.TempDir(), true)
	if err == nil || !strings.Contains(err.Error(), "./build.sh") {
		t.Errorf("got %v", err)
	}
}
