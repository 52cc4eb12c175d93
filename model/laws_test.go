package model

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel"
	"github.com/pmp-seg/pmp/kernel/scalar"
)

// sameTolerance bounds how far apart two answers to the same question may
// lie when sums run in another order: a few roundings of numbers of about one.
const sameTolerance = 1e-5

// answer is what one segmentation says, copied from the device.
type answer struct {
	scores []float32
	maps   [][]float32
	masks  []float32 // of the proposals
}

// asked segments with one recording.
func asked(t testing.TB, p *Picture, s segment, prompts []string) answer {
	t.Helper()
	phrases, owner, err := p.model.prompts(prompts)
	must(t, err)
	must(t, p.run(s, phrases, owner, len(phrases), len(prompts)))
	q, cells := p.model.decoder.q, p.map4.cells()
	a := answer{}
	maps, class, peaks := make([]float32, len(prompts)*cells), make([]float32, len(prompts)*q), make([]float32, len(prompts))
	must(t, p.session.Read(p.reply.peaks, kernel.Bytes(peaks)))
	must(t, p.session.Read(p.reply.maps, kernel.Bytes(maps)))
	must(t, p.session.Read(p.reply.class, kernel.Bytes(class)))
	for i := range prompts {
		a.maps = append(a.maps, maps[i*cells:(i+1)*cells])
		a.scores = append(a.scores, p.model.Config.Presence.score(slices.Max(class[i*q:(i+1)*q]), peaks[i], 0.5, 0, len(prompts)))
	}
	a.masks = proposalsOf(t, p)
	return a
}

// proposalsOf returns the masks of all proposals, at stride 4.
func proposalsOf(t testing.TB, p *Picture) []float32 {
	t.Helper()
	q, cells := p.model.decoder.q, p.map4.cells()
	masks := make([]float32, q*cells)
	for i, stage := range p.proposals {
		must(t, p.session.Run(stage))
		must(t, p.session.Read(p.reply.maps, kernel.Bytes(masks[i*mapsAtOnce*cells:min((i+1)*mapsAtOnce, q)*cells])))
	}
	return masks
}

func segmented(t testing.TB, p *Picture, prompts ...string) answer {
	t.Helper()
	phrases, _, err := p.model.prompts(prompts)
	must(t, err)
	return asked(t, p, p.segmentFor(len(phrases)), prompts)
}

// apart is the largest difference of two slices.
func apart(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	worst := 0.0
	for i := range a {
		d := math.Abs(float64(a[i] - b[i]))
		if !(d <= worst) {
			worst = d
		}
	}
	return worst
}

func near(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if d := apart(got, want); !(d <= sameTolerance) {
		t.Errorf("%s: %.2g apart, want at most %.2g", what, d, sameTolerance)
	}
}

// lawPicture is small, since the laws hold for any.
func lawPicture(t testing.TB, m *Model) *Picture { return newEncoded(t, m, "law", 48, 20) }

func TestOrderOfPrompts(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		prompts := []string{"dog", "sofa, couch", "tree", "a red ball"}
		order := []int{2, 0, 3, 1}
		var permuted []string
		for _, i := range order {
			permuted = append(permuted, prompts[i])
		}
		a, b := segmented(t, p, prompts...), segmented(t, p, permuted...)
		near(t, "mask proposals", b.masks, a.masks)
		for to, from := range order {
			near(t, "map of "+prompts[from], b.maps[to], a.maps[from])
			near(t, "score of "+prompts[from], b.scores[to:to+1], a.scores[from:from+1])
		}
		// The prompts do differ, or the law would say nothing.
		if apart(a.maps[0], a.maps[2]) < 1e-3 {
			t.Error("different prompts have the same map")
		}
	})
}

// Phrases of one prompt are names of one thing, in no order.
func TestOrderOfPhrases(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		a, b := segmented(t, p, "sofa, couch, book", "dog"), segmented(t, p, "book ,sofa,, couch", "dog")
		near(t, "mask proposals", b.masks, a.masks)
		near(t, "map", b.maps[0], a.maps[0])
		near(t, "the other map", b.maps[1], a.maps[1])
	})
}

func TestDuplicates(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		a := segmented(t, p, "dog", "cat", "dog")
		if !slices.Equal(a.maps[0], a.maps[2]) || a.scores[0] != a.scores[2] {
			t.Error("the same prompt has two answers")
		}
		// Case and spaces are not part of a name.
		b := segmented(t, p, "dog", "cat", "  DOG ")
		near(t, "map of a prompt in capitals", b.maps[2], b.maps[0])
	})
}

// The same word twice does not share what one word gets.
func TestSameTwice(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		// More prompts than the device has maps for at once.
		prompts := []string{"dog", "sofa, couch", "Dog "}
		for i := range mapsAtOnce - 1 {
			prompts = append(prompts, "thing "+strings.Repeat("i", i))
		}
		prompts = append(prompts, "SOFA ,couch")
		of := map[int]int{2: 0, len(prompts) - 1: 1}
		var once []string
		for i, prompt := range prompts {
			if _, again := of[i]; !again {
				once = append(once, prompt)
			}
		}
		for _, n := range []int{3, len(prompts)} {
			b, err := p.Segment(prompts[:n], Options{Presence: -1})
			must(t, err)
			twice := copied(t, b)
			a, err := p.Segment(once[:min(n-1, len(once))], Options{Presence: -1})
			must(t, err)
			alone := copied(t, a)
			for i, at := 0, 0; i < n; i++ {
				if from, again := of[i]; again {
					if twice.scores[i] != twice.scores[from] || !slices.Equal(twice.maps[i], twice.maps[from]) {
						t.Errorf("%q and %q of %d prompts have two answers", prompts[from], prompts[i], n)
					}
					continue
				}
				near(t, "map of "+prompts[i], twice.maps[i], alone.maps[at])
				near(t, "score of "+prompts[i], twice.scores[i:i+1], alone.scores[at:at+1])
				at++
			}
			if slices.ContainsFunc(b.Named, func(n Named) bool { _, again := of[n.Prompt]; return again }) {
				t.Error("a proposal is called by the second of two that are the same")
			}
		}
	})
}

// copied is what a result says, of its masks the prompts'.
func copied(t testing.TB, r *Result) (a answer) {
	t.Helper()
	for i, p := range r.Prompts {
		s, _ := r.Map(i)
		a.scores, a.maps = append(a.scores, p.Score), append(a.maps, s)
	}
	return a
}

// A recording with more slots than phrases gives the same answer.
func TestUnusedSlots(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		for _, prompts := range [][]string{{"dog"}, {"sofa, couch", "cat", "tree"}} {
			// What the larger recordings computed before must not matter either.
			many := strings.Fields(strings.Repeat("dog cat sofa couch ball tree grass sky ", 4))
			want := asked(t, p, p.segments[0], prompts)
			asked(t, p, p.segments[1], many)
			for _, s := range p.segments[1:3] {
				got := asked(t, p, s, prompts)
				near(t, "mask proposals", got.masks, want.masks)
				near(t, "scores", got.scores, want.scores)
				for i := range prompts {
					near(t, "map", got.maps[i], want.maps[i])
				}
			}
		}
	})
}

// With a single prompt each query still weighs it against the null key, so
// that what a query takes from the prompt depends on the query.
func TestSinglePromptHasAChoice(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := m.record(48, 20)
		s := p.segments[0]
		d := m.Config.D
		text := opsOf(p.program, s.stage, func(o kernel.Attention) bool { return o.Count.Valid() })
		if len(text) != 1+m.Config.Layers {
			t.Fatalf("there are %d attentions to the prompts, want one before the layers and one in each", len(text))
		}
		views := map[string]tap{}
		for i, o := range text {
			views[itoa(i)] = tap{o.Dst, o.NQ * d}
		}
		copies := newTaps(p.program, views)
		p.program.Plan()
		var err error
		p.session, err = m.device.Open(p.program)
		must(t, err)
		defer p.Close()
		must(t, p.Write(testPixels("law", 48, 20)))
		must(t, p.Encode())
		asked(t, p, s, []string{"dog"})
		for name, x := range copies.read(t, p.session) {
			for q := 1; q < m.decoder.q; q++ {
				if apart(x[q*d:(q+1)*d], x[:d]) < 1e-3 {
					t.Errorf("attention %s gives queries 0 and %d the same, so there is nothing to choose from", name, q)
					break
				}
			}
		}
	})
}

// With W_o = 0, as training starts, the network is exactly the one without
// prompts in its decoder.
func TestZeroTextStep(t *testing.T) {
	zeroed := newRandom()
	zeroed.change = func(name string, dst []float32) {
		if strings.Contains(name, ".text.out.") || strings.Contains(name, ".text_first.out.") {
			clear(dst)
		}
	}
	with := newTestModel(t, testConfig(), zeroed, scalar.New())
	c := testConfig()
	c.PMP = false
	source := newRandom()
	without := newTestModel(t, c, source, scalar.New())
	for name := range source.shapes {
		if strings.Contains(name, "decoder.text") || strings.Contains(name, ".text.") && strings.HasPrefix(name, "decoder.") || strings.Contains(name, "null_key") {
			t.Errorf("the model without the text step asks for %s", name)
		}
	}
	a, b := segmented(t, lawPicture(t, with), "dog", "cat"), segmented(t, lawPicture(t, without), "dog", "cat")
	if !slices.Equal(a.masks, b.masks) || !slices.Equal(a.maps[0], b.maps[0]) || !slices.Equal(a.scores, b.scores) {
		t.Error("a text step of zero changes the answer")
	}
	// Without the step, masks do not depend on the prompts; with it they do.
	if other := segmented(t, lawPicture(t, without), "tree"); !slices.Equal(b.masks, other.masks) {
		t.Error("the model without the text step has masks that depend on prompts")
	}
	p := lawPicture(t, testModel(t))
	if x, y := segmented(t, p, "dog"), segmented(t, p, "tree"); apart(x.masks, y.masks) < 1e-3 {
		t.Error("the text step has no influence on the masks")
	}
}

// whole is everything that a person sees of an answer, as bytes.
func whole(t testing.TB, p *Picture, prompts ...string) []byte {
	t.Helper()
	r, err := p.Segment(prompts, Options{Threshold: 0.1, Presence: -1})
	must(t, err)
	var out []byte
	plane := make([]byte, p.Width*p.Height)
	for i, a := range r.Prompts {
		s, _ := r.Map(i)
		out = append(out, kernel.Bytes(s)...)
		out = append(out, kernel.Bytes([]float32{a.Score})...)
		must(t, r.Mask(i, plane))
		out = append(out, plane...)
	}
	must(t, r.LabelMap(plane))
	return append(out, plane...)
}

func TestTwiceTheSame(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		first := whole(t, p, "dog", "sofa, couch")
		whole(t, p, "tree")
		if !bytes.Equal(first, whole(t, p, "dog", "sofa, couch")) {
			t.Error("segmenting again gives something else")
		}
		must(t, p.Write(testPixels("law", 48, 20)))
		must(t, p.Encode())
		if !bytes.Equal(first, whole(t, p, "dog", "sofa, couch")) {
			t.Error("encoding again gives something else")
		}
	})
}

// A result stays what it is when the picture is asked something else.
func TestResultStays(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		r, err := p.Segment([]string{"dog", "cat"}, Options{Threshold: 0.1, Presence: -1})
		must(t, err)
		first, again := make([]byte, p.Width*p.Height), make([]byte, p.Width*p.Height)
		must(t, r.LabelMap(first))
		whole(t, p, "tree", "sky", "road")
		must(t, r.LabelMap(again))
		if !bytes.Equal(first, again) {
			t.Error("a label map changed after the picture was segmented again")
		}
		// Proposals take the room of maps, and another picture takes that of all.
		must(t, p.Proposals(func([]byte) error { return nil }))
		must(t, r.LabelMap(again))
		if !bytes.Equal(first, again) {
			t.Error("a label map changed after proposals were asked for")
		}
		r, err = p.Segment([]string{"dog", "cat"}, Options{Threshold: 0.1, Presence: -1})
		must(t, err)
		must(t, p.Proposals(func([]byte) error { return nil }))
		must(t, p.Write(testPixels("other", 48, 20)))
		must(t, p.Encode())
		must(t, r.LabelMap(again))
		if !bytes.Equal(first, again) {
			t.Error("a label map changed after the picture was encoded again")
		}
	})
}

// More prompts than the device keeps maps of have the answers of few.
func TestManyPrompts(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		var prompts []string
		for i := range mapsAtOnce {
			prompts = append(prompts, "ball "+strings.Repeat("dog ", 1+i%8)+strings.Repeat("cat ", i/8), "tree")
		}
		prompts = append(prompts, "sofa", "dog")
		r, err := p.Segment(prompts, Options{Presence: -1})
		must(t, err)
		trees, n := 0, len(prompts)
		// The same prompt has the same map, wherever it stands and whenever it is asked for.
		tree, _ := r.Map(1)
		for _, i := range []int{n - 1, 0, n - 2, 33, 2, 31, 32} {
			s, _ := r.Map(i)
			again, _ := r.Map(i)
			if !slices.Equal(s, again) {
				t.Errorf("the map of prompt %d changed", i)
			}
		}
		for i, text := range prompts {
			if s, _ := r.Map(i); text == "tree" {
				trees++
				near(t, "map of tree "+itoa(i), s, tree)
				near(t, "score of tree "+itoa(i), []float32{r.Prompts[i].Score}, []float32{r.Prompts[1].Score})
			}
		}
		if trees != mapsAtOnce {
			t.Errorf("%d trees", trees)
		}
		first, _ := r.Map(0)
		last, _ := r.Map(n - 1)
		_, err = p.Segment([]string{"sky"}, Options{})
		must(t, err)
		a, _ := r.Map(0)
		b, _ := r.Map(n - 1)
		if !slices.Equal(first, a) || !slices.Equal(last, b) {
			t.Error("maps changed after the picture was segmented again")
		}
	})
}

// Whoever releases a result gives up its masks, and only its own.
func TestRelease(t *testing.T) {
	p := lawPicture(t, testModel(t))
	first, err := p.Segment([]string{"dog"}, Options{Presence: -1})
	must(t, err)
	first.Release()
	mask := make([]byte, p.Width*p.Height)
	wantError(t, "mask of a released result", first.Mask(0, mask), ErrReleased)
	second, err := p.Segment([]string{"cat"}, Options{Presence: -1})
	must(t, err)
	first.Release()
	must(t, second.Mask(0, mask))
}

func TestTwoPictures(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		want := whole(t, p, "dog", "cat")
		other := newEncoded(t, m, "other", 30, 50)
		alone := whole(t, other, "dog")
		if !bytes.Equal(want, whole(t, p, "dog", "cat")) {
			t.Error("a second picture disturbs the first")
		}
		if !bytes.Equal(alone, whole(t, other, "dog")) {
			t.Error("the first picture disturbs the second")
		}
		must(t, other.Close())
		if !bytes.Equal(want, whole(t, p, "dog", "cat")) {
			t.Error("closing a second picture disturbs the first")
		}
	})
}

// A prompt that is not present has an empty mask and no pixel of the label
// map; a higher threshold never adds pixels.
func TestPresenceAndThreshold(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		prompts := []string{"dog", "cat", "tree"}
		mask := make([]byte, p.Width*p.Height)
		r, err := p.Segment(prompts, Options{Presence: 2})
		must(t, err)
		for i, a := range r.Prompts {
			must(t, r.Mask(i, mask))
			if a.Present || slices.Max(mask) != 0 {
				t.Errorf("%q is present though nothing can be", a.Text)
			}
		}
		must(t, r.LabelMap(mask))
		if slices.Min(mask) != NoLabel {
			t.Error("the label map has a prompt though none is present")
		}
		last := len(mask) + 1
		for _, theta := range []float32{0.01, 0.05, 0.1, 0.2, 0.4, 0.8} {
			r, err := p.Segment(prompts, Options{Threshold: theta, Presence: -1})
			must(t, err)
			must(t, r.Mask(0, mask))
			n := bytes.Count(mask, []byte{1})
			if n > last || n+bytes.Count(mask, []byte{0}) != len(mask) {
				t.Errorf("the mask has %d pixels above %v and %d above a lower threshold", n, theta, last)
			}
			last = n
		}
		// No threshold means the model's own.
		r, err = p.Segment(prompts, Options{})
		must(t, err)
		if r.Theta != p.model.Config.Theta {
			t.Errorf("the threshold is %v, want the model's %v", r.Theta, p.model.Config.Theta)
		}
	})
}

// The label map names the prompt whose map is strongest, and agrees with
// the masks.
func TestLabelMapAgreesWithMasks(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		prompts := []string{"dog", "cat", "tree", "sky"}
		r, err := p.Segment(prompts, Options{Threshold: 0.1, Presence: -1})
		must(t, err)
		// One that is absent must not claim a pixel, first or not.
		r.Prompts[0].Present, r.Prompts[2].Present = false, false
		label := make([]byte, p.Width*p.Height)
		must(t, r.LabelMap(label))
		claimed := make([]bool, len(label))
		for i := range prompts {
			mask := make([]byte, len(label))
			must(t, r.Mask(i, mask))
			for j, m := range mask {
				claimed[j] = claimed[j] || m == 1
				if label[j] == byte(i) && m == 0 {
					t.Fatalf("pixel %d has label %d but is not in that mask", j, i)
				}
			}
		}
		for j, c := range claimed {
			if c != (label[j] != NoLabel) {
				t.Fatalf("pixel %d is in a mask: %v, but its label is %d", j, c, label[j])
			}
		}
	})
}

// Proposals are the masks behind a result.
func TestProposals(t *testing.T) {
	p := lawPicture(t, testModel(t))
	a := segmented(t, p, "dog")
	n, q, cells := 0, p.model.decoder.q, p.map4.cells()
	must(t, p.Proposals(func(mask []byte) error {
		s := a.masks[n*cells : (n+1)*cells]
		if set := bytes.Count(mask, []byte{1}); set > 0 && slices.Max(s) <= 0.5 || set < len(mask) && slices.Min(s) > 0.5 {
			t.Errorf("proposal %d has %d pixels and does not fit its map", n, set)
		}
		n++
		return nil
	}))
	if n != q {
		t.Errorf("there are %d proposals, want %d", n, q)
	}
}

// Labels of more prompts than the device keeps maps of are those of the masks:
// where any mask is there is a label, and a label's own mask is there. Palettes
// colour them.
func TestLabelsOfManyPrompts(t *testing.T) {
	p, err := testModel(t).NewPicture(640, 480) // so large that nothing has room beside its labels
	must(t, err)
	t.Cleanup(func() { p.Close() })
	must(t, p.Write(testPixels("labels", p.Width, p.Height)))
	must(t, p.Encode())
	var prompts []string
	for i := range 2*mapsAtOnce + 5 {
		prompts = append(prompts, "thing "+itoa(i))
	}
	theta := float32(0.02) // so that many have a mask
	r, err := p.Segment(prompts, Options{Presence: -1, Threshold: theta})
	must(t, err)
	pixels := p.Width * p.Height
	labels, again, masks := make([]byte, pixels), make([]byte, pixels), make([][]byte, len(prompts))
	must(t, r.LabelMap(labels))
	must(t, r.Masks(3, func(i int, mask []byte) error {
		masks[i] = bytes.Clone(mask)
		return nil
	}))
	chunks := map[byte]bool{}
	for j, l := range labels {
		found := false
		for _, m := range masks {
			found = found || m[j] == 1
		}
		if found != (l != NoLabel) || l != NoLabel && (int(l) >= len(prompts) || masks[l][j] == 0) {
			t.Fatalf("pixel %d has label %d; there is a mask: %v", j, l, found)
		}
		if l != NoLabel {
			chunks[l/mapsAtOnce] = true
		}
	}
	if len(chunks) < 2 {
		t.Errorf("labels of chunks %v only, so this tests nothing", chunks)
	}
	var palette [NoLabel + 1]uint32
	for i := range palette {
		palette[i] = uint32(i) * 0x01020304
	}
	must(t, r.Colour(&palette))
	colours := make([]byte, 4*pixels)
	must(t, p.session.Read(p.Colours(), colours))
	for j, l := range labels {
		if c := kernel.Floats(colours)[j]; math.Float32bits(c) != palette[l] {
			t.Fatalf("pixel %d with label %d has colour %08x", j, l, math.Float32bits(c))
		}
	}
	must(t, r.LabelMap(again))
	if !bytes.Equal(labels, again) {
		t.Error("labels changed when they were asked for again")
	}
}

// Without guidance the proposals are the picture's alone: other prompts give
// them other names and nothing else. With it, prompts change them.
func TestUnguided(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		ask := func(unguided bool, prompts ...string) ([]float32, *Result) {
			r, err := p.Segment(prompts, Options{Unguided: unguided})
			must(t, err)
			return proposalsOf(t, p), r
		}
		dog, named := ask(true, "dog")
		sofa, other := ask(true, "sofa, couch", "cat", "tree")
		if !slices.Equal(dog, sofa) {
			t.Error("proposals that do not see the prompts differ with them")
		}
		guided, _ := ask(false, "dog")
		if slices.Equal(dog, guided) {
			t.Error("proposals that see the prompts are as if they did not")
		}
		for q, n := range named.Named {
			if n.Prompt != 0 || !(n.P > 0 && n.P < 1) {
				t.Fatalf("proposal %d of one prompt is named %+v", q, n)
			}
		}
		if len(other.Named) != m.decoder.q || !slices.ContainsFunc(other.Named, func(n Named) bool { return n.Prompt > 0 }) {
			t.Errorf("three prompts name %d proposals, all the same", len(other.Named))
		}
	})
}

// A prompt's score counts the share of that of its phrases which is nearest to
// a trained name.
func TestPresenceShare(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		ask := func(weight float32) *Result {
			m.Config.Presence.Share = weight
			defer func() { m.Config.Presence.Share = 0 }()
			r, err := p.Segment([]string{"dog", "sofa, couch"}, Options{})
			must(t, err)
			return r
		}
		phrases, _, err := m.prompts([]string{"dog", "sofa, couch"})
		must(t, err)
		shares := []float32{phrases[0].share, min(phrases[1].share, phrases[2].share)}
		if phrases[1].share == phrases[2].share {
			t.Fatal("both phrases of a prompt have one share")
		}
		plain, weighed := ask(0), ask(2)
		for i, a := range plain.Prompts {
			odds := float64(a.Score/(1-a.Score)) * math.Exp(2*float64(shares[i]))
			near(t, "score", []float32{weighed.Prompts[i].Score}, []float32{float32(odds / (1 + odds))})
		}
	})
}

// The question beside common names changes scores, and only scores. Where
// there is none, because of many prompts, or because all names are like one
// of the prompts, the prompts' own probabilities take its place.
func TestContrast(t *testing.T) {
	onDevices(t, func(t *testing.T, m *Model) {
		p := lawPicture(t, m)
		ask := func(weight float32, most int, names ...string) answer {
			m.Config.Contrast, m.Config.Presence.Contrast = Contrast{names, 0.99, most}, weight
			defer func() { m.Config.Contrast, m.Config.Presence.Contrast = Contrast{}, 0 }()
			r, err := p.Segment([]string{"dog", "sofa, couch"}, Options{})
			must(t, err)
			a := answer{}
			for i, x := range r.Prompts {
				s, _ := r.Map(i)
				a.scores, a.maps = append(a.scores, x.Score), append(a.maps, s)
			}
			return a
		}
		plain, beside := ask(0, 0), ask(0.5, 2, "tree", "sky")
		for i := range plain.maps {
			near(t, "map", beside.maps[i], plain.maps[i])
		}
		many, alike := ask(0.5, 1, "tree", "sky"), ask(0.5, 2, "couch", "dog")
		q := m.decoder.q
		class := make([]float32, 2*q)
		must(t, p.session.Read(p.reply.class, kernel.Bytes(class)))
		for i, score := range plain.scores {
			best := float64(slices.Max(class[i*q : (i+1)*q]))
			odds := float64(score/(1-score)) * math.Sqrt(best/(1-best))
			want := []float32{float32(odds / (1 + odds))}
			near(t, "score of many prompts", many.scores[i:i+1], want)
			near(t, "score beside its own name", alike.scores[i:i+1], want)
			if beside.scores[i] == many.scores[i] {
				t.Error("common names leave the score as it is")
			}
		}
	})
}
