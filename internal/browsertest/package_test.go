package browsertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pmp-seg/pmp/internal/photo"
)

// The npm package as people get it: packed, unpacked into node_modules, and taken from there by Node, by pages without a
// bundler, and by bundlers.

// bundlers are the versions that are installed for these tests, once, into the user's cache.
var bundlers = []string{"vite@8.3.8", "webpack@5.112.2", "webpack-cli@7.3.1", "rollup@4.68.8", "@rollup/plugin-node-resolve@16.0.3", "esbuild@0.28.2", "typescript@5.9.3"}

// app is a folder with the packed package in its node_modules.
func app(t *testing.T) string {
	site(t)
	npm := need(t, "npm")
	dir := t.TempDir()
	out, err := exec.Command(npm, "pack", "--silent", "--pack-destination", dir, filepath.Join(root, "dist/npm")).Output()
	if err != nil {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	to := filepath.Join(dir, "node_modules/pmp-segment")
	mkdir(t, to)
	run(t, dir, "tar", "xzf", strings.TrimSpace(string(out)), "-C", to, "--strip-components", "1")
	for _, f := range []string{"app.js", "classic.js", "inside.js", "main.js", "node.js"} {
		copyFile(t, filepath.Join(root, "js/test/package", f), filepath.Join(dir, f))
	}
	write(t, filepath.Join(dir, "package.json"), `{"type": "module", "private": true}`)
	return dir
}

// need finds a program. One that is missing is a failure where browsers are needed.
func need(t *testing.T, program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data))
}

// run runs a program in a folder. What it prints is shown if it fails.
func run(t *testing.T, dir, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, &errors)
	}
	return out
}

func TestNode(t *testing.T) {
	t.Parallel()
	node := need(t, "node")
	dir := app(t)
	img, err := photo.Read(filepath.Join(root, "dist/site/examples/cat.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	width, height := img.Rect.Dx(), img.Rect.Dy()
	pixels := filepath.Join(dir, "pixels")
	write(t, pixels, string(img.Pix))
	var got struct {
		Stages, Errors []string
		Labelled       int
		Answer         json.RawMessage
	}
	out := run(t, dir, node, "node.js", pixels, strconv.Itoa(width), strconv.Itoa(height))
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkData(t, newTestServer(t, site(t), ""), got.Answer)
	if want := []string{"download", "prepare", "ready"}; !slices.Equal(got.Stages, want) {
		t.Errorf("stages %v, want %v", got.Stages, want)
	}
	if want := []string{"unsupported", "bad-input", "aborted", "network", "aborted"}; !slices.Equal(got.Errors, want) {
		t.Errorf("errors %v, want %v", got.Errors, want)
	}
	if got.Labelled != width*height {
		t.Errorf("%d labels of %d×%d pixels", got.Labelled, width, height)
	}
}

// TestTypes compiles what the package's types allow; what they refuse is marked there.
func TestTypes(t *testing.T) {
	t.Parallel()
	need(t, "node")
	dir, tools := app(t), installed(t)
	if tools == "" {
		t.Skip("TypeScript is not installed")
	}
	copyFile(t, filepath.Join(root, "js/test/package/types.ts"), filepath.Join(dir, "types.ts"))
	for _, resolution := range []string{"bundler", "nodenext"} {
		module := map[string]string{"bundler": "esnext", "nodenext": "nodenext"}[resolution]
		run(t, dir, filepath.Join(tools, "node_modules/.bin/tsc"), "--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable,esnext.disposable",
			"--module", module, "--moduleResolution", resolution, "types.ts")
	}
}

const plainHTML = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>App</title>`

// TestPackage builds the app in every way and opens it, on pages that are cross-origin isolated and on others. There the
// app runs in the page and in a module worker: mediapipe#5257, mediapipe#5479, mediapipe#5527, mediapipe-samples#174. In node_modules there is
// nothing but the package: imgly#164. Bundlers find its worker, its threads and its engine: onnxruntime#20978,
// onnxruntime#22010, onnxruntime#22113, onnxruntime#22196.
func TestPackage(t *testing.T) {
	t.Parallel()
	if _, err := chromium.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := app(t)
	at := func(name string, b browser, build func(t *testing.T, dist string, s *testServer) (address string)) {
		t.Run(name, func(t *testing.T) {
			dist := filepath.Join(dir, "dist-"+strings.ReplaceAll(name, " ", "-"))
			mkdir(t, dist)
			s := newTestServer(t, site(t), dist)
			printed, finished, err := s.run(b, build(t, dist, s))
			if err != nil {
				t.Fatal(err)
			}
			if !finished {
				t.Fatalf("no end\n%s\n%s", s.log(), printed)
			}
			for _, v := range s.violated {
				t.Error("the policy was violated: ", v)
			}
			for _, r := range s.results {
				switch {
				case r.Error != "":
					t.Errorf("%s: %s", r.Test, r.Error)
				case len(r.Data) > 0:
					checkData(t, s, r.Data)
				}
			}
		})
	}
	// open does so on pages of two kinds, where only those of the second are isolated.
	open := func(name string, b browser, modes [2]string, build func(t *testing.T, dist string, s *testServer)) {
		for _, mode := range modes {
			at(name+", "+mode, b, func(t *testing.T, dist string, s *testServer) string {
				build(t, dist, s)
				return "/" + mode + "/test/index.html"
			})
		}
	}
	plain, strict := [2]string{"cors", "isolated"}, [2]string{"strict", "both"}
	packed := filepath.Join(dir, "node_modules/pmp-segment")
	link := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}

	// unbundled makes a page that takes the package from an address. Import maps do not count in workers.
	unbundled := func(t *testing.T, dist, address string) {
		for _, f := range []string{"app.js", "classic.js", "main.js"} {
			copyFile(t, filepath.Join(dir, f), filepath.Join(dist, f))
		}
		inside, err := os.ReadFile(filepath.Join(dir, "inside.js"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dist, "inside.js"), strings.Replace(string(inside), "pmp-segment", address, 1))
		write(t, filepath.Join(dist, "index.html"), plainHTML+`<script type="importmap">{"imports": {"pmp-segment": "`+address+`"}}</script>
<script src="classic.js" data-from="`+address+`"></script><script type="module" src="main.js"></script>`)
	}
	for _, b := range []browser{chromium, firefox} {
		// On the isolated page everything that is no script comes as text/html: onnxruntime#19829.
		open("no bundler, import map, "+b.name, b, plain, func(t *testing.T, dist string, s *testServer) {
			link(t, packed, filepath.Join(dist, "lib"))
			unbundled(t, dist, "./lib/index.js")
		})
		// A page of one host that takes the package from another, which allows that by CORS.
		open("from a CDN, "+b.name, b, plain, func(t *testing.T, dist string, s *testServer) {
			unbundled(t, dist, strings.Replace(s.URL, "127.0.0.1", "localhost", 1)+"/cors/pmp/index.js")
		})
	}

	tools := installed(t)
	if tools == "" {
		return
	}
	bin := func(name string) string { return filepath.Join(tools, "node_modules/.bin", name) }
	page := func(t *testing.T, file, script, weights string) {
		t.Helper()
		html := strings.Replace(plainHTML, "<!doctype html>", `<!doctype html><html data-weights="`+weights+`">`, 1)
		write(t, file, html+`<script type="module" src="`+script+`"></script>`)
	}
	vite := func(t *testing.T) (src string) {
		src = filepath.Join(dir, "vite")
		if err := os.RemoveAll(src); err != nil {
			t.Fatal(err)
		}
		mkdir(t, filepath.Join(src, "public"))
		link(t, filepath.Join(packed, "weights"), filepath.Join(src, "public/weights"))
		for _, f := range []string{"app.js", "inside.js", "main.js"} {
			copyFile(t, filepath.Join(dir, f), filepath.Join(src, f))
		}
		page(t, filepath.Join(src, "index.html"), "./main.js", "weights/")
		return src
	}
	at("Vite's own server", chromium, func(t *testing.T, dist string, s *testServer) string {
		src := vite(t)
		write(t, filepath.Join(src, "vite.config.js"), `export default { server: { proxy: { "/report": "`+s.URL+`", "/strict": "`+s.URL+`" } } }`)
		return started(t, src, bin("vite"), "--port", "0")
	})
	open("Vite", chromium, strict, func(t *testing.T, dist string, s *testServer) {
		src := vite(t)
		run(t, dir, bin("vite"), "build", src, "--base", "./", "--outDir", dist, "--emptyOutDir", "--logLevel", "error")
	})
	open("webpack", chromium, strict, func(t *testing.T, dist string, s *testServer) {
		link(t, filepath.Join(packed, "weights"), filepath.Join(dist, "weights"))
		page(t, filepath.Join(dist, "index.html"), "main.js", "weights/")
		run(t, dir, bin("webpack"), "--mode", "production", "--entry", "./main.js", "--output-path", dist)
	})
	// These two leave the addresses of workers as they are, so the package's files are copied beside the bundle.
	for name, bundle := range map[string]func(t *testing.T, dist string){
		"esbuild": func(t *testing.T, dist string) {
			// Frameworks that also render on a server resolve as Node does: onnxruntime#21811.
			run(t, dir, bin("esbuild"), "main.js", "inside.js", "--bundle", "--format=esm", "--minify", "--conditions=node", "--outdir="+dist, "--log-level=warning")
		},
		"Rollup": func(t *testing.T, dist string) {
			run(t, dir, bin("rollup"), "main.js", "inside.js", "--format", "es", "--dir", dist, "--plugin", filepath.Join(tools, "node_modules/@rollup/plugin-node-resolve/dist/es/index.js"), "--silent")
		},
	} {
		open(name, chromium, strict, func(t *testing.T, dist string, s *testServer) {
			link(t, packed, dist)
			bundle(t, dist)
			page(t, filepath.Join(dist, "index.html"), "main.js", "")
		})
	}
}

// started starts a server, which prints its address, and ends it with the test.
func started(t *testing.T, dir, program string, args ...string) (address string) {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address = regexp.MustCompile(`http://\S+`).FindString(lines.Text()); address != "" {
			go io.Copy(io.Discard, out)
			return address
		}
	}
	t.Fatalf("%s ended without an address", program)
	return ""
}

var tools = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "pmp/bundlers")
	want := strings.Join(bundlers, "\n")
	if have, _ := os.ReadFile(filepath.Join(dir, "versions")); string(have) == want {
		return dir, nil
	}
	args := append([]string{"install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix", dir}, bundlers...)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	if err := exec.Command("npm", args...).Run(); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "versions"), []byte(want), 0o666)
})

// installed is the folder with the bundlers, or empty if npm could not get them.
func installed(t *testing.T) string {
	dir, err := tools()
	if err != nil {
		t.Logf("bundlers are left out: npm could not install them (%v)", err)
		return ""
	}
	return dir
}
