package eval

import (
	"math"
	"slices"
)

const badLength = "eval: label maps or masks of different lengths"

// Confusion counts pixels by their true and predicted class. Several of them
// can be filled side by side and merged.
type Confusion struct {
	classes int
	counts  []int64 // [truth][predicted], with a last column for no class
}

// NewConfusion returns an empty confusion matrix.
func NewConfusion(classes int) *Confusion {
	return &Confusion{classes, make([]int64, classes*(classes+1))}
}

// Add counts a label map. Pixels whose truth is not a class count nowhere,
// and a prediction that is not a class is wrong but of no other class.
func (c *Confusion) Add(truth, predicted []uint16) {
	if len(truth) != len(predicted) {
		panic(badLength)
	}
	for i, t := range truth {
		if int(t) >= c.classes {
			continue
		}
		c.counts[int(t)*(c.classes+1)+min(int(predicted[i]), c.classes)]++
	}
}

// Merge adds the counts of another matrix of the same size.
func (c *Confusion) Merge(d *Confusion) {
	if c.classes != d.classes {
		panic("eval: confusion matrices of different sizes")
	}
	for i, n := range d.counts {
		c.counts[i] += n
	}
}

// IoU is a class's intersection over union, and how many pixels it has in the
// truth and in the predictions. It is NaN for a class that has neither.
func (c *Confusion) IoU(class int) (iou float64, truth, predicted int64) {
	for i := range c.classes + 1 {
		truth += c.counts[class*(c.classes+1)+i]
	}
	for t := range c.classes {
		predicted += c.counts[t*(c.classes+1)+class]
	}
	both := c.counts[class*(c.classes+1)+class]
	return float64(both) / float64(truth+predicted-both), truth, predicted
}

// MIoU is the mean IoU over the classes that occur in the truth, as newer
// versions of detectron2 and most others have it. NaN without any.
func (c *Confusion) MIoU() float64 { return c.mean(c.classes, false) }

// MIoUD2 is the mean as older versions of detectron2 have it, and with them
// most open-vocabulary papers: a class that only occurs in predictions counts
// as an IoU of 0. It is never higher than MIoU.
func (c *Confusion) MIoUD2() float64 { return c.mean(c.classes, true) }

// MIoUOf is MIoU over the first classes only.
func (c *Confusion) MIoUOf(classes int) float64 { return c.mean(classes, false) }

func (c *Confusion) mean(classes int, predictedToo bool) float64 {
	sum, n := 0.0, 0
	for class := range classes {
		iou, truth, predicted := c.IoU(class)
		switch {
		case truth > 0:
			sum += iou
			n++
		case predictedToo && predicted > 0:
			n++
		}
	}
	return sum / float64(n)
}

// Cells are the matrix's counts that are not 0, as rows {truth, predicted,
// pixels} in the order of truth and predicted. No class is number classes.
func (c *Confusion) Cells() Rows {
	var rows Rows
	for i, n := range c.counts {
		if n != 0 {
			rows = append(rows, [3]int64{int64(i / (c.classes + 1)), int64(i % (c.classes + 1)), n})
		}
	}
	return rows
}

// AddCells adds what Cells of another matrix of the same size gave.
func (c *Confusion) AddCells(rows Rows) {
	for _, r := range rows {
		c.counts[int(r[0])*(c.classes+1)+int(r[1])] += r[2]
	}
}

// Single collects masks that answer one prompt each.
type Single struct {
	Overlaps Rows      `json:"overlaps"` // {class, intersection, union}, pixels of all pictures together, by class
	IoUs     []float64 `json:"ious"`     // of the pairs of a picture and a class in it
	Borders  []float64 `json:"borders"`  // their BoundaryIoUs
}

// Add counts the mask that answers the name of a class which the picture has.
func (s *Single) Add(truth []uint16, width, class int, mask []byte) {
	both, missed, extra := overlap(truth, class, mask)
	s.Merge(&Single{Rows{{int64(class), both, both + missed + extra}}, []float64{MaskIoU(truth, class, mask)},
		[]float64{BoundaryIoU(truth, width, class, mask)}})
}

// Merge adds what another collection has of other pictures.
func (s *Single) Merge(t *Single) {
	s.Overlaps = s.Overlaps.merge(t.Overlaps, 1)
	s.IoUs, s.Borders = append(s.IoUs, t.IoUs...), append(s.Borders, t.Borders...)
}

// IoU is a class's intersection over union, all pictures together. It is NaN
// for a class that no picture has.
func (s *Single) IoU(class int) float64 {
	for _, r := range s.Overlaps {
		if r[0] == int64(class) {
			return float64(r[1]) / float64(r[2])
		}
	}
	return math.NaN()
}

// MIoU is the mean over the classes, with all pictures of a class together.
func (s *Single) MIoU() float64 {
	sum, n := 0.0, 0
	for _, r := range s.Overlaps {
		if r[2] > 0 {
			sum += float64(r[1]) / float64(r[2])
			n++
		}
	}
	return sum / float64(n)
}

// Mean is the mean over all pairs of a picture and a class in it, and
// MeanBorder that of the borders' IoU.
func (s *Single) Mean() float64       { return mean(s.IoUs) }
func (s *Single) MeanBorder() float64 { return mean(s.Borders) }

// mean adds numbers in their own order, so that it does not depend on that of
// pictures.
func mean(numbers []float64) float64 {
	sum := 0.0
	for _, x := range slices.Sorted(slices.Values(numbers)) {
		sum += x
	}
	return sum / float64(len(numbers))
}

// MaskIoU is the intersection over union of a mask and a class of the truth,
// without the pixels to ignore. A mask that is empty and should be has an
// IoU of 1.
func MaskIoU(truth []uint16, class int, mask []byte) float64 {
	both, missed, extra := overlap(truth, class, mask)
	if both+missed+extra == 0 {
		return 1
	}
	return float64(both) / float64(both+missed+extra)
}

func overlap(truth []uint16, class int, mask []byte) (both, missed, extra int64) {
	if len(truth) != len(mask) {
		panic(badLength)
	}
	for i, t := range truth {
		switch {
		case int(t) == class && mask[i] != 0:
			both++
		case int(t) == class:
			missed++
		case t != Ignore && mask[i] != 0:
			extra++
		}
	}
	return both, missed, extra
}

// overlaps returns the pixels of each label that a mask covers. Labels from
// classes on, but for Ignore, count as one more.
func overlaps(truth []uint16, classes int, mask []byte) []int64 {
	if len(truth) != len(mask) {
		panic(badLength)
	}
	counts := make([]int64, classes+1)
	for i, t := range truth {
		if mask[i] != 0 && t != Ignore {
			counts[min(int(t), classes)]++
		}
	}
	return counts
}

func labelled(truth []uint16, classes int) []int64 {
	counts := make([]int64, classes+1)
	for _, t := range truth {
		if t != Ignore {
			counts[min(int(t), classes)]++
		}
	}
	return counts
}

func total(counts []int64) int64 {
	sum := int64(0)
	for _, n := range counts {
		sum += n
	}
	return sum
}

// Recall counts the segments, each being what a picture has of a class, for
// which some proposal has an IoU of at least 0.5 or 0.75.
type Recall struct {
	Segments int `json:"segments"`
	At50     int `json:"at50"`
	At75     int `json:"at75"`
}

// Add looks for the segments of the given classes of a picture.
func (r *Recall) Add(truth []uint16, present []int, proposals [][]byte) {
	classes := 0
	for _, class := range present {
		classes = max(classes, class+1)
	}
	areas := labelled(truth, classes)
	best := make([]float64, classes)
	for _, p := range proposals {
		covered := overlaps(truth, classes, p)
		area := total(covered)
		for _, class := range present {
			if union := areas[class] + area - covered[class]; union > 0 {
				best[class] = max(best[class], float64(covered[class])/float64(union))
			}
		}
	}
	for _, class := range present {
		r.Segments++
		if best[class] >= 0.5 {
			r.At50++
		}
		if best[class] >= 0.75 {
			r.At75++
		}
	}
}

// Merge adds the counts of another.
func (r *Recall) Merge(s Recall) {
	r.Segments += s.Segments
	r.At50 += s.At50
	r.At75 += s.At75
}

// Oracle labels a picture with its proposals as if naming were perfect: each
// gets the class, or the background if there is one, with which its IoU is
// highest; of two classes that are equal, the first. Where proposals overlap,
// the one with the higher IoU wins, of two that are equal the first; where
// there is none, so is no label.
func Oracle(truth []uint16, classes int, background bool, proposals [][]byte) []uint16 {
	labels := make([]uint16, len(truth))
	for i := range labels {
		labels[i] = NoLabel
	}
	areas := labelled(truth, classes)
	candidates := classes
	if background {
		candidates++
	}
	type named struct {
		mask  []byte
		label uint16
		iou   float64
	}
	var order []named
	for _, p := range proposals {
		covered := overlaps(truth, classes, p)
		area := total(covered)
		n := named{p, NoLabel, 0}
		for class := range candidates {
			if iou := float64(covered[class]) / float64(areas[class]+area-covered[class]); iou > n.iou {
				n.label, n.iou = uint16(class), iou
			}
		}
		if n.iou == 0 {
			continue // it covers nothing of which anything is known
		}
		if int(n.label) == classes {
			n.label = NoLabel
		}
		order = append(order, n)
	}
	// Painted from the worst to the best.
	slices.SortStableFunc(order, func(a, b named) int {
		if a.iou > b.iou {
			return -1
		} else if a.iou < b.iou {
			return 1
		}
		return 0
	})
	for _, n := range slices.Backward(order) {
		for i, v := range n.mask {
			if v != 0 {
				labels[i] = n.label
			}
		}
	}
	return labels
}

// Presence collects scores of prompts whose thing is in the picture and of
// others.
type Presence struct {
	Present []float64 `json:"present"`
	Absent  []float64 `json:"absent"`
}

// Add adds a score. One that is not a number counts as the lowest.
func (p *Presence) Add(score float64, present bool) {
	if math.IsNaN(score) {
		score = math.Inf(-1)
	}
	if present {
		p.Present = append(p.Present, score)
	} else {
		p.Absent = append(p.Absent, score)
	}
}

// Merge adds the scores of another.
func (p *Presence) Merge(q *Presence) {
	p.Present = append(p.Present, q.Present...)
	p.Absent = append(p.Absent, q.Absent...)
}

// AUC is the area under the receiver operating characteristic: the share of
// pairs of a present and an absent prompt in which the present one has the
// higher score, where equal scores count half. NaN without pairs.
func (p *Presence) AUC() float64 {
	present, absent := slices.Sorted(slices.Values(p.Present)), slices.Sorted(slices.Values(p.Absent))
	// halves counts twice each absent score below a present one, and once each
	// equal one.
	halves, below, upTo := int64(0), 0, 0
	for _, s := range present {
		for below < len(absent) && absent[below] < s {
			below++
		}
		for upTo < len(absent) && absent[upTo] <= s {
			upTo++
		}
		halves += int64(below + upTo)
	}
	return float64(halves) / 2 / float64(len(present)*len(absent))
}
