package eval

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed report.html
var reportHTML string

// worstPictures is how many pictures the contact sheet has.
const worstPictures = 12

// page is what the report's template shows.
type page struct {
	*Figures
	Title    string
	Names    int // that occur in the truth
	Cards    []card
	Bars     template.HTML
	Scores   template.HTML
	ROC      template.HTML
	Worst    []sheet
	Notes    []string
	Command  string
	Pairs    []Mistake
	Distinct []ClassFigure // by IoU, best first
}

type card struct{ Name, Value, Note string }

// writeReport writes index.html with its pictures, and figures.json.
func writeReport(o Options, f *Figures, total *Counted, counted []*Counted, open func() (Segmenter, error)) error {
	p := &page{Figures: f, Title: o.Data.Dir, Names: len(f.PerClass), Notes: o.Data.Notes, Pairs: f.Mistakes, Command: shellLine(o.Command)}
	if o.Data.Benchmark != nil {
		p.Title = o.Data.Benchmark.Title
	}
	p.Cards = f.cards()
	p.Distinct = slices.Clone(f.PerClass)
	slices.SortStableFunc(p.Distinct, func(a, b ClassFigure) int { return cmp.Compare(b.IoU, a.IoU) })
	p.Bars = classBars(p.Distinct)
	if s := total.Presence; len(s.Present) > 0 && len(s.Absent) > 0 {
		p.Scores, p.ROC = histogram(s), rocCurve(s)
	}
	var err error
	if p.Worst, err = o.contactSheet(counted, open); err != nil {
		return err
	}
	t, err := template.New("report").Funcs(template.FuncMap{
		"percent": func(x Figure) string { return percentText(x) },
		"short":   shortName,
		"count":   thousands,
	}).Parse(reportHTML)
	if err != nil {
		panic("eval: the report's template cannot be parsed")
	}
	var out bytes.Buffer
	if err := t.Execute(&out, p); err != nil {
		return err
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.Report, "figures.json"), append(data, '\n'), 0o666); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Report, "index.html"), out.Bytes(), 0o666)
}

// cards are the figures that are known, with what they mean.
func (f *Figures) cards() []card {
	var out []card
	for _, l := range f.lines() {
		if !math.IsNaN(float64(l.value)) {
			out = append(out, card{l.title, percentText(l.value), l.note})
		}
	}
	return out
}

func percentText(x Figure) string {
	if math.IsNaN(float64(x)) {
		return "–"
	}
	return fmt.Sprintf("%.1f", 100*float64(x))
}

// shortName is the first of a class's synonyms.
func shortName(names string) string {
	first, _, _ := strings.Cut(names, ",")
	return first
}

// thousands writes a count with thin spaces.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// shellLine is a command as one would type it.
func shellLine(args []string) string {
	var out []string
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$&|;<>()*?#~`") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}
