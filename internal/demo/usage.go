package demo

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Profile says how a customer uses the product on a working day.
type Profile struct {
	Calls    float64  // a working day
	Messages float64  // a working day
	Projects []string // that calls and messages are tagged with
	Zone     *time.Location
}

// hours is how a working day's traffic spreads over its hours, in parts of the whole: it rises at
// eight, dips at lunch, and falls after six.
var hours = [24]float64{
	0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.6, 1.8, 5.2, 8.9, 10.2, 9.8,
	7.1, 8.4, 9.9, 9.6, 8.3, 6.1, 4.0, 2.9, 2.4, 1.9, 1.3, 0.8,
}

// weekend is how much of a working day's traffic a Saturday or a Sunday has.
const weekend = 0.22

// Day returns the events of one day of a customer, in the order of time. The same seed gives the same day.
//
// Calls last log-normally (median 2½ minutes, a long tail), as measured telephone traffic does;
// messages have log-normal lengths of about a dozen words.
func (p Profile) Day(a account.ID, day time.Time, seed uint64) []metering.Event {
	local := day.In(p.Zone)
	midnight := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, p.Zone)
	r := rand.New(rand.NewPCG(seed, uint64(midnight.Unix()))) //nolint:gosec // a demo wants the same days every time
	share := 1.0
	if d := midnight.Weekday(); d == time.Saturday || d == time.Sunday {
		share = weekend
	}
	var out []metering.Event
	whole := 0.0
	for _, h := range hours {
		whole += h
	}
	for h, part := range hours {
		for _, m := range []struct {
			meter string
			rate  float64
			draw  func() string
		}{
			{"voice", p.Calls, func() string { return tenths(logNormal(r, 150, 0.95)) }},
			{"text", p.Messages, func() string { return strconv.Itoa(1 + int(logNormal(r, 11, 0.7))) }},
		} {
			for range poisson(r, m.rate*share*part/whole) {
				at := midnight.Add(time.Duration(h)*time.Hour + time.Duration(r.Int64N(int64(time.Hour))))
				out = append(out, event(a, m.meter, m.draw(), at, p.Projects, r))
			}
		}
	}
	return out
}

func event(a account.ID, meter, quantity string, at time.Time, projects []string, r *rand.Rand) metering.Event {
	at = at.UTC().Truncate(time.Microsecond)
	e := metering.Event{
		Account: a, Source: "media-eu-1", Meter: meter, Quantity: money.MustDecimal(quantity), OccurredAt: at,
		ID: meter + "-" + strconv.FormatInt(at.UnixMicro(), 36) + "-" + strconv.FormatUint(r.Uint64()>>40, 36),
	}
	if len(projects) > 0 {
		e.Dimensions = metering.DimensionsOf(map[string]string{"project": projects[r.IntN(len(projects))]})
	}
	return e
}

func logNormal(r *rand.Rand, median, sigma float64) float64 {
	return median * math.Exp(sigma*r.NormFloat64())
}

// tenths writes a number of seconds with one decimal: exact from here on.
func tenths(seconds float64) string {
	n := int64(math.Round(min(max(seconds, 1), 4*3600) * 10))
	s := strconv.FormatInt(n/10, 10)
	if d := n % 10; d != 0 {
		s += "." + strconv.FormatInt(d, 10)
	}
	return s
}

// poisson draws how many of something happen where mean are expected (Knuth, for small means).
func poisson(r *rand.Rand, mean float64) int {
	limit, p := math.Exp(-mean), 1.0
	for n := 0; ; n++ {
		if p *= r.Float64(); p <= limit {
			return n
		}
	}
}
