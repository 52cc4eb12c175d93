package eval

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/image/tiff"
)

// mostPixels bounds what a damaged header can make a decoder reserve.
const mostPixels = 1 << 27

// idMap is the ids of a label map, as they are in the file, row by row.
type idMap struct {
	ids           []uint16
	width, height int
	highest       int // that the format has room for
}

// readMask reads a label map: a PNG or TIFF, grey of up to 16 bits or with a
// palette, whose values are class ids.
func readMask(path string) (*idMap, error) {
	img, data, err := decodeMask(path)
	if err != nil {
		return nil, err
	}
	b := img.Bounds()
	m := &idMap{ids: make([]uint16, 0, b.Dx()*b.Dy()), width: b.Dx(), height: b.Dy(), highest: 255}
	row := func(pix []uint8, stride int, divide uint8) {
		for y := range m.height {
			for _, v := range pix[y*stride:][:m.width] {
				m.ids = append(m.ids, uint16(v/divide))
			}
		}
	}
	switch img := img.(type) {
	case *image.Paletted:
		row(img.Pix, img.Stride, 1)
	case *image.Gray:
		divide := uint8(1)
		if isPNG(data) {
			// The decoder stretches 1, 2 and 4 bits to the range of 8. The
			// file's bit depth is its byte 24.
			divide = 255 / uint8(1<<data[24]-1)
		}
		row(img.Pix, img.Stride, divide)
	case *image.Gray16:
		m.highest = 0xFFFF
		for y := range m.height {
			line := img.Pix[y*img.Stride:]
			for x := range m.width {
				m.ids = append(m.ids, uint16(line[2*x])<<8|uint16(line[2*x+1]))
			}
		}
	default:
		return nil, fmt.Errorf("%s has colours; a label map has to be grey or have a palette, so that a pixel is a class id", path)
	}
	return m, nil
}

func isPNG(data []byte) bool { return bytes.HasPrefix(data, []byte("\x89PNG")) }

// decodeMask decodes a PNG or TIFF.
func decodeMask(path string) (image.Image, []byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	config, decode := tiff.DecodeConfig, tiff.Decode
	if isPNG(data) {
		config, decode = png.DecodeConfig, png.Decode
	}
	c, err := config(bytes.NewReader(data))
	if err == nil && (c.Width <= 0 || c.Height <= 0 || c.Width > mostPixels/c.Height) {
		err = fmt.Errorf("it says that it has %d×%d pixels", c.Width, c.Height)
	}
	var img image.Image
	if err == nil {
		img, err = decode(bytes.NewReader(data))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the label map %s is damaged or not a PNG or TIFF; copy or make it again (%w)", path, err)
	}
	return img, data, nil
}

// panoptic is COCO's panoptic format: a JSON file with the segments of each
// picture, and PNGs whose pixels are segments, R + 256·G + 65536·B.
type panoptic struct {
	categories []Class
	segments   map[string]map[uint32]uint16 // by the PNG's name: categories of segments
}

func readPanoptic(path string) (*panoptic, error) {
	var file struct {
		Annotations []struct {
			FileName string `json:"file_name"`
			Segments []struct {
				ID       uint32 `json:"id"`
				Category uint16 `json:"category_id"`
			} `json:"segments_info"`
		} `json:"annotations"`
		Categories []struct {
			ID   int    `json:"id"`
			Name string `json:"name"`
		} `json:"categories"`
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s is not the JSON of panoptic annotations; unpack it again (%w)", path, err)
	}
	p := &panoptic{segments: map[string]map[uint32]uint16{}}
	for _, c := range file.Categories {
		if c.ID > 0 && c.ID < mostClasses {
			p.categories = append(p.categories, Class{c.ID, c.Name})
		}
	}
	for _, a := range file.Annotations {
		segments := map[uint32]uint16{}
		for _, s := range a.Segments {
			segments[s.ID] = s.Category
		}
		p.segments[a.FileName] = segments
	}
	return p, nil
}

// read returns the category of each pixel, 0 where no segment is.
func (p *panoptic) read(path string) (*idMap, error) {
	segments, ok := p.segments[filepath.Base(path)]
	if !ok {
		return nil, fmt.Errorf("the panoptic JSON does not mention %s; take PNGs and JSON of the same release", path)
	}
	img, _, err := decodeMask(path)
	if err != nil {
		return nil, err
	}
	b := img.Bounds()
	m := &idMap{ids: make([]uint16, 0, b.Dx()*b.Dy()), width: b.Dx(), height: b.Dy(), highest: 0xFFFF}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			segment := r>>8 | g>>8<<8 | bl>>8<<16
			category, ok := segments[segment]
			if !ok && segment != 0 {
				return nil, fmt.Errorf("%s has a pixel of segment %d, which the panoptic JSON does not mention; take PNGs and JSON of the same release", path, segment)
			}
			m.ids = append(m.ids, category)
		}
	}
	return m, nil
}

// stem is a file's name without folders and extension.
func stem(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}
