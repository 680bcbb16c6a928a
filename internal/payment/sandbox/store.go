package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	journalName  = "sandbox.jsonl"
	keyRetention = 24 * time.Hour
)

// state is everything that the provider knows.
type state struct {
	customers map[string]customer
	setups    map[string]setup
	methods   map[string]method
	charges   map[string]charge
	refunds   map[string]refund
	disputes  map[string]dispute
	events    map[string]event
	keys      map[string]keyRecord
	faults    []Fault
	hold      bool // webhooks are sent on demand only

	// Indexes, kept by apply.
	customerOf map[string]string   // account → customer
	byPayment  map[string][]string // payment → charges: one, unless the service is at fault
	byCharge   map[string][]string // charge → refunds
	tickets    map[string]string   // of pages → setup or charge
	order      []string            // charges as they were made
	due        map[string]bool     // events that wait to be delivered
	seq        int64               // of the last event
}

func newState() *state {
	return &state{
		customers: map[string]customer{}, setups: map[string]setup{}, methods: map[string]method{},
		charges: map[string]charge{}, refunds: map[string]refund{}, disputes: map[string]dispute{},
		events: map[string]event{}, keys: map[string]keyRecord{}, customerOf: map[string]string{},
		byPayment: map[string][]string{}, byCharge: map[string][]string{}, tickets: map[string]string{},
		due: map[string]bool{},
	}
}

// change is one line of the journal: all of it holds, or none.
type change struct {
	Customers []customer  `json:"customers,omitempty"`
	Setups    []setup     `json:"setups,omitempty"`
	Methods   []method    `json:"methods,omitempty"`
	Charges   []charge    `json:"charges,omitempty"`
	Refunds   []refund    `json:"refunds,omitempty"`
	Disputes  []dispute   `json:"disputes,omitempty"`
	Events    []event     `json:"events,omitempty"`
	Keys      []keyRecord `json:"keys,omitempty"`
	Forget    []string    `json:"forget,omitempty"` // keys
	Faults    *[]Fault    `json:"faults,omitempty"` // the whole plan
	Hold      *bool       `json:"hold,omitempty"`
}

func (c *change) empty() bool {
	return c.Customers == nil && c.Setups == nil && c.Methods == nil && c.Charges == nil && c.Refunds == nil &&
		c.Disputes == nil && c.Events == nil && c.Keys == nil && c.Forget == nil && c.Faults == nil && c.Hold == nil
}

func (s *state) apply(c *change) {
	for _, v := range c.Customers {
		s.customers[v.ID] = v
		s.customerOf[v.Account] = v.ID
	}
	for _, v := range c.Setups {
		s.setups[v.ID] = v
		for _, t := range []string{v.PageTicket, v.AuthTicket} {
			if t != "" {
				s.tickets[t] = v.ID
			}
		}
	}
	for _, v := range c.Methods {
		s.methods[v.ID] = v
	}
	for _, v := range c.Charges {
		if _, known := s.charges[v.ID]; !known {
			s.order = append(s.order, v.ID)
			s.byPayment[v.Payment] = append(s.byPayment[v.Payment], v.ID)
		}
		if v.AuthTicket != "" {
			s.tickets[v.AuthTicket] = v.ID
		}
		s.charges[v.ID] = v
	}
	for _, v := range c.Refunds {
		if _, known := s.refunds[v.ID]; !known {
			s.byCharge[v.Charge] = append(s.byCharge[v.Charge], v.ID)
		}
		s.refunds[v.ID] = v
	}
	for _, v := range c.Disputes {
		s.disputes[v.ID] = v
	}
	for _, v := range c.Events {
		s.events[v.ID] = v
		s.seq = max(s.seq, v.Seq)
		if v.Due.IsZero() {
			delete(s.due, v.ID)
		} else {
			s.due[v.ID] = true
		}
	}
	for _, v := range c.Keys {
		s.keys[v.Key] = v
	}
	for _, k := range c.Forget {
		delete(s.keys, k)
	}
	if c.Faults != nil {
		s.faults = *c.Faults
	}
	if c.Hold != nil {
		s.hold = *c.Hold
	}
}

// store keeps the state in memory and every change of it in a journal.
//
// A change is visible at once and durable when its writer returns; whoever reads waits until what it
// has read is durable, so that nothing is ever told which a crash could take back. Writers share an
// fsync: while one is under way, the lines of the others gather.
type store struct {
	mu      sync.Mutex
	state   *state
	pending []byte // lines not yet handed to the file
	last    int64  // number of the last change
	done    int64  // number of the last durable change
	failed  error  // the journal is broken; nothing more is taken
	writing bool
	turn    *sync.Cond
	file    *os.File     // nil: in memory only
	lock    *flock.Flock // of the folder; it goes with the process, whatever kills it
}

// openStore replays the journal in dir, or keeps everything in memory where dir is empty. A last line
// that a crash cut short is dropped: it was never answered.
func openStore(dir string, now time.Time) (*store, error) {
	s := &store{state: newState()}
	s.turn = sync.NewCond(&s.mu)
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the sandbox's journal: %w", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	s.lock = lock
	defer func() {
		if s.file == nil {
			_ = lock.Close()
		}
	}()
	path := filepath.Join(dir, journalName)
	found, err := replay(path, s.state)
	if err != nil {
		return nil, fmt.Errorf("open the sandbox's journal: %w", err)
	}
	s.prune(now)
	// What is live is written anew: it drops the torn tail, old keys and what was overwritten.
	if found {
		if err := s.compact(path); err != nil {
			return nil, fmt.Errorf("compact the sandbox's journal: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // in the data folder
	if err != nil {
		return nil, fmt.Errorf("open the sandbox's journal: %w", err)
	}
	s.file = file
	return s, nil
}

// lockFolder makes this process the only one that writes the journal: what another writes beside it would be lost.
func lockFolder(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "lock"))
	got, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the sandbox's journal: %w", err)
	}
	if !got {
		return nil, ErrInUse
	}
	return lock, nil
}

// replay applies the journal, if there is one.
func replay(path string, into *state) (found bool, err error) {
	f, err := os.Open(path) //nolint:gosec // in the data folder
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<16)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return true, nil // with or without a torn line
		}
		if err != nil {
			return true, err
		}
		var c change
		if err := json.Unmarshal(line, &c); err != nil {
			return true, fmt.Errorf("line %d: %w", n, err)
		}
		into.apply(&c)
	}
}

// prune drops what is of no use any more: keys past their time, and events that were taken.
func (s *store) prune(now time.Time) {
	for k, v := range s.state.keys {
		if now.Sub(v.CreatedAt) > keyRetention {
			delete(s.state.keys, k)
		}
	}
	for id, e := range s.state.events {
		if e.Delivered > 0 && now.Sub(e.CreatedAt) > 30*keyRetention {
			delete(s.state.events, id)
		}
	}
}

// compact replaces the journal by one that holds the present state, one object a line.
func (s *store) compact(path string) (err error) {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // in the data folder
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := bufio.NewWriterSize(f, 1<<16)
	enc := json.NewEncoder(w)
	write := func(c change) {
		if err == nil {
			err = enc.Encode(c)
		}
	}
	st := s.state
	for _, v := range st.customers {
		write(change{Customers: []customer{v}})
	}
	for _, v := range st.setups {
		write(change{Setups: []setup{v}})
	}
	for _, v := range st.methods {
		write(change{Methods: []method{v}})
	}
	for _, id := range st.order {
		write(change{Charges: []charge{st.charges[id]}})
	}
	for _, ids := range st.byCharge {
		for _, id := range ids {
			write(change{Refunds: []refund{st.refunds[id]}})
		}
	}
	for _, v := range st.disputes {
		write(change{Disputes: []dispute{v}})
	}
	for _, v := range sortedEvents(st) {
		write(change{Events: []event{v}})
	}
	for _, v := range st.keys {
		write(change{Keys: []keyRecord{v}})
	}
	write(change{Faults: &st.faults, Hold: &st.hold})
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// update runs fn on the present state and makes what it puts into the change durable, all or nothing.
// fn must not change the state itself, and sees it without its own changes.
func (s *store) update(fn func(st *state, c *change) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	var c change
	if err := fn(s.state, &c); err != nil {
		return err
	}
	if !c.empty() {
		if s.file != nil {
			line, err := json.Marshal(c)
			if err != nil {
				return err
			}
			s.pending = append(append(s.pending, line...), '\n')
		}
		s.state.apply(&c)
		s.last++
	}
	return s.await(s.last)
}

// view runs fn on the present state and returns when what it saw is durable.
func (s *store) view(fn func(st *state)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.state)
	return s.await(s.last)
}

// await returns when change n is durable. The lock is held on entry and on return, not between.
func (s *store) await(n int64) error {
	if s.file == nil {
		return nil
	}
	for s.done < n {
		if s.failed != nil {
			return s.failed
		}
		if s.writing {
			s.turn.Wait()
			continue
		}
		s.writing = true
		lines, upTo := s.pending, s.last
		s.pending = nil
		s.mu.Unlock()
		_, err := s.file.Write(lines)
		if err == nil {
			err = s.file.Sync()
		}
		s.mu.Lock()
		s.writing = false
		if err != nil {
			s.failed = fmt.Errorf("write the sandbox's journal: %w", err)
		} else {
			s.done = upTo
		}
		s.turn.Broadcast()
	}
	return nil
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || errors.Is(s.failed, os.ErrClosed) {
		return nil
	}
	err := s.await(s.last)
	s.failed = os.ErrClosed
	return errors.Join(err, s.file.Close(), s.lock.Close())
}

func sortedEvents(st *state) []event {
	out := make([]event, 0, len(st.events))
	for _, e := range st.events {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b event) int { return int(a.Seq - b.Seq) })
	return out
}
