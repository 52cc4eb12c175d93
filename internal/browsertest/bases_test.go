package browsertest

import (
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/model"
	shipped "github.com/pmp-seg/pmp/weights/default"
	"github.com/pmp-seg/pmp/weights/huggingface"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// basesOf are the weights of small public checkpoints with random numbers, by
// their fixtures' names, and the shipped ones as a network for smaller
// pictures.
func basesOf(t *testing.T) map[string]quantize.Files {
	makeBases.Do(func() {
		bases["small"] = small(t)
		for _, name := range []string{"mask2former", "maskformer", "maskformer-swin"} {
			config, tensors, others := checkpointtest.Read(t, filepath.Join(root, "model/testdata", name+".safetensors"))
			source, _, err := huggingface.Convert(config, []byte(`{"size":{"shortest_edge":64,"longest_edge":640}}`), tensors, others)
			keepBase(t, name, source, err)
		}
		for _, name := range []string{"fcclip", "fcclip-attention", "ovseg"} {
			path := filepath.Join(root, "model/testdata", name+".safetensors")
			_, tensors, others := checkpointtest.Read(t, path)
			source, _, err := huggingface.ConvertDetectron2(huggingface.Beside{Names: []string{"dog", "sofa, couch"}, Merges: checkpointtest.Bytes(t, path, "merges"),
				Settings: []byte(`{"short":64,"long":640}`)}, tensors, others)
			keepBase(t, name, source, err)
			if name != "fcclip-attention" {
				keepBase(t, name+"-names", source, limit(source, "unicorn", "a red thing"))
			}
		}
	})
	return bases
}

// small are the shipped weights with a manifest that says that pictures are
// looked at with 256 pixels on their long side, and that nothing is asked for
// beside the prompts: an eighth of the work.
func small(t *testing.T) (files quantize.Files) {
	t.Helper()
	entries, err := shipped.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := shipped.FS.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == "manifest.json" {
			data = most.ReplaceAll(size.ReplaceAll(data, []byte("${1}256")), []byte("${1}0"))
		}
		files = append(files, quantize.File{Name: e.Name(), Data: data})
	}
	return files
}

var (
	size = regexp.MustCompile(`("size": *)512\b`)
	most = regexp.MustCompile(`("most": *)\d+`)
)

// limit gives a network names in place of CLIP's text encoder.
func limit(source *quantize.Source, names ...string) error {
	reader, err := huggingface.ReaderOf(source)
	if err != nil {
		return err
	}
	files, err := reader.Files()
	if err != nil {
		return err
	}
	m, err := files.Open()
	if err != nil {
		return err
	}
	embeddings, err := model.Embeddings(m, scalar.New(), names)
	if err != nil {
		return err
	}
	return huggingface.Limit(source, names, embeddings)
}

func keepBase(t *testing.T, name string, source *quantize.Source, err error) {
	t.Helper()
	if err == nil {
		bases[name], err = source.Files()
	}
	if err != nil {
		t.Fatal(err)
	}
}

var (
	makeBases sync.Once
	bases     = map[string]quantize.Files{}
)
