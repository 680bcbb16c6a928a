// Package invariant checks, on the data of a running service, what must always be true.
//
// It owns: the fourteen checks, what each says, and the daily proof that ties them to the heads of the
// journal's hash chains.
// It does not own: the SQL that looks for rows that break a check (package postgres, behind Reader), or
// what is done about a finding: nothing is ever repaired here.
//
// Always true: a check reads one consistent state of the database and writes nothing, so it can run
// while the service works; a finding names a record and never shows a secret or a card number; every
// check has a test that breaks the data on purpose and sees it found.
package invariant

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/payment"
)

// ID names a check.
type ID string

// The checks.
const (
	Postings  ID = "I1"
	Chain     ID = "I2"
	Balances  ID = "I3"
	Invoices  ID = "I4"
	Periods   ID = "I5"
	Usage     ID = "I6"
	Provider  ID = "I7"
	Refunds   ID = "I8"
	Deadlines ID = "I9"
	Events    ID = "I10"
	Plan      ID = "I11"
	Documents ID = "I12"
	Cards     ID = "I13"
	Parents   ID = "I14"
)

// MaxFindings bounds what a check reports: the first few show what is wrong, and where.
const MaxFindings = 20

// DefaultGrace is how long something may be overdue before I9 reports it: several rounds of the sweep.
const DefaultGrace = time.Hour

// Options say what the checks run against.
type Options struct {
	Clock   clock.Clock
	Gateway payment.Gateway // for I7; without one it is skipped
	Since   time.Time       // I7 compares payments from here on; zero: all
	Grace   time.Duration   // of I9; zero: DefaultGrace
}

// Check is something that must always be true.
type Check struct {
	ID    ID
	Title string
	find  func(ctx context.Context, src Source, o Options) ([]string, error)
}

// Checks returns the checks, in order.
func Checks() []Check {
	return []Check{
		{Postings, "Every ledger transaction is what its postings say, in one currency", query(Postings)},
		{Chain, "Debits and credits are equal, and every account's hash chain holds", both(query(Chain), chain)},
		{Balances, "Every balance, cached or running, is the sum of its postings", query(Balances)},
		{Invoices, "Every invoice is the sum of its lines, and the books agree with it", query(Invoices)},
		{Periods, "One invoice a period; periods and invoice numbers without a gap", query(Periods)},
		{Usage, "Every usage event counts once, and what is billed stands on invoices", query(Usage)},
		{Provider, "Our payments and the provider's charges are one to one", charges},
		{Refunds, "Nothing more was given back than taken, and the cash agrees", query(Refunds)},
		{Deadlines, "Nothing waits past its deadline", query(Deadlines)},
		{Events, "Every change of state has its event, and events have no gap", query(Events)},
		{Plan, "Plan and limits follow from the account's history", query(Plan)},
		{Documents, "The hashes of final invoices hold, and their lines recompute", documents},
		{Cards, "There is no card number anywhere", cards},
		{Parents, "Every record belongs to its parent's account", query(Parents)},
	}
}

// Result is what came of a check.
type Result struct {
	ID       ID            `json:"id"`
	Title    string        `json:"title"`
	OK       bool          `json:"ok"`
	Skipped  string        `json:"skipped,omitempty"`  // why it could not be made; OK then says nothing
	Findings []string      `json:"findings,omitempty"` // at most MaxFindings
	Took     time.Duration `json:"took"`
}

// Params are what a query of a Reader is given.
type Params struct {
	Now   time.Time // real time
	Grace time.Duration
	Limit int
}

// Source gives consistent states of the database.
type Source interface {
	// Snapshot runs fn on one state of the database, as it was when fn began.
	Snapshot(ctx context.Context, fn func(r Reader) error) error
}

// Reader reads one state of the database.
type Reader interface {
	// Violations looks for what breaks a check, and says for each what it is: a record and what is
	// wrong with it. Not every check is a query.
	Violations(ctx context.Context, id ID, p Params) ([]string, error)
	// Heads yields, for every account that has booked anything before t, the last transaction that was
	// recorded before t, by account.
	Heads(ctx context.Context, t time.Time) iter.Seq2[Head, error]
	// Journal yields every transaction, by account and sequence.
	Journal(ctx context.Context) iter.Seq2[ledger.Transaction, error]
	// ChainEnds yields what the counters of every account say of its chain, by account.
	ChainEnds(ctx context.Context) iter.Seq2[Head, error]
	// Contents yields what every final invoice says, with its lines.
	Contents(ctx context.Context) iter.Seq2[invoice.Content, error]
	// Payments yields the payments by a provider's cards that were begun at since or later.
	Payments(ctx context.Context, provider string, since time.Time) iter.Seq2[payment.Payment, error]
	// Texts yields every stored text with a run of digits that is long enough for a card number. Columns
	// that hold identifiers are left out.
	Texts(ctx context.Context) iter.Seq2[Text, error]
}

// Head is the end of an account's hash chain.
type Head struct {
	Account  account.ID
	Sequence int64
	Hash     []byte
}

// Text is a stored text. Where says which column of which row.
type Text struct {
	Where string
	JSON  bool
	Value string
}

// Run makes every check and returns a result for each, in order. The error is that of a check that
// could not be made; the results stand. A provider that is away keeps nobody from what our own records say.
func Run(ctx context.Context, src Source, o Options) (out []Result, err error) {
	for _, c := range Checks() {
		r, failed := c.Run(ctx, src, o)
		switch {
		case failed == nil:
			out = append(out, r)
		case c.ID == Provider:
			err = failed
		default:
			return out, failed
		}
	}
	return out, err
}

// Run makes one check.
func (c Check) Run(ctx context.Context, src Source, o Options) (_ Result, err error) {
	defer errs.Wrap(&err, "check %s", c.ID)
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	r := Result{ID: c.ID, Title: c.Title}
	if c.ID == Provider && o.Gateway == nil {
		r.Skipped = "no payment provider was given"
		return r, nil
	}
	began := clock.System() // whatever clock the records go by
	findings, err := c.find(ctx, src, o)
	r.Took = clock.System().Sub(began)
	if len(findings) > MaxFindings {
		findings = findings[:MaxFindings]
	}
	r.Findings, r.OK = findings, err == nil && len(findings) == 0
	return r, err
}

// Passed counts the checks that found nothing wrong, and those that were made.
func Passed(results []Result) (passed, made int) {
	for _, r := range results {
		if r.Skipped != "" {
			continue
		}
		made++
		if r.OK {
			passed++
		}
	}
	return passed, made
}

func query(id ID) func(context.Context, Source, Options) ([]string, error) {
	return func(ctx context.Context, src Source, o Options) (out []string, err error) {
		p := Params{Now: o.Clock(), Grace: o.Grace, Limit: MaxFindings}
		err = src.Snapshot(ctx, func(r Reader) error {
			out, err = r.Violations(ctx, id, p)
			return err
		})
		return out, err
	}
}

func both(first, second func(context.Context, Source, Options) ([]string, error)) func(context.Context, Source, Options) ([]string, error) {
	return func(ctx context.Context, src Source, o Options) ([]string, error) {
		a, err := first(ctx, src, o)
		if err != nil {
			return a, err
		}
		b, err := second(ctx, src, o)
		return append(a, b...), err
	}
}

// found collects findings up to the limit.
type found []string

// add reports whether there is room for more.
func (f *found) add(format string, args ...any) bool {
	*f = append(*f, fmt.Sprintf(format, args...))
	return len(*f) < MaxFindings
}
