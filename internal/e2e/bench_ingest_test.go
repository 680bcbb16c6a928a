package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// BenchmarkIngest measures the whole service, as a process of its own on a private PostgreSQL with
// fsync, against what the machine can do at all. Everything shares the machine, the load included.
// Absolute figures drift from run to run; the ratios are what counts. Beside each stands the ratio of
// processor times, which says the same where others use the machine meanwhile:
//
//	A  single-row inserts of pgbench, 16 clients
//	B  a bare Echo handler, 64 connections
//	C  the same events inserted raw from arrays, 1,000 a commit, 2 connections, nothing else kept
func BenchmarkIngest(b *testing.B) {
	s := newBenchService(b)
	reads := func(path string) func(time.Duration) rate {
		return func(span time.Duration) rate { return s.reads(64, path, span) }
	}
	for _, w := range []work{
		{"batches of 100, 16 connections", "events", "C", 0.28, 0.45, 60 * time.Millisecond, func(d time.Duration) rate { return s.ingest(16, 100, d) }},
		{"single events, 64 connections", "events", "A", 0.8, 1, 15 * time.Millisecond, func(d time.Duration) rate { return s.ingest(64, 1, d) }},
		{"usage to date, 64 connections", "reads", "B", 0.42, 0.55, 12 * time.Millisecond, reads("/v1/usage?meter=voice")},
		{"balance, 64 connections", "reads", "B", 0.42, 0.55, 12 * time.Millisecond, reads("/v1/balance")},
		{"entitlement from memory, 64 connections", "checks", "B", 0.7, 0.85, 12 * time.Millisecond, reads("/v1/entitlements/voice")},
		{"entitlement strict, 64 connections", "checks", "B", 0.4, 0.55, 12 * time.Millisecond, reads("/v1/entitlements/voice?strict=true")},
		{"reserve and commit, 64 connections", "pairs", "A", 0.4, 0.6, 0, func(d time.Duration) rate {
			r := s.reservations(64, len(s.tokens), d)
			s.spread.Store(r.perSecond)
			return r
		}},
		{"reserve and commit on one account", "pairs", "spread", 0.7, 1, 0, func(d time.Duration) rate { return s.reservations(64, 1, d) }},
	} {
		s.measure(b, w)
	}
	b.Run("single_events,_alone", func(b *testing.B) {
		alone := s.ingest(1, 1, 3*time.Second)
		fmt.Printf("%-46s p50 %s (<= 800µs)\n", "single events, alone", alone.p50.Round(10*time.Microsecond))
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(alone.p50.Microseconds()), "µs-p50")
		b.ReportMetric(800, "must-µs-p50")
	})
	fmt.Printf("%-46s %s (<= 96 MiB)\n", "resident memory of the service at its peak", s.memory())
}

// ingest sends batches, each connection for an account of its own.
func (s *benchService) ingest(connections, batch int, span time.Duration) rate {
	run := s.sent.Add(1)
	now := time.Now().UTC().Format(time.RFC3339)
	return load(s.address, connections, span, func(conn, round int) ([]byte, int) {
		body := make([]byte, 0, 32+batch*190)
		body = append(body, `{"events":[`...)
		for i := range batch {
			if i > 0 {
				body = append(body, ',')
			}
			body = fmt.Appendf(body, `{"id":"call-%d-%d-%d-%d","source":"media-eu-1","meter":"voice","quantity":"63.5","timestamp":%q,"dimensions":{"project":"p%d"}}`,
				run, conn, round, i, now, i%5)
		}
		body = append(body, "]}"...)
		head := fmt.Sprintf("POST /v1/usage/events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			s.tokens[conn%len(s.tokens)], len(body))
		return append([]byte(head), body...), batch
	})
}

func (s *benchService) reads(connections int, path string, span time.Duration) rate {
	requests := make([][]byte, len(s.tokens))
	for i, token := range s.tokens {
		requests[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
	}
	return load(s.address, connections, span, func(conn, _ int) ([]byte, int) { return requests[conn%len(requests)], 1 })
}

// reservations makes a reservation and commits it, in turns; a pair is one of both.
func (s *benchService) reservations(connections, accounts int, span time.Duration) rate {
	ids := make([]string, connections)
	r := loadWith(s.address, connections, span, func(conn, round int) ([]byte, int) {
		path, body, counts := "/v1/usage/reservations", `{"meter":"voice","quantity":"10"}`, 0
		if round%2 == 1 {
			path, body, counts = path+"/"+ids[conn]+"/commit", `{"quantity":"7"}`, 1
		}
		return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nIdempotency-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			path, s.tokens[conn%accounts], uuid.NewString(), len(body), body), counts
	}, func(conn int, answer []byte) {
		if _, after, ok := strings.Cut(string(answer), `"id":"`); ok {
			ids[conn], _, _ = strings.Cut(after, `"`)
		}
	})
	return r
}
