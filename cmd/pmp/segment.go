package main

import (
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

	"github.com/pmp-seg/pmp/internal/engine"
	"github.com/pmp-seg/pmp/internal/photo"
	"github.com/pmp-seg/pmp/model"
)

func segment(args []string, out io.Writer) error {
	flags := newFlags("segment")
	var which engine.Options
	which.Flags(flags)
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
	m, err := which.Load()
	if err != nil {
		return err
	}
	defer m.Close()
	answer, err := engine.Segment(m, rest[0], img, rest[1:], model.Options{Threshold: float32(*threshold)}, nil)
	if err != nil {
		return err
	}
	if *overlay != "" {
		if err := writePNG(*overlay, engine.PaintOver(img, answer.Masks)); err != nil {
			return err
		}
	}
	if *dir != "" {
		if err := writeMasks(*dir, img.Rect, answer.Masks); err != nil {
			return err
		}
	}
	if *asJSON {
		return answer.Write(out)
	}
	for _, k := range answer.Masks {
		fmt.Fprintln(out, told(k, img.Rect.Dx()*img.Rect.Dy()))
	}
	return nil
}

// told is what a person reads of one prompt's mask on a picture of so many pixels.
func told(k engine.Mask, pixels int) string {
	switch {
	case !k.Present:
		return fmt.Sprintf("%-24s not in this picture (%.2f)", k.Text, k.Score)
	case k.Area == 0: // its place went to other prompts, or is nowhere above the threshold
		return fmt.Sprintf("%-24s %.2f  unsure where", k.Text, k.Score)
	}
	return fmt.Sprintf("%-24s %.2f  %5.1f %% of the picture, x %d y %d, %d × %d", k.Text, k.Score,
		100*float64(k.Area)/float64(pixels), k.BBox[0], k.BBox[1], k.BBox[2], k.BBox[3])
}

func writeMasks(dir string, bounds image.Rectangle, masks []engine.Mask) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for i, k := range masks {
		img := image.NewPaletted(bounds, color.Palette{color.Black, color.White})
		copy(img.Pix, k.Pixels)
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
