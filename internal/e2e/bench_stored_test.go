package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkStored compares reads with 100,000 events stored and with 10 million, all taken in by the service
// itself: each read as a share of B, measured beside it, so that the machine's moods fall out. The events
// lie in the same quarters of an hour, so nothing but their number differs.
func BenchmarkStored(b *testing.B) {
	const (
		few, many = 100_000, 10_000_000
		must      = 0.9
	)
	s := newBenchService(b)
	reads := []struct{ name, path string }{
		{"usage to date", "/v1/usage?meter=voice"},
		{"balance", "/v1/balance"},
		{"entitlement strict", "/v1/entitlements/voice?strict=true"},
		{"the latest events", "/v1/usage/events?limit=20"},
	}
	share := func(path string) (shares [3]float64, p50 time.Duration) {
		for i := range shares {
			got, base := s.reads(8, path, 2*time.Second), s.bare(b, 2*time.Second)
			shares[i], p50 = got.perSecond/base.perSecond, got.p50
		}
		slices.Sort(shares[:])
		return shares, p50
	}
	measure := func() (shares []float64, typical []time.Duration) {
		for _, r := range reads {
			got, p50 := share(r.path)
			shares, typical = append(shares, got[1]), append(typical, p50)
		}
		return shares, typical
	}

	stored := s.fill(b, few)
	before, typicalBefore := measure()
	memory := s.memory()
	begin := time.Now()
	all := s.fill(b, many)
	took := time.Since(begin)
	fmt.Printf("%d events stored, and then %d: %.0f events/s; resident memory of the service at its peak %s, and then %s (<= 96 MiB)\n",
		stored, all, float64(all-stored)/took.Seconds(), memory, s.memory())
	after, typicalAfter := measure()
	for i, r := range reads {
		ratio := after[i] / before[i]
		fmt.Printf("%-46s p50 %s, and then %s; as a share of B %.3f, and then %.3f: %.2f (>= %.2f)\n",
			r.name, typicalBefore[i].Round(10*time.Microsecond), typicalAfter[i].Round(10*time.Microsecond), before[i], after[i], ratio, must)
		b.Run(strings.ReplaceAll(r.name, " ", "_"), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ratio, "of-few-stored")
			b.ReportMetric(must, "must-of-few-stored")
		})
	}
}

// fill has the service take in events until n are stored, and returns how many are. What the database does
// behind that in its own time is done then.
func (s *benchService) fill(b *testing.B, n int) (stored int) {
	b.Helper()
	for stored < n {
		s.ingest(16, 200, time.Second)
		if err := s.pool.QueryRow(b.Context(), "SELECT coalesce(sum(events), 0)::bigint FROM usage_totals").Scan(&stored); err != nil {
			b.Fatal(err)
		}
	}
	for _, sql := range []string{"VACUUM (ANALYZE) usage_events, usage_event_keys, usage_totals, usage_buckets", "CHECKPOINT"} {
		if _, err := s.pool.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	return stored
}
