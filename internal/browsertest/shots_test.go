package browsertest

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/internal/serve"
)

// TestScreenshots takes pictures of the demo page for people to look at:
//
//	PMP_SHOTS=/some/folder go test -run Screenshots ./internal/browsertest
//
// With PMP_CARD=1 the page computes on a graphics card made of software, slowly.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("PMP_SHOTS")
	if dir == "" {
		t.Skip("PMP_SHOTS does not name a folder")
	}
	s := httptest.NewServer(serve.Handler(site(t), true))
	defer s.Close()
	c := openChromium(t)
	const wait = `new Promise(done => { const f = () => /done|wrong/.test(document.documentElement.dataset.state) ? done(1) : setTimeout(f, 50); f(); })`
	for _, shot := range []struct {
		name          string
		width, height int
		mobile        bool
		scheme, path  string
		script        string
	}{
		{"loading", 1100, 900, false, "light", "/", `new Promise(r => setTimeout(r, 250))`},
		{"light", 1440, 900, false, "light", "/", wait},
		{"dark", 1440, 1350, false, "dark", "/?example=cat", wait},
		{"alone", 1100, 900, false, "dark", "/?example=astronaut", wait + `.then(() => document.querySelector(".chip .name").click())`},
		{"take", 1100, 900, false, "light", "/?example=astronaut", wait + `.then(() => { document.querySelector(".chip .name").click(); document.getElementById("take-form").focus(); })`},
		{"address", 1100, 900, false, "dark", "/", wait + `.then(() => document.getElementById("address").click())`},
		{"rocket", 1100, 900, false, "light", "/?example=rocket", wait},
		{"many", 1100, 900, false, "light", "/?example=coffee&word=cup&word=spoon&word=table&word=person&word=dog&word=sofa,%20couch&word=a%20very%20long%20name%20of%20a%20thing%20that%20is%20not%20there", wait},
		{"with", 1100, 900, false, "dark", "/?example=coffee&word=cup&word=table&word=spoon", wait + `.then(() => { document.querySelector("[value=with]").click(); return ` + wait + `; })`},
		{"without", 1100, 900, false, "light", "/?example=coffee&word=cup&word=table&word=spoon", wait + `.then(() => { document.querySelector("[value=without]").click(); return ` + wait + `; })`},
		{"phone", 390, 844, true, "light", "/?example=cat", wait},
		{"phone-dark", 390, 844, true, "dark", "/", wait},
		{"phone-full", 390, 2100, true, "light", "/?example=astronaut", wait + `.then(() => document.querySelector(".chip .name").click())`},
		{"phone-address", 390, 844, true, "dark", "/", wait + `.then(() => document.getElementById("address").click())`},
	} {
		scale := 1
		if shot.mobile {
			scale = 2
		}
		c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": shot.width, "height": shot.height, "deviceScaleFactor": scale, "mobile": shot.mobile})
		c.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": shot.scheme}}})
		c.evaluate(`window.old = true`)
		address := s.URL + shot.path
		if onCard {
			address += map[bool]string{true: "&", false: "?"}[strings.Contains(shot.path, "?")] + "device=webgpu"
		}
		c.call("Page.navigate", map[string]any{"url": address})
		for c.evaluate(`!window.old && !!document.getElementById("stage")`) != true {
			time.Sleep(50 * time.Millisecond)
		}
		c.call("Runtime.evaluate", map[string]any{"expression": shot.script, "awaitPromise": true})
		time.Sleep(500 * time.Millisecond) // fades
		if wide := c.evaluate(`document.documentElement.scrollWidth > innerWidth`); wide != false {
			t.Errorf("%s: the page is wider than the screen", shot.name)
		}
		var out struct{ Data string }
		c.result(c.call("Page.captureScreenshot", map[string]any{"format": "png"}), &out)
		data, err := base64.StdEncoding.DecodeString(out.Data)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, shot.name+".png"), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// onCard says that screenshots are of a page on a graphics card.
var onCard = os.Getenv("PMP_CARD") != ""

// devtools speaks Chromium's debugging protocol over a pair of pipes: JSON messages that end
// with a zero byte, so no websocket is needed.
type devtools struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	session string
	id      int
}

func openChromium(t *testing.T) *devtools {
	if _, err := chromium.path(); err != nil {
		t.Skip(err)
	}
	theirIn, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := chromium
	if onCard {
		b = withWebGPU
	}
	args := b.args
	b.args = func(profile, url string) []string {
		return append([]string{"--remote-debugging-pipe", "--hide-scrollbars"}, args(profile, url)...)
	}
	_, stop, err := b.start("about:blank", theirIn, theirOut)
	if err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		printed := stop()
		if t.Failed() {
			t.Log(printed)
		}
		to.Close()
		from.Close()
	})
	from.SetReadDeadline(time.Now().Add(15 * time.Minute))
	c := &devtools{t: t, to: to, from: bufio.NewReaderSize(from, 1<<20)}
	var target struct{ TargetID string }
	c.result(c.call("Target.createTarget", map[string]any{"url": "about:blank"}), &target)
	var attached struct{ SessionID string }
	c.result(c.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}), &attached)
	c.session = attached.SessionID
	c.call("Page.enable", nil)
	return c
}

// call sends a command and waits for its answer; events in between are dropped.
func (c *devtools) call(method string, params map[string]any) json.RawMessage {
	c.t.Helper()
	c.id++
	message := map[string]any{"id": c.id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if c.session != "" {
		message["sessionId"] = c.session
	}
	data, err := json.Marshal(message)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.to.Write(append(data, 0)); err != nil {
		c.t.Fatal(err)
	}
	for {
		data, err := c.from.ReadBytes(0)
		if err != nil {
			c.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(data[:len(data)-1], &answer); err != nil {
			c.t.Fatal(err)
		}
		if answer.ID != c.id {
			continue
		}
		if answer.Error != nil {
			c.t.Fatalf("%s: %s", method, answer.Error.Message)
		}
		return answer.Result
	}
}

func (c *devtools) result(data json.RawMessage, to any) {
	c.t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		c.t.Fatal(err)
	}
}

func (c *devtools) evaluate(expression string) any {
	var out struct{ Result struct{ Value any } }
	c.result(c.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}), &out)
	return out.Result.Value
}
