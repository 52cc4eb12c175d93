package browsertest

import (
	"net/url"
	"os"
	"slices"
	"testing"
)

// withWebGPU is Chromium with a graphics card made of software, for machines that have none. It is
// three orders of magnitude slower than a real one.
var withWebGPU = browser{
	name:     "chromium-webgpu",
	programs: chromium.programs,
	install:  chromium.install,
	slow:     true,
	args: func(profile, url string) []string {
		// The last ones let it draw on canvases, which takes the whole browser to the same card.
		return append(slices.DeleteFunc(chromiumFlags(profile), func(f string) bool { return f == "--disable-gpu" }),
			"--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--use-vulkan=swiftshader",
			"--use-angle=vulkan", "--ignore-gpu-blocklist", "--enable-unsafe-swiftshader", url)
	},
}

// TestWebGPU runs the tests of kernel/webgpu and the whole model. PMP_ONLY is a pattern
// for go test -run.
func TestWebGPU(t *testing.T) {
	// Matrices of bytes take a minute or more, and how operands are aligned matters little to them.
	const quick = "Test/^(MatMul|Conv|ConvBytes|Depthwise.*|UpsampleAdd|.*Norm|Add.*|Attention|Pack|" +
		"Activate|Classify|Picture|Paint|Smooth|Guide|Guided|PaintGuided|Quantize|Columns8|Maps|Peaks|Tidy|Colour|Gather|Deformable|WindowAttention|Constants|Stages|Lifetime|Memory)$"
	// A card made of software keeps one core busy, so they run side by side, the long ones first.
	for _, run := range []struct {
		name string
		test func(*testing.T)
	}{
		{"page", func(t *testing.T) { runSuite(t, withWebGPU, "card") }},
		{"lost", func(t *testing.T) { runSuite(t, withWebGPU, "badcard") }},
		{"aligned", func(t *testing.T) { runWebGPU(t, withWebGPU, "kernel/webgpu", "webgpu aligned nodot nosubgroups", "") }},
		{"plain", func(t *testing.T) { runWebGPU(t, withWebGPU, "kernel/webgpu", "webgpu", quick) }},
		{"model", func(t *testing.T) { runWebGPU(t, withWebGPU, "internal/browsertest/wholemodel", "webgpu", "") }},
		{"none", func(t *testing.T) { runWebGPU(t, chromium, "kernel/webgpu", "", "") }},
	} {
		t.Run(run.name, func(t *testing.T) {
			t.Parallel()
			run.test(t)
		})
	}
}

// runWebGPU runs the tests of a package in a browser. Variant tells them what there is, only is
// a pattern for those that run.
func runWebGPU(t *testing.T, b browser, folder, variant, only string) {
	if o := os.Getenv("PMP_ONLY"); o != "" {
		only = o
	}
	mustHave(t, b)
	program, err := compileTests(t.TempDir(), folder)
	if err != nil {
		t.Fatal(err)
	}
	runTests(t, b, program, "variant="+url.QueryEscape(variant)+"&run="+url.QueryEscape(only))
}
