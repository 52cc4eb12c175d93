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
	rules, err := os.ReadFile("../../site/_headers")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "_headers"), rules, 0o644); err != nil {
		t.Fatal(err)
	}
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
			if !strings.Contains(h.Get("Cache-Control"), "must-revalidate") {
				t.Errorf("%s: Cache-Control %q", path, h.Get("Cache-Control"))
			}
		}
	}
	w := httptest.NewRecorder()
	Handler(dir, true).ServeHTTP(w, httptest.NewRequest("GET", "/_headers", nil))
	if w.Code != 404 {
		t.Errorf("/_headers: status %d", w.Code)
	}
}

func TestHeaders(t *testing.T) {
	rules, err := parseHeaders("# a comment\n/*\n  A: 1\n\tb-c:  x: y \n\n/dir/*.bin\r\n  A: 2\r\n  D: 3\n/exact\n  E: 4\n")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/":            "1|x: y||",
		"/dir/a/b.bin": "1, 2|x: y|3|",
		"/dir/.bin":    "1, 2|x: y|3|",
		"/dir/a.bin2":  "1|x: y||",
		"/exact":       "1|x: y||4",
		"/exactly":     "1|x: y||",
	} {
		h := rules.For(path)
		if got := strings.Join([]string{h.Get("A"), h.Get("B-C"), h.Get("D"), h.Get("E")}, "|"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for _, bad := range []string{"  A: 1", "/*\n  A", "/*\n  ! A", "/*\n  A:", "/*\n  : 1", "/a/*/*\n", "/:name\n", "https://host/*\n", "page\n"} {
		if _, err := parseHeaders(bad); err == nil || !strings.Contains(err.Error(), "line") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if rules, err := ReadHeaders(t.TempDir()); err != nil || len(rules.For("/")) != 0 {
		t.Errorf("without _headers: %v, %v", rules, err)
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
