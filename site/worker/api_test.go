package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func ask(method, path string) *http.Response {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "/", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	handler{`{"engine":{}}`}.ServeHTTP(w, r)
	return w.Result()
}

func TestShare(t *testing.T) {
	for query, want := range map[string][2]string{
		"words=cat":                                         {"cat", ""},
		"words=cat;sofa,%20couch&example=cat":               {"cat;sofa, couch", "cat"},
		"example=rocket&words=+sky+%3B;;,;+dog+":            {"sky;dog", "rocket"},
		"words=caf%C3%A9;%E7%8C%AB;%F0%9F%90%88&fbclid=%zz": {"café;猫;🐈", ""},
		"words=R%26B%23%25;a=b":                             {"R&B#%;a=b", ""},
		"words=javascript:alert(1)":                         {"javascript:alert(1)", ""}, // a word like others: nobody follows it
		"words=%D9%85%DB%8C%E2%80%8C%D8%AE":                 {"می\u200cخ", ""},
		"words=" + strings.Repeat("a;", 64):                 {strings.Repeat("a;", 63) + "a", ""},
		"words=" + strings.Repeat("a", 200):                 {strings.Repeat("a", 200), ""},
	} {
		r := ask("GET", "/api/share?"+query)
		to, err := url.Parse(r.Header.Get("Location"))
		if err != nil || r.StatusCode != http.StatusFound || to.Scheme+to.Host+to.RawQuery != "" || to.Path != "/" {
			t.Errorf("%.80s: status %d, to %q", query, r.StatusCode, r.Header.Get("Location"))
			continue
		}
		// As URLSearchParams does in the page.
		got, err := url.ParseQuery(to.EscapedFragment())
		if err != nil || got.Get("words") != want[0] || got.Get("example") != want[1] {
			t.Errorf("%.80s: %v, want %q", query, got, want)
		}
		if !strings.Contains(r.Header.Get("Cache-Control"), "max-age") {
			t.Errorf("%.80s is not cached", query)
		}
	}
}

func TestShareRefuses(t *testing.T) {
	for query, reason := range map[string]string{
		"":                                  "no words",
		"words=":                            "no words",
		"words=;,;+":                        "no words",
		"example=cat":                       "no words",
		"words=" + strings.Repeat("a;", 65): "too many",
		"words=" + strings.Repeat("thing;", 10_000):       "too long",
		"words=cat&x=" + strings.Repeat("x", 1<<20):       "too long",
		"words=" + strings.Repeat("a", 201):               "too long",
		"words=%ff%fe":                                    "UTF-8",
		"words=%c3%28":                                    "UTF-8",
		"words=\xff":                                      "UTF-8",
		"words=%ed%a0%80":                                 "UTF-8", // half of a surrogate pair
		"words=%zz":                                       "percent",
		"words=%":                                         "percent",
		"words=%3Cscript%3Ealert(1)%3C/script%3E":         "markup",
		"words=<img%20src=x%20onerror=alert(1)>":          "markup",
		"words=cat%00":                                    "cannot be seen",
		"words=cat%0d%0aSet-Cookie:%20a=b":                "cannot be seen",
		"words=%E2%80%AEtac":                              "cannot be seen",
		"words=cat&words=dog":                             "once",
		"words=cat&example=../secret":                     "example",
		"words=cat&example=":                              "example",
		"words=cat&example=%3Cscript%3E":                  "example",
		"words=cat&picture=javascript:alert(1)":           "another host",
		"words=cat&picture=https://example.com/photo.jpg": "another host",
	} {
		r := ask("GET", "/api/share?"+query)
		var answer struct{ Error string }
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			t.Errorf("%.80s: %v", query, err)
		}
		if r.StatusCode != http.StatusBadRequest || !strings.Contains(answer.Error, reason) {
			t.Errorf("%.80s: status %d, %q, want %q", query, r.StatusCode, answer.Error, reason)
		}
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Location") != "" {
			t.Errorf("%.80s: headers %v", query, r.Header)
		}
	}
}

// Whatever a link says, the answer is a redirect within the page or a sentence that repeats nothing.
func FuzzShare(f *testing.F) {
	f.Add("words=cat;sofa,%20couch&example=cat")
	f.Add("words=%3Cscript%3E&picture=javascript:x")
	f.Fuzz(func(t *testing.T, query string) {
		fragment, err := share(query)
		if err != nil {
			if fragment != "" || strings.ContainsAny(err.Error(), "\"\\\n") {
				t.Errorf("%q: %q, %v", query, fragment, err)
			}
			return
		}
		got, err := url.ParseQuery(fragment)
		if err != nil || len(got["words"]) != 1 || len(fragment) > 4*maxQuery {
			t.Fatalf("%q: %q", query, fragment)
		}
		for _, c := range fragment {
			if c <= ' ' || c > '~' || strings.ContainsRune(`<>"'#;`, c) {
				t.Fatalf("%q: %q", query, fragment)
			}
		}
		again, err := share(fragment)
		if err != nil && len(fragment) <= maxQuery || err == nil && again != fragment {
			t.Errorf("%q: %q and then %q, %v", query, fragment, again, err)
		}
	})
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
		body         string // a part of it
	}{
		{"GET", "/api/health", 200, `{"ok":true}`},
		{"HEAD", "/api/health", 200, ""},
		{"GET", "/api/health?x=y", 200, `{"ok":true}`},
		{"GET", "/api/version", 200, `{"engine":{}}`},
		{"HEAD", "/api/version", 200, ""},
		{"HEAD", "/api/share?words=cat", 302, ""},
		{"HEAD", "/api/share", 400, ""},
		{"OPTIONS", "/api/share", 204, ""},
		{"POST", "/api/share?words=cat", 405, "GET"},
		{"PUT", "/api/health", 405, "GET"},
		{"DELETE", "/api/version", 405, "GET"},
		{"GET", "/api", 404, "/api/health"},
		{"GET", "/api/", 404, "/api/health"},
		{"GET", "/api/health/", 404, "/api/health"},
		{"GET", "/api/../index.html", 404, "/api/health"},
		{"POST", "/nothing", 404, "/api/health"},
		{"HEAD", "/nothing", 404, ""},
	} {
		r := ask(c.method, c.path)
		body := new(strings.Builder)
		r.Write(body)
		_, text, _ := strings.Cut(body.String(), "\r\n\r\n")
		if r.StatusCode != c.status || !strings.Contains(text, c.body) || c.body == "" && text != "" {
			t.Errorf("%s %s: status %d, %q", c.method, c.path, r.StatusCode, text)
		}
		if c.body != "" && (!json.Valid([]byte(text)) || r.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%s %s: not JSON: %q", c.method, c.path, text)
		}
		if r.Header.Get("Access-Control-Allow-Origin") != "*" || r.Header.Get("Cache-Control") == "" || r.Header.Get("X-Content-Type-Options") == "" {
			t.Errorf("%s %s: headers %v", c.method, c.path, r.Header)
		}
		if (c.status == 405 || c.status == 204) != (r.Header.Get("Allow") != "") {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, r.Header.Get("Allow"))
		}
	}
}

func TestExamples(t *testing.T) {
	var there []string
	files, _ := filepath.Glob("../examples/*.jpg")
	for _, f := range files {
		there = append(there, strings.TrimSuffix(filepath.Base(f), ".jpg"))
	}
	if !slices.Equal(there, examples) {
		t.Errorf("the pictures are %v, links can name %v", there, examples)
	}
}

// A page downloads the engine, so it must stay without the Worker's library
// and without what only the command line needs.
func TestEngineIsWithoutTheWorker(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "../../wasm")
	list.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	deps, err := list.Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	for _, d := range strings.Fields(string(deps)) {
		if d == "net/http" || strings.HasPrefix(d, "github.com/syumai/") || strings.HasSuffix(d, "/weights/quantize") || strings.HasSuffix(d, "/weights/torch") {
			t.Errorf("the engine imports %s", d)
		}
	}
}

func recorded(h http.Handler, path string) http.Header {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Result().Header
}
