//go:build !js

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pmp-seg/pmp/kernel/simd"
)

func open(string) (*simd.Device, error) { return simd.New() }

// page runs the lab in a worker and sends on what it prints. The page is
// isolated, since browsers' clocks are finer there.
const page = `<script>
const worker = new Worker("/worker.js");
worker.onerror = (e) => fetch("/end", {method: "POST", body: e.message});
</script>`

const worker = `importScripts("/wasm_exec.js");
const decoder = new TextDecoder();
const post = (path, body) => { const r = new XMLHttpRequest(); r.open("POST", path, false); r.send(body); };
fs.writeSync = (fd, b) => { post("/out", decoder.decode(b)); return b.length; };
fs.write = (fd, b, from, n, position, done) => { post("/out", decoder.decode(b.subarray(from, from+n))); done(null, n); };
(async () => {
	const go = new Go();
	go.argv = ["lab"].concat(await (await fetch("/args")).json());
	const program = await WebAssembly.instantiateStreaming(fetch("/lab.wasm"), go.importObject);
	await go.run(program.instance);
	post("/end", "");
})().catch((e) => post("/end", String(e)));`

// runIn builds the lab for browsers, runs it in one and prints what it says.
func runIn(browser string, args []string) error {
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "lab.wasm"), "github.com/pmp-seg/pmp/kernel/simd/lab")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %v\n%s", err, out)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return err
	}
	end := make(chan string, 1)
	give := func(path, kind, text string) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
			w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
			io.WriteString(w, text)
		})
	}
	file := func(path, name string) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
			http.ServeFile(w, r, name)
		})
	}
	give("/", "text/html", page)
	give("/worker.js", "text/javascript", worker)
	give("/args", "application/json", "["+strings.Join(quoted(args), ",")+"]")
	file("/wasm_exec.js", filepath.Join(strings.TrimSpace(string(root)), "lib/wasm/wasm_exec.js"))
	file("/lab.wasm", filepath.Join(dir, "lab.wasm"))
	http.HandleFunc("/out", func(w http.ResponseWriter, r *http.Request) { io.Copy(os.Stdout, r.Body) })
	http.HandleFunc("/end", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		end <- string(b)
	})
	go http.Serve(listener, nil)

	url := "http://" + listener.Addr().String()
	var cmd *exec.Cmd
	if strings.Contains(browser, "firefox") {
		cmd = exec.Command(browser, "--headless", "--no-remote", "--profile", dir, url)
	} else {
		cmd = exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--user-data-dir="+filepath.Join(dir, "profile"), url)
	}
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a browser is many processes
	if err := cmd.Start(); err != nil {
		return err
	}
	failed := <-end
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	if failed != "" {
		return fmt.Errorf("%s: %s", browser, failed)
	}
	return nil
}

func quoted(args []string) []string {
	var q []string
	for _, a := range args {
		q = append(q, fmt.Sprintf("%q", a))
	}
	return q
}
