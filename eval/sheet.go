package eval

import (
	"cmp"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/image/draw"
)

// sheet is a picture of the contact sheet.
type sheet struct {
	Name    string
	File    string // photo, truth and answer side by side, in the report's folder
	Quality Figure // mean IoU of the classes in it
	Legend  []legend
}

// legend is a name on it, with its share of the picture.
type legend struct {
	Name          string
	Colour        template.CSS
	Truth, Answer string // percent
}

// contactSheet asks once more about the pictures with the worst answers and
// paints them.
func (o Options) contactSheet(counted []*Counted, open func() (Segmenter, error)) ([]sheet, error) {
	type rated struct {
		index   int
		quality float64
	}
	var all []rated
	for i, c := range counted {
		if q := c.quality(o.Data.labelCount()); !math.IsNaN(q) {
			all = append(all, rated{i, q})
		}
	}
	slices.SortStableFunc(all, func(a, b rated) int { return cmp.Compare(a.quality, b.quality) })
	all = all[:min(len(all), worstPictures)]
	if len(all) == 0 {
		return nil, nil
	}
	seg, err := open()
	if err != nil {
		return nil, err
	}
	var out []sheet
	for i, r := range all {
		a, err := o.picture(seg, r.index)
		if err != nil {
			return nil, fmt.Errorf("picture %s: %w", o.Data.Items[r.index].Name, err)
		}
		s := sheet{Name: o.Data.Items[r.index].Name, File: fmt.Sprintf("worst-%02d.jpg", i+1), Quality: Figure(r.quality), Legend: o.Data.legend(a)}
		if err := writeJPEG(filepath.Join(o.Report, s.File), triptych(a)); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func writeJPEG(path string, img image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := jpeg.Encode(f, img, &jpeg.Options{Quality: 85}); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Colours of pixels that have no class.
var (
	nothingColour = color.RGBA{24, 24, 28, 255}
	ignoreColour  = color.RGBA{255, 255, 255, 255}
)

// labelColour gives each label a colour of its own; hues of neighbours are
// far apart.
func labelColour(label uint16) color.RGBA {
	switch label {
	case NoLabel:
		return nothingColour
	case Ignore:
		return ignoreColour
	}
	const golden = 0.61803398875
	_, hue := math.Modf(0.08 + golden*float64(label))
	value := []float64{0.95, 0.7, 0.85}[label%3]
	saturation := []float64{0.75, 0.85, 0.55}[label/3%3]
	channel := func(shift float64) uint8 {
		_, h := math.Modf(hue + shift)
		ramp := min(max(math.Abs(6*h-3)-1, 0), 1)
		return uint8(255 * value * (1 - saturation*(1-ramp)))
	}
	return color.RGBA{channel(0), channel(2.0 / 3), channel(1.0 / 3), 255}
}

// triptych is photo, truth and answer side by side.
func triptych(a *answer) image.Image {
	const most, gap = 360, 6
	scale := min(1, most/float64(max(a.truth.Width, a.truth.Height)))
	w, h := max(1, int(scale*float64(a.truth.Width))), max(1, int(scale*float64(a.truth.Height)))
	out := image.NewRGBA(image.Rect(0, 0, 3*w+2*gap, h))
	draw.Draw(out, out.Rect, image.NewUniform(color.RGBA{128, 128, 128, 255}), image.Point{}, draw.Src)
	draw.ApproxBiLinear.Scale(out, image.Rect(0, 0, w, h), a.img, a.img.Bounds(), draw.Src, nil)
	for i, labels := range [][]uint16{a.truth.Labels, a.labels} {
		left := (i + 1) * (w + gap)
		for y := range h {
			for x := range w {
				at := (2*y+1)*a.truth.Height/(2*h)*a.truth.Width + (2*x+1)*a.truth.Width/(2*w)
				c, p := labelColour(labels[at]), out.RGBAAt(x, y)
				// The photo's own brightness shows through.
				grey := (299*int(p.R) + 587*int(p.G) + 114*int(p.B)) / 1000
				mix := func(v uint8) uint8 { return uint8((3*int(v) + grey) / 4) }
				out.SetRGBA(left+x, y, color.RGBA{mix(c.R), mix(c.G), mix(c.B), 255})
			}
		}
	}
	return out
}

// legend names what covers most of a picture in truth and answer.
func (d *Dataset) legend(a *answer) []legend {
	const most = 8
	truth, said := map[uint16]int{}, map[uint16]int{}
	for i, l := range a.truth.Labels {
		truth[l]++
		said[a.labels[i]]++
	}
	var labels []uint16
	for l := range truth {
		labels = append(labels, l)
	}
	for l := range said {
		if truth[l] == 0 {
			labels = append(labels, l)
		}
	}
	slices.SortFunc(labels, func(x, y uint16) int {
		return cmp.Or(cmp.Compare(truth[y]+said[y], truth[x]+said[x]), cmp.Compare(x, y))
	})
	n := float64(len(a.labels))
	var out []legend
	for _, l := range labels[:min(most, len(labels))] {
		c := labelColour(l)
		e := legend{Colour: template.CSS(fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)),
			Truth: fmt.Sprintf("%.0f", 100*float64(truth[l])/n), Answer: fmt.Sprintf("%.0f", 100*float64(said[l])/n)}
		switch l {
		case Ignore:
			e.Name, e.Answer = "ignored", "–"
		case NoLabel:
			e.Name = "nothing"
			if d.Background {
				e.Name = "background"
			}
		default:
			e.Name = shortName(d.Classes[l].Name)
		}
		out = append(out, e)
	}
	return out
}
