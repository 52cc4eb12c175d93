package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/container/pool"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/pmp-seg/pmp/batch/internal/job"
	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model/mask"
)

// flags are those of the test's own command line.
var flags *options

// The test's program is also TestKilled's runner, when the environment has a
// port for it, and its workers, which write their numbers to a file.
func TestMain(m *testing.M) {
	if port, err := strconv.Atoi(os.Getenv("PMP_PRISM")); err == nil {
		prism.CreateJobServer(context.Background(), prism.Options{Port: port})
		select {}
	}
	if name := os.Getenv("PMP_WORKERS"); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(f, os.Getpid())
		f.Close()
		flag.String("artifact_endpoint", "", "for Beam's own loader of workers")
		flag.String("provision_endpoint", "", "for Beam's own loader of workers")
		os.Args = append(os.Args, "--worker")
	}
	flags = parse()
	os.Exit(m.Run())
}

var prompts = []string{"cat, kitten", "cup", "table"}

// workshop is a folder in which everything happens, with n photos, two files
// that are none, and the command line.
type workshop struct {
	t   *testing.T
	dir string
}

func newWorkshop(t *testing.T, n int) *workshop {
	w := &workshop{t, t.TempDir()}
	t.Setenv("TMPDIR", w.dir)
	if text, err := exec.Command("go", "build", "-o", w.dir+"/pmp", "github.com/pmp-seg/pmp/cmd/pmp").CombinedOutput(); err != nil {
		t.Fatalf("pmp does not compile: %v\n%s", err, text)
	}
	originals := []*image.RGBA{w.example("cat"), w.example("coffee")}
	t.Chdir(w.dir)
	for i := range n {
		// Other pixels in each: a window that moves over the picture.
		var b bytes.Buffer
		window := image.NewRGBA(image.Rect(0, 0, 160, 128))
		draw.Draw(window, window.Rect, originals[i%2], image.Pt(150+3*i, 60+2*i), draw.Src)
		if err := jpeg.Encode(&b, window, nil); err != nil {
			t.Fatal(err)
		}
		w.write(fmt.Sprintf("photos/%d.jpg", i), b.Bytes())
		if i == 0 {
			w.write("photos/half.JPG", b.Bytes()[:b.Len()/2])
		}
	}
	w.write("photos/text.png", []byte("not a picture"))
	w.write("photos/README", []byte("not even called one"))
	return w
}

func (w *workshop) example(name string) *image.RGBA {
	img, err := photo.Read("../site/examples/" + name + ".jpg")
	if err != nil {
		w.t.Fatal(err)
	}
	return img
}

func (w *workshop) write(name string, data []byte) {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o666); err != nil {
		w.t.Fatal(err)
	}
}

// commandLine is what the command line prints for a photo.
func (w *workshop) commandLine(name string, flags ...string) string {
	out, err := exec.Command(w.dir+"/pmp", slices.Concat([]string{"segment", name}, prompts, []string{"-json"}, flags)...).Output()
	if err != nil {
		w.t.Fatal(err)
	}
	return string(out)
}

// check compares the answers in a folder with the command line's, for each
// photo whose number is a multiple of step, and the dead letters with what is
// broken.
func (w *workshop) check(out string, n, step int) {
	w.t.Helper()
	got := map[string]string{}
	for _, line := range w.lines(out, "answers") {
		var a engine.Answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			w.t.Fatal(err)
		}
		if got[a.Image] != "" {
			w.t.Errorf("%s is answered twice", a.Image)
		}
		got[a.Image] = line
	}
	if len(got) != n {
		w.t.Errorf("%d photos are answered, want %d", len(got), n)
	}
	for i := 0; i < n; i += step {
		name := fmt.Sprintf("photos/%d.jpg", i)
		if want := w.commandLine(name); got[name] != want {
			w.t.Errorf("the pipeline says\n%s\nand the command line\n%s", got[name], want)
		}
	}
	var failed []string
	for _, line := range w.lines(out, "failed") {
		var f job.Failure
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Error == "" {
			w.t.Errorf("the dead letter %s: %v", line, err)
		}
		failed = append(failed, f.Image+" "+f.Kind)
	}
	slices.Sort(failed)
	if want := []string{"photos/half.JPG decode", "photos/text.png decode"}; !slices.Equal(failed, want) {
		w.t.Errorf("dead letters for %q, want %q", failed, want)
	}
	if rest, _ := filepath.Glob(out + "/*.part"); rest != nil {
		w.t.Errorf("left behind: %q", rest)
	}
}

func (w *workshop) lines(out, kind string) (all []string) {
	files, _ := filepath.Glob(out + "/" + kind + "-*-of-*.jsonl")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, slices.Collect(strings.Lines(string(data)))...)
	}
	return all
}

func TestAnswers(t *testing.T) {
	w := newWorkshop(t, 5)
	o := options{asked: asked{Prompts: prompts, Labels: true, Overlays: true, Shards: 3}, in: "photos", out: "masks/", tries: 1,
		engine: engine.Options{Device: "auto", Precision: "int8"}}
	if err := run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	w.check("masks", 5, 1)

	var a engine.Answer
	if err := json.Unmarshal([]byte(w.commandLine("photos/1.jpg", "-o", "overlay.png")), &a); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("overlay.png")
	if got, err2 := os.ReadFile("masks/overlays/1.jpg.png"); err != nil || err2 != nil || !bytes.Equal(got, want) {
		t.Errorf("the overlay is not the command line's: %v, %v", err, err2)
	}
	// A pixel has a label if and only if a mask covers it, and that of one of them.
	file, err := os.Open("masks/labels/1.jpg.png")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	labels, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	covered := make([][]byte, len(a.Masks))
	for i, m := range a.Masks {
		if covered[i], err = mask.FromRLE(m.RLE.Counts, a.Width, a.Height); err != nil {
			t.Fatal(err)
		}
	}
	labelled := 0
	for p, label := range labels.(*image.Paletted).Pix {
		any := slices.ContainsFunc(covered, func(m []byte) bool { return m[p] != 0 })
		if any != (label != 0) || any && covered[label-1][p] == 0 {
			t.Fatalf("pixel %d has label %d", p, label)
		}
		labelled += int(min(label, 1))
	}
	if labelled == 0 {
		t.Error("nothing is labelled")
	}

	// What has been answered stays, what is new or was mended is added.
	before := w.lines("masks", "answers")
	data, err := os.ReadFile("photos/2.jpg")
	if err != nil {
		t.Fatal(err)
	}
	w.write("photos/5.jpg", data)
	w.write("photos/text.png", data)
	if err := os.Truncate("photos/1.jpg", 0); err != nil { // it would be a dead letter now
		t.Fatal(err)
	}
	o.Shards = 0 // as before
	if err := run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	after := w.lines("masks", "answers")
	if len(after) != len(before)+2 || len(w.lines("masks", "failed")) != 1 {
		t.Errorf("%d answers and %d dead letters after %d answers", len(after), len(w.lines("masks", "failed")), len(before))
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("gone: %s", line)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	w := &workshop{t: t}
	w.write("photos/1.jpg", nil)
	w.write("other/job.json", []byte(`{"prompts": ["dog"], "shards": 3}`))
	good := options{asked: asked{Prompts: []string{"cat"}}, in: "photos/*.jpg", out: "masks", tries: 1, engine: engine.Options{Device: "auto", Precision: "int8"}}
	for want, change := range map[string]func(o *options){
		"-in, -out and -prompts": func(o *options) { o.Prompts = nil },
		"no photo at none/*":     func(o *options) { o.in = "none/" },
		"another question":       func(o *options) { o.out = "other" },
		"no device":              func(o *options) { o.engine.Device = "abacus" },
		"threshold":              func(o *options) { o.threshold = 7 },
		"manifest":               func(o *options) { o.engine.Weights = "photos" },
		"file system scheme":     func(o *options) { o.in = "floppy://photos/*.jpg" },
	} {
		o := good
		change(&o)
		if err := run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	if files, _ := filepath.Glob("masks/*"); files != nil {
		t.Errorf("refused, and yet there are %q", files)
	}
}

// Dataflow has a flag -labels, too.
func TestFlags(t *testing.T) {
	if err := flag.Set("labels", "true"); err != nil || !flags.Labels {
		t.Errorf("-labels is not ours: %v", err)
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"dog,sofa": {"dog", "sofa"}, " dog , sofa,": {"dog", "sofa"}, "dog;sofa, couch": {"dog", "sofa, couch"}, "sofa, couch;": {"sofa, couch"}, "": nil,
	} {
		if got := split(text); !slices.Equal(got, want) {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
}

// TestKilled runs the job on a runner in a process of its own, with a worker in
// a third, so that everything a worker needs went through Beam's protocol. The
// worker is killed half-way.
func TestKilled(t *testing.T) {
	const n = 40
	w := newWorkshop(t, n)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	var runner *exec.Cmd
	start := func() {
		runner = exec.Command(self)
		runner.Env = append(os.Environ(), "PMP_PRISM="+port)
		runner.Stderr = t.Output()
		if err := runner.Start(); err != nil {
			t.Fatal(err)
		}
	}
	stop := func() {
		runner.Process.Kill()
		runner.Wait()
	}
	start()
	defer func() { stop() }()
	t.Setenv("PMP_WORKERS", w.dir+"/workers")
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	poolPort := freePort(t)
	number, _ := strconv.Atoi(poolPort)
	workers, err := pool.New(ctx, number, self)
	if err != nil {
		t.Fatal(err)
	}
	go workers.ServeAndWait()
	defer workers.Stop(ctx)
	for name, value := range map[string]string{"runner": "universal", "endpoint": "localhost:" + port, "environment_type": "EXTERNAL",
		"environment_config": "localhost:" + poolPort} {
		old := flag.Lookup(name).Value.String()
		flag.Set(name, value)
		defer flag.Set(name, old)
	}
	job := options{asked: asked{Prompts: prompts, Shards: 20}, in: "photos/*.[jJp]*", out: "masks", tries: 2,
		engine: engine.Options{Device: "auto", Precision: "int8"}}
	first, cut := context.WithCancel(ctx)
	defer cut()
	done := make(chan error, 1)
	go func() { done <- run(first, job) }()
	for w.lines("masks", "answers") == nil {
		select {
		case err := <-done:
			t.Fatalf("the job ended without an answer: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	pids, err := os.ReadFile("workers")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(pids)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if len(w.lines("masks", "answers")) >= n {
		t.Fatal("the worker was done before it was killed")
	}
	ended := false
	for before := -1; !ended; {
		select {
		case err = <-done:
			ended = true
		case <-time.After(time.Minute):
			now := len(w.lines("masks", "answers"))
			if now > before {
				before = now
				continue
			}
			// Prism fails the bundles of a worker whose connection ends, except when it reads the end of the stream first: then
			// they stay open for ever. What is left to a person is done here: to stop all and to start it again.
			t.Log("the runner did not notice that its worker is gone")
			cut()
			<-done
			stop()
			start()
			err, ended = run(ctx, job), true
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if pids, err = os.ReadFile("workers"); err != nil || bytes.Count(pids, []byte("\n")) != 2 {
		t.Errorf("the workers were %q, want two; %v", pids, err)
	}
	w.check("masks", n, 8)
}

func freePort(t *testing.T) string {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}
