package model

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/weights/huggingface"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// named are the networks whose proposals CLIP names.
func named() map[string]func(t testing.TB) *quantize.Source {
	all := maps.Clone(clipped)
	for name := range fcclips {
		all[name] = func(t testing.TB) *quantize.Source { return convertFCCLIP(t, name) }
	}
	return all
}

// Prompts that are asked in groups are named by one softmax over all of them: as
// many synonyms as make groups, each the same name, change nothing. With guidance
// they are not, since each group has proposals of its own.
func TestOneSoftmax(t *testing.T) {
	for name, convert := range named() {
		for _, guided := range []bool{false, true} {
			if guided && clipped[name] != nil {
				continue // these cannot be
			}
			t.Run(name+"/guided "+strconv.FormatBool(guided), func(t *testing.T) { oneSoftmax(t, convert(t), guided) })
		}
	}
}

func oneSoftmax(t *testing.T, source *quantize.Source, guided bool) {
	many := func(name string) string { return strings.Repeat(name+", ", 199) + name }
	short, long := []string{"dog", "cat", "wall"}, []string{"dog", many("cat"), many("wall")}
	if guided {
		must(t, huggingface.Guide(source, nil))
	}
	device, err := devices[1].open()
	must(t, err)
	m := loadSource(t, source, device)
	p := newEncoded(t, m, "any", 90, 61)
	o := Options{Threshold: NoThreshold, Presence: -1}
	var got []float32
	var sizes []int
	must(t, p.SegmentGroups(long, o, func(r *Result) error {
		sizes = append(sizes, len(r.Prompts))
		for i := range r.Prompts {
			s, _ := r.Map(i)
			got = append(got, s...)
		}
		return nil
	}))
	if !slices.Equal(sizes, []int{2, 1}) {
		t.Fatalf("the groups have %v prompts", sizes)
	}
	want, off := labelMaps(t, p, short), 0.0
	for i, x := range want {
		off = max(off, math.Abs(float64(got[i]-x)))
	}
	if (off < 1e-5) == guided {
		t.Errorf("guided %v: maps of groups are off by %v", guided, off)
	}
}

// Groups' maps are painted where their cells are, which is seen in a mask that covers a
// part of the picture.
func TestGroupsPainted(t *testing.T) {
	device, err := devices[1].open()
	must(t, err)
	p := newEncoded(t, loadSource(t, convertFCCLIP(t, FCCLIP), device), "any", 90, 61)
	several := strings.Split("dog a b c d e f g h i j k l m n o p q r s t u v w x y z", " ")
	first := labelMaps(t, p, several)[:p.map4.cells()]
	r, err := p.Segment(several, Options{Threshold: (slices.Max(first) + slices.Min(first)) / 2, Presence: -1})
	must(t, err)
	var alone Strongest
	r.Prompts = r.Prompts[:1]
	must(t, alone.Add(r))
	mask := make([]byte, 90*61)
	must(t, r.Mask(0, mask))
	others, inside := 0, 0
	for i, there := range mask {
		inside += int(there)
		if (alone.Labels[i] != None) != (there == 1) {
			others++
		}
	}
	t.Logf("%d of %d pixels are others, beside %d inside", others, len(mask), inside)
	if others > len(mask)/100 || inside < len(mask)/10 || inside > len(mask)*9/10 {
		t.Errorf("%d of %d pixels are others, beside %d inside", others, len(mask), inside)
	}
}

// limitTo gives a source a list of names in place of its text encoder.
func limitTo(t *testing.T, source *quantize.Source, labels []string) {
	t.Helper()
	reader, err := huggingface.ReaderOf(source)
	must(t, err)
	device, err := devices[1].open()
	must(t, err)
	defer device.Close()
	names, _ := phrasesOf(labels)
	embeddings, err := Embeddings(manifestOf(t, reader), device, names)
	must(t, err)
	must(t, huggingface.Limit(source, labels, embeddings))
}

// With a list of names a network that CLIP names answers what it does with CLIP's text
// encoder, guided or not, and knows nothing else.
func TestVocabulary(t *testing.T) {
	labels := []string{"dog, cat", "armchair,sofa", "wall", "potted plant"}
	prompts := []string{"sofa", "wall, dog", "potted plant"}
	for name, convert := range named() {
		for _, guided := range []bool{false, true} {
			if guided && clipped[name] != nil {
				continue
			}
			answer := func(limited bool) []float32 {
				source := convert(t)
				if guided {
					must(t, huggingface.Guide(source, nil))
					for _, x := range source.Tensors {
						speaksUp(x)
					}
				}
				if limited {
					limitTo(t, source, labels)
				}
				device, err := devices[1].open()
				must(t, err)
				m := loadSource(t, source, device)
				p := newEncoded(t, m, "wide", 96, 64)
				if limited {
					if !slices.Equal(m.Labels, labels) || m.text != nil {
						t.Errorf("labels %q, text encoder %v", m.Labels, m.text)
					}
					var unknown *UnknownLabel
					for _, name := range []string{"sof", other} {
						if _, err := p.Segment([]string{"dog", name}, Options{}); !errors.As(err, &unknown) || unknown.Name != name {
							t.Errorf("a name beside the list: %v", err)
						}
					}
					labelMaps(t, p, []string{"Armchair", "DOG"})
				}
				return append(labelMaps(t, p, prompts), labelMaps(t, p, prompts[:1])...)
			}
			want, got := answer(false), answer(true)
			for i := range want {
				if math.Abs(float64(got[i]-want[i])) > 1e-5 {
					t.Fatalf("%s, guided %v: %v with a list, %v without", name, guided, got[i], want[i])
				}
			}
		}
	}
	var source *quantize.Source
	for _, c := range []struct{ old, new string }{{`"wall",`, ``}, {`"wall"`, `"wall,door"`}, {`"labels":[`, `"label":[`}, {`"potted plant"`, `7`}} {
		for _, convert := range named() {
			source = convert(t)
			limitTo(t, source, labels)
			refuses(t, source, c.old, c.new)
		}
	}
	if _, err := huggingface.ReaderOf(source); err == nil {
		t.Error("a list takes the place of another")
	}
}
