package browsertest

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/weights/huggingface"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// basesOf are the weights of small public checkpoints with random numbers, by
// their fixtures' names.
func basesOf(t *testing.T) map[string]quantize.Files {
	makeBases.Do(func() {
		for _, name := range []string{"mask2former", "maskformer", "maskformer-swin"} {
			config, tensors, others := checkpointtest.Read(t, filepath.Join(root, "model/testdata", name+".safetensors"))
			source, _, err := huggingface.Convert(config, []byte(`{"size":{"shortest_edge":64,"longest_edge":640}}`), tensors, others)
			if err != nil {
				t.Fatal(err)
			}
			if bases[name], err = source.Files(); err != nil {
				t.Fatal(err)
			}
		}
	})
	return bases
}

var (
	makeBases sync.Once
	bases     = map[string]quantize.Files{}
)
