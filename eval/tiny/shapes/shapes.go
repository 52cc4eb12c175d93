// Package shapes makes tiny data sets of drawn shapes in the official layouts
// of benchmarks. It knows those layouts by itself, so that a mistake in
// package eval's own descriptions does not cancel out.
package shapes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/image/tiff"
)

// Names are the things that are drawn, as label files have them: with
// synonyms. The last one fills what no other covers.
var Names = []string{"circle,disc", "square,box", "triangle", "ground,floor"}

// Luma is how bright each thing is in the photos, which JPEG keeps apart at
// any edge; Unlabelled is the border of which nothing is known.
var Luma = []uint8{60, 110, 160, 220}

// Unlabelled is the brightness of pixels that are not labelled.
const Unlabelled = 20

// Layout is an official layout, with what the drawn things are in its maps.
type Layout struct {
	Name, Benchmark string
	IDs             [4]int // of Names, in the label file
	Unknown         int    // the value of unlabelled pixels in the maps
	shift           int    // from ids of the label file to values of the maps
	first, last     int    // ids of the label file
	labels          string // its name
	photo, mask     string // paths of a picture, %s is its name
	list            string
	values          map[int]int // from ids to values, where it is no shift
	kind            string
}

const voc = "VOCdevkit/VOC2012/"

// Layouts are all of them. The first and last ids of each are drawn, so that
// a wrong offset leaves the range or names the wrong thing.
var Layouts = []Layout{
	{Name: "a150", Benchmark: "a150", IDs: [4]int{1, 2, 77, 150}, Unknown: 0, first: 1, last: 150, labels: "ade20k_150",
		photo: "ADEChallengeData2016/images/validation/%s.jpg", mask: "ADEChallengeData2016/annotations/validation/%s.png"},
	{Name: "a150-d2", Benchmark: "a150", IDs: [4]int{1, 2, 77, 150}, Unknown: 255, shift: -1, first: 1, last: 150, labels: "ade20k_150",
		photo: "ADEChallengeData2016/images/validation/%s.jpg", mask: "ADEChallengeData2016/annotations_detectron2/validation/%s.png"},
	{Name: "a847-d2", Benchmark: "a847", IDs: [4]int{1, 257, 300, 847}, Unknown: 65535, shift: -1, first: 1, last: 847, labels: "ade20k_847",
		photo: "ADE20K_2021_17_01/images_detectron2/validation/%s.jpg", mask: "ADE20K_2021_17_01/annotations_detectron2/validation/%s.tif", kind: "tiff"},
	{Name: "pc59-d2", Benchmark: "pc59", IDs: [4]int{1, 2, 30, 59}, Unknown: 255, shift: -1, first: 1, last: 59, labels: "pascal_ctx_59",
		photo: "pascal_ctx_d2/images/validation/%s.jpg", mask: "pascal_ctx_d2/annotations_ctx59/validation/%s.png"},
	{Name: "pc459-d2", Benchmark: "pc459", IDs: [4]int{1, 256, 257, 459}, Unknown: 65535, shift: -1, first: 1, last: 459, labels: "pascal_ctx_459",
		photo: "pascal_ctx_d2/images/validation/%s.jpg", mask: "pascal_ctx_d2/annotations_ctx459/validation/%s.tif", kind: "tiff"},
	{Name: "pas20", Benchmark: "pas20", IDs: [4]int{1, 2, 20, 7}, Unknown: 255, first: 0, last: 20, labels: "pascal_voc_21",
		photo: voc + "JPEGImages/%s.jpg", mask: voc + "SegmentationClass/%s.png", list: voc + "ImageSets/Segmentation/val.txt", kind: "palette"},
	{Name: "pas20-d2", Benchmark: "pas20", IDs: [4]int{1, 2, 20, 7}, Unknown: 255, shift: -1, first: 0, last: 20, labels: "pascal_voc_21",
		photo: "pascal_voc_d2/images/validation/%s.jpg", mask: "pascal_voc_d2/annotations_pascal20/validation/%s.png"},
	{Name: "pas21", Benchmark: "pas21", IDs: [4]int{1, 2, 20, 0}, Unknown: 255, first: 0, last: 20, labels: "pascal_voc_21",
		photo: voc + "JPEGImages/%s.jpg", mask: voc + "SegmentationClass/%s.png", list: voc + "ImageSets/Segmentation/val.txt", kind: "palette"},
	{Name: "pas21-d2", Benchmark: "pas21", IDs: [4]int{1, 2, 20, 0}, Unknown: 255, first: 0, last: 20, labels: "pascal_voc_21",
		photo: "pascal_voc_d2/images/validation/%s.jpg", mask: "pascal_voc_d2/annotations_pascal21/validation/%s.png"},
	{Name: "cityscapes", Benchmark: "cityscapes", IDs: [4]int{0, 5, 18, 10}, Unknown: 4, first: 0, last: 18, labels: "cityscapes",
		values: map[int]int{0: 7, 5: 17, 10: 23, 18: 33},
		photo:  "cityscapes/leftImg8bit/val/town/%s_leftImg8bit.png", mask: "cityscapes/gtFine/val/town/%s_gtFine_labelIds.png"},
	{Name: "cityscapes-train-ids", Benchmark: "cityscapes", IDs: [4]int{0, 5, 18, 10}, Unknown: 255, first: 0, last: 18, labels: "cityscapes",
		photo: "cityscapes/leftImg8bit/val/town/%s_leftImg8bit.png", mask: "cityscapes/gtFine/val/town/%s_gtFine_labelTrainIds.png"},
	{Name: "coco", Benchmark: "coco", IDs: [4]int{1, 90, 92, 200}, first: 1, last: 200, labels: "coco_panoptic",
		photo: "coco/val2017/%s.jpg", mask: "coco/panoptic_val2017/%s.png", kind: "panoptic"},
}

// picture draws a picture: for each pixel the index of a name, or -1.
func picture(i int) (w, h int, things []int) {
	w, h = 48+8*i, 40-7*i
	things = make([]int, w*h)
	for y := range h {
		for x := range w {
			t := 3
			switch dx, dy := x-14, y-12-i; {
			case x < 2 || i == 1 && y >= h-3:
				t = -1
			case dx*dx+dy*dy < 64:
				t = 0
			case x >= 28 && x < 40 && y >= 6 && y < 16+i:
				t = 1
			case i != 1 && y >= h-10 && y < h-2 && x-20 >= h-2-y && x-20 < 16-(h-2-y):
				t = 2
			}
			things[y*w+x] = t
		}
	}
	return w, h, things
}

// Write writes the data set and its label file.
func (l Layout) Write(dir string) error {
	var names strings.Builder
	for id := l.first; id <= l.last; id++ {
		name := fmt.Sprintf("thing %d", id)
		if id > 133 && l.kind == "panoptic" || id == 0 && l.Benchmark != "cityscapes" {
			name = "invalid_class_id"
			if l.Benchmark == "pas20" || l.Benchmark == "pas21" {
				name = "background,wall" // is a name of PAS-21, ignored by PAS-20
			}
		}
		if l.kind == "panoptic" && id == 91 {
			name = "invalid_class_id" // ids of COCO have gaps
		}
		for t, of := range l.IDs {
			if of == id {
				name = Names[t]
			}
		}
		fmt.Fprintf(&names, "%d:%s\n", id, name)
	}
	if err := write(filepath.Join(dir, "labels", l.labels+"_with_prompt_eng.txt"), []byte(names.String())); err != nil {
		return err
	}
	type segment struct {
		ID       int `json:"id"`
		Category int `json:"category_id"`
	}
	type annotation struct {
		FileName string    `json:"file_name"`
		Segments []segment `json:"segments_info"`
	}
	var annotations []annotation
	list := ""
	for i := range 3 {
		name := fmt.Sprintf("shapes_%06d", i)
		list += name + "\n"
		w, h, things := picture(i)
		if err := write(filepath.Join(dir, fmt.Sprintf(l.photo, name)), l.encodePhoto(w, h, things)); err != nil {
			return err
		}
		if l.kind == "panoptic" {
			a := annotation{FileName: name + ".png"}
			for t, id := range l.IDs {
				a.Segments = append(a.Segments, segment{panopticID(t), id})
			}
			annotations = append(annotations, a)
		}
		if err := write(filepath.Join(dir, fmt.Sprintf(l.mask, name)), l.encodeMask(w, h, things)); err != nil {
			return err
		}
	}
	if l.list != "" {
		return write(filepath.Join(dir, l.list), []byte(list))
	}
	if l.kind == "panoptic" {
		data, err := json.Marshal(map[string]any{"annotations": annotations})
		if err != nil {
			return err
		}
		return write(filepath.Join(dir, "coco/annotations/panoptic_val2017.json"), data)
	}
	return nil
}

// panopticID uses all three bytes of a pixel.
func panopticID(thing int) int { return 7 + thing + 256*(40+thing) + 65536*(90+thing) }

func (l Layout) encodePhoto(w, h int, things []int) []byte {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i, t := range things {
		v := uint8(Unlabelled)
		if t >= 0 {
			v = Luma[t]
		}
		img.SetRGBA(i%w, i/w, color.RGBA{v, v, v, 255})
	}
	var out bytes.Buffer
	if strings.HasSuffix(l.photo, ".png") {
		must(png.Encode(&out, img))
	} else {
		must(jpeg.Encode(&out, img, &jpeg.Options{Quality: 100}))
	}
	return out.Bytes()
}

func (l Layout) encodeMask(w, h int, things []int) []byte {
	bounds := image.Rect(0, 0, w, h)
	value := func(t int) int {
		if t < 0 {
			return l.Unknown
		}
		if l.values != nil {
			return l.values[l.IDs[t]]
		}
		return l.IDs[t] + l.shift
	}
	var img image.Image
	switch l.kind {
	case "tiff":
		m := image.NewGray16(bounds)
		for i, t := range things {
			m.SetGray16(i%w, i/w, color.Gray16{Y: uint16(value(t))})
		}
		img = m
	case "panoptic":
		m := image.NewRGBA(bounds)
		for i, t := range things {
			id := 0
			if t >= 0 {
				id = panopticID(t)
			}
			m.SetRGBA(i%w, i/w, color.RGBA{uint8(id), uint8(id >> 8), uint8(id >> 16), 255})
		}
		img = m
	default:
		gray := image.NewGray(bounds)
		for i, t := range things {
			gray.Pix[i] = uint8(value(t))
		}
		img = gray
		if l.kind == "palette" {
			palette := make(color.Palette, 256)
			for i := range palette {
				palette[i] = color.RGBA{uint8(i * 37), uint8(i * 71), uint8(i * 113), 255}
			}
			img = &image.Paletted{Pix: gray.Pix, Stride: gray.Stride, Rect: bounds, Palette: palette}
		}
	}
	var out bytes.Buffer
	if l.kind == "tiff" {
		must(tiff.Encode(&out, img, nil))
	} else {
		must(png.Encode(&out, img))
	}
	return out.Bytes()
}

// must is for encoders, which fail only if their writer does.
func must(err error) {
	if err != nil {
		panic("shapes: a picture in memory cannot be encoded")
	}
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o666)
}
