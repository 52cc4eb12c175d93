package browsertest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every piece of JavaScript in the documents runs as it stands: in a page with an <img>, a <canvas> and a <video>, and
// photo.jpg beside it.
func TestDocs(t *testing.T) {
	if _, err := chromium.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	fence := regexp.MustCompile("(?s)```js\n(.*?)```")
	dir := t.TempDir()
	copyFile(t, filepath.Join(site(t), "examples/cat.jpg"), filepath.Join(dir, "photo.jpg"))
	var names []string
	for _, doc := range []string{"README.md", "js/README.md"} {
		text, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			name := strings.ReplaceAll(doc, "/", "-") + "-" + string(rune('a'+len(names))) + ".js"
			write(t, filepath.Join(dir, name), m[1])
			names = append(names, name)
		}
	}
	if len(names) < 8 {
		t.Fatalf("the documents have %d pieces of JavaScript", len(names))
	}
	list, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "index.html"), plainHTML+
		`<script type="importmap">{"imports": {"pmp-segment": "../pmp/index.js", "pmp-segment/": "../pmp/"}}</script>
<img src="photo.jpg"><canvas width="451" height="300"></canvas><video muted playsinline></video><script type="module" src="run.js"></script>`)
	write(t, filepath.Join(dir, "run.js"), `
const video = document.querySelector("video"), canvas = document.createElement("canvas");
Object.assign(canvas, { width: 451, height: 300 });
const context = canvas.getContext("2d");
video.srcObject = canvas.captureStream(30);
setInterval(() => context.drawImage(document.querySelector("img"), 0, 0), 30);
await video.play();
const send = (what) => fetch("/report", { method: "POST", body: JSON.stringify(what) });
for (const test of `+string(list)+`) {
  const outcome = { test };
  try { await import("./" + test); } catch (e) { outcome.error = e.stack; }
  await send(outcome);
}
await send({ finish: true, browser: navigator.userAgent });`)
	s := newTestServer(t, site(t), dir)
	printed, finished, err := s.run(chromium, "/cors/test/index.html")
	if err != nil {
		t.Fatal(err)
	}
	if !finished {
		t.Fatalf("no end\n%s\n%s", s.log(), printed)
	}
	for _, r := range s.results {
		if r.Error != "" {
			t.Errorf("%s: %s", r.Test, r.Error)
		}
	}
}
