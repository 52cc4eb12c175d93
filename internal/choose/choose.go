// Package choose decides by a trial whether a graphics card or the processor
// runs a model on this machine.
package choose

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/pmp-seg/pmp/model"
)

// Trial is what a device did with a picture and some words.
type Trial struct {
	Time time.Duration // to encode the picture and to segment it
	Maps [][]float32   // one for each word, between 0 and 1
}

const (
	// side is the trial picture's, which the network sees at its own size.
	side = 512
	// Rounds suffice to measure. The first one also brings kernels to the card,
	// and code and weights into caches.
	Rounds = 4
	// patience is when a device has shown that it is slow.
	patience = time.Second
	// tolerance is how far apart the maps of two devices may lie on average.
	// Rounding to bytes moves them by 0.01, a broken driver by far more.
	tolerance = 0.05
)

// words are what a model is asked for, four of its own if it knows a list of names.
func words(m *model.Model) []string {
	if n := len(m.Labels); n > 0 {
		return m.Labels[:min(n, 4)]
	}
	return []string{"cat", "sky", "person", "ball, circle"}
}

// Run tries a model on its device some times, of which the quickest counts.
func Run(m *model.Model, rounds int) (t Trial, err error) {
	p, err := m.NewPicture(side, side)
	if err != nil {
		return t, err
	}
	defer p.Close()
	pixels, words := picture(), words(m)
	var whole time.Duration
	for i := range rounds {
		start := time.Now()
		if err := p.Write(pixels); err != nil {
			return t, err
		}
		if err := p.Encode(); err != nil {
			return t, err
		}
		r, err := p.Segment(words, model.Options{})
		if err != nil {
			return t, err
		}
		took := time.Since(start)
		whole += took
		if i == 0 || took < t.Time {
			t.Time = took
		}
		last := i == rounds-1 || whole > patience
		if last {
			for i := range words {
				s, _ := r.Map(i)
				t.Maps = append(t.Maps, s)
			}
		}
		r.Release()
		if last {
			break
		}
	}
	return t, nil
}

// picture is a ground that fades from top to bottom, with discs and a
// chequered square before it.
func picture() []byte {
	rgba := make([]byte, 4*side*side)
	for y := range side {
		for x := range side {
			r, g, b := 120+y/4, 160+y/8, 250-y/3
			switch dx, dy := x-170, y-220; {
			case dx*dx+dy*dy < 110*110:
				r, g, b = 200-dx/2, 90+dy/3, 40
			case x > 300 && x < 460 && y > 280 && y < 440:
				r = 255 * ((x/20 + y/20) % 2)
				g, b = r, 60
			case (x-380)*(x-380)+(y-120)*(y-120) < 60*60:
				r, g, b = 240, 240, 220
			}
			rgba[4*(y*side+x)], rgba[4*(y*side+x)+1], rgba[4*(y*side+x)+2], rgba[4*(y*side+x)+3] = byte(r), byte(g), byte(b), 255
		}
	}
	return rgba
}

// ErrWrong says that a card computes something else than the processor.
var ErrWrong = errors.New("it finds other masks than the processor; a newer driver or browser may help")

// Card tells whether a card is to run, and why, given what it and the
// processor did. A card that computes something else gets ErrWrong.
func Card(card, cpu Trial) (yes bool, why string, err error) {
	for i, m := range cpu.Maps {
		if len(card.Maps) != len(cpu.Maps) || len(card.Maps[i]) != len(m) {
			return false, "", ErrWrong
		}
		sum := 0.0
		for j, x := range m {
			sum += math.Abs(float64(card.Maps[i][j] - x))
		}
		if !(sum <= tolerance*float64(len(m))) { // NaN too
			return false, "", ErrWrong
		}
	}
	yes = card.Time <= cpu.Time
	what := "slower"
	if yes {
		what = "faster"
	}
	return yes, "for the trial picture the graphics card took " + millis(card.Time) + " ms and the processor " + millis(cpu.Time) +
		" ms, so the card is the " + what + " one", nil
}

// millis is a time in milliseconds with two digits.
func millis(t time.Duration) string {
	ms := t.Seconds() * 1000
	if ms < 10 {
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}
