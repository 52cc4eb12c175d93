//go:build unix

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pmp-seg/pmp/internal/serve"
)

// TestWorkerd runs the built site and Worker as Cloudflare does, in workerd, with the configuration
// that is deployed. PMP_WRANGLER names Cloudflare's tool.
func TestWorkerd(t *testing.T) {
	wrangler := os.Getenv("PMP_WRANGLER")
	if wrangler == "" {
		t.Skip("PMP_WRANGLER does not name wrangler; ./build.sh test does")
	}
	const site = "../../dist/site"
	base := start(t, wrangler)

	t.Run("assets", func(t *testing.T) {
		shards, _ := filepath.Glob(site + "/pmp/weights/*.safetensors")
		if len(shards) == 0 {
			t.Fatal("there are no weights in dist/site: run ./build.sh")
		}
		shard := strings.TrimPrefix(shards[0], site)
		headers, err := serve.ReadHeaders(site)
		if err != nil {
			t.Fatal(err)
		}
		local := serve.Handler(site, true)
		for path, kind := range map[string]string{
			"/":                          "text/html",
			"/page.js":                   "text/javascript",
			"/style.css":                 "text/css",
			"/icon.svg":                  "image/svg+xml",
			"/examples/cat.jpg":          "image/jpeg",
			"/pmp/index.js":              "text/javascript",
			"/pmp/engine.wasm":           "application/wasm",
			"/pmp/weights/manifest.json": "application/json",
			"/pmp/weights/vocab.txt":     "text/plain",
			shard:                        "application/octet-stream",
		} {
			r, body := get(t, "GET", base+path)
			if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), kind) {
				t.Errorf("%s: status %d, type %q, want %q", path, r.StatusCode, r.Header.Get("Content-Type"), kind)
			}
			file := path
			if path == "/" {
				file = "/index.html"
			}
			if want, _ := os.ReadFile(site + file); string(want) != body {
				t.Errorf("%s has other bytes than dist/site", path)
			}
			for name := range headers.For(path) {
				if got, want := r.Header.Values(name), headers.For(path).Values(name); strings.Join(got, "|") != strings.Join(want, "|") {
					t.Errorf("%s: %s is %q, want %q", path, name, got, want)
				}
			}
			// What pmp serve sends is the same.
			w := recorded(local, path)
			for _, name := range []string{"Content-Type", "Cache-Control"} {
				if got, want := w.Get(name), r.Header.Get(name); !strings.EqualFold(got, want) {
					t.Errorf("%s: pmp serve sends %s %q, workerd %q", path, name, got, want)
				}
			}
			immutable := strings.Contains(r.Header.Get("Cache-Control"), "immutable")
			if immutable != (path == shard) || !immutable && !strings.Contains(r.Header.Get("Cache-Control"), "must-revalidate") {
				t.Errorf("%s: Cache-Control %q", path, r.Header.Get("Cache-Control"))
			}
			// Asked again, it need not come again.
			again, _ := get(t, "GET", base+path, "If-None-Match", r.Header.Get("ETag"))
			if again.StatusCode != http.StatusNotModified {
				t.Errorf("%s: status %d when nothing changed", path, again.StatusCode)
			}
		}
		if r, _ := get(t, "GET", base+"/_headers"); r.StatusCode != 404 {
			t.Errorf("/_headers: status %d", r.StatusCode)
		}
	})

	t.Run("version", func(t *testing.T) {
		r, body := get(t, "GET", base+"/api/version")
		type file struct {
			File, SHA256 string
			Bytes        int
		}
		var about struct {
			Package          string
			Engine, Manifest file
			Weights          []file
		}
		if err := json.Unmarshal([]byte(body), &about); err != nil || r.StatusCode != 200 || about.Package == "" || len(about.Weights) < 2 {
			t.Fatalf("status %d, %v: %s", r.StatusCode, err, body)
		}
		for _, f := range append(about.Weights, about.Engine, about.Manifest) {
			path := site + "/pmp/weights/" + f.File
			if f.File == "engine.wasm" {
				path = site + "/pmp/engine.wasm"
			}
			data, err := os.ReadFile(path)
			if sum := sha256.Sum256(data); err != nil || hex.EncodeToString(sum[:]) != f.SHA256 || len(data) != f.Bytes {
				t.Errorf("%+v is not what lies in the site (%v)", f, err)
			}
		}
	})

	t.Run("share", func(t *testing.T) {
		r, _ := get(t, "GET", base+"/api/share?words=cat;sofa,%20couch&example=cat")
		if r.StatusCode != 302 || r.Header.Get("Location") != "/#words=cat%3Bsofa%2C+couch&example=cat" {
			t.Errorf("status %d, to %q", r.StatusCode, r.Header.Get("Location"))
		}
	})

	t.Run("answers", func(t *testing.T) {
		for _, c := range []struct {
			method, path string
			status       int
		}{
			{"GET", "/api/health", 200},
			{"HEAD", "/api/health", 200},
			{"OPTIONS", "/api/health", 204},
			{"POST", "/api/share?words=cat", 405},
			{"GET", "/api/", 404},
			{"GET", "/api/nothing", 404},
			{"GET", "/nothing", 404},
			{"GET", "/api/../../etc/passwd", 404},
			{"GET", "/api/share", 400},
			{"GET", "/api/share?words=" + strings.Repeat("thing;", 10_000), 400},
			{"GET", "/api/share?words=" + strings.Repeat("a;", 65), 400},
			{"GET", "/api/share?words=%ff%fe", 400},
			{"GET", "/api/share?words=%3Cscript%3Ealert(1)%3C/script%3E", 400},
			{"GET", "/api/share?words=<script>", 400},
			{"GET", "/api/share?words=cat%0d%0aSet-Cookie:%20a=b", 400},
			{"GET", "/api/share?words=cat&picture=javascript:alert(1)", 400},
		} {
			r, body := get(t, c.method, base+c.path)
			if r.StatusCode != c.status {
				t.Errorf("%s %.60s: status %d, want %d: %.200s", c.method, c.path, r.StatusCode, c.status, body)
				continue
			}
			var answer struct{ Error string }
			err := json.Unmarshal([]byte(body), &answer)
			if c.method == "GET" && (err != nil || (answer.Error != "") != (c.status >= 400)) {
				t.Errorf("%s %.60s: %v: %.200s", c.method, c.path, err, body)
			}
			if c.method == "HEAD" && body != "" {
				t.Errorf("%s %s has a body", c.method, c.path)
			}
		}
	})

	t.Run("many", func(t *testing.T) {
		const n = 20
		begin := time.Now()
		for range n {
			if r, _ := get(t, "GET", base+"/api/health"); r.StatusCode != 200 {
				t.Fatalf("status %d", r.StatusCode)
			}
		}
		t.Logf("%v a request, one after the other", (time.Since(begin) / n).Round(100*time.Microsecond))
	})

	t.Run("upload", func(t *testing.T) {
		out, err := command(t, wrangler, "deploy", "--dry-run", "--outdir", t.TempDir()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Total Upload") {
			t.Errorf("%v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "Total Upload") {
				t.Log(strings.TrimSpace(line))
			}
		}
	})
}

// command is wrangler with a home of its own, which asks nothing and tells nobody.
func command(t *testing.T, wrangler string, args ...string) *exec.Cmd {
	home := t.TempDir()
	cmd := exec.Command(wrangler, append(args, "--config", "wrangler.jsonc")...)
	// The last two keep it from asking where it is and whether there is a newer one.
	cmd.Env = append(os.Environ(), "CI=1", "WRANGLER_SEND_METRICS=false", "NO_COLOR=1", "HOME="+home, "XDG_CONFIG_HOME="+home,
		"CLOUDFLARE_CF_FETCH_ENABLED=false", "npm_config_registry=http://127.0.0.1:9")
	return cmd
}

// start serves the site and the Worker until the test ends, and returns their address.
func start(t *testing.T, wrangler string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	cmd := command(t, wrangler, "dev", "--ip", "127.0.0.1", "--port", port, "--inspector-port", "0", "--persist-to", t.TempDir(), "--show-interactive-dev-session=false")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	// Wrangler and workerd are several processes; a group of their own lets all of them be ended together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(5 * time.Second):
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("wrangler printed:\n%s", text)
		}
		log.Close()
	})
	base := "http://127.0.0.1:" + port
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		select {
		case <-done:
			t.Fatal("wrangler dev ended")
		default:
		}
		if r, err := http.Get(base + "/api/health"); err == nil {
			r.Body.Close()
			return base
		}
	}
	t.Fatal("the Worker did not answer within five minutes")
	return ""
}

// client follows no redirects, so that they can be looked at.
var client = http.Client{
	Timeout:       30 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func get(t *testing.T, method, address string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}
