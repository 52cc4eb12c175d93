package browsertest

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const root = "../.."

// needed says that a missing browser is a failure, as in ./build.sh test.
var needed = os.Getenv("PMP_NEED_BROWSERS") != ""

// A page keeps one processor busy most of the time, so tests run side by side.

func TestChromium(t *testing.T)         { t.Parallel(); runSuite(t, chromium, "strict") }
func TestChromiumIsolated(t *testing.T) { t.Parallel(); runSuite(t, chromium, "isolated") }
func TestFirefox(t *testing.T)          { t.Parallel(); runSuite(t, firefox, "strict") }
func TestFirefoxIsolated(t *testing.T)  { t.Parallel(); runSuite(t, firefox, "isolated") }

// runSuite opens the suite in a browser and makes a subtest of each of its tests.
func runSuite(t *testing.T, b browser, mode string) {
	if _, err := b.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	basesOf(t)
	s := newTestServer(t, site(t), filepath.Join(root, "js/test"))
	printed, finished, err := s.run(b, "/"+mode+"/test/suite.html?only="+url.QueryEscape(os.Getenv("PMP_ONLY")))
	if err != nil {
		t.Fatal(err)
	}
	if !finished {
		t.Errorf("the suite did not come to its end, and said nothing for %v\nwhat the page said:\n%s\nwhat the browser printed:\n%s", b.patience(), s.log(), printed)
	}
	for _, v := range s.violated {
		t.Error("the strict policy was violated: ", v)
	}
	for _, r := range s.results {
		switch {
		case r.Finish:
			t.Log(r.Browser)
		case r.Log != "":
			t.Log("page: " + r.Log)
		case r.Test != "":
			t.Run(r.Test, func(t *testing.T) {
				t.Logf("%.0f ms in the browser", r.Millis)
				switch {
				case r.Skip != "":
					t.Skip(r.Skip)
				case r.Error != "":
					t.Fatal(r.Error)
				case len(r.Data) > 0:
					checkData(t, s, r.Data)
				}
			})
		}
	}
}

var (
	built      sync.Once
	buildError string
)

// site returns the built site. It builds it, so that a test never sees yesterday's engine.
func site(t *testing.T) string {
	if testing.Short() {
		t.Skip("browser tests are not short")
	}
	dir, err := filepath.Abs(filepath.Join(root, "dist/site"))
	if err != nil {
		t.Fatal(err)
	}
	built.Do(func() {
		// go test keeps results for as long as the files that a test looked at stay as they are;
		// what the build looks at it cannot see.
		for _, from := range []string{"js", "site", "wasm", "model", "kernel", "weights"} {
			filepath.WalkDir(filepath.Join(root, from), func(name string, _ fs.DirEntry, _ error) error {
				os.Stat(name)
				return nil
			})
		}
		if out, err := exec.Command("bash", filepath.Join(root, "build.sh"), "pack").CombinedOutput(); err != nil {
			buildError = string(out) + err.Error()
		}
	})
	if buildError != "" {
		t.Fatal("the site could not be built: ", buildError)
	}
	return dir
}
