package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/pmp-seg/pmp/eval"
	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
)

func TestMain(m *testing.M) {
	flag.Parse()
	beam.Init()
	os.Exit(m.Run())
}

// The pipeline's figures are those of eval.Run, which `pmp eval` prints, but
// for the time; a picture that cannot be read is left out.
func TestFigures(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	write := func(name string, img image.Image) {
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"images", "masks"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	var good []string
	for n, name := range []string{"cat", "coffee", "cat", "coffee", "cat"} {
		original, err := photo.Read("../../site/examples/" + name + ".jpg")
		if err != nil {
			t.Fatal(err)
		}
		// What is really there does not matter: the truth is an ellipse.
		img, truth := image.NewRGBA(image.Rect(0, 0, 160, 128)), image.NewGray(image.Rect(0, 0, 160, 128))
		draw.Draw(img, img.Rect, original, image.Pt(20*n, 30*n), draw.Src)
		for i := range truth.Pix {
			if x, y := i%160-80, i/160-64; x*x+2*y*y < 3000+500*n {
				truth.SetGray(i%160, i/160, color.Gray{Y: uint8(1 + n%3)})
			}
		}
		write(fmt.Sprintf("images/%d.png", n), img)
		write(fmt.Sprintf("masks/%d.png", n), truth)
		good = append(good, fmt.Sprint(n))
	}
	write("masks/broken.png", image.NewGray(image.Rect(0, 0, 160, 128)))
	for name, text := range map[string]string{"images/broken.png": "no", "classes.json": `{"1": "cat", "2": "cup", "3": "table,desk"}`,
		"dataset.json": `{"background": 0}`, "good": strings.Join(good, "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, prompts := range []string{eval.PromptsAll, eval.PromptsPresent, eval.PromptsSingle} {
		o := options{Evaluation: engine.Evaluation{Engine: engine.Options{Device: "auto", Precision: "int8"}, Data: eval.DataOptions{Dir: dir},
			Prompts: prompts, Presence: -1}, out: filepath.Join(dir, "out-"+prompts), json: true, tries: 1}
		var out bytes.Buffer
		if err := run(context.Background(), o, &out); err != nil {
			t.Fatal(err)
		}
		o.Data.List = filepath.Join(dir, "good")
		set, ask, err := o.Open()
		if err != nil {
			t.Fatal(err)
		}
		want, err := eval.Run(set, func() (eval.Segmenter, error) {
			m, err := o.Engine.Load()
			if err != nil {
				return nil, err
			}
			return ask(m)
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(want, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if got := untimed(out.String()); got != untimed(string(text)+"\n") {
			t.Errorf("prompts %s: the pipeline counts\n%s\nand pmp eval\n%s", prompts, got, text)
		}
		failed, err := os.ReadFile(o.out + "/failed.jsonl")
		if err != nil || bytes.Count(failed, []byte("\n")) != 1 || !strings.Contains(string(failed), "broken") {
			t.Errorf("prompts %s: dead letters are %s, %v", prompts, failed, err)
		}
	}
}

// untimed leaves out the line with the time.
func untimed(figures string) string {
	var b strings.Builder
	for line := range strings.Lines(figures) {
		if !strings.Contains(line, `"seconds_per_picture"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}
