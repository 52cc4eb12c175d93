package eval

import (
	"math"
)

// Counted is what some pictures counted; of one picture it is a line of
// pictures.jsonl. Counting is associative and commutative: pictures may be
// counted anywhere, in any order, and merged in any grouping, and the figures
// are the same bits (but for the mean time).
//
// A class is its index in the data set; what has no class, and the
// background, come after them: see Confusion.
type Counted struct {
	Pictures  int      `json:"pictures"`
	Seconds   float64  `json:"seconds"`             // that Segment took
	Seen      Rows     `json:"seen"`                // {class, pictures that have it, pixels that it has there}
	Confusion Rows     `json:"confusion,omitempty"` // {truth, predicted, pixels}; not with single prompts
	Oracle    Rows     `json:"oracle,omitempty"`    // the same if the truth named the proposals
	Proposals bool     `json:"proposals"`           // the model has proposals
	Recall    Recall   `json:"recall"`
	Presence  Presence `json:"presence"`
	Single    *Single  `json:"single,omitempty"` // single prompts only
}

// Merge adds what other pictures counted.
func (c *Counted) Merge(d *Counted) {
	c.Pictures += d.Pictures
	c.Seconds += d.Seconds
	c.Seen = c.Seen.merge(d.Seen, 1)
	c.Confusion = c.Confusion.merge(d.Confusion, 2)
	c.Oracle = c.Oracle.merge(d.Oracle, 2)
	c.Proposals = c.Proposals || d.Proposals
	c.Recall.Merge(d.Recall)
	c.Presence.Merge(&d.Presence)
	if d.Single != nil {
		if c.Single == nil {
			c.Single = &Single{}
		}
		c.Single.Merge(d.Single)
	}
}

// Rows are counts of which most are 0, so that only the others are there. The
// first columns say what is counted, and rows are in their order; the others
// are counts.
type Rows [][3]int64

// merge adds other rows, whose first columns are keys.
func (a Rows) merge(b Rows, keys int) Rows {
	less := func(x, y [3]int64) bool {
		return x[0] < y[0] || keys == 2 && x[0] == y[0] && x[1] < y[1]
	}
	out := make(Rows, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch x, y := a[0], b[0]; {
		case less(x, y):
			out, a = append(out, x), a[1:]
		case less(y, x):
			out, b = append(out, y), b[1:]
		default:
			for i := keys; i < 3; i++ {
				x[i] += y[i]
			}
			out, a, b = append(out, x), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// quality is how good a picture's answer is: the mean IoU of the classes that
// it has, NaN if it has none.
func (c *Counted) quality(labels int) float64 {
	if c.Single != nil {
		return c.Single.Mean()
	}
	if len(c.Confusion) == 0 {
		return math.NaN()
	}
	both, union := map[int64]int64{}, map[int64]int64{}
	truths := map[int64]bool{}
	for _, r := range c.Confusion {
		truths[r[0]] = true
		union[r[0]] += r[2]
		if r[0] == r[1] {
			both[r[0]] += r[2]
		} else {
			union[r[1]] += r[2]
		}
	}
	sum := 0.0
	for class := range int64(labels) {
		if truths[class] {
			sum += float64(both[class]) / float64(union[class])
		}
	}
	return sum / float64(len(truths))
}
