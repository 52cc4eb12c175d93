package browsertest

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestComplaints compares CONTRIBUTING.md's table of complaints with the tests: those that it names exist, and the
// threads that it says are tested are the ones that tests name.
func TestComplaints(t *testing.T) {
	var sources strings.Builder
	for _, pattern := range []string{"*_test.go", root + "/js/test/*.js", root + "/js/test/package/*.js"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(text)
		}
	}
	// What stands in ${} is any text.
	var names []string
	for _, m := range regexp.MustCompile("\\btest\\(\"([^\"]+)\"|\\btest\\(`([^`]+)`|func (Test\\w+)\\(").FindAllStringSubmatch(sources.String(), -1) {
		name := regexp.QuoteMeta(m[1] + m[2] + m[3])
		names = append(names, regexp.MustCompile(`\\\$\\\{.*?\\\}`).ReplaceAllString(name, ".+"))
	}
	exists := regexp.MustCompile("^(" + strings.Join(names, "|") + ")$")

	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| complaint |")
	table, _, _ = strings.Cut(table, "\n\n")
	thread := regexp.MustCompile(`\b[a-z][a-z.-]*#[0-9]+`)
	tested := map[string]bool{}
	for _, row := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if len(cells) != 3 {
			t.Fatalf("%d cells: %s", len(cells), row)
		}
		if strings.HasPrefix(cells[2], "not tested") {
			continue
		}
		for _, th := range thread.FindAllString(cells[0], -1) {
			tested[th] = true
		}
		quoted := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1)
		if len(quoted) == 0 {
			t.Errorf("no test: %s", row)
		}
		for _, m := range quoted {
			if !exists.MatchString(m[1]) {
				t.Errorf("there is no test %q", m[1])
			}
		}
	}
	named := map[string]bool{}
	for _, th := range thread.FindAllString(sources.String(), -1) {
		named[th] = true
	}
	for _, th := range slices.Sorted(maps.Keys(tested)) {
		if !named[th] {
			t.Errorf("no test names %s", th)
		}
	}
	for _, th := range slices.Sorted(maps.Keys(named)) {
		if !tested[th] {
			t.Errorf("%s, which a test names, is not in the table", th)
		}
	}
}
