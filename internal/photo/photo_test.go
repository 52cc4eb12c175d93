package photo

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"
)

// quarters is a 16×8 picture whose corners are red, green, blue and white.
func quarters() *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, 16, 8))
	corner := [4]color.RGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {255, 255, 255, 255}}
	for y := range 8 {
		for x := range 16 {
			img.SetRGBA(x, y, corner[y/4*2+x/8])
		}
	}
	return img
}

// withOrientation puts an Exif block with an orientation into a JPEG.
func withOrientation(data []byte, o uint16, order binary.AppendByteOrder) []byte {
	tiff := []byte("MM")
	if order == binary.LittleEndian {
		tiff = []byte("II")
	}
	tiff = order.AppendUint16(tiff, 42)
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 1)
	tiff = order.AppendUint16(tiff, 0x0112)
	tiff = order.AppendUint16(tiff, 3)
	tiff = order.AppendUint32(tiff, 1)
	tiff = order.AppendUint16(tiff, o)
	tiff = order.AppendUint16(tiff, 0)
	tiff = order.AppendUint32(tiff, 0)
	block := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, data[:2]...)
	out = append(out, 0xFF, 0xE1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(block)+2))
	out = append(out, block...)
	return append(out, data[2:]...)
}

func TestOrientation(t *testing.T) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, quarters(), &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	// Where the corners (top left, top right, bottom left, bottom right) of
	// the stored picture are shown, from the Exif standard's table.
	for o, corners := range map[uint16]string{1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"} {
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			img, err := Decode(withOrientation(b.Bytes(), o, order))
			if err != nil {
				t.Fatal(err)
			}
			w, h := img.Rect.Dx(), img.Rect.Dy()
			var got string
			for _, at := range []image.Point{{1, 1}, {w - 2, 1}, {1, h - 2}, {w - 2, h - 2}} {
				got += name(img.RGBAAt(at.X, at.Y))
			}
			if got != corners {
				t.Errorf("orientation %d: corners %s, want %s", o, got, corners)
			}
		}
	}
}

func name(c color.RGBA) string {
	switch {
	case c.R > 128 && c.G > 128:
		return "W"
	case c.R > 128:
		return "R"
	case c.G > 128:
		return "G"
	}
	return "B"
}

func TestTransparentIsWhite(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	img.SetNRGBA(1, 0, color.NRGBA{0, 0, 0, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Pix, []byte{255, 255, 255, 255, 0, 0, 0, 255}) {
		t.Errorf("pixels %v", got.Pix)
	}
}

func TestDamaged(t *testing.T) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, quarters(), nil); err != nil {
		t.Fatal(err)
	}
	whole := withOrientation(b.Bytes(), 6, binary.BigEndian)
	for n := range len(whole) - 2 {
		if img, err := Decode(whole[:n]); err == nil && img.Rect.Empty() {
			t.Fatalf("%d of %d bytes gave an empty picture and no error", n, len(whole))
		}
	}
	if _, err := Decode([]byte("not a picture")); err == nil {
		t.Error("text was decoded")
	}
}
