// Command gen joins the shaders of kernel/webgpu to one file, without their
// comments, since a page downloads it. Each shader's text follows a line
// "#name". Run it by go generate in kernel/webgpu.
package main

import (
	"log"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	text, err := join("wgsl")
	if err == nil {
		err = os.WriteFile("shaders.txt", []byte(text), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func join(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.wgsl"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		out.WriteString("#" + strings.TrimSuffix(filepath.Base(name), ".wgsl") + "\n")
		for line := range strings.Lines(string(text)) {
			code, _, _ := strings.Cut(line, "//") // WGSL has no strings
			if code = strings.TrimSpace(code); code != "" {
				out.WriteString(code + "\n")
			}
		}
	}
	return out.String(), nil
}
