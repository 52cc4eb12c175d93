package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
)

// Headers are the rules of a site's _headers, which static hosts such as Cloudflare and Netlify
// read: a path, in which one * stands for anything, and below it, indented, the headers of what
// lies there.
type Headers []rule

type rule struct {
	before, after string // the path around the *
	exact         bool   // there is no *
	set           http.Header
}

// ReadHeaders reads the _headers of a site; a site may have none.
func ReadHeaders(dir string) (Headers, error) {
	data, err := os.ReadFile(filepath.Join(dir, headersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseHeaders(string(data))
}

const headersFile = "_headers"

// parseHeaders knows what the site needs of the format, and refuses the rest (placeholders, rules
// for other hosts, headers taken away again) instead of serving something else than a host would.
func parseHeaders(text string) (Headers, error) {
	var rules Headers
	for i, line := range strings.Split(text, "\n") {
		entry := strings.TrimSpace(line)
		wrong := func(what string) error { return fmt.Errorf("%s, line %d: %s: %s", headersFile, i+1, what, entry) }
		switch {
		case entry == "" || entry[0] == '#':
		case line[0] != ' ' && line[0] != '\t':
			before, after, splat := strings.Cut(entry, "*")
			if entry[0] != '/' || strings.ContainsAny(entry, ": ") || strings.Contains(after, "*") {
				return nil, wrong("not a path with at most one *")
			}
			rules = append(rules, rule{before, after, !splat, http.Header{}})
		case len(rules) == 0:
			return nil, wrong("a header before any path")
		default:
			name, value, ok := strings.Cut(entry, ":")
			name = textproto.CanonicalMIMEHeaderKey(name)
			if value = strings.TrimSpace(value); !ok || name == "" || strings.ContainsAny(name, " \t!") || value == "" {
				return nil, wrong("not a header like Name: value")
			}
			rules[len(rules)-1].set.Add(name, value)
		}
	}
	return rules, nil
}

// For gives the headers of a path. Where several rules set one, its values are joined by commas,
// as hosts do.
func (rules Headers) For(path string) http.Header {
	h := http.Header{}
	for _, r := range rules {
		if r.exact && path != r.before || len(path) < len(r.before)+len(r.after) || !strings.HasPrefix(path, r.before) || !strings.HasSuffix(path, r.after) {
			continue
		}
		for name, values := range r.set {
			if old := h.Get(name); old != "" {
				values = append([]string{old}, values...)
			}
			h.Set(name, strings.Join(values, ", "))
		}
	}
	return h
}
