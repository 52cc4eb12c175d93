package eval

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// readLabelFile reads names of classes: lines "id:name,synonym,…", as the
// label files of open-vocabulary work and PASCAL Context's labels.txt have
// them, or ADE20K's objectInfo150.txt, a table with tabs whose first column is
// the id and whose last is the name. Ids whose name says that they are no
// class are left out.
func readLabelFile(path string) ([]Class, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var classes []Class
	lines := map[int]int{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || i == 0 && strings.HasPrefix(line, "Idx\t") {
			continue
		}
		number, name, ok := strings.Cut(line, ":")
		if columns := strings.Split(line, "\t"); len(columns) > 2 {
			number, name, ok = columns[0], columns[len(columns)-1], true
		}
		id, err := strconv.Atoi(strings.TrimSpace(number))
		if !ok || err != nil || id < 0 || id >= mostClasses {
			return nil, fmt.Errorf("%s, line %d: %q is not \"id:name,synonym,…\" with an id from 0 to %d", path, i+1, clip(line), mostClasses-1)
		}
		if first, ok := lines[id]; ok {
			return nil, fmt.Errorf("%s, line %d: id %d already has a name in line %d; remove one of them", path, i+1, id, first)
		}
		lines[id] = i + 1
		names := joinNames(name)
		if names == "" {
			return nil, fmt.Errorf("%s, line %d: id %d has no name", path, i+1, id)
		}
		if names != "invalid_class_id" {
			classes = append(classes, Class{id, names})
		}
	}
	if len(classes) == 0 {
		return nil, fmt.Errorf("%s has no class; its lines have to be \"id:name,synonym,…\"", path)
	}
	return classes, nil
}

// joinNames puts synonyms in the form of a prompt.
func joinNames(names string) string {
	var out []string
	for _, n := range strings.Split(names, ",") {
		if n = strings.TrimSpace(n); n != "" {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// findNames returns the names of a benchmark's classes and where they are
// from: the file that the user names, the label file with synonyms inside
// root, what the data set's own folder has, or the list that is built in.
func (b *Benchmark) findNames(root, folder string, l Layout, own []Class, labels string) ([]Class, string, error) {
	if labels != "" {
		classes, err := readLabelFile(labels)
		return classes, labels, err
	}
	places := []string{filepath.Join(root, b.Labels), filepath.Join(root, "labels", b.Labels), filepath.Join(folder, b.Labels)}
	if l.Names != "" {
		places = append(places, filepath.Join(folder, l.Names))
	}
	for _, path := range places {
		if _, err := os.Stat(path); err == nil {
			classes, err := readLabelFile(path)
			return classes, path, err
		}
	}
	if len(own) > 0 {
		return own, filepath.Join(folder, l.Segments), nil
	}
	if len(b.Names) > 0 {
		var classes []Class
		for i, name := range b.Names {
			classes = append(classes, Class{i, name})
		}
		return classes, "the list that is built in", nil
	}
	return nil, "", fmt.Errorf("the names of %s's %d classes are missing: put %s (in fcclip/data/datasets of github.com/bytedance/fc-clip) into %s, or name a file of lines \"id:name,synonym,…\" with -labels",
		b.Title, b.Classes, b.Labels, root)
}
