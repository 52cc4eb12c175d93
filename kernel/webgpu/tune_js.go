//go:build js

package webgpu

import (
	"errors"
	"time"

	"github.com/pmp-seg/pmp/kernel"
)

// limits are those of the card's workgroups.
func (d *Device) limits() limits {
	of := func(name string) int { return d.gpu.Get("limits").Get(name).Int() }
	return limits{of("maxComputeInvocationsPerWorkgroup"), of("maxComputeWorkgroupSizeX"), of("maxComputeWorkgroupSizeY"), of("maxComputeWorkgroupStorageSize")}
}

// Tune measures what suits the card, in about that time, and keeps to it in
// sessions that are opened from then on. What it had no time to measure stays
// as it is; it does not stop in the middle of a dispatch, which takes a second
// where the card is software.
func (d *Device) Tune(budget time.Duration) (Tuning, error) {
	if err := d.state(); err != nil {
		return Tuning{}, err
	}
	start := time.Now()
	now := func() time.Duration { return time.Since(start) }
	var failed error
	before := d.card.tuning
	found := tune(before.or(), d.limits(), budget, now, func(part int, t Tuning, until time.Duration) (time.Duration, bool) {
		if failed != nil || part == tuneHeads && d.card.shuffled > 0 && !d.probe(d.card.shuffled, t.Heads) {
			return 0, false
		}
		d.card.tuning = t
		took, err := d.measure(part, now, until)
		// A card may refuse a candidate, but must not be lost.
		if err != nil && err != errTime && !errors.Is(err, errFailed) && !errors.Is(err, kernel.ErrMemory) {
			failed = err
		}
		return took, err == nil
	})
	d.card.tuning = before
	if err := errors.Join(failed, d.state()); err != nil {
		return Tuning{}, err
	}
	d.card.tuning = found
	return found, nil
}

// errTime says that a measurement would not end in time.
var errTime = errors.New("no time left to measure")

// measure tells how long the work of a part takes as the device is tuned now.
func (d *Device) measure(part int, now func() time.Duration, until time.Duration) (time.Duration, error) {
	const (
		repeats = 16 // in one submit, so that waiting for it matters little
		rounds  = 3  // of which the best counts
	)
	var p kernel.Program
	ops := work(part, &p)
	for _, o := range ops { // each by itself, to stop early
		p.Stage()
		p.Do(o)
	}
	often := p.Stage()
	for range repeats {
		for _, o := range ops {
			p.Do(o)
		}
	}
	end := p.Keep(4)
	p.Plan()
	s, err := d.Open(&p)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	run := func(stage int) (time.Duration, error) {
		start := now()
		if err := s.Run(stage); err != nil {
			return 0, err
		}
		err := s.Read(end, make([]byte, 16))
		return now() - start, err
	}
	var least time.Duration
	for i := range 2 * len(ops) { // the first run of each may be slow
		if now() >= until {
			return 0, errTime
		}
		took, err := run(i % len(ops))
		if err != nil {
			return 0, err
		}
		if i >= len(ops) {
			least += took
		}
	}
	if now()+repeats*least >= until {
		return 0, errTime
	}
	for i := range rounds {
		took, err := run(often)
		if err != nil {
			return 0, err
		}
		if i == 0 || took < least {
			least = took
		}
		if now() >= until {
			break
		}
	}
	return least, nil
}
