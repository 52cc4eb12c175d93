package browsertest

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/internal/serve"
)

// TestChromiumLayout opens the page on a phone and on a desk: what to do is in sight at once, a finger can hit it, nothing
// moves for who wants no motion, and the keyboard reaches all of it and shows where it is.
func TestChromiumLayout(t *testing.T) {
	t.Parallel()
	if _, err := chromium.path(); err != nil && needed {
		t.Fatal(err)
	}
	s := httptest.NewServer(serve.Handler(site(t), true))
	defer s.Close()
	c := openChromium(t)
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-reduced-motion", "value": "reduce"}}})
	open := func(width, height int, touch bool) {
		c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch})
		c.call("Emulation.setTouchEmulationEnabled", map[string]any{"enabled": touch})
		c.evaluate(`window.old = true`)
		c.call("Page.navigate", map[string]any{"url": s.URL})
		done := func() bool {
			return c.evaluate(`!window.old && document.documentElement.dataset.state === "done"`) == true
		}
		for end := time.Now().Add(5 * time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the page does not answer")
			}
		}
	}
	// Each problem a line.
	const look = `(least) => {
		document.querySelector(".chip .name").click(); // what to take along shows, too
		const wrong = [];
		if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is wider than the screen");
		for (const what of [".stage", ".chip .name", "#word", "#form [type=submit]"])
			if (document.querySelector(what).getBoundingClientRect().bottom > innerHeight) wrong.push(what + " is out of sight");
		if (document.getAnimations().length) wrong.push("something moves");
		for (const e of document.querySelectorAll("main button, main select, main label:has(input), #word")) {
			const { width, height } = e.getBoundingClientRect();
			if (width && Math.min(width, height) < least) wrong.push((e.textContent.trim() || e.id) + " is too small to hit: " + width + " × " + height);
		}
		document.querySelector(".chip .name").click();
		for (const what of [".own", ".thumb"])
			if (document.querySelector(what).getBoundingClientRect().bottom > innerHeight) wrong.push(what + " is out of sight");
		return wrong.join("\n");
	}`
	for _, screen := range []struct {
		width, height, least int
		touch                bool
	}{{390, 844, 44, true}, {1440, 900, 18, false}} {
		open(screen.width, screen.height, screen.touch)
		if wrong := c.evaluate(fmt.Sprintf("(%s)(%d)", look, screen.least)); wrong != "" {
			t.Errorf("at %d pixels:\n%v", screen.width, wrong)
		}
	}

	press := func(key string, code int, text string) {
		for _, kind := range []string{"keyDown", "keyUp"} {
			c.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text})
			text = ""
		}
	}
	c.evaluate(`document.activeElement.blur()`)
	var seen []string
	for range 30 {
		press("Tab", 9, "")
		at, _ := c.evaluate(`(() => {
			const e = document.activeElement, shown = e.matches(".hidden") ? e.closest(".own") : e;
			if (!shown || e === document.body || e.matches("pre, a")) return "";
			const { outlineStyle, borderTopColor } = getComputedStyle(shown), { top, bottom } = shown.getBoundingClientRect();
			if (top < 0 || bottom > innerHeight) return "out of sight: " + e.outerHTML;
			const probe = document.createElement("i");
			document.body.append(probe);
			probe.style.color = "var(--accent)";
			const accent = getComputedStyle(probe).color;
			probe.remove();
			return outlineStyle === "none" && borderTopColor !== accent ? "nothing shows " + e.outerHTML : e.id || e.name || e.className || e.type;
		})()`).(string)
		if strings.HasPrefix(at, "nothing") || strings.HasPrefix(at, "out") {
			t.Error(at)
		}
		if at == "" && len(seen) > 0 {
			break
		}
		if at != "" {
			seen = append(seen, at)
		}
	}
	const want = "name remove name remove name remove word submit file camera address thumb thumb thumb thumb share save link view"
	if got := strings.Join(seen, " "); got != want {
		t.Errorf("the keyboard goes to\n%s, not to\n%s", got, want)
	}
	c.evaluate(`word.focus()`)
	c.call("Input.insertText", map[string]any{"text": "flag"})
	press("Enter", 13, "\r")
	if got := c.evaluate(`[...document.querySelectorAll(".chip b")].map((b) => b.textContent).join()`); got != "person,rocket,pizza,flag" {
		t.Errorf("after Enter the words are %v", got)
	}
}
