package v1_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	v1 "github.com/accrue-billing/accrue/api/v1"
)

// The estimates endpoint must reach this share of what an Echo handler does that only decodes the same
// request and encodes the same answer.
const estimatesShare = 0.70

// turns is how often the two change within a round.
const turns = 10

// BenchmarkEstimates asks both by turns, three rounds each in the same run, over TCP with 16 connections,
// and reports the medians and their ratio.
func BenchmarkEstimates(b *testing.B) {
	w := newWorld(b)
	w.deps.Limits = map[route.Class]middleware.Limit{route.Reads: {Quota: 1 << 30, Window: time.Minute}}
	full, err := api.New(w.deps)
	if err != nil {
		b.Fatal(err)
	}
	const body = `{"plan":"pro","usage":{"voice":"1800000","text":"4000000"}}`
	var answer v1.Estimate
	first := post(b, full, body)
	bare := echo.New()
	bare.POST("/v1/estimates", func(c echo.Context) error {
		var in v1.EstimateRequest
		if err := c.Bind(&in); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, &answer)
	})
	if err := bare.JSONSerializer.Deserialize(bare.NewContext(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(first)), nil), &answer); err != nil {
		b.Fatal(err)
	}
	if again := post(b, bare, body); len(again) != len(first) {
		b.Fatalf("the two do not answer the same:\n%s\n%s", first, again)
	}
	var rates, shares []float64
	for b.Loop() {
		rates, shares = nil, nil
		for range 3 {
			var ours, theirs float64
			for range turns { // by turns, so that what else the machine does falls on both
				theirs += load(b, bare, body)
				ours += load(b, full, body)
			}
			rates = append(rates, ours/turns)
			shares = append(shares, ours/theirs)
		}
	}
	slices.Sort(rates)
	slices.Sort(shares)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rates[1], "req/s")
	b.ReportMetric(shares[1], "of-echo")
	b.ReportMetric(estimatesShare, "must-of-echo")
}

func post(b *testing.B, h http.Handler, body string) string {
	b.Helper()
	req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/estimates", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		b.Fatalf("%d %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// load returns how many requests a second the handler answers.
func load(b *testing.B, h http.Handler, body string) float64 {
	b.Helper()
	const connections, span = 16, 150 * time.Millisecond
	server := httptest.NewServer(h)
	defer server.Close()
	request := []byte(fmt.Sprintf("POST /v1/estimates HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	var n atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for range connections {
		wg.Go(func() {
			if err := ask(server.Listener.Addr().String(), request, begun.Add(span), &n); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(begun).Seconds()
}

// ask repeats a request on one connection until the time is over.
func ask(addr string, request []byte, until time.Time, n *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for time.Now().Before(until) {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := read(in); err != nil {
			return err
		}
		n.Add(1)
	}
	return nil
}

// read reads an answer and keeps nothing of it: on a machine with two cores, what the asking side does with
// headers would be counted against the answering side.
func read(in *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answered %s", line)
		}
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(n))); err != nil {
				return err
			}
		}
		if len(line) == 2 {
			break
		}
	}
	if length == 0 {
		return errors.New("an answer without Content-Length")
	}
	_, err := in.Discard(length)
	return err
}
