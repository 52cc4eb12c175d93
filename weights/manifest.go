package weights

import (
	"slices"
	"strconv"
	"strings"
)

const (
	// Format and Version are what a manifest begins with.
	Format  = "pmp-weights"
	Version = 1

	// ShardSize is the size that the writer keeps shards to. An interrupted
	// download then loses little, and every static host takes them. Only a
	// tensor that is larger by itself makes a larger shard.
	ShardSize = 8 << 20

	maxManifest = 4 << 20
	maxFiles    = 1 << 12
	maxFile     = 1 << 30
	maxTotal    = 1 << 34

	// ScaleSuffix is what the name of an int8 tensor's scales ends with.
	ScaleSuffix = ".scale"
)

// File is one of the files that a manifest lists.
type File struct {
	Name   string // a plain name without a folder
	Size   int
	SHA256 [32]byte
}

// Part says where a part of the weights comes from.
type Part struct {
	Name, Source, Licence, Note string
}

// Manifest is a set of weights. Open makes it, Add fills it, and after
// Complete it does not change and may be used from many goroutines.
type Manifest struct {
	Arch         string
	Release      string // which version of its model this is, empty if it does not say
	Config       Value  // an object
	Tokenizer    string // empty for networks that read no text
	Files        []File // shards and the vocabulary, in the order in which to load them
	Parts        []Part
	TrainedNames []string

	data    map[string][]byte
	tensors map[string]Entry
}

// Open reads a manifest.
func Open(manifest []byte) (*Manifest, error) {
	const wrong = "the weights' manifest cannot be used: "
	if len(manifest) > maxManifest {
		return nil, formatError(wrong + "it is too large")
	}
	v, err := Parse(manifest)
	if err != nil {
		return nil, formatError(wrong + err.Error())
	}
	f := v.Fields("manifest")
	if format := f.Text("format"); f.Err() == nil && format != Format {
		return nil, formatError(wrong + "its format is " + quote(format) + ", not " + quote(Format))
	}
	if version := f.Int("version"); f.Err() == nil && version != Version {
		return nil, formatError(wrong + "its version is " + strconv.Itoa(version) + " and this program reads version " +
			strconv.Itoa(Version) + "; use weights and program of the same release")
	}
	m := &Manifest{
		Arch:      f.Text("arch"),
		Release:   f.TextOr("release", ""),
		Config:    v.Get("config"),
		Tokenizer: f.TextOr("tokenizer", ""),
		data:      map[string][]byte{},
		tensors:   map[string]Entry{},
	}
	f.Fields("config") // says so if it is not an object

	shards := f.List("shards")
	if len(shards) == 0 || len(shards) > maxFiles {
		f.Fail("shards", "has no files, or too many")
	}
	total := 0
	for i, s := range shards {
		g := s.Fields("manifest: shard " + strconv.Itoa(i))
		file := File{Name: g.Text("file"), Size: g.IntWithin("size", 1, maxFile)}
		sha := g.Text("sha256")
		if g.Err() == nil && !plainName(file.Name) {
			g.Fail("file", "is not a plain file name: "+quote(file.Name))
		}
		if g.Err() == nil && !parseSHA256(sha, &file.SHA256) {
			g.Fail("sha256", "is not 64 lower-case hexadecimal digits")
		}
		if err := g.Err(); err != nil {
			return nil, formatError(wrong + err.Error())
		}
		if _, ok := m.File(file.Name); ok {
			f.Fail("shards", "has the file "+quote(file.Name)+" twice")
		}
		if total += file.Size; total > maxTotal {
			f.Fail("shards", "are too large together")
		}
		m.Files = append(m.Files, file)
	}
	if _, ok := m.File(m.Tokenizer); !ok && f.Has("tokenizer") {
		f.Fail("tokenizer", "is not one of the files")
	}

	if f.Has("parts") {
		for i, p := range f.List("parts") {
			g := p.Fields("manifest: part " + strconv.Itoa(i))
			m.Parts = append(m.Parts, Part{g.Text("name"), g.TextOr("source", ""), g.TextOr("licence", ""), g.TextOr("note", "")})
			if err := g.Err(); err != nil {
				return nil, formatError(wrong + err.Error())
			}
		}
	}
	if f.Has("trained_names") {
		m.TrainedNames = f.Texts("trained_names")
	}
	if err := f.Err(); err != nil {
		return nil, formatError(wrong + err.Error())
	}
	return m, nil
}

// Load opens the weights whose files read returns, the manifest first:
// for example those of an embed.FS by its method ReadFile.
func Load(read func(name string) ([]byte, error)) (*Manifest, error) {
	data, err := read("manifest.json")
	if err != nil {
		return nil, integrityError("the weights' manifest cannot be read: " + err.Error())
	}
	m, err := Open(data)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		data, err := read(f.Name)
		if err != nil {
			return nil, integrityError("the weights' file " + quote(f.Name) + " cannot be read: " + err.Error())
		}
		if err := m.Add(f.Name, data); err != nil {
			return nil, err
		}
	}
	if err := m.Complete(); err != nil {
		return nil, err
	}
	return m, nil
}

// File returns what the manifest says of a file.
func (m *Manifest) File(name string) (File, bool) {
	i := slices.IndexFunc(m.Files, func(f File) bool { return f.Name == name })
	if i < 0 {
		return File{}, false
	}
	return m.Files[i], true
}

// Size is the size of all files together.
func (m *Manifest) Size() int {
	total := 0
	for _, f := range m.Files {
		total += f.Size
	}
	return total
}

// Fields returns a reader of the architecture's configuration.
func (m *Manifest) Fields() Fields { return m.Config.Fields("the weights' config") }

// Add hands in the bytes of a file that the manifest lists. They are kept
// and must not be changed. A file that is refused leaves no trace, so that it
// may be fetched and handed in again.
func (m *Manifest) Add(name string, data []byte) error { return m.AddHashed(name, data, sum(data)) }

// AddHashed is Add for who knows the SHA-256 of the bytes already: a browser
// finds it ten times as fast as this program in it.
func (m *Manifest) AddHashed(name string, data []byte, sha [32]byte) error {
	f, ok := m.File(name)
	if !ok {
		return formatError("the weights' manifest does not list the file " + quote(name))
	}
	if _, ok := m.data[name]; ok {
		return formatError("the weights' file " + quote(name) + " was handed in twice")
	}
	if len(data) != f.Size {
		return integrityError("the weights' file " + quote(name) + " has " + strconv.Itoa(len(data)) + " bytes and should have " +
			strconv.Itoa(f.Size) + "; fetch it again, and the manifest too if it was replaced")
	}
	if sha != f.SHA256 {
		return integrityError("the weights' file " + quote(name) +
			" is not the one that the manifest lists (its SHA-256 differs); fetch it again, and the manifest too if it was replaced")
	}
	if name != m.Tokenizer {
		entries, err := ReadSafetensors(data)
		if err != nil {
			return formatError("the weights' file " + quote(name) + " cannot be used: " + err.Error())
		}
		for _, e := range entries {
			if e.DType != F32 && e.DType != F16 && e.DType != BF16 && e.DType != I8 {
				return formatError("tensor " + quote(e.Name) + " has elements of type " + string(e.DType) +
					", which weights may not have; write them with \"pmp import\"")
			}
			if _, ok := m.tensors[e.Name]; ok {
				return formatError("tensor " + quote(e.Name) + " is in two of the weights' files")
			}
		}
		for _, e := range entries {
			m.tensors[e.Name] = e
		}
	}
	m.data[name] = data
	return nil
}

// Complete checks what can only be checked when all files are there: that
// they are, and that every int8 tensor has its scales.
func (m *Manifest) Complete() error {
	for _, f := range m.Files {
		if _, ok := m.data[f.Name]; !ok {
			return integrityError("the weights' file " + quote(f.Name) + " is not there; fetch it")
		}
	}
	for name, e := range m.tensors {
		if e.DType != I8 {
			continue
		}
		s, ok := m.tensors[name+ScaleSuffix]
		if !ok || s.DType != F16 || len(e.Shape) < 2 || len(s.Shape) != 1 || !scalesFit(e.Shape, s.Shape[0]) {
			return formatError("int8 tensor " + quote(name) + " does not have a float16 scale for each of its rows")
		}
		for i := 0; i < len(s.Data); i += 2 {
			// Neither negative nor infinite nor not a number.
			if s.Data[i+1] >= 0x7C {
				return formatError("int8 tensor " + quote(name) + " has a scale that is negative or not finite")
			}
		}
	}
	return nil
}

// scalesFit tells whether an int8 tensor of this shape has n rows, in one
// form of storage or the other.
func scalesFit(shape []int, n int) bool {
	rows, ok := panelRows(shape)
	return n == shape[0] || ok && n == rows
}

// Vocabulary returns the bytes of the tokenizer's file, once it was added.
func (m *Manifest) Vocabulary() []byte { return m.data[m.Tokenizer] }

// Tensor returns a tensor by its name.
func (m *Manifest) Tensor(name string) (Tensor, error) {
	e, ok := m.tensors[name]
	if !ok {
		return Tensor{}, formatError("the weights have no tensor " + quote(name) + "; they are for another network, or incomplete")
	}
	t := Tensor{Name: name, Shape: e.Shape, DType: e.DType, data: e.Data}
	if e.DType == I8 {
		s, ok := m.tensors[name+ScaleSuffix]
		if !ok || !scalesFit(e.Shape, len(s.Data)/2) {
			return Tensor{}, formatError("int8 tensor " + quote(name) + " does not have a float16 scale for each of its rows")
		}
		t.scale = s.Data
		if n, ok := panelRows(e.Shape); ok && n == len(s.Data)/2 {
			t.Panels, t.Shape = true, []int{n, e.Shape[1] * PanelQuad}
		}
	}
	return t, nil
}

// Names returns the names of all tensors in alphabetical order. The scales
// of int8 tensors are not among them.
func (m *Manifest) Names() []string {
	names := make([]string, 0, len(m.tensors))
	for name := range m.tensors {
		if base, ok := strings.CutSuffix(name, ScaleSuffix); ok && m.tensors[base].DType == I8 {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// plainName tells whether a file name is one that means the same everywhere:
// in a folder, in a URL, and on a case-insensitive disk.
func plainName(name string) bool {
	if name == "" || len(name) > 100 || name[0] == '.' || name == "manifest.json" {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

func parseSHA256(s string, sum *[32]byte) bool {
	if len(s) != 64 {
		return false
	}
	for i := range 64 {
		c := s[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return false
		}
		sum[i/2] = sum[i/2]<<4 | c
	}
	return true
}
