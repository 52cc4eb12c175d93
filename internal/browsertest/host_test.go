package browsertest

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestChromiumPlainHost opens a shared link on a host that sends no headers of its own and has the
// site below a path, as GitHub Pages does.
func TestChromiumPlainHost(t *testing.T) {
	t.Parallel()
	if _, err := chromium.path(); err != nil && needed {
		t.Fatal(err)
	}
	files := http.StripPrefix("/repo/", http.FileServer(http.Dir(site(t))))
	var mu sync.Mutex
	var outside []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/repo/") {
			mu.Lock()
			outside = append(outside, r.URL.Path)
			mu.Unlock()
		}
		files.ServeHTTP(w, r)
	}))
	defer s.Close()
	c := openChromium(t)
	c.call("Page.navigate", map[string]any{"url": s.URL + "/repo/#words=cat;helicopter&example=cat"})
	var state any
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end) && state != "done" && state != "wrong"; time.Sleep(100 * time.Millisecond) {
		state = c.evaluate(`document.documentElement.dataset.state`)
	}
	got, _ := c.evaluate(`[document.documentElement.dataset.state, photo.src, ...[...document.querySelectorAll(".chip .name")].map((n) => n.innerText)].join("|")`).(string)
	want := []string{"done", s.URL + "/repo/examples/cat.jpg", "cat\n", "helicopter\nnot in this picture"}
	parts := strings.Split(got, "|")
	if !slices.EqualFunc(parts, want, strings.HasPrefix) {
		t.Errorf("the page has %q, want %q", parts, want)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(outside) > 0 {
		t.Errorf("asked for outside of the site's path: %v", outside)
	}
}
