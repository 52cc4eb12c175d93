package engine

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// Palette is the colours of masks, in the order of the prompts; they stay
// apart for most forms of colour blindness (Okabe and Ito's set).
var Palette = []color.RGBA{
	{0xE6, 0x9F, 0x00, 255}, {0x56, 0xB4, 0xE9, 255}, {0x00, 0x9E, 0x73, 255}, {0xF0, 0xE4, 0x42, 255},
	{0x00, 0x72, 0xB2, 255}, {0xD5, 0x5E, 0x00, 255}, {0xCC, 0x79, 0xA7, 255},
}

// PaintOver returns the photo with each mask as a tint, an outline and a name.
func PaintOver(img *image.RGBA, masks []Mask) *image.RGBA {
	out := image.NewRGBA(img.Rect)
	draw.Draw(out, out.Rect, img, image.Point{}, draw.Src)
	w, h := img.Rect.Dx(), img.Rect.Dy()
	for i, k := range masks {
		c := Palette[i%len(Palette)]
		inside := func(x, y int) bool { return x >= 0 && x < w && y >= 0 && y < h && k.Pixels[y*w+x] != 0 }
		for y := range h {
			for x := range w {
				if !inside(x, y) {
					continue
				}
				share := 0.45
				if !inside(x-1, y) || !inside(x+1, y) || !inside(x, y-1) || !inside(x, y+1) {
					share = 1
				}
				blend(out.Pix[out.PixOffset(x, y):], c, share)
			}
		}
	}
	for i, k := range masks {
		if k.Area > 0 {
			label(out, fmt.Sprintf("%s %.2f", k.Text, k.Score), k.BBox, Palette[i%len(Palette)])
		}
	}
	return out
}

func blend(pixel []byte, c color.RGBA, share float64) {
	for i, v := range [3]byte{c.R, c.G, c.B} {
		pixel[i] = byte(float64(pixel[i])*(1-share) + float64(v)*share + 0.5)
	}
}

// label writes a name at the upper left corner of a box, inside the picture.
func label(img *image.RGBA, text string, box [4]int, c color.RGBA) {
	const margin, height = 3, 16
	face := basicfont.Face7x13
	width := font.MeasureString(face, text).Ceil() + 2*margin
	x := max(min(box[0], img.Rect.Dx()-width), 0)
	y := max(min(box[1], img.Rect.Dy()-height), 0)
	draw.Draw(img, image.Rect(x, y, x+width, y+height), image.NewUniform(c), image.Point{}, draw.Src)
	d := font.Drawer{Dst: img, Src: image.Black, Face: face, Dot: fixed.P(x+margin, y+12)}
	d.DrawString(text)
}
