// Package importer brings usage from a file into the service.
//
// It owns: reading CSV and NDJSON row by row, the mapping of columns to an event's members, batches in
// flight, the checkpoint from which an interrupted import goes on, and the exact counts at the end.
// It does not own: what an event is or whether it is taken. That is the API's to say, and the importer
// speaks to nothing else.
//
// Always true: every row of the file is sent at least once and, since an event's identity makes
// repetition harmless, counted at most once; memory does not grow with the file; rows are counted, and
// rejected ones written down, in the order of the file.
package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/sync/errgroup"
)

// Bounds of an import.
const (
	DefaultBatch   = 1000 // rows of a request
	DefaultWorkers = 4    // requests in flight

	// maxBatchBytes keeps a request of long rows below what the API takes (8 MiB).
	maxBatchBytes = 4 << 20

	// maxAhead is how many batches of each worker may wait for one before them that is not answered: rows are settled in
	// the order of the file, and what waits is kept in memory.
	maxAhead = 8
)

// Outcome is what the API said of one row.
type Outcome struct {
	Status string // accepted, duplicate, conflict or rejected
	Code   string // why, if it was not accepted
	Detail string
}

// A Sender sends events, each a JSON object as the API takes it, and returns an outcome for each. It
// tries again by itself what may succeed later; an error ends the import, which can be resumed.
type Sender interface {
	Send(ctx context.Context, events []json.RawMessage) ([]Outcome, error)
}

// Counts is how many rows became what.
type Counts struct {
	Rows     int64 `json:"rows"`
	Accepted int64 `json:"accepted"`
	// Duplicates were stored before: by another import, or twice in the file. Where an import was
	// killed, also the few rows whose answer it had not come to note: accepted + duplicates is exact.
	Duplicates int64 `json:"duplicates"`
	Conflicts  int64 `json:"conflicts"`
	Rejected   int64 `json:"rejected"`
}

func (c *Counts) add(status string) {
	c.Rows++
	switch status {
	case "accepted":
		c.Accepted++
	case "duplicate":
		c.Duplicates++
	case "conflict":
		c.Conflicts++
	default:
		c.Rejected++
	}
}

// Progress is told how far an import has come. It must be quick.
type Progress interface {
	// Read is told how many bytes of the file were read, compressed as it is.
	Read(bytes int64)
	// Done is told the counts so far.
	Done(c Counts)
}

// Options say how to import. The zero value of a field means its default.
type Options struct {
	Mapping    Mapping
	Batch      int
	Workers    int
	Checkpoint string   // file to resume from and to keep up to date; empty: none
	Rejects    string   // file for rows that were not taken; empty: none
	Progress   Progress // nil: none
	Log        *slog.Logger
}

// batch is a run of rows in flight.
type batch struct {
	number   int
	rows     []row
	sum      string // over all rows of the file up to the last of these
	outcomes []Outcome
}

// Run imports a file and returns the counts of the whole import, earlier runs that it resumes included.
// The counts are right also if there is an error: they are those of the rows that are settled.
func Run(ctx context.Context, path string, sender Sender, opt Options) (_ Counts, err error) {
	if opt.Batch <= 0 {
		opt.Batch = DefaultBatch
	}
	if opt.Workers <= 0 {
		opt.Workers = DefaultWorkers
	}
	source, err := openSource(path, opt.Mapping, opt.Progress)
	if err != nil {
		return Counts{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	state, err := openState(path, opt)
	if err != nil {
		return Counts{}, err
	}
	defer func() { err = errors.Join(err, state.close()) }()
	if err := source.skip(state.saved); err != nil {
		return state.counts, err
	}
	err = (&run{sender: sender, opt: opt, source: source, state: state}).all(ctx)
	return state.counts, err
}

type run struct {
	sender Sender
	opt    Options
	source *source
	state  *state
}

func (r *run) all(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	todo, done := make(chan *batch), make(chan *batch, r.opt.Workers)
	unsettled := make(chan struct{}, maxAhead*r.opt.Workers)
	g.Go(func() error {
		defer close(todo)
		return r.read(ctx, todo, unsettled)
	})
	senders, sendCtx := errgroup.WithContext(ctx)
	for range r.opt.Workers {
		senders.Go(func() error { return r.send(sendCtx, todo, done) })
	}
	g.Go(func() error {
		defer close(done)
		return senders.Wait()
	})
	// Settling goes on while anything comes, also after an error, so that what was answered is kept.
	settled := r.settle(done, unsettled, cancel)
	return errors.Join(settled, g.Wait())
}

// read cuts the file into batches, and waits where as many as there may be are not settled.
func (r *run) read(ctx context.Context, todo chan<- *batch, unsettled chan<- struct{}) error {
	for number := 0; ; number++ {
		select {
		case unsettled <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b := &batch{number: number}
		for size := 0; len(b.rows) < r.opt.Batch && size < maxBatchBytes; {
			next, err := r.source.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			b.rows = append(b.rows, next)
			size += len(next.event)
		}
		if len(b.rows) == 0 {
			return nil
		}
		b.sum = r.source.passed()
		select {
		case todo <- b:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send has batches answered. Rows that cannot be events are not sent.
func (r *run) send(ctx context.Context, todo <-chan *batch, done chan<- *batch) error {
	for b := range todo {
		var events []json.RawMessage
		for i := range b.rows {
			if b.rows[i].fault == "" {
				events = append(events, b.rows[i].event)
			}
		}
		var outcomes []Outcome
		if len(events) > 0 {
			var err error
			if outcomes, err = r.sender.Send(ctx, events); err != nil {
				return err
			}
			if len(outcomes) != len(events) {
				return fmt.Errorf("%d answers to %d events", len(outcomes), len(events))
			}
		}
		b.outcomes = make([]Outcome, len(b.rows))
		next := 0
		for i := range b.rows {
			if b.rows[i].fault != "" {
				b.outcomes[i] = Outcome{Status: "rejected", Code: "unreadable_row", Detail: b.rows[i].fault}
				continue
			}
			b.outcomes[i] = outcomes[next]
			next++
		}
		done <- b
	}
	return nil
}

// settle counts batches in the order of the file. Where it fails it stops the rest, and lets what is
// under way come to its end.
func (r *run) settle(done <-chan *batch, unsettled <-chan struct{}, stop func()) error {
	waiting := map[int]*batch{}
	next := 0
	var failed error
	for b := range done {
		waiting[b.number] = b
		for waiting[next] != nil && failed == nil {
			if failed = r.state.settle(waiting[next]); failed != nil {
				stop()
			}
			delete(waiting, next)
			next++
			<-unsettled
			if r.opt.Progress != nil {
				r.opt.Progress.Done(r.state.counts)
			}
		}
	}
	return failed
}
