package browsertest

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

func TestKernelsChromium(t *testing.T) { t.Parallel(); runKernels(t, chromium) }
func TestKernelsFirefox(t *testing.T)  { t.Parallel(); runKernels(t, firefox) }

// runKernels runs the tests of kernel/simd in a browser: each variant of the module with each
// number of threads, of which 8 are more than most machines that test have processors. PMP_ONLY is
// a pattern for go test -run.
func runKernels(t *testing.T, b browser) {
	mustHave(t, b)
	program, err := kernelTests()
	if err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"plain", "relaxed"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			runTests(t, b, program, "threads=1,2,3,8&variant="+variant+"&run="+url.QueryEscape(os.Getenv("PMP_ONLY")))
		})
	}
}

// mustHave skips a test if the browser is not there, or fails it if browsers are needed.
func mustHave(t *testing.T, b browser) {
	t.Helper()
	if _, err := b.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// runTests runs a compiled test program in a browser; the query says how, see kernels.js.
func runTests(t *testing.T, b browser, program, query string) {
	s := newTestServer(t, site(t), filepath.Join(root, "js/test"))
	s.kernels = program
	printed, finished, err := s.run(b, "/isolated/test/kernels.html?"+query)
	if err != nil {
		t.Fatal(err)
	}
	if !finished {
		t.Fatalf("the tests did not come to their end, and said nothing for %v\nwhat they printed:\n%s\nwhat the browser printed:\n%s", b.patience(), s.log(), printed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.results {
		switch m := outcome.FindStringSubmatch(r.Log); {
		case r.Finish:
			t.Log(r.Browser)
			if r.Error != "" {
				t.Error(r.Error)
			}
		case m != nil:
			t.Run(m[2], func(t *testing.T) {
				t.Log(r.Log) // with the time
				if m[1] == "FAIL" {
					t.Error("see the lines of the whole run")
				}
			})
		default:
			t.Log(r.Log)
		}
	}
}

// outcome is the line that go test prints at the end of a test.
var outcome = regexp.MustCompile(`^ *--- (PASS|FAIL): (\S+)`)

// kernelTests compiles the tests of kernel/simd for a browser.
var kernelTests = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pmp-kernels-")
	if err != nil {
		return "", err
	}
	return compileTests(dir, "kernel/simd")
})

// compileTests compiles the tests of a package for a browser and puts them into dir.
func compileTests(dir, folder string) (string, error) {
	name := filepath.Join(dir, "tests.wasm")
	cmd := exec.Command("go", "test", "-c", "-o", name, "./"+folder)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &buildFailed{string(out), err}
	}
	return name, nil
}

type buildFailed struct {
	output string
	error
}

func (e *buildFailed) Error() string { return e.output + e.error.Error() }
