package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/kernel/scalar"
	"github.com/pmp-seg/pmp/model"
	"github.com/pmp-seg/pmp/weights"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// The documents' commands run as they stand there, each document's in a folder of its own. CHECKPOINT and DATA stand for
// what a person has, DIR for a folder; internal/browsertest tries the documents' pages.
func TestReadme(t *testing.T) {
	photo, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]string{"CHECKPOINT": checkpoint(t, func(e []weights.Entry) []weights.Entry { return e }), "DATA": catData(t)}
	command := regexp.MustCompile(`(?m)^    go run \./cmd/pmp (.*?)(?:\s{2,}#.*)?$`)
	word := regexp.MustCompile(`"([^"]*)"|(\S+)`)
	for name, least := range map[string]int{"README.md": 5, "docs/weights.md": 5} {
		text := document(t, name)
		t.Run(name, func(t *testing.T) {
			has["DIR"] = t.TempDir()
			copyTo(t, has["DIR"])
			t.Chdir(t.TempDir())
			if err := os.WriteFile("photo.jpg", photo, 0o666); err != nil {
				t.Fatal(err)
			}
			ran, overlay := 0, false
			for _, m := range command.FindAllStringSubmatch(text, -1) {
				var args []string
				for _, w := range word.FindAllStringSubmatch(m[1], -1) {
					arg := w[1] + w[2]
					if have, ok := has[arg]; ok {
						arg = have
					}
					args = append(args, arg)
					overlay = overlay || arg == "overlay.png"
				}
				if args[0] == "bench" { // whose figures need more rounds than it takes to see that it runs
					args = append(args, "-rounds", "1")
				}
				var out bytes.Buffer
				if err := run(args, &out); err != nil || out.Len() == 0 {
					t.Errorf("pmp %s: %v, %d bytes printed", m[1], err, out.Len())
				}
				ran++
			}
			if ran < least {
				t.Errorf("it has %d commands", ran)
			}
			if files, _ := filepath.Glob("*.png"); (len(files) == 1) != overlay {
				t.Errorf("segment -o leaves %v", files)
			}
		})
	}
}

// copyTo puts the shipped weights into a folder.
func copyTo(t *testing.T, dir string) {
	if err := os.CopyFS(dir, os.DirFS(copyWeights(t, func(_ string, data []byte) []byte { return data }))); err != nil {
		t.Fatal(err)
	}
}

func document(t *testing.T, name string) string {
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestConfigDocumented takes each member out of the config that docs/weights.md tells of, and none is left that it does not
// tell of.
func TestConfigDocumented(t *testing.T) {
	_, table, _ := strings.Cut(document(t, "docs/weights.md"), "| member of `config` |")
	table, _, _ = strings.Cut(table, "\n\n")
	dir := copyWeights(t, func(_ string, data []byte) []byte { return data })
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	optional := map[string]string{"contrast": "names", "edges": "epsilon", "keep": "", "cap": ""} // which may be left out, and what they must have if not
	var left map[string]any
	without := func(member string) (err error) {
		var all map[string]any
		if err := json.Unmarshal(manifest, &all); err != nil {
			t.Fatal(err)
		}
		if left == nil {
			left = all["config"].(map[string]any)
		}
		delete(left, member)
		config := all["config"].(map[string]any)
		if part, ok := optional[member]; ok {
			config[member] = map[string]any{}
			member = part
		}
		delete(config, member)
		return loadChanged(t, dir, all)
	}
	members := 0
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, m := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(first, -1) {
			members++
			name := m[1]
			err, wrong := without(name), "is missing"
			if part, ok := optional[name]; ok && part != "" {
				name = part
			} else if ok {
				wrong = "should be a number"
			}
			if err == nil || !strings.Contains(err.Error(), `member "`+name+`" `+wrong) {
				t.Errorf("without %s: %v", m[1], err)
			}
		}
	}
	if members < 15 || len(left) > 0 {
		t.Errorf("it tells of %d members, and not of %v", members, left)
	}
}

// loadChanged loads weights with another manifest.
func loadChanged(t *testing.T, dir string, manifest map[string]any) error {
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := weights.Load(func(name string) ([]byte, error) {
		if name == "manifest.json" {
			return data, nil
		}
		return os.ReadFile(filepath.Join(dir, name))
	})
	if err != nil {
		return err
	}
	loaded, err := model.Load(m, scalar.New(), model.Int8)
	if err == nil {
		loaded.Close()
	}
	return err
}

// entry is what a manifest says of a file.
func entry(name string, data []byte) string {
	return fmt.Sprintf(`{"file":%q,"size":%d,"sha256":"%x"}`, name, len(data), sha256.Sum256(data))
}

// TestRefusalsDocumented causes what docs/weights.md says is refused, and compares the messages.
func TestRefusalsDocumented(t *testing.T) {
	_, section, _ := strings.Cut(document(t, "docs/weights.md"), "\n## What is refused")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| [^|]+ \\| ([a-z]+) \\| `([^`]+)` \\|$").FindAllStringSubmatch(section, -1) {
		documented[m[2]] = m[1]
	}
	// A manifest of a vocabulary and perhaps a shard.
	const vocabulary = "[PAD]"
	manifest := func(shard []byte) string {
		text := `{"format":"pmp-weights","version":1,"arch":"pmp-s","config":{},"tokenizer":"vocab.txt","shards":[`
		if shard != nil {
			text += entry("a", shard) + ","
		}
		return text + entry("vocab.txt", []byte(vocabulary)) + `]}`
	}
	open := func(old, new string) error {
		_, err := weights.Open([]byte(strings.Replace(manifest(nil), old, new, 1)))
		return err
	}
	add := func(name, data string) error {
		m, err := weights.Open([]byte(manifest(nil)))
		if err != nil {
			t.Fatal(err)
		}
		return m.Add(name, []byte(data))
	}
	shard := func(data []byte) error {
		m, err := weights.Open([]byte(manifest(data)))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Add("a", data); err != nil {
			return err
		}
		if err := m.Add("vocab.txt", []byte(vocabulary)); err != nil {
			t.Fatal(err)
		}
		return m.Complete()
	}
	missing, err := weights.Open([]byte(manifest(nil)))
	if err != nil {
		t.Fatal(err)
	}
	config := func(change func(all, config map[string]any)) error {
		dir := copyWeights(t, func(_ string, data []byte) []byte { return data })
		data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]any
		if err := json.Unmarshal(data, &all); err != nil {
			t.Fatal(err)
		}
		change(all, all["config"].(map[string]any))
		return loadChanged(t, dir, all)
	}
	_, lacking := missing.Tensor("decoder.logit_scale")
	tensor := func(dtype weights.DType, width int) []byte {
		return quantize.Safetensors([]weights.Entry{{Name: "x", DType: dtype, Shape: []int{2, 4}, Data: make([]byte, 8*width)}})
	}
	for _, err := range []error{
		open(manifest(nil), "<!doctype html>"),
		open("pmp-weights", "other"),
		open(`"version":1`, `"version":2`),
		open(`"arch":"pmp-s",`, ""),
		open(`"file":"vocab.txt"`, `"file":"../a"`),
		add("vocab.txt", "[PAD"),
		add("vocab.txt", "[pad]"),
		add("b", ""),
		missing.Complete(),
		shard([]byte("short")),
		shard(tensor("I64", 8)),
		shard(tensor(weights.I8, 1)),
		config(func(_, config map[string]any) { delete(config, "theta") }),
		config(func(all, _ map[string]any) { all["arch"] = "pmp-l" }),
		lacking,
	} {
		if err == nil {
			t.Error("something was not refused")
			continue
		}
		code, ok := documented[err.Error()]
		if !ok {
			t.Errorf("docs/weights.md does not tell of: %v", err)
		}
		if w, is := err.(*weights.Error); is && code != w.Code {
			t.Errorf("%v: its code is %s, not %s", err, w.Code, code)
		}
		delete(documented, err.Error())
	}
	for message := range documented {
		t.Errorf("nothing causes: %s", message)
	}
}
