// Package eval measures how well a model finds what it is asked for: it reads
// photos with label maps, asks a Segmenter about them, and counts.
//
// The figures and their conventions are explained at Figures.
package eval

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	_ "image/jpeg" // photos
	_ "image/png"  // photos
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Labels of pixels, in truths and predictions, are indices of classes or one
// of these.
const (
	// NoLabel: none of the names.
	NoLabel = 0xFFFF
	// Ignore: not known; such a pixel counts nowhere. Only in truths.
	Ignore = 0xFFFE
	// mostClasses leaves room for them.
	mostClasses = 0xFF00
)

// Class is a name that pixels are labelled with.
type Class struct {
	ID   int    // in the label maps
	Name string // may be several names for the same, "sofa,couch"
}

// Prompt is the name as a person would type it: without the suffixes with
// which COCO marks the stuff names that it merged ("floor-other-merged" is
// asked for as "floor"), and with spaces for underscores.
func (c Class) Prompt() string {
	var phrases []string
	for _, name := range strings.Split(c.Name, ",") {
		for _, suffix := range []string{"-merged", "-other", "-stuff"} {
			name = strings.TrimSuffix(name, suffix)
		}
		phrases = append(phrases, strings.ReplaceAll(name, "_", " "))
	}
	return strings.Join(phrases, ",")
}

// Item is a photo and its label map.
type Item struct {
	Name, Image, Mask string // the latter two are paths
}

// Dataset is photos and label maps: a benchmark's, or a folder with
//
//	images/NAME.jpg    (or .jpeg or .png)
//	masks/NAME.png     a class id for each pixel: grey of up to 16 bits, or the indices of a palette
//	classes.json       {"id": "name", …}, here or in the folder above; a name may be "a,b"
//	dataset.json       optional, says what cannot be guessed
//
// The optional dataset.json is an object with any of
//
//	"ignore": [0, 255]       ids of pixels of which nothing is known
//	"background": 0          the id of pixels that have none of the names, or null if there is none
//	"masks": "masks_full"    the folder of the label maps
//
// What neither flags nor dataset.json say is guessed:
//   - An id that has a name is a class, but for names such as "unlabeled",
//     which mean that nothing is known, and "null" or "background", which mean
//     that the pixel has none of the names.
//   - The highest id of the format (255, or 65535) without a name is ignored.
//   - Id 0 without a name is background if the maps have the highest id, too:
//     such maps mark what is unsure, so the rest of them is sure. Otherwise
//     it is ignored.
//   - Any other id without a name is an error.
type Dataset struct {
	Dir        string
	Classes    []Class // by id
	Items      []Item  // by name
	Background bool    // some pixels are known to have none of the names
	Notes      []string
	Benchmark  *Benchmark // nil for a folder

	labels map[int]uint16                    // what ids mean
	read   func(mask string) (*idMap, error) // reads a label map
	maps   string                            // the name of the folder of the label maps, if the user may choose it
}

// DataOptions say which data to read. The zero value of all but Dir means
// what the folder says or what can be guessed.
type DataOptions struct {
	Dir        string
	Benchmark  string // the name of one of Benchmarks; Dir has its folders then
	Labels     string // a label file: lines "id:name,synonym,…"
	Masks      string // the folder with the label maps
	List       string // a file with the names of the items to use, one a line
	Split      string // FILE:MEMBER, a JSON object of which that member is a list of names
	Ignore     string // ids, "0,255"
	Background string // an id, or "none"
	Limit      int    // use only so many items, taken evenly
}

// Flags defines the options as flags of a command.
func (o *DataOptions) Flags(f *flag.FlagSet) {
	var names []string
	for _, b := range Benchmarks {
		names = append(names, b.Name)
	}
	f.StringVar(&o.Dir, "data", "", "folder with images/, masks/ and classes.json; with -benchmark, the folder that holds its official folders")
	f.StringVar(&o.Benchmark, "benchmark", "", "measure a public benchmark: "+strings.Join(names, ", "))
	f.StringVar(&o.Labels, "labels", "", "file with the names of classes, lines \"id:name,synonym,…\" (default: looked for by its well-known name)")
	f.StringVar(&o.Masks, "masks", "", "folder of the label maps, inside the data folder (default \"masks\")")
	f.StringVar(&o.List, "list", "", "file with the names of the pictures to use, one a line")
	f.StringVar(&o.Split, "split", "", "FILE:MEMBER, a JSON file and the member that lists the pictures to use")
	f.StringVar(&o.Ignore, "ignore", "", "class ids of unlabelled pixels, such as 0,255 (default: guessed)")
	f.StringVar(&o.Background, "background", "", "class id of pixels that have none of the names, or none (default: guessed)")
	f.IntVar(&o.Limit, "limit", 0, "use at most so many pictures, taken evenly (default: all)")
}

// settings is dataset.json.
type settings struct {
	Ignore     []int           `json:"ignore"`
	Background json.RawMessage `json:"background"`
	Masks      string          `json:"masks"`
}

// unknownNames and noneNames are names of ids that are not classes.
var (
	unknownNames = []string{"unlabeled", "unlabelled", "ignore", "ignored", "void", "unknown", "invalid_class_id"}
	noneNames    = []string{"null", "background", "none", "_background_", "__background__"}
)

// OpenDataset finds the items and learns what the ids mean.
func OpenDataset(o DataOptions) (*Dataset, error) {
	if o.Dir == "" {
		return nil, errors.New("no data folder was given; name one that has images, masks and classes.json with -data")
	}
	if o.Benchmark != "" {
		b, err := FindBenchmark(o.Benchmark)
		if err != nil {
			return nil, err
		}
		if o.Masks != "" || o.Ignore != "" || o.Background != "" {
			return nil, errors.New("-masks, -ignore and -background are for folders; a benchmark says these itself")
		}
		d, err := b.open(o.Dir, o.Labels)
		if err != nil {
			return nil, err
		}
		return d, d.choose(o)
	}
	d := &Dataset{Dir: o.Dir, labels: map[int]uint16{}, read: readMask}
	var s settings
	if err := readJSON(filepath.Join(o.Dir, "dataset.json"), &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := d.findItems(filepath.Join(o.Dir, cmp.Or(o.Masks, s.Masks, "masks"))); err != nil {
		return nil, err
	}
	if err := d.choose(o); err != nil {
		return nil, err
	}
	if err := d.learn(o, s); err != nil {
		return nil, err
	}
	return d, nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// findItems pairs the label maps with their photos.
func (d *Dataset) findItems(masks string) error {
	d.maps = filepath.Base(masks)
	images := filepath.Join(d.Dir, "images")
	entries, err := os.ReadDir(images)
	if err != nil {
		return err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		switch strings.ToLower(ext) {
		case ".jpg", ".jpeg", ".png":
		default:
			continue
		}
		name := strings.TrimSuffix(e.Name(), ext)
		mask := filepath.Join(masks, name+".png")
		if _, err := os.Stat(mask); errors.Is(err, fs.ErrNotExist) {
			continue // not every photo is labelled
		} else if err != nil {
			return err
		}
		d.Items = append(d.Items, Item{name, filepath.Join(images, e.Name()), mask})
	}
	if len(d.Items) == 0 {
		return fmt.Errorf("no photo in %s has a label map of its name in %s", images, masks)
	}
	slices.SortFunc(d.Items, func(a, b Item) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// choose keeps the items that the options name.
func (d *Dataset) choose(o DataOptions) error {
	var names []string
	source := o.List
	switch {
	case o.List != "" && o.Split != "":
		return errors.New("give -list or -split, not both")
	case o.List != "":
		var err error
		if names, err = readList(o.List); err != nil {
			return err
		}
	case o.Split != "":
		source = o.Split
		i := strings.LastIndexByte(o.Split, ':')
		if i < 0 {
			return fmt.Errorf("-split %s: write FILE:MEMBER, such as splits.json:voc_val", o.Split)
		}
		var splits map[string]json.RawMessage
		if err := readJSON(o.Split[:i], &splits); err != nil {
			return err
		}
		if err := json.Unmarshal(splits[o.Split[i+1:]], &names); err != nil {
			return fmt.Errorf("-split %s: the file has no list of that name", o.Split)
		}
	}
	if source != "" {
		if err := d.keep(names, source); err != nil {
			return err
		}
	}
	if n := len(d.Items); o.Limit > 0 && o.Limit < n {
		items := make([]Item, o.Limit)
		for i := range items {
			items[i] = d.Items[i*n/o.Limit]
		}
		d.Items = items
	}
	return nil
}

// keep keeps the items that a list names, in its order.
func (d *Dataset) keep(names []string, source string) error {
	byName := map[string]Item{}
	for _, item := range d.Items {
		byName[item.Name] = item
	}
	var missing []string
	d.Items = nil
	for _, name := range names {
		item, ok := byName[name]
		if !ok {
			missing = append(missing, name)
			continue
		}
		delete(byName, name) // so that no picture counts twice
		d.Items = append(d.Items, item)
	}
	if len(d.Items) == 0 {
		return fmt.Errorf("none of the %d pictures in %s is in %s with a label map", len(names), source, d.Dir)
	}
	if len(missing) > 0 {
		d.note("%d of the %d pictures in %s are not there with a label map, or are named twice; the first is %s", len(missing), len(names), source, missing[0])
	}
	return nil
}

func (d *Dataset) note(format string, args ...any) {
	d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
}

// folderNames returns the names of a folder's classes by their ids, and where
// they are from.
func (d *Dataset) folderNames(labels string) (names map[string]string, path string, err error) {
	if labels != "" {
		classes, err := readLabelFile(labels)
		if err != nil {
			return nil, "", err
		}
		names = map[string]string{}
		for _, c := range classes {
			names[strconv.Itoa(c.ID)] = c.Name
		}
		return names, labels, nil
	}
	path = filepath.Join(d.Dir, "classes.json")
	err = readJSON(path, &names)
	if errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(d.Dir, "..", "classes.json")
		err = readJSON(path, &names)
	}
	return names, path, err
}

// learn decides what each id means.
func (d *Dataset) learn(o DataOptions, s settings) error {
	names, path, err := d.folderNames(o.Labels)
	if err != nil {
		return err
	}

	// First what is said.
	ignore := s.Ignore
	if o.Ignore != "" {
		ignore = nil
		for _, text := range strings.Split(o.Ignore, ",") {
			id, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				return fmt.Errorf("-ignore %s: write class ids with commas between them", o.Ignore)
			}
			ignore = append(ignore, id)
		}
	}
	for _, id := range ignore {
		d.labels[id] = Ignore
	}
	background := cmp.Or(o.Background, string(s.Background))
	if id, err := strconv.Atoi(background); err == nil {
		d.labels[id] = NoLabel
	} else if background != "" && background != "none" && background != "null" {
		return fmt.Errorf("the background is %q; it has to be a class id or none", background)
	}

	// Then what the names say.
	for text, name := range names {
		id, err := strconv.Atoi(text)
		if err != nil || id < 0 || id > 0xFFFF {
			return fmt.Errorf("%s: %q is not a class id", path, text)
		}
		if _, ok := d.labels[id]; ok {
			continue
		}
		switch lower := strings.ToLower(strings.TrimSpace(name)); {
		case lower == "" || slices.Contains(unknownNames, lower):
			d.labels[id] = Ignore
			d.note("class %d, %q, is ignored", id, name)
		case slices.Contains(noneNames, lower) && background == "":
			d.labels[id] = NoLabel
			d.note("class %d, %q, is the background", id, name)
		case slices.Contains(noneNames, lower):
			d.labels[id] = Ignore
		default:
			d.Classes = append(d.Classes, Class{id, name})
		}
	}
	if len(d.Classes) == 0 || len(d.Classes) > mostClasses {
		return fmt.Errorf("%s: there are no classes, or too many", path)
	}
	slices.SortFunc(d.Classes, func(a, b Class) int { return a.ID - b.ID })
	for i, c := range d.Classes {
		d.labels[c.ID] = uint16(i)
	}

	// Then what the maps say.
	highest, found := 0, false
	for i := range min(len(d.Items), 16) {
		m, err := d.read(d.Items[i].Mask)
		if err != nil {
			return err
		}
		highest = m.highest
		if slices.Contains(m.ids, uint16(highest)) {
			found = true
			break
		}
	}
	if _, ok := d.labels[highest]; !ok {
		d.labels[highest] = Ignore
	} else if d.labels[highest] != Ignore {
		found = false // it is a class
	}
	if _, ok := d.labels[0]; !ok {
		if found && background == "" {
			d.labels[0] = NoLabel
			d.note("class 0, which has no name, is taken for the background, because the label maps mark unsure pixels with %d", highest)
		} else {
			d.labels[0] = Ignore
			d.note("class 0, which has no name, is ignored")
		}
	}
	for _, label := range d.labels {
		d.Background = d.Background || label == NoLabel
	}
	slices.Sort(d.Notes)
	return nil
}

// Truth is a label map: for each pixel the index of its class, NoLabel or
// Ignore.
type Truth struct {
	Width, Height int
	Labels        []uint16
}

// Present lists the classes that the truth has, in their order.
func (t *Truth) Present() []int {
	seen := map[uint16]bool{}
	last := uint16(Ignore)
	for _, l := range t.Labels {
		if l != last {
			seen[l], last = true, l
		}
	}
	var out []int
	for l := range seen {
		if l < mostClasses {
			out = append(out, int(l))
		}
	}
	slices.Sort(out)
	return out
}

// Read reads a photo and its truth.
func (d *Dataset) Read(item Item) (image.Image, *Truth, error) {
	f, err := os.Open(item.Image)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		return nil, nil, fmt.Errorf("the photo %s is damaged or not a JPEG or PNG; copy it again (%w)", item.Image, err)
	}
	m, err := d.read(item.Mask)
	if err != nil {
		return nil, nil, err
	}
	if b := img.Bounds(); b.Dx() != m.width || b.Dy() != m.height {
		return nil, nil, fmt.Errorf("%s has %d×%d pixels, and its label map %d×%d; take photos and label maps of the same release",
			item.Image, b.Dx(), b.Dy(), m.width, m.height)
	}
	for i, id := range m.ids {
		label, ok := d.labels[int(id)]
		switch {
		case ok:
			m.ids[i] = label
		case d.Benchmark != nil:
			return nil, nil, fmt.Errorf("%s has a pixel of id %d, which %s does not have; take label maps of its official release",
				item.Mask, id, d.Benchmark.Title)
		default:
			return nil, nil, fmt.Errorf("%s has a pixel of class %d, which classes.json does not name; if it means that nothing is known, use -ignore %d",
				item.Mask, id, id)
		}
	}
	return img, &Truth{m.width, m.height, m.ids}, nil
}
