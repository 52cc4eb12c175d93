package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/model/mask"
)

// answer is what `pmp segment -json` prints.
type answer struct {
	Image  string       `json:"image"`
	Width  int          `json:"width"`
	Height int          `json:"height"`
	Device string       `json:"device"`
	Masks  []answerMask `json:"masks"`
}

type answerMask struct {
	Text    string  `json:"text"`
	Score   float32 `json:"score"`
	Present bool    `json:"present"`
	BBox    [4]int  `json:"bbox"` // x, y, width, height in pixels
	Area    int     `json:"area"` // pixels
	RLE     rle     `json:"rle"`

	pixels []byte // 0 or 1
}

// rle is COCO's compressed run-length encoding.
type rle struct {
	Size   [2]int `json:"size"` // height, width
	Counts string `json:"counts"`
}

func segment(args []string, out io.Writer) error {
	flags := newFlags("segment")
	var engine engineFlags
	engine.register(flags)
	overlay := flags.String("o", "", "write the photo with its masks to this PNG")
	dir := flags.String("masks", "", "write each mask as a PNG to this folder")
	asJSON := flags.Bool("json", false, "print JSON")
	threshold := flags.Float64("threshold", 0, "where masks are cut, 0 to 1 (default: the model's own)")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		flags.Usage()
		return errors.New("segment needs a photo and at least one prompt")
	}
	img, err := photo.Read(rest[0])
	if err != nil {
		return err
	}
	m, device, err := engine.load()
	if err != nil {
		return err
	}
	defer m.Close()
	masks, err := find(m, img, rest[1:], model.Options{Threshold: float32(*threshold)})
	if err != nil {
		return err
	}
	if *overlay != "" {
		if err := writePNG(*overlay, paintOver(img, masks)); err != nil {
			return err
		}
	}
	if *dir != "" {
		if err := writeMasks(*dir, img.Rect, masks); err != nil {
			return err
		}
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(answer{rest[0], img.Rect.Dx(), img.Rect.Dy(), device.Name(), masks})
	}
	for _, k := range masks {
		if !k.Present {
			fmt.Fprintf(out, "%-24s not in this picture (%.2f)\n", k.Text, k.Score)
			continue
		}
		fmt.Fprintf(out, "%-24s %.2f  %5.1f %% of the picture, x %d y %d, %d × %d\n", k.Text, k.Score,
			100*float64(k.Area)/float64(img.Rect.Dx()*img.Rect.Dy()), k.BBox[0], k.BBox[1], k.BBox[2], k.BBox[3])
	}
	return nil
}

// find encodes a photo and segments it.
func find(m *model.Model, img *image.RGBA, prompts []string, o model.Options) ([]answerMask, error) {
	p, err := encode(m, img)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	r, err := p.Segment(prompts, o)
	if err != nil {
		return nil, err
	}
	var masks []answerMask
	for i, a := range r.Prompts {
		k := answerMask{Text: a.Text, Score: a.Score, Present: a.Present, pixels: make([]byte, p.Width*p.Height)}
		if err := r.Mask(i, k.pixels); err != nil {
			return nil, err
		}
		k.Area = mask.Area(k.pixels)
		box := mask.BBox(k.pixels, p.Width, p.Height)
		k.BBox = [4]int{box.X, box.Y, box.W, box.H}
		k.RLE = rle{[2]int{p.Height, p.Width}, mask.RLE(k.pixels, p.Width, p.Height)}
		masks = append(masks, k)
	}
	return masks, nil
}

func writeMasks(dir string, bounds image.Rectangle, masks []answerMask) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for i, k := range masks {
		img := image.NewPaletted(bounds, color.Palette{color.Black, color.White})
		copy(img.Pix, k.pixels)
		if err := writePNG(filepath.Join(dir, strconv.Itoa(i)+"-"+fileName(k.Text)+".png"), img); err != nil {
			return err
		}
	}
	return nil
}

// fileName keeps of a prompt what every file system takes.
func fileName(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, text[:min(len(text), 60)])
}

func writePNG(name string, img image.Image) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := png.Encode(f, img); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
