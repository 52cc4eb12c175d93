package photo

import (
	"bytes"
	"encoding/binary"
)

// orientation returns the Exif orientation of a JPEG, 1 if there is none or
// it cannot be read: a damaged note must not keep a picture from being shown.
func orientation(jpeg []byte) int {
	const (
		startOfImage = 0xD8
		startOfScan  = 0xDA
		app1         = 0xE1
	)
	if len(jpeg) < 4 || jpeg[0] != 0xFF || jpeg[1] != startOfImage {
		return 1
	}
	for rest := jpeg[2:]; len(rest) >= 4 && rest[0] == 0xFF && rest[1] != startOfScan; {
		size := int(binary.BigEndian.Uint16(rest[2:])) + 2
		if size < 4 || size > len(rest) {
			return 1
		}
		if rest[1] == app1 {
			if tiff, ok := bytes.CutPrefix(rest[4:size], []byte("Exif\x00\x00")); ok {
				return tiffOrientation(tiff)
			}
		}
		rest = rest[size:]
	}
	return 1
}

// tiffOrientation looks the orientation up in the first directory of a TIFF header.
func tiffOrientation(tiff []byte) int {
	const (
		entrySize   = 12
		orientation = 0x0112
		typeShort   = 3
	)
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.BigEndian
	if tiff[0] == 'I' {
		order = binary.LittleEndian
	}
	at := int(order.Uint32(tiff[4:]))
	if at < 8 || at > len(tiff)-2 {
		return 1
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < entrySize {
			return 1
		}
		if order.Uint16(entries) == orientation && order.Uint16(entries[2:]) == typeShort {
			if o := int(order.Uint16(entries[8:])); o >= 1 && o <= 8 {
				return o
			}
			return 1
		}
		entries = entries[entrySize:]
	}
	return 1
}
