// Package runway estimates how long an account's funds will last; pure.
//
// It owns: the estimate from what each day has cost. It does not own: what a day has cost (billing), or
// what is available now.
//
// The estimate is an order of days, not a promise: it takes every coming day to cost what an ordinary
// day of the last weeks did (the median), and for caution what a dear one did (the 90th percentile).
package runway

import (
	"math/bits"
	"slices"
	"time"
)

// What an estimate stands on.
const (
	MinDays = 7  // fewer days say nothing
	MaxDays = 28 // four whole weeks, so that every weekday counts alike
	Day     = 24 * time.Hour
)

// horizon is how far an estimate looks. What lasts longer lasts.
const horizon = 10 * 365

// Percentiles of the daily spend that are projected.
const (
	Ordinary = 50
	Dear     = 90
)

// Estimate is how long funds last at one pace.
type Estimate struct {
	Percentile int
	Daily      int64     // minor units a day
	Until      time.Time // zero: beyond the horizon, or nothing is spent
}

// Of estimates how long available (minor units) lasts from now, given what each of the last days has
// cost. It reports false where they are too few. Nothing available lasts until now.
func Of(now time.Time, available int64, daily []int64) ([]Estimate, bool) {
	if len(daily) < MinDays {
		return nil, false
	}
	sorted := slices.Sorted(slices.Values(daily))
	out := make([]Estimate, 0, 2)
	for _, p := range []int{Ordinary, Dear} {
		e := Estimate{Percentile: p, Daily: percentile(sorted, p)}
		e.Until = until(now, available, e.Daily)
		out = append(out, e)
	}
	return out, true
}

// percentile is the nearest rank: the least value that p percent of the values do not pass.
func percentile(sorted []int64, p int) int64 {
	return sorted[(len(sorted)*p+99)/100-1] // there are MinDays at the least
}

func until(now time.Time, available, daily int64) time.Time {
	switch {
	case available <= 0:
		return now
	case daily <= 0 || available/daily >= horizon:
		return time.Time{}
	}
	// available × a day ÷ daily, in seconds; the product does not fit into 64 bits.
	hi, lo := bits.Mul64(uint64(available), uint64(Day/time.Second))
	seconds, _ := bits.Div64(hi, lo, uint64(daily))
	return now.Add(time.Duration(seconds) * time.Second) //nolint:gosec // at most the horizon
}
