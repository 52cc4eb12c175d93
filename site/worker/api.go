package main

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A handler answers /api/*. It keeps nothing, asks nobody, and never repeats in an answer what it
// could not make sense of. Each request starts Go anew, so it does without fmt, JSON and regular
// expressions, whose tables would have to be made each time.
type handler struct {
	about string
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Access-Control-Allow-Origin", "*")
	head.Set("Cross-Origin-Resource-Policy", "cross-origin")
	head.Set("Content-Security-Policy", "default-src 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-store")

	switch r.URL.Path {
	case "/api/health", "/api/version", "/api/share":
	default:
		refuse(w, r, http.StatusNotFound, "There is nothing here. Ask for /api/health, /api/version or /api/share.")
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		head.Set("Allow", methods)
		head.Set("Access-Control-Allow-Methods", methods)
		head.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		head.Set("Allow", methods)
		refuse(w, r, http.StatusMethodNotAllowed, "Only GET and HEAD are answered here.")
		return
	}

	switch r.URL.Path {
	case "/api/health":
		send(w, r, http.StatusOK, `{"ok":true}`)
	case "/api/version":
		// Short, so that a new version is soon seen.
		head.Set("Cache-Control", "public, max-age=60")
		send(w, r, http.StatusOK, h.about)
	case "/api/share":
		fragment, err := share(r.URL.RawQuery)
		if err != nil {
			refuse(w, r, http.StatusBadRequest, err.Error())
			return
		}
		// The same question always has the same answer.
		head.Set("Cache-Control", "public, max-age=86400")
		head.Set("Location", "/#"+fragment)
		w.WriteHeader(http.StatusFound)
	}
}

const methods = "GET, HEAD, OPTIONS"

// refuse sends an error as JSON. The sentence is one of this file's, so nothing in it needs quoting.
func refuse(w http.ResponseWriter, r *http.Request, status int, sentence string) {
	send(w, r, status, `{"error":"`+sentence+`"}`)
}

func send(w http.ResponseWriter, r *http.Request, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write([]byte(body + "\n"))
	}
}

// Limits of a shared link. The page's own links have the same (site/page.js).
const (
	maxQuery = 4096 // bytes
	maxWords = 64
	maxWord  = 200 // characters, as in the page's input
)

// examples are the pictures that a link can name, the files of site/examples.
var examples = []string{"astronaut", "cat", "coffee", "rocket"}

// share turns the query of a short link, words=cat;sofa,%20couch&example=cat, into the fragment
// that the page reads. A fragment stays in the browser: what is looked for reaches no server again.
//
// Only example pictures can be named. The page's policy lets it load nothing from other hosts, and
// a link that made it do so would tell that host who opens it.
func share(query string) (fragment string, err error) {
	if len(query) > maxQuery {
		return "", errors.New("The link is too long; 4096 bytes are allowed after the question mark.")
	}
	given := map[string]string{}
	// Not url.ParseQuery, which refuses the semicolons that stand between words.
	for _, part := range strings.Split(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "words", "example":
		case "picture":
			return "", errors.New("A link cannot name a picture on another host, since the page loads nothing from there. Take example=cat, or leave it out.")
		default:
			continue // mail programs and social networks add parameters of their own
		}
		if _, twice := given[name]; twice {
			return "", errors.New("words and example may each be given once; semicolons stand between words.")
		}
		value, err := url.QueryUnescape(value)
		if err != nil {
			return "", errors.New("A percent sign in the link is not followed by two hexadecimal digits.")
		}
		given[name] = value
	}

	words, err := split(given["words"])
	if err != nil {
		return "", err
	}
	fragment = "words=" + url.QueryEscape(strings.Join(words, ";"))
	if example, is := given["example"]; is {
		for _, known := range examples {
			if example == known {
				return fragment + "&example=" + known, nil
			}
		}
		return "", errors.New("There is no such example picture. Take astronaut, cat, coffee or rocket.")
	}
	return fragment, nil
}

// split gives the words that a semicolon separates, without space around them.
func split(list string) (words []string, err error) {
	if !utf8.ValidString(list) {
		return nil, errors.New("The words are not UTF-8.")
	}
	for _, word := range strings.Split(list, ";") {
		word = strings.TrimSpace(word)
		if strings.Trim(word, ", ") == "" {
			continue
		}
		if utf8.RuneCountInString(word) > maxWord {
			return nil, errors.New("A word is too long; 200 characters are allowed.")
		}
		for _, c := range word {
			// No thing has markup in its name, nor characters that cannot be seen or that turn the
			// direction of what stands beside them. Joiners are spelling in some languages.
			if c == '<' || c == '>' || !unicode.IsPrint(c) && c != '\u200c' && c != '\u200d' {
				return nil, errors.New("A word has a character that no word has: markup, or one that cannot be seen.")
			}
		}
		if words = append(words, word); len(words) > maxWords {
			return nil, errors.New("There are too many words; 64 are allowed.")
		}
	}
	if len(words) == 0 {
		return nil, errors.New("There are no words. Ask like this: /api/share?words=cat;sofa,%20couch&example=cat")
	}
	return words, nil
}
