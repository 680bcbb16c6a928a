package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
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
	requests := make([]template, connections)
	for conn := range requests {
		var events []string
		for i := range batch {
			events = append(events, fmt.Sprintf(`{"id":"call-%d-%d-%d-%s","source":"media-eu-1","meter":"voice","quantity":"63.5","timestamp":%q,"dimensions":{"project":"p%d"}}`,
				run, conn, i, number, now, i%5))
		}
		requests[conn] = s.post("/v1/usage/events", s.tokens[conn%len(s.tokens)], "", `{"events":[`+strings.Join(events, ",")+"]}")
	}
	return load(s.address, connections, span, func(conn, round int) ([]byte, int) {
		return requests[conn].with(uint64(round)), batch
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
	reserve, commit := make([]template, connections), make([][2]template, connections)
	for conn := range connections {
		token, key := s.tokens[conn%accounts], "Idempotency-Key: "+number+uuid.NewString()+"\r\n"
		reserve[conn] = s.post("/v1/usage/reservations", token, key, `{"meter":"voice","quantity":"10"}`)
		before, after, _ := strings.Cut(string(s.post("/v1/usage/reservations/{id}/commit", token, key, `{"quantity":"7"}`).text), "{id}")
		commit[conn] = [2]template{newTemplate(before), newTemplate(after)}
	}
	ids := make([][]byte, connections)
	return loadWith(s.address, connections, span, func(conn, round int) ([]byte, int) {
		if round%2 == 0 {
			return reserve[conn].with(rand.Uint64()), 0
		}
		path, rest := commit[conn][0].text, commit[conn][1].with(rand.Uint64())
		return slices.Concat(path, ids[conn], rest), 1
	}, func(conn int, answer []byte) {
		if _, after, ok := bytes.Cut(answer, []byte(`"id":"`)); ok {
			id, _, _ := bytes.Cut(after, []byte(`"`))
			ids[conn] = append(ids[conn][:0], id...)
		}
	})
}
