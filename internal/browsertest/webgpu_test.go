package browsertest

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// withWebGPU is Chromium with a graphics card made of software, for machines that have none. It is
// three orders of magnitude slower than a real one.
var withWebGPU = browser{
	name:     "chromium-webgpu",
	programs: chromium.programs,
	install:  chromium.install,
	args: func(profile, url string) []string {
		return append(chromiumFlags(profile), "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", url)
	},
}

// TestWebGPU runs the tests of kernel/webgpu and the whole model. PMP_ONLY is a pattern
// for go test -run.
func TestWebGPU(t *testing.T) {
	// Matrices of bytes take a minute or more, and how operands are aligned matters little to them.
	const quick = "Test/^(MatMul|Conv|ConvBytes|Depthwise.*|UpsampleAdd|L.*Norm|Add.*|Attention|Pack|" +
		"Activate|Classify|Picture|Paint|Quantize|Columns8|Maps|Peaks|Constants|Stages|Lifetime|Memory)$"
	t.Run("none", func(t *testing.T) { runWebGPU(t, chromium, "kernel/webgpu", "", "") })
	t.Run("plain", func(t *testing.T) { runWebGPU(t, withWebGPU, "kernel/webgpu", "webgpu", quick) })
	t.Run("aligned", func(t *testing.T) { runWebGPU(t, withWebGPU, "kernel/webgpu", "webgpu aligned nodot", "") })
	t.Run("model", func(t *testing.T) { runWebGPU(t, withWebGPU, "internal/browsertest/wholemodel", "webgpu", "") })
}

// runWebGPU runs the tests of a package in a browser. Variant tells them what there is, only is
// a pattern for those that run.
func runWebGPU(t *testing.T, b browser, folder, variant, only string) {
	if o := os.Getenv("PMP_ONLY"); o != "" {
		only = o
	}
	if _, err := b.path(); err != nil {
		if needed {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	program, err := testsFor(t, folder)
	if err != nil {
		t.Fatal(err)
	}
	s := newTestServer(t, site(t), filepath.Join(root, "js/test"))
	s.kernels = program
	printed, finished, err := s.run(b, "/isolated/test/kernels.html?variant="+url.QueryEscape(variant)+"&run="+url.QueryEscape(only))
	if err != nil {
		t.Fatal(err)
	}
	if !finished {
		t.Fatalf("the tests did not come to their end within %v\nwhat they printed:\n%s\nwhat the browser printed:\n%s", patience, s.log(), printed)
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
				if m[1] == "FAIL" {
					t.Error("see the lines of the whole run")
				}
			})
		default:
			t.Log(r.Log)
		}
	}
}

// testsFor compiles the tests of a package for a browser.
func testsFor(t *testing.T, folder string) (string, error) {
	name := filepath.Join(t.TempDir(), "tests.wasm")
	cmd := exec.Command("go", "test", "-c", "-o", name, "./"+folder)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &buildFailed{string(out), err}
	}
	return name, nil
}
