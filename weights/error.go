package weights

// Codes of errors. They are among the words that the JavaScript face uses.
const (
	// CodeFormat: the data is not what this package reads.
	CodeFormat = "format"
	// CodeIntegrity: the data is not the data that the manifest describes, or
	// a part of it is not there.
	CodeIntegrity = "integrity"
)

// Error is the only type of error that this package returns.
type Error struct {
	Code string // one of the Code constants
	Text string // a sentence that says what was wrong and what to do
}

func (e *Error) Error() string { return e.Text }

func formatError(text string) error    { return &Error{CodeFormat, text} }
func integrityError(text string) error { return &Error{CodeIntegrity, text} }

// quote makes a name from a file fit for a message: short, and without
// anything that would disturb a terminal or a page.
func quote(name string) string {
	const most = 60
	out := []byte{'"'}
	for i := 0; i < len(name); i++ {
		if i == most {
			out = append(out, "…"...)
			break
		}
		c := name[i]
		if c < ' ' || c > '~' || c == '"' {
			c = '?'
		}
		out = append(out, c)
	}
	return string(append(out, '"'))
}
