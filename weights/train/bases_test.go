// Package train has no Go code: it runs the tests of what trains networks, where
// Python has torch, transformers, scipy, tokenizers, safetensors and OpenCV.
package train

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/kernel/simd"
	"github.com/pmp-seg/pmp/model"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// python runs a script with the Python that PMP_PYTHON names, or python3.
func python(t *testing.T, args ...string) {
	t.Helper()
	name := os.Getenv("PMP_PYTHON")
	if name == "" {
		name = "python3"
	}
	command := func(args ...string) ([]byte, error) {
		c := exec.Command(name, args...)
		c.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=1", "HF_HUB_OFFLINE=1")
		return c.CombinedOutput()
	}
	if _, err := command("-c", "import torch, transformers, scipy, tokenizers, safetensors, cv2"); err != nil {
		t.Skipf("%s cannot import torch, transformers and the like; set PMP_PYTHON to one that can", name)
	}
	out, err := command(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestTraining(t *testing.T) { python(t, "test_training.py") }

func TestBases(t *testing.T) { python(t, "test_bases.py") }

// What a run exports answers here as it does in PyTorch.
func TestExport(t *testing.T) {
	for _, name := range []string{"fcclip", "fcclip-attention", "mask2former-resnet", "mask2former-swin", "maskformer-resnet", "maskformer-swin", "ovseg"} {
		t.Run(name, func(t *testing.T) { exports(t, name) })
	}
}

func exports(t *testing.T, name string) {
	dir := t.TempDir()
	python(t, "test_bases.py", "export", name, dir)
	imported := filepath.Join(dir, "weights")
	if out, err := exec.Command("go", "run", "../../cmd/pmp", "import", "-store", "f32", "-o", imported, filepath.Join(dir, "export")).CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	var want struct {
		Width, Height int
		Pixels        []int
		Prompts       []string
		Scores        [][]float32
	}
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &want))
	manifest, err := engine.ReadWeights(imported)
	must(t, err)
	device, err := simd.New()
	must(t, err)
	m, err := engine.Build(manifest, device, model.Float32)
	must(t, err)
	p, err := m.NewPicture(want.Width, want.Height)
	must(t, err)
	rgba := make([]byte, len(want.Pixels))
	for i, x := range want.Pixels {
		rgba[i] = byte(x)
	}
	must(t, p.Write(rgba))
	must(t, p.Encode())
	// off is the largest error, as a part of the largest score.
	off := func(o model.Options) float64 {
		r, err := p.Segment(want.Prompts, o)
		must(t, err)
		worst, most := 0.0, 0.0
		for i, scores := range want.Scores {
			s, _ := r.Map(i)
			if len(s) < len(scores) {
				t.Fatalf("a map of %d cells, want %d", len(s), len(scores))
			}
			for j, x := range scores {
				worst, most = max(worst, math.Abs(float64(s[j]-x))), max(most, float64(x))
			}
		}
		return worst / most
	}
	read, unread := off(model.Options{}), off(model.Options{Unguided: true})
	t.Logf("%s: off by %.1e, without its prompts by %.1e", name, read, unread)
	if guided := name != "ovseg"; !(read < 1e-4) || guided && !(unread > 100*read) {
		t.Errorf("%s: off by %.1e, want less than 1e-4; without its prompts by %.1e, want more", name, read, unread)
	}
	must(t, m.Close())
}
