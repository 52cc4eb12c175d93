// Package torch reads the tensors of checkpoints that Python wrote: those of
// torch.save, both the zip files of today and the ones that came before, and
// the pickles of detectron2 and Caffe2, which hold numpy arrays.
//
//	tensors, err := torch.Open(file, size)
//	entry, err := tensors[0].Entry()
//
// Such files are pickles, which are programs: whoever loads one in Python
// runs what it says. The unpickler here is a small one of our own that knows
// the few calls tensors are made of and refuses a file that asks for another,
// by its name. A library for all of pickle would be ten times as much code,
// makes room for whatever length a file claims, and reads all numbers at once.
//
// Nothing in a file is trusted. Texts and numbers stay where they are in the
// file until somebody asks for them, every length, offset and stride is held
// against what is really there, and what is built of a file's values is
// bounded (maxSteps, maxRepeats): beside its tensors, which have eight times
// its size at most, no file makes the reader take more than a hundred times
// its size, nor more than some 150 MB.
//
// The package belongs to the command line; the browser's engine does not
// import it.
package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pmp-seg/pmp/weights"
)

const (
	// maxRank is the most dimensions that a tensor may have.
	maxRank = 8
	// maxDepth is how deep dicts may lie in one another.
	maxDepth = 16
	// maxRepeats is how many times a file's own size all of its tensors and
	// their names may have: parts of a file may be used again, as tied weights
	// and expanded tensors are.
	maxRepeats = 8
)

// Tensor is a tensor of a checkpoint. Its numbers are in the file until Entry
// reads them.
type Tensor struct {
	Name  string // the keys that lead to it, joined by dots
	DType weights.DType
	Shape []int // empty for a single number

	storage *storage
	first   int   // where in the storage it begins, in elements
	strides []int // in elements, none is negative
}

// storage is a row of numbers in a file, of which tensors are views.
type storage struct {
	dtype  weights.DType
	length int // in elements

	data  io.ReaderAt
	size  int64        // in bytes
	text  bool         // the bytes were written as characters, in UTF-8
	check func() error // compares the data with their checksum, nil if there is none or it was done
}

// Open lists the tensors of a checkpoint of the given size, in the order of
// its dict. It takes the dict under "model", "state_dict" or "blobs" if there
// is one. The file must stay open as long as tensors are read.
func Open(file io.ReaderAt, size int64) ([]Tensor, error) {
	var root any
	var err error
	if isZip(file) {
		root, err = readZip(file, size)
	} else {
		root, err = readPickles(file, size)
	}
	if err != nil {
		return nil, err
	}
	d, ok := root.(*dict)
	if !ok {
		return nil, errors.New("there is no dict of tensors in it; save the model's state_dict()")
	}
	f := finder{left: maxRepeats * size, names: map[string]bool{}}
	for _, key := range []string{"model", "state_dict", "blobs"} {
		if inner, ok := d.get(key).(*dict); ok {
			d = inner
			break
		}
	}
	if err := f.find("", d, 0); err != nil {
		return nil, err
	}
	if len(f.found) == 0 {
		return nil, errors.New("there are no tensors in it")
	}
	return f.found, nil
}

// finder collects the tensors in a dict of dicts.
type finder struct {
	left  int64 // bytes that tensors and names may still have
	names map[string]bool
	found []Tensor
}

func (f *finder) find(prefix string, d *dict, depth int) error {
	if depth == maxDepth {
		return errors.New("its dicts lie too deep in one another")
	}
	for _, e := range d.entries {
		inner, isDict := e.value.(*dict)
		t, isTensor := e.value.(*Tensor)
		if !isDict && !isTensor {
			if f.left--; f.left < 0 {
				return errRepeats
			}
			continue
		}
		name := prefix
		switch key := e.key.(type) {
		case text:
			if key.n > maxText {
				return errors.New("a tensor's name is too long")
			}
			name += key.String()
		case int:
			name += strconv.Itoa(key)
		default:
			return errors.New("a tensor's name is neither a text nor a number")
		}
		if f.left -= int64(len(name)) + 1; f.left < 0 {
			return errRepeats
		}
		if isDict {
			if err := f.find(name+".", inner, depth+1); err != nil {
				return err
			}
			continue
		}
		if name == "" || f.names[name] {
			return fmt.Errorf("there are two tensors of the name %q, or it is empty", name)
		}
		if t.storage == nil {
			return fmt.Errorf("tensor %q has no data", name)
		}
		n, reach, _ := t.extent()
		if f.left -= int64(max(n, reach) * t.DType.Size()); f.left < 0 {
			return errRepeats
		}
		f.names[name] = true
		f.found = append(f.found, *t)
		f.found[len(f.found)-1].Name = name
	}
	return nil
}

var errRepeats = fmt.Errorf("its tensors and names are more than %d times as large as the file; it was not written by torch.save", maxRepeats)

// extent is the number of elements of a tensor and how many elements of its
// storage lie between its first and its last one, both included. It is not ok
// if they do not lie in the storage.
func (t *Tensor) extent() (n, reach int, ok bool) {
	n = 1
	for _, d := range t.Shape {
		if d == 0 {
			return 0, 0, true
		}
	}
	room := t.storage.length - t.first // of which one is the first element
	reach = 1
	for i, d := range t.Shape {
		stride := t.strides[i]
		if n > maxElements/d || stride > 0 && d-1 > (room-reach)/stride {
			return 0, 0, false
		}
		n *= d
		reach += (d - 1) * stride
	}
	return n, reach, room >= 1
}

// maxElements bounds what can be computed with; files are far smaller.
const maxElements = 1 << 48

// newTensor makes a tensor of what a file claims.
func newTensor(s *storage, first int, shape, strides []int) (*Tensor, error) {
	t := &Tensor{DType: s.dtype, Shape: shape, storage: s, first: first, strides: strides}
	if len(shape) > maxRank || len(shape) != len(strides) {
		return nil, errors.New("a tensor has too many dimensions, or not a stride for each")
	}
	for i := range shape {
		if shape[i] < 0 || shape[i] > maxElements || strides[i] < 0 {
			return nil, errors.New("a tensor has a negative or a huge dimension, or a negative stride")
		}
	}
	if first < 0 || first > s.length {
		return nil, errors.New("a tensor begins outside of its storage")
	}
	if _, _, ok := t.extent(); !ok {
		return nil, fmt.Errorf("a tensor of shape %v and strides %v does not lie in its storage of %d elements", shape, strides, s.length)
	}
	return t, nil
}

// Entry reads a tensor's numbers, row by row.
func (t *Tensor) Entry() (weights.Entry, error) {
	e := weights.Entry{Name: t.Name, DType: t.DType, Shape: t.Shape}
	width := t.DType.Size()
	n, reach, _ := t.extent()
	whole := make([]byte, reach*width)
	if n > 0 {
		if err := t.storage.read(whole, int64(t.first)*int64(width)); err != nil {
			return e, fmt.Errorf("tensor %q cannot be read: %w", t.Name, err)
		}
	}
	if t.rowByRow() {
		e.Data = whole
		return e, nil
	}
	e.Data = make([]byte, 0, n*width)
	index := make([]int, len(t.Shape))
	for at := 0; n > 0; n-- {
		e.Data = append(e.Data, whole[at*width:][:width]...)
		for i := len(index) - 1; i >= 0; i-- {
			index[i]++
			at += t.strides[i]
			if index[i] < t.Shape[i] {
				break
			}
			at -= index[i] * t.strides[i]
			index[i] = 0
		}
	}
	return e, nil
}

// rowByRow tells whether the elements lie one after the other in the storage.
func (t *Tensor) rowByRow() bool {
	want := 1
	for i := len(t.Shape) - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.strides[i] != want {
			return t.Shape[i] == 0
		}
		want *= t.Shape[i]
	}
	return true
}

// read fills dst with the storage's bytes from the given one on.
func (s *storage) read(dst []byte, from int64) error {
	if s.check != nil {
		if err := s.check(); err != nil {
			return err
		}
		s.check = nil
	}
	if !s.text {
		return readAt(s.data, dst, from)
	}
	written := make([]byte, s.size)
	if err := readAt(s.data, written, 0); err != nil {
		return err
	}
	all := written[:0] // a character is a byte, and never shorter in UTF-8
	for len(written) > 0 {
		c, n := utf8.DecodeRune(written)
		if c > 0xFF || c == utf8.RuneError {
			return errors.New("its data are characters that are no bytes")
		}
		all, written = append(all, byte(c)), written[n:]
	}
	if len(all) != s.length*s.dtype.Size() {
		return errors.New("it does not have as many bytes as its shape asks for")
	}
	copy(dst, all[from:])
	return nil
}

func readAt(r io.ReaderAt, dst []byte, at int64) error {
	if n, err := r.ReadAt(dst, at); n < len(dst) {
		return err
	}
	return nil
}

// isZip tells whether a file begins as zip files do.
func isZip(file io.ReaderAt) bool {
	var begin [4]byte
	return readAt(file, begin[:], 0) == nil && string(begin[:]) == "PK\x03\x04"
}

// readZip reads what torch.save writes since PyTorch 1.6: a pickle, data.pkl,
// and a file for each storage, none of them compressed.
func readZip(file io.ReaderAt, size int64) (any, error) {
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return nil, fmt.Errorf("it is a damaged or truncated zip file (%w); fetch it again", err)
	}
	members, used := map[string]*zip.File{}, int64(0)
	folder := ""
	for _, f := range archive.File {
		if members[f.Name] != nil {
			return nil, fmt.Errorf("its zip file holds %q twice", f.Name)
		}
		members[f.Name] = f
		if at, ok := strings.CutSuffix(f.Name, "data.pkl"); ok && (at == "" || strings.HasSuffix(at, "/")) {
			folder = at
		}
	}
	if members[folder+"constants.pkl"] != nil {
		return nil, errors.New("it is a TorchScript program; save the model's state_dict() instead")
	}
	// member is where a file of the archive lies.
	member := func(name string) (*io.SectionReader, *zip.File, error) {
		f := members[folder+name]
		if f == nil {
			return nil, nil, fmt.Errorf("its zip file has no %q; it is no checkpoint of torch.save", folder+name)
		}
		at, err := f.DataOffset()
		if err != nil {
			return nil, nil, fmt.Errorf("its zip file is damaged at %q: %w", f.Name, err)
		}
		if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
			return nil, nil, fmt.Errorf("its zip file holds %q compressed, which torch.save never does; save it again", f.Name)
		}
		// What is used lies side by side, so no byte is read for two storages.
		n := int64(min(f.UncompressedSize64, maxElements))
		if used += n; used > size || n > size-at {
			return nil, nil, fmt.Errorf("its zip file holds more in %q than it has room for; it is damaged", f.Name)
		}
		return io.NewSectionReader(file, at, n), f, nil
	}
	if members[folder+"byteorder"] != nil {
		order, _, err := member("byteorder")
		if err != nil {
			return nil, err
		}
		name, err := io.ReadAll(io.LimitReader(order, 16))
		if err != nil || string(name) != "little" {
			return nil, errors.New("its numbers are not little-endian")
		}
	}
	pickle, f, err := member("data.pkl")
	if err != nil {
		return nil, err
	}
	if err := checksum(f); err != nil {
		return nil, err
	}
	u := newUnpickler(pickle, pickle.Size(), size)
	u.place = func(s *storage, key string) error {
		data, f, err := member("data/" + key)
		if err != nil {
			return err
		}
		if data.Size()/int64(s.dtype.Size()) != int64(s.length) || data.Size()%int64(s.dtype.Size()) != 0 {
			return fmt.Errorf("storage %q has %d bytes and should hold %d elements of %s", key, data.Size(), s.length, s.dtype)
		}
		s.data, s.size, s.check = data, data.Size(), func() error { return checksum(f) }
		return nil
	}
	root, err := u.load()
	if err == nil && u.at != pickle.Size() {
		err = errors.New("something follows after its pickle")
	}
	return root, err
}

// checksum reads a file of an archive and compares it with its checksum.
func checksum(f *zip.File) error {
	r, err := f.Open()
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		r.Close()
	}
	if err != nil {
		return fmt.Errorf("%q in its zip file is damaged (%w); fetch it again", f.Name, err)
	}
	return nil
}

// magic is the number that a file of torch.save before PyTorch 1.6 begins
// with, and version the one that follows.
var magic = []byte{0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19}

const version = 1001

// readPickles reads a pickle, or what torch.save wrote before PyTorch 1.6:
// five pickles (the magic number, a version, what machine it was, the dict,
// and the keys of the storages), and the storages, each behind its length.
func readPickles(file io.ReaderAt, size int64) (any, error) {
	u := newUnpickler(file, size, size)
	root, err := u.load()
	if err != nil {
		return nil, err
	}
	if n, ok := root.(text); !ok || !n.number || !bytes.Equal(n.bytes(), magic) {
		if u.at != size {
			return nil, errors.New("something follows after its pickle; it is not a checkpoint")
		}
		return root, nil
	}
	named := map[string]*storage{}
	u.place = func(s *storage, key string) error {
		named[key] = s
		return nil
	}
	var about [2]any
	for i := range about {
		if about[i], err = u.load(); err != nil {
			return nil, err
		}
	}
	if about[0] != version {
		return nil, errors.New("it is of another version of torch.save's old format; save it again")
	}
	if machine, ok := about[1].(*dict); !ok || machine.get("little_endian") != true {
		return nil, errors.New("its numbers are not little-endian")
	}
	if root, err = u.load(); err != nil {
		return nil, err
	}
	u.place = nil
	last, err := u.load()
	if err != nil {
		return nil, err
	}
	keys, ok := last.(*list)
	if !ok || len(keys.items) != len(named) {
		return nil, errors.New("it does not hold the storages that its tensors need")
	}
	at := u.at
	for _, k := range keys.items {
		key, _ := k.(text)
		s := named[key.String()]
		if s == nil || s.data != nil {
			return nil, errors.New("it holds a storage that no tensor needs, or holds one twice")
		}
		var length [8]byte
		if err := readAt(file, length[:], at); err != nil {
			return nil, errEnd
		}
		at += int64(len(length))
		width := s.dtype.Size()
		if binary.LittleEndian.Uint64(length[:]) != uint64(s.length) || int64(s.length) > (size-at)/int64(width) {
			return nil, fmt.Errorf("storage %q of %d elements is cut off, or not what the file says it is", key, s.length)
		}
		s.size = int64(s.length * width)
		s.data = io.NewSectionReader(file, at, s.size)
		at += s.size
	}
	if at != size {
		return nil, fmt.Errorf("%d bytes follow after its last storage; it is not a checkpoint", size-at)
	}
	return root, nil
}
