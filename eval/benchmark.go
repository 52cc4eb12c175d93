package eval

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Benchmark says where the files of a public benchmark are and what the ids in
// its label maps mean. An id of a label map plus Layout.Offset is an id of the
// label file, which has the names.
type Benchmark struct {
	Name, Title string
	Labels      string   // the well-known name of the label file with synonyms
	Names       []string // by id of the label file, where the list is short and known to all
	Classes     int      // how many there are
	First       int      // the label file's id of the first one
	Sparse      bool     // ids have gaps, so a label file cannot be checked against First and Classes
	Layouts     []Layout // those that are there are tried in this order
	Make        string   // what makes one of the layouts, for those who have none
}

// Layout is a way in which a benchmark's files lie in folders.
type Layout struct {
	Folder       string      // of the data set, inside the root
	Photos, Maps string      // folders inside it, searched with what is in them
	Photo, Map   string      // how names of photos and maps end
	List         string      // a file with the names to use, one a line; all if empty
	Ignore       []int       // ids of pixels of which nothing is known
	Offset       int         // from ids in the maps to ids of the label file
	IDs          map[int]int // instead, where it is no constant; what it lacks is ignored
	Segments     string      // the JSON of panoptic annotations
	Names        string      // a file with names that belongs to the layout
}

var (
	voc = []string{"background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
		"dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"}
	cityscapes = []string{"road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
		"terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}
	// cityscapesIDs are the train ids of labelIds.
	cityscapesIDs = map[int]int{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11,
		25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
)

// Benchmarks are those that are known by name, in the order of their names in
// tables.
var Benchmarks = []Benchmark{
	{Name: "a150", Title: "A-150 (ADE20K, 150 classes)", Labels: "ade20k_150_with_prompt_eng.txt", Classes: 150, First: 1,
		Make: "unpack ADEChallengeData2016.zip there",
		Layouts: []Layout{
			{Folder: "ADEChallengeData2016", Photos: "images/validation", Maps: "annotations/validation",
				Photo: ".jpg", Map: ".png", Ignore: []int{0}, Names: "objectInfo150.txt"},
			{Folder: "ADEChallengeData2016", Photos: "images/validation", Maps: "annotations_detectron2/validation",
				Photo: ".jpg", Map: ".png", Ignore: []int{255}, Offset: 1, Names: "objectInfo150.txt"},
		}},
	{Name: "a847", Title: "A-847 (ADE20K, 847 classes)", Labels: "ade20k_847_with_prompt_eng.txt", Classes: 847, First: 1,
		Make: "run Mask2Former's datasets/prepare_ade20k_full_sem_seg.py on ADE20K_2021_17_01",
		Layouts: []Layout{
			{Folder: "ADE20K_2021_17_01", Photos: "images_detectron2/validation", Maps: "annotations_detectron2/validation",
				Photo: ".jpg", Map: ".tif", Ignore: []int{65535}, Offset: 1},
			{Folder: "ade/ADE20K_2021_17_01", Photos: "images_detectron2/validation", Maps: "annotations_detectron2/validation",
				Photo: ".jpg", Map: ".tif", Ignore: []int{65535}, Offset: 1},
		}},
	{Name: "pc59", Title: "PC-59 (PASCAL Context, 59 classes)", Labels: "pascal_ctx_59_with_prompt_eng.txt", Classes: 59, First: 1,
		Make: "run FC-CLIP's datasets/prepare_pascal_ctx_sem_seg.py on VOCdevkit/VOC2010",
		Layouts: []Layout{
			{Folder: "pascal_ctx_d2", Photos: "images/validation", Maps: "annotations_ctx59/validation",
				Photo: ".jpg", Map: ".png", Ignore: []int{255}, Offset: 1},
		}},
	{Name: "pc459", Title: "PC-459 (PASCAL Context, 459 classes)", Labels: "pascal_ctx_459_with_prompt_eng.txt", Classes: 459, First: 1,
		Make: "run FC-CLIP's datasets/prepare_pascal_ctx_sem_seg.py and prepare_pascal_ctx_full_sem_seg.py on VOCdevkit/VOC2010",
		Layouts: []Layout{
			{Folder: "pascal_ctx_d2", Photos: "images/validation", Maps: "annotations_ctx459/validation",
				Photo: ".jpg", Map: ".tif", Ignore: []int{65535}, Offset: 1, Names: "../VOCdevkit/VOC2010/labels.txt"},
		}},
	{Name: "pas20", Title: "PAS-20 (PASCAL VOC 2012, 20 classes, background ignored)", Labels: "pascal_voc_21_with_prompt_eng.txt",
		Names: voc, Classes: 20, First: 1, Make: "unpack VOCtrainval_11-May-2012.tar there",
		Layouts: []Layout{
			{Folder: "VOCdevkit/VOC2012", Photos: "JPEGImages", Maps: "SegmentationClass", List: "ImageSets/Segmentation/val.txt",
				Photo: ".jpg", Map: ".png", Ignore: []int{0, 255}},
			{Folder: "pascal_voc_d2", Photos: "images/validation", Maps: "annotations_pascal20/validation",
				Photo: ".jpg", Map: ".png", Ignore: []int{255}, Offset: 1},
		}},
	{Name: "pas21", Title: "PAS-21 (PASCAL VOC 2012, 20 classes and background as a name)", Labels: "pascal_voc_21_with_prompt_eng.txt",
		Names: voc, Classes: 21, First: 0, Make: "unpack VOCtrainval_11-May-2012.tar there",
		Layouts: []Layout{
			{Folder: "VOCdevkit/VOC2012", Photos: "JPEGImages", Maps: "SegmentationClass", List: "ImageSets/Segmentation/val.txt",
				Photo: ".jpg", Map: ".png", Ignore: []int{255}},
			{Folder: "pascal_voc_d2", Photos: "images/validation", Maps: "annotations_pascal21/validation",
				Photo: ".jpg", Map: ".png", Ignore: []int{255}},
		}},
	{Name: "cityscapes", Title: "Cityscapes (19 classes)", Labels: "cityscapes_with_prompt_eng.txt", Names: cityscapes, Classes: 19, First: 0,
		Make: "unpack gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip there",
		Layouts: []Layout{
			{Folder: "cityscapes", Photos: "leftImg8bit/val", Maps: "gtFine/val",
				Photo: "_leftImg8bit.png", Map: "_gtFine_labelIds.png", IDs: cityscapesIDs},
			{Folder: "cityscapes", Photos: "leftImg8bit/val", Maps: "gtFine/val",
				Photo: "_leftImg8bit.png", Map: "_gtFine_labelTrainIds.png", Ignore: []int{255}},
		}},
	{Name: "coco", Title: "COCO panoptic (133 classes)", Labels: "coco_panoptic_with_prompt_eng.txt", Classes: 133, First: 1, Sparse: true,
		Make: "unpack val2017.zip and panoptic_annotations_trainval2017.zip there, and panoptic_val2017.zip, which is in the latter, beside val2017",
		Layouts: []Layout{
			{Folder: "coco", Photos: "val2017", Maps: "panoptic_val2017", Photo: ".jpg", Map: ".png", Ignore: []int{0},
				Segments: "annotations/panoptic_val2017.json"},
			{Folder: "coco", Photos: "val2017", Maps: "annotations/panoptic_val2017", Photo: ".jpg", Map: ".png", Ignore: []int{0},
				Segments: "annotations/panoptic_val2017.json"},
		}},
}

// FindBenchmark returns the benchmark of a name.
func FindBenchmark(name string) (*Benchmark, error) {
	var names []string
	for i := range Benchmarks {
		if Benchmarks[i].Name == name {
			return &Benchmarks[i], nil
		}
		names = append(names, Benchmarks[i].Name)
	}
	return nil, fmt.Errorf("there is no benchmark %q; take one of %s", name, strings.Join(names, ", "))
}

// open finds a benchmark inside a folder: the one that holds the data sets or
// the data set's own.
func (b *Benchmark) open(root, labels string) (*Dataset, error) {
	if _, err := os.Stat(root); err != nil {
		return nil, fmt.Errorf("the data folder cannot be read: %w", err)
	}
	var looked []string
	for _, l := range b.Layouts {
		for _, folder := range l.folders(root) {
			maps := filepath.Join(folder, l.Maps)
			if !isFolder(filepath.Join(folder, l.Photos)) || !isFolder(maps) {
				continue
			}
			d, err := b.openLayout(root, folder, l, labels)
			if errors.Is(err, errNoItems) {
				looked = append(looked, err.Error())
				continue
			}
			return d, err
		}
	}
	if len(looked) > 0 {
		return nil, fmt.Errorf("%s has no picture to measure: %s; %s", root, strings.Join(looked, "; "), b.Make)
	}
	l := b.Layouts[0]
	return nil, fmt.Errorf("%s has no %s: there should be %s and %s; %s", root, b.Title,
		filepath.Join(l.Folder, l.Photos), filepath.Join(l.Folder, l.Maps), b.Make)
}

// folders are where the layout's folder may be: inside the root, or the root
// may be it or one of the folders that lead to it.
func (l Layout) folders(root string) []string {
	out := []string{filepath.Join(root, l.Folder)}
	for rest := l.Folder; rest != ""; {
		_, after, _ := strings.Cut(rest, "/")
		out = append(out, filepath.Join(root, after))
		rest = after
	}
	return out
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// errNoItems: the folders are there, but hold no picture with a label map.
var errNoItems = errors.New("no photo has a label map")

func (b *Benchmark) openLayout(root, folder string, l Layout, labels string) (*Dataset, error) {
	d := &Dataset{Dir: folder, Benchmark: b, labels: map[int]uint16{}, read: readMask}
	if err := d.pair(folder, l); err != nil {
		return nil, err
	}
	var own []Class
	if l.Segments != "" {
		p, err := readPanoptic(filepath.Join(folder, l.Segments))
		if err != nil {
			return nil, err
		}
		own, d.read = p.categories, p.read
	}
	names, from, err := b.findNames(root, folder, l, own, labels)
	if err != nil {
		return nil, err
	}
	d.note("names are from %s", from)
	if err := b.check(names, from); err != nil {
		return nil, err
	}
	d.learnLayout(b, l, names)
	return d, nil
}

// check tells whether the names are those of the benchmark's classes.
func (b *Benchmark) check(names []Class, from string) error {
	known := map[int]bool{}
	for _, c := range names {
		known[c.ID] = true
	}
	if b.Sparse {
		if len(names) != b.Classes {
			return fmt.Errorf("%s names %d classes, but %s has %d; take %s", from, len(names), b.Title, b.Classes, b.Labels)
		}
		return nil
	}
	for id := b.First; id < b.First+b.Classes; id++ {
		if !known[id] {
			return fmt.Errorf("%s has no name for id %d, but %s has the ids %d to %d; take %s", from, id, b.Title, b.First, b.First+b.Classes-1, b.Labels)
		}
	}
	for id := range known {
		if id >= b.First+b.Classes {
			return fmt.Errorf("%s names id %d, but %s has the ids %d to %d; take %s", from, id, b.Title, b.First, b.First+b.Classes-1, b.Labels)
		}
	}
	return nil
}

// pair finds the photos that have label maps.
func (d *Dataset) pair(folder string, l Layout) error {
	photos, maps := filepath.Join(folder, l.Photos), filepath.Join(folder, l.Maps)
	found := map[string]string{} // label maps by their place inside the folder
	walk := func(dir, end string, each func(name, path string)) error {
		return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if name, ok := strings.CutSuffix(path, end); ok && !e.IsDir() {
				name, err = filepath.Rel(dir, name)
				each(filepath.ToSlash(name), path)
			}
			return err
		})
	}
	if err := walk(maps, l.Map, func(name, path string) { found[name] = path }); err != nil {
		return err
	}
	if err := walk(photos, l.Photo, func(name, path string) {
		if m, ok := found[name]; ok {
			d.Items = append(d.Items, Item{name, path, m})
		}
	}); err != nil {
		return err
	}
	if l.List != "" {
		names, err := readList(filepath.Join(folder, l.List))
		if err != nil {
			return err
		}
		if err := d.keep(names, filepath.Join(folder, l.List)); err != nil {
			return err
		}
	}
	if len(d.Items) == 0 {
		return fmt.Errorf("%w in %s and %s (NAME%s and NAME%s)", errNoItems, photos, maps, l.Photo, l.Map)
	}
	slices.SortFunc(d.Items, func(a, b Item) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// learnLayout says what each id of the label maps means.
func (d *Dataset) learnLayout(b *Benchmark, l Layout, names []Class) {
	for _, c := range names {
		if c.ID >= b.First {
			d.Classes = append(d.Classes, c)
		}
	}
	slices.SortFunc(d.Classes, func(a, b Class) int { return a.ID - b.ID })
	index := map[int]uint16{}
	for i, c := range d.Classes {
		index[c.ID] = uint16(i)
		if l.IDs == nil {
			d.labels[c.ID-l.Offset] = uint16(i)
		}
	}
	for id, of := range l.IDs {
		d.labels[id] = index[of]
	}
	if l.IDs != nil {
		for id := range 256 {
			if _, ok := d.labels[id]; !ok {
				d.labels[id] = Ignore
			}
		}
	}
	for _, id := range l.Ignore {
		d.labels[id] = Ignore
	}
}

// readList reads names, one a line; # starts a comment.
func readList(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			names = append(names, line)
		}
	}
	return names, s.Err()
}
