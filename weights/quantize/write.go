package quantize

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pmp-seg/pmp/weights"
)

// vocabularyFile is the name of the vocabulary beside the shards.
const vocabularyFile = "vocab.txt"

// manifest is manifest.json, in the order in which it is written.
type manifest struct {
	Format       string          `json:"format"`
	Version      int             `json:"version"`
	Arch         string          `json:"arch"`
	Release      string          `json:"release,omitempty"`
	Config       json.RawMessage `json:"config"`
	Tokenizer    string          `json:"tokenizer,omitempty"`
	Shards       []shard         `json:"shards"`
	Parts        []part          `json:"parts"`
	TrainedNames []string        `json:"trained_names"`
}

type shard struct {
	File   string `json:"file"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

type part struct {
	Name    string `json:"name"`
	Source  string `json:"source"`
	Licence string `json:"licence"`
	Note    string `json:"note,omitempty"`
}

// File is a file of the weights.
type File struct {
	Name string
	Data []byte
}

// Files are all files of the weights: the vocabulary, shards and, last,
// manifest.json.
type Files []File

// Files quantizes the tensors. The same source gives the same bytes.
func (s *Source) Files() (Files, error) {
	if s.Arch == "" || strings.Trim(s.Arch, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fmt.Errorf("the architecture's name %q must consist of a-z, 0-9 and hyphens", s.Arch)
	}
	shards, err := s.shards(weights.ShardSize)
	if err != nil {
		return nil, err
	}
	var files Files
	tokenizer := ""
	if s.Vocabulary != nil {
		tokenizer = vocabularyFile
		files = append(files, File{vocabularyFile, s.Vocabulary})
	}
	for i, data := range shards {
		files = append(files, File{fmt.Sprintf("%s-%d-%x.safetensors", s.Arch, i+1, sum(data)[:4]), data})
	}
	m := manifest{
		Format: weights.Format, Version: weights.Version,
		Arch: s.Arch, Release: s.Release, Config: s.Config, Tokenizer: tokenizer,
		Parts:        make([]part, len(s.Parts)),
		TrainedNames: append([]string{}, s.TrainedNames...),
	}
	for i, p := range s.Parts {
		m.Parts[i] = part(p)
	}
	for _, f := range files {
		m.Shards = append(m.Shards, shard{f.Name, len(f.Data), fmt.Sprintf("%x", sum(f.Data))})
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	files = append(files, File{"manifest.json", out.Bytes()})

	// What cannot be read again must not be written.
	_, err = files.Open()
	return files, err
}

// Open reads the weights as whoever fetches the files does.
func (files Files) Open() (*weights.Manifest, error) {
	return weights.Load(func(name string) ([]byte, error) {
		for _, f := range files {
			if f.Name == name {
				return f.Data, nil
			}
		}
		return nil, errors.New("it was not written")
	})
}

// Write writes the weights into a folder. A shard's name has its hash in it, so
// that a page never mixes the shards of two releases, and caches may keep them
// for ever. Shards that an earlier manifest in the folder lists, and the new one
// does not, are removed.
func (files Files) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var stale []string
	if old, err := os.ReadFile(filepath.Join(dir, "manifest.json")); err == nil {
		if m, err := weights.Open(old); err == nil {
			for _, f := range m.Files {
				if strings.HasSuffix(f.Name, ".safetensors") && !slices.ContainsFunc(files, func(g File) bool { return g.Name == f.Name }) {
					stale = append(stale, f.Name)
				}
			}
		}
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o666); err != nil {
			return err
		}
	}
	for _, name := range stale {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// dtype is the type in which a tensor is stored.
func (s *Source) dtype(t Tensor) weights.DType {
	if s.Store == "" || s.Store == weights.F16 && (len(t.Data) <= mostFloat32 || largest(t.Data) > largestHalf) {
		return Precision(t)
	}
	return s.Store
}

func sum(data []byte) []byte {
	s := sha256.Sum256(data)
	return s[:]
}

// shards returns the tensors as safetensors files of at most the given size,
// except that a tensor which is larger by itself gets a larger file for
// itself. Tensors go by their names, so neighbours in the network are
// neighbours in the files.
func (s *Source) shards(size int) ([][]byte, error) {
	tensors := slices.Clone(s.Tensors)
	slices.SortFunc(tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	var files [][]byte
	var pending []weights.Entry
	used := 0
	for i, t := range tensors {
		if i > 0 && t.Name == tensors[i-1].Name {
			return nil, fmt.Errorf("there are two tensors of the name %q", t.Name)
		}
		entries, err := encode(t, s.dtype(t))
		if err != nil {
			return nil, err
		}
		need := 0
		for _, e := range entries {
			need += len(e.Data) + len(e.Name) + 160 // more than its part of the header
		}
		if len(pending) > 0 && used+need > size-64 {
			files, pending, used = append(files, Safetensors(pending)), nil, 0
		}
		pending = append(pending, entries...)
		used += need
	}
	if len(pending) == 0 {
		return nil, errors.New("there are no tensors to write")
	}
	return append(files, Safetensors(pending)), nil
}

// Safetensors returns a safetensors file with the given tensors. As the
// format's own library does, it puts wide elements first, so that all of them
// are aligned.
func Safetensors(entries []weights.Entry) []byte {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b weights.Entry) int {
		return cmp.Or(b.DType.Size()-a.DType.Size(), strings.Compare(a.Name, b.Name))
	})
	var header bytes.Buffer
	header.WriteByte('{')
	offset := 0
	for i, e := range entries {
		if i > 0 {
			header.WriteByte(',')
		}
		name, _ := json.Marshal(e.Name)
		shape, _ := json.Marshal(append([]int{}, e.Shape...))
		fmt.Fprintf(&header, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, e.DType, shape, offset, offset+len(e.Data))
		offset += len(e.Data)
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	out := make([]byte, 8, 8+header.Len()+offset)
	for i := range 8 {
		out[i] = byte(header.Len() >> (8 * i))
	}
	out = append(out, header.Bytes()...)
	for _, e := range entries {
		out = append(out, e.Data...)
	}
	return out
}
