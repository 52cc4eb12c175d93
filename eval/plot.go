package eval

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
)

// Plots are SVG elements whose colours come from the page's style, so that
// they suit light and dark pages.

// svg makes a drawing of w × h units.
func svg(w, h int, label string, draw func(b *strings.Builder)) template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, w, h, template.HTMLEscapeString(label))
	draw(&b)
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

func text(b *strings.Builder, x, y float64, class, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, template.HTMLEscapeString(s))
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

// classBars shows the IoU of each class, best first: with names where there is
// room for them.
func classBars(classes []ClassFigure) template.HTML {
	if len(classes) == 0 {
		return ""
	}
	const w, left, top, height = 1000, 40.0, 10.0, 220.0
	named := len(classes) <= 60
	h := int(top + height + 10)
	if named {
		h += 90
	}
	return svg(w, h, "IoU of each class", func(b *strings.Builder) {
		for i := range 5 {
			y := top + height*float64(i)/4
			line(b, left, y, w, y, "grid")
			text(b, left-6, y+4, "end", fmt.Sprint(100-25*i))
		}
		step := (w - left) / float64(len(classes))
		gap := min(step*0.2, 6)
		for i, c := range classes {
			x, v := left+step*float64(i), height*float64(c.IoU)
			fmt.Fprintf(b, `<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" class="bar"><title>%s: %s</title></rect>`,
				x+gap/2, top+height-v, step-gap, max(v, 0.5), template.HTMLEscapeString(c.Name), percentText(c.IoU))
			if named {
				name := []rune(shortName(c.Name))
				if len(name) > 18 {
					name = append(name[:17], '…')
				}
				fmt.Fprintf(b, `<text transform="translate(%.1f %.1f) rotate(-50)" class="end">%s</text>`,
					x+step/2+3, top+height+12, template.HTMLEscapeString(string(name)))
			}
		}
	})
}

// histogram shows how scores of present and of absent names are spread.
func histogram(p Presence) template.HTML {
	const bins, w, left, top, width, height = 20, 480, 40.0, 24.0, 430.0, 190.0
	share := func(scores []float64) (out [bins]float64) {
		for _, s := range scores {
			out[min(max(int(s*bins), 0), bins-1)] += 1 / float64(len(scores))
		}
		return out
	}
	present, absent := share(p.Present), share(p.Absent)
	highest := max(slices.Max(present[:]), slices.Max(absent[:]))
	return svg(w, 260, "Scores of present and absent names", func(b *strings.Builder) {
		for i := range 3 {
			y := top + height*float64(i)/2
			line(b, left, y, left+width, y, "grid")
			text(b, left-6, y+4, "end", fmt.Sprintf("%.0f", 100*highest*float64(2-i)/2))
		}
		step := width / bins
		for i := range bins {
			for j, v := range []float64{present[i], absent[i]} {
				h := height * v / highest
				fmt.Fprintf(b, `<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" class="%s"/>`,
					left+step*(float64(i)+0.06+0.44*float64(j)), top+height-h, step*0.44, h, []string{"bar", "other"}[j])
			}
		}
		for i := range 5 {
			text(b, left+width*float64(i)/4, top+height+18, "middle", fmt.Sprint(float64(i)/4))
		}
		text(b, left+width/2, top+height+36, "middle", "score")
		text(b, left, 14, "", "% of names")
		for i, name := range []string{fmt.Sprintf("present (%s)", thousands(int64(len(p.Present)))), fmt.Sprintf("absent (%s)", thousands(int64(len(p.Absent))))} {
			fmt.Fprintf(b, `<rect x="%.1f" y="5" width="10" height="10" class="%s"/>`, left+140+150*float64(i), []string{"bar", "other"}[i])
			text(b, left+155+150*float64(i), 14, "", name)
		}
	})
}

// roc returns points of the receiver operating characteristic, shares of
// absent and of present names from each score on, thinned to about 200.
func roc(p Presence) [][2]float64 {
	present, absent := slices.Sorted(slices.Values(p.Present)), slices.Sorted(slices.Values(p.Absent))
	points := [][2]float64{{0, 0}}
	i, j := len(present), len(absent)
	for i > 0 || j > 0 {
		// One step takes all names of the next lower score, so that ties make
		// a slope.
		var s float64
		if j == 0 || i > 0 && present[i-1] >= absent[j-1] {
			s = present[i-1]
		} else {
			s = absent[j-1]
		}
		for i > 0 && present[i-1] == s {
			i--
		}
		for j > 0 && absent[j-1] == s {
			j--
		}
		x, y := 1-float64(j)/float64(len(absent)), 1-float64(i)/float64(len(present))
		if last := points[len(points)-1]; x-last[0]+y-last[1] > 0.01 || i+j == 0 {
			points = append(points, [2]float64{x, y})
		}
	}
	return points
}

func rocCurve(p Presence) template.HTML {
	const w, left, top, side = 260, 36.0, 12.0, 200.0
	return svg(w, 260, "Receiver operating characteristic", func(b *strings.Builder) {
		for i := range 3 {
			at := side * float64(i) / 2
			line(b, left, top+at, left+side, top+at, "grid")
			line(b, left+at, top, left+at, top+side, "grid")
			text(b, left-6, top+at+4, "end", fmt.Sprint(100-50*i))
			text(b, left+at, top+side+16, "middle", fmt.Sprint(50*i))
		}
		line(b, left, top+side, left+side, top, "chance")
		b.WriteString(`<polyline class="curve" points="`)
		for _, q := range roc(p) {
			fmt.Fprintf(b, "%.1f,%.1f ", left+side*q[0], top+side*(1-q[1]))
		}
		b.WriteString(`"/>`)
		text(b, left+side/2, top+side+34, "middle", "% of absent names called present")
		fmt.Fprintf(b, `<text transform="translate(10 %.1f) rotate(-90)" class="middle">%% of present names found</text>`, top+side/2)
	})
}
