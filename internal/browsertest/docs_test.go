package browsertest

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/photo"
)

// The documents are tried out. A fence whose info names a file is that file in the folder of its section; sh is run there,
// and http are headers that the folder is served with. What comes of it, dist or the folder itself, is opened, and must say
// in the console that it found the cat. JavaScript without a file name runs as it stands, in a page with an <img>, a
// <canvas> and a <video>, and photo.jpg beside it.
var (
	fence   = regexp.MustCompile("(?ms)^```(\\w+)(?: (\\S+))?\n(.*?)^```$")
	heading = regexp.MustCompile(`(?m)^## .*`)
)

// documents are all that git would keep.
func documents(t *testing.T) []string {
	var names []string
	for _, pattern := range []string{"*.md", "*/*.md", "*/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			name, _ := filepath.Rel(root, f)
			if !regexp.MustCompile(`^(dist|shared)/`).MatchString(name) {
				names = append(names, name)
			}
		}
	}
	if len(names) < 9 {
		t.Fatalf("there are only the documents %v", names)
	}
	return names
}

func readDocument(t *testing.T, name string) string {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocsLinks follows the documents' links to files and headings of this repository.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`!?\[[^\]]*\]\(([^)\s]+)\)`)
	title := regexp.MustCompile(`(?m)^#+ (.*)$`)
	unsaid := regexp.MustCompile("[^\\p{L}\\p{N} _-]")
	for _, name := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(readDocument(t, name), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			file := name
			if to != "" {
				file = filepath.Join(filepath.Dir(name), to)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: %s leads nowhere", name, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			found := false
			for _, h := range title.FindAllStringSubmatch(readDocument(t, file), -1) {
				found = found || strings.ReplaceAll(unsaid.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor
			}
			if !found {
				t.Errorf("%s: %s has no heading #%s", name, file, anchor)
			}
		}
	}
}

// TestDocsCommands looks for the scripts and tests that the documents' commands name. cmd/pmp runs those of pmp itself.
func TestDocsCommands(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`(?m)^    (?:[A-Z_]+=\S+ )*(\./\w+\.sh|go test)(.*)`)
	pattern := regexp.MustCompile(`-(?:run|fuzz) (?:'([^']*)'|(\S+))`)
	found := 0
	for _, name := range documents(t) {
		for _, m := range line.FindAllStringSubmatch(readDocument(t, name), -1) {
			found++
			words := strings.Fields(m[2])
			if m[1] != "go test" {
				var script []byte
				for _, dir := range []string{filepath.Dir(name), ".", "weights/train"} {
					if script == nil {
						script, _ = os.ReadFile(filepath.Join(root, dir, m[1]))
					}
				}
				if script == nil {
					t.Errorf("%s: there is no %s", name, m[1])
				}
				if m[1] == "./build.sh" && len(words) > 0 && !strings.Contains(string(script), "\n"+words[0]+")") {
					t.Errorf("%s: build.sh does not know %s", name, words[0])
				}
				continue
			}
			runs, at := pattern.FindAllStringSubmatch(m[2], -1), regexp.MustCompile(`\./\w\S*`).FindString(m[2])
			if runs == nil || at == "" {
				continue
			}
			run := runs[len(runs)-1]
			cmd := exec.Command("go", "test", "-list", run[1]+run[2], at)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil || !regexp.MustCompile("^(Test|Fuzz)").Match(out) {
				t.Errorf("%s: go test%s: %v\n%s", name, m[2], err, out)
			}
		}
	}
	if found < 10 {
		t.Errorf("the documents have %d commands", found)
	}
}

// TestDocsErrors compares the documented codes of errors with the types.
func TestDocsErrors(t *testing.T) {
	codes := func(text string, pattern string) map[string]bool {
		all := map[string]bool{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all[m[1]] = true
		}
		return all
	}
	declared, _, _ := strings.Cut(readDocument(t, "js/index.d.ts"), ";\n")
	_, table, _ := strings.Cut(readDocument(t, "docs/embedding.md"), "\n## Errors")
	table, _, _ = strings.Cut(table, "\n## ")
	want, got := codes(declared, `\| "([a-z-]+)"`), codes(table, "(?m)^\\| `([a-z-]+)` ")
	if len(want) < 9 {
		t.Fatalf("the types have the codes %v", want)
	}
	for code := range want {
		if !got[code] {
			t.Errorf("docs/embedding.md does not tell of %s", code)
		}
	}
	if len(got) != len(want) {
		t.Errorf("docs/embedding.md tells of %v", got)
	}
}

// reporter tells the server what a page of the documents says, once.
const reporter = `
let over = false;
const end = async (what) => {
  if (over) return;
  over = true;
  const post = (what) => fetch("/report", { method: "POST", body: JSON.stringify(what) });
  await post({ test: "page", ...what });
  await post({ finish: true, browser: navigator.userAgent });
};
console.log = (...what) => end({ data: { says: what.join(" ") } });
addEventListener("segmented", ({ detail: { masks: [m] } }) => end({ data: { says: m.text } }), true);
addEventListener("error", (e) => end({ error: String(e.message ?? e.detail?.message ?? e.target.src) }), true);
addEventListener("unhandledrejection", (e) => end({ error: String(e.reason?.stack ?? e.reason) }));
addEventListener("securitypolicyviolation", (e) => end({ error: e.violatedDirective + " forbids " + e.blockedURI }));
`

// TestDocsSections builds and opens the sections that have files.
func TestDocsSections(t *testing.T) {
	t.Parallel()
	if _, err := chromium.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	need(t, "npm")
	dir, tools := app(t), installed(t)
	if tools != "" {
		linkAll(t, filepath.Join(tools, "node_modules"), filepath.Join(dir, "node_modules"))
	}
	cat := filepath.Join(root, "dist/site/examples/cat.jpg")
	img, err := photo.Read(cat)
	if err != nil {
		t.Fatal(err)
	}
	project, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, name := range documents(t) {
		text := readDocument(t, name)
		starts := heading.FindAllStringIndex(text, -1)
		for i, at := range starts {
			end := len(text)
			if i+1 < len(starts) {
				end = starts[i+1][0]
			}
			section := text[at[1]:end]
			var commands string
			files := map[string]string{}
			s := newTestServer(t, site(t), "")
			others := otherHosts(s)
			for _, m := range fence.FindAllStringSubmatch(section, -1) {
				switch language, file, body := m[1], m[2], others.Replace(m[3]); {
				case file != "":
					files[file] = body
				case language == "sh":
					commands += body
				case language == "http":
					s.headers = headersOf(t, body)
				case language != "js":
					t.Errorf("%s: nobody tries ```%s under %s", name, language, text[at[0]:at[1]])
				}
			}
			if len(files) == 0 && commands == "" {
				continue
			}
			tried++
			t.Run(strings.TrimPrefix(text[at[0]:at[1]], "## "), func(t *testing.T) {
				if tools == "" && strings.Contains(commands, "npx ") {
					t.Skip("the bundlers are not installed")
				}
				folder := filepath.Join(dir, "section-"+strconv.Itoa(tried))
				files["package.json"] = `{"type": "module", "private": true}`
				files["photo.rgba"] = string(img.Pix)
				for file, body := range files {
					mkdir(t, filepath.Dir(filepath.Join(folder, file)))
					write(t, filepath.Join(folder, file), body)
				}
				copyFile(t, cat, filepath.Join(folder, "photo.jpg"))
				if err := os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(folder, "node_modules")); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command("bash", "-ec", commands)
				cmd.Dir, cmd.Env = folder, append(os.Environ(), "PMP="+project)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				s.suite = folder
				if _, err := os.Stat(filepath.Join(folder, "dist")); err == nil {
					s.suite = filepath.Join(folder, "dist")
				}
				index := filepath.Join(s.suite, "index.html")
				page, err := os.ReadFile(index)
				if err != nil { // a program
					if !strings.Contains(string(out), "cat") {
						t.Errorf("it says %q", out)
					}
					return
				}
				if !strings.HasPrefix(string(page), "<!doctype html>") {
					t.Fatal("the page has no doctype")
				}
				write(t, index, strings.Replace(string(page), "<!doctype html>", `<!doctype html><meta charset="utf-8"><script src="report.js"></script>`, 1))
				write(t, filepath.Join(s.suite, "report.js"), reporter)
				said := runDocument(t, s, "/doc/test/index.html")
				if !strings.HasPrefix(said, "cat") {
					t.Errorf("the page says %q", said)
				}
				if threads := regexp.MustCompile(`\) [2-9]`); s.headers.Get("Cross-Origin-Opener-Policy") != "" && !threads.MatchString(said) {
					t.Errorf("isolated, the page says %q", said)
				}
			})
		}
	}
	if tried < 13 {
		t.Errorf("the documents have %d sections to try", tried)
	}
}

// runDocument opens a page of the documents and returns what it says.
func runDocument(t *testing.T, s *testServer, address string) (said string) {
	t.Helper()
	printed, finished, err := s.run(chromium, address)
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
		var data struct{ Says string }
		if len(r.Data) > 0 {
			if err := json.Unmarshal(r.Data, &data); err != nil {
				t.Fatal(err)
			}
			said = data.Says
		}
	}
	return said
}

// otherHosts are the documents' hosts but the page's own.
func otherHosts(s *testServer) *strings.Replacer {
	host := strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/cors/pmp/"
	return strings.NewReplacer("https://cdn.example/pmp-segment/", host, "https://weights.example/", host+"weights/")
}

func headersOf(t *testing.T, text string) http.Header {
	h := http.Header{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			t.Fatalf("%q is no header", line)
		}
		h.Set(key, value)
	}
	return h
}

// linkAll puts links to all that lies in one folder into another, so that a bundler is found as if it were installed there.
func linkAll(t *testing.T, from, to string) {
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDocs runs the JavaScript without a file name, all of it in one page.
func TestDocs(t *testing.T) {
	t.Parallel()
	if _, err := chromium.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	copyFile(t, filepath.Join(site(t), "examples/cat.jpg"), filepath.Join(dir, "photo.jpg"))
	s := newTestServer(t, site(t), dir)
	var names []string
	for _, doc := range documents(t) {
		for _, m := range fence.FindAllStringSubmatch(readDocument(t, doc), -1) {
			if m[1] != "js" || m[2] != "" {
				continue
			}
			name := strings.ReplaceAll(doc, "/", "-") + "-" + string(rune('a'+len(names))) + ".js"
			write(t, filepath.Join(dir, name), m[3])
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
	runDocument(t, s, "/cors/test/index.html")
}
