package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"testing"
)

// maxSize is what all modules together may take, in bytes, as a page
// downloads them. Brotli, which hosts use, makes them smaller than gzip does.
const maxSize = 120_000

// TestCommitted proves that the committed modules come from this source.
func TestCommitted(t *testing.T) {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	for file, want := range modules() {
		got, err := os.ReadFile("../" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the generator makes; run go generate ./kernel/simd", file)
		}
		z.Write(want)
		z.Flush()
	}
	z.Close()
	if packed.Len() > maxSize {
		t.Errorf("the modules take %d bytes compressed, more than %d", packed.Len(), maxSize)
	}
	t.Logf("the modules take %d bytes compressed", packed.Len())
}

func TestLEB(t *testing.T) {
	for _, test := range []struct {
		n        int32
		unsigned []byte // nil for negative numbers
		signed   []byte
	}{
		{0, []byte{0}, []byte{0}},
		{63, []byte{63}, []byte{63}},
		{64, []byte{64}, []byte{0xc0, 0}},
		{127, []byte{127}, []byte{0xff, 0}},
		{128, []byte{0x80, 1}, []byte{0x80, 1}},
		{624485, []byte{0xe5, 0x8e, 0x26}, []byte{0xe5, 0x8e, 0x26}},
		{-1, nil, []byte{0x7f}},
		{-64, nil, []byte{0x40}},
		{-65, nil, []byte{0xbf, 0x7f}},
		{-123456, nil, []byte{0xc0, 0xbb, 0x78}},
	} {
		if test.unsigned != nil && !bytes.Equal(uleb(uint32(test.n)), test.unsigned) {
			t.Errorf("uleb(%d) = %x, want %x", test.n, uleb(uint32(test.n)), test.unsigned)
		}
		if !bytes.Equal(sleb(test.n), test.signed) {
			t.Errorf("sleb(%d) = %x, want %x", test.n, sleb(test.n), test.signed)
		}
	}
}
