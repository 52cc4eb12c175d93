// Package weights reads the weights of a model: a manifest and the files that
// it lists, which are safetensors shards and the tokenizer's vocabulary.
//
// The package opens no files and no connections. Whoever has the bytes, a
// page that downloads them or a command that reads a folder, hands them in:
//
//	m, err := weights.Open(manifest)
//	for _, f := range m.Files {
//		err = m.Add(f.Name, fetch(f.Name))
//	}
//	err = m.Complete()
//	t, err := m.Tensor("decoder.mask_mlp.0.weight")
//	t.Float32(dst)
//
// Nothing that is handed in is trusted: sizes, hashes, header lengths,
// offsets, element types and shapes are all checked before a number is used.
// A file's bytes are kept, not copied, so the caller must not change them.
//
// # The manifest
//
// manifest.json is one JSON object:
//
//	{
//	  "format": "pmp-weights", "version": 1,
//	  "arch": "pmp-s",
//	  "config": {…},                      what the network needs to know of itself; only model reads it
//	  "tokenizer": "vocab.txt",           which of the files is the vocabulary, if there is one
//	  "shards": [{"file": "…", "size": 1, "sha256": "…"}, …],   every file, the vocabulary too
//	  "parts": [{"name": "…", "source": "…", "licence": "…", "note": "…"}, …],
//	  "trained_names": ["…", …]
//	}
//
// Members that are not named here are ignored, so that a later version may
// add some without changing its number.
//
// # Quantized tensors
//
// An int8 tensor X of shape [O, …] comes with a float16 tensor "X.scale" of
// shape [O], and stands for X[o, …]·scale[o]. Everything else is stored as
// float32, float16 or bfloat16. Package weights/quantize writes all this.
//
// The package is part of the engine that a browser downloads. It therefore
// does without fmt, encoding/json and crypto/sha256, which together would
// double the engine's size.
package weights
