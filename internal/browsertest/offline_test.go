package browsertest

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/internal/serve"
)

// TestOffline opens the page, ends its server, and opens it again: transformers.js#992.
func TestOffline(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(serve.Handler(site(t), false))
	defer s.Close()
	c := openChromium(t)
	open := func() {
		t.Helper()
		c.evaluate(`window.old = true`)
		c.call("Page.navigate", map[string]any{"url": s.URL + "/?keep&example=cat"})
		for end := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			switch c.evaluate(`!window.old && document.documentElement.dataset.state`) {
			case "done":
				return // within 50 ms
			case "wrong":
				t.Fatal(c.evaluate(`document.getElementById("status").textContent`))
			}
			if time.Now().After(end) {
				t.Fatal("the page does not open")
			}
		}
	}
	open()
	kept := `navigator.serviceWorker.ready.then(() => caches.keys()).then((names) => names.sort().map((n) => n.replace(/-[0-9]+$/, "")).join())`
	var out struct{ Result struct{ Value string } }
	c.result(c.call("Runtime.evaluate", map[string]any{"expression": kept, "awaitPromise": true}), &out)
	if out.Result.Value != "pmp-site,pmp-weights" {
		t.Fatalf("caches %q", out.Result.Value)
	}
	if c.evaluate(`crossOriginIsolated`) != false {
		t.Error("a host without headers gives an isolated page at the first visit")
	}
	s.CloseClientConnections()
	s.Close()
	open()
	t.Logf("%.0f ms until masks show, all from caches", c.evaluate(`performance.now()`))
	if found := c.evaluate(`document.querySelector(".chip:not(.absent) b").textContent`); found != "cat" {
		t.Errorf("found %v without a network", found)
	}
	if c.evaluate(`crossOriginIsolated`) != true {
		t.Error("the kept page is not isolated")
	}
}
