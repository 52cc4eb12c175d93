package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's commands run as they stand there. PHOTO and DIR stand for what a person has; import wants a training
// checkpoint, see TestImport.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	photo, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	data := catData(t)
	command := regexp.MustCompile(`(?m)^    go run \./cmd/pmp (.*?)(?:\s{2,}#.*)?$`)
	word := regexp.MustCompile(`"([^"]*)"|(\S+)`)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("photo.jpg", photo, 0o666); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, m := range command.FindAllStringSubmatch(string(text), -1) {
		var args []string
		for _, w := range word.FindAllStringSubmatch(m[1], -1) {
			args = append(args, strings.ReplaceAll(w[1]+w[2], "DIR", data))
		}
		if args[0] == "import" {
			continue
		}
		var out bytes.Buffer
		if err := run(args, &out); err != nil || out.Len() == 0 {
			t.Errorf("pmp %s: %v, %d bytes printed", m[1], err, out.Len())
		}
		ran++
	}
	if ran < 4 {
		t.Errorf("the README has %d commands", ran)
	}
	if files, _ := filepath.Glob("*.png"); len(files) != 1 {
		t.Errorf("segment -o leaves %v", files)
	}
}
