package metering

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Ref names an event.
type Ref struct {
	Account account.ID
	Key     uuid.UUID
}

// Stored is what the permanent key of an event remembers of it.
type Stored struct {
	Content    uuid.UUID
	OccurredAt time.Time
}

// Admission is what admits an account's usage, and the account's time.
type Admission struct {
	entitlement.Entitlement
	ClockAt time.Time // on the account's test clock; zero in real time
}

// now returns the account's time.
func (a *Admission) now(real time.Time) time.Time {
	if a.ClockAt.IsZero() {
		return real
	}
	return a.ClockAt
}

// TotalKey names a period total.
type TotalKey struct {
	Account account.ID
	Meter   string
	Period  int64 // start, in microseconds since 1970
}

// compare orders totals as they are locked.
func (k TotalKey) compare(o TotalKey) int {
	return cmp.Or(compareUUID(k.Account.UUID(), o.Account.UUID()), strings.Compare(k.Meter, o.Meter), cmp.Compare(k.Period, o.Period))
}

// Held is what counts against a limit.
type Held struct{ Used, Reserved money.Decimal }

// SeriesKey names a series within a period.
type SeriesKey struct {
	TotalKey
	Series Series
}

// UniqueKey names a value that a roll-up counts once. Value is a digest of the roll-up and the value.
type UniqueKey struct {
	TotalKey
	Value uuid.UUID
}

// Ask says what an ingest transaction will decide about.
type Ask struct {
	Accounts []account.ID // ascending, each once: the order in which rows are locked
	Events   []Ref
	Meters   []string // each once
	Exact    bool     // the totals of all accounts are read, not only of those that have a limit
	PassOver bool     // accounts that somebody else holds are left out, instead of being waited for
	// Of operations on reservations, where there are any:
	Reservations []ReservationRef
	Answers      []AnswerRef
	Holders      []account.ID // accounts whose overdue reservations are to be let go
}

// ReservationRef names a reservation.
type ReservationRef struct {
	Account account.ID
	ID      entitlement.ReservationID
}

// AnswerRef names a stored answer.
type AnswerRef struct {
	Account account.ID
	Scope   string
	Key     string
}

// StoredAnswer is the answer that was given to a request.
type StoredAnswer struct {
	AnswerRef
	Fingerprint [32]byte
	idempotency.Answer
}

// Hold changes what open reservations hold of a meter.
type Hold struct {
	TotalKey
	Delta money.Decimal
	Max   money.Decimal // what used and reserved together may come to
}

// Known is what an ingest transaction has read, with the accounts' entitlements locked.
type Known struct {
	Admissions map[account.ID]*Admission
	Held       map[account.ID]bool // those that were passed over
	Events     map[Ref]Stored      // those of the asked that are stored
	Totals     map[TotalKey]Held   // of open periods, for the accounts that have a limit, or all that are asked exactly
	// Of operations on reservations, where there are any:
	Now          time.Time // by the database's clock
	Reservations map[ReservationRef]entitlement.Reservation
	Answers      map[AnswerRef]StoredAnswer
	Overdue      []entitlement.Reservation // open, of the holders, and past their time
}

// A Lookup reads more within an ingest transaction; each call is one round trip.
type Lookup interface {
	// Series returns which of the series are counted already, and how many each period total has.
	Series(ctx context.Context, keys []SeriesKey) (known map[SeriesKey]bool, counts map[TotalKey]int, err error)
	// Unique returns which of the values are counted already.
	Unique(ctx context.Context, keys []UniqueKey) (map[UniqueKey]bool, error)
	// Raw returns the named events so far as they are kept.
	Raw(ctx context.Context, refs map[Ref]Stored) (map[Ref]*Record, error)
	// Uses returns all that an account has used and reserved in a period, by series.
	Uses(ctx context.Context, a account.ID, period time.Time) ([]entitlement.Use, error)
}

// Row is one event to be stored.
type Row struct {
	Event   *Event
	Key     uuid.UUID
	Content uuid.UUID
	Counted money.Decimal
	Period  time.Time
	Series  Series
}

// Rollup is what one flush adds to one roll-up: a total, a series or a bucket.
type Rollup struct {
	Account  account.ID
	Meter    string
	At       int64  // start of the period or of the bucket, in microseconds since 1970
	Series   Series // NoSeries in a total
	Quantity money.Decimal
	Max      money.Decimal // of a total: what it and what is reserved may come to
	Events   int64
	LastAt   int64 // whose value it is, where the aggregation does not add
	LastKey  uuid.UUID
}

// Rollups are roll-ups by the way in which they merge with what is stored.
type Rollups struct{ Add, Max, Last []Rollup }

// SeriesRow is a series to be remembered.
type SeriesRow struct {
	Account    account.ID
	Meter      string
	Series     Series
	Dimensions Dimensions
}

// Reject is an event that was refused for the account's limits or standing, kept for reconciliation.
type Reject struct {
	Event  *Event
	Reason string
}

// Writes is what an ingest transaction stores.
type Writes struct {
	At      time.Time // received
	Events  []Row
	Totals  Rollups
	Series  Rollups
	Buckets Rollups
	Known   []SeriesRow
	Unique  []UniqueKey
	Rejects []Reject

	Reservations []entitlement.Reservation // as they stand now; known ones are replaced
	Holds        []Hold
	Answers      []StoredAnswer
}

// ErrOutcomeUnknown says that a transaction was sent to be committed and no answer came.
var ErrOutcomeUnknown = errors.New("outcome of the commit is unknown")

// A Journal stores usage.
type Journal interface {
	// Append runs one transaction: it locks what is asked, reads what is known of it, calls decide
	// once and stores what that returns. Any error but ErrOutcomeUnknown means that nothing was
	// stored. ErrRefused in the chain says that the writes themselves were refused and that a
	// repetition cannot succeed, ErrHeld that an account was waited for in vain; any other error may pass.
	Append(ctx context.Context, ask Ask, decide func(context.Context, Known, Lookup) (Writes, error)) error
}

// ErrHeld says that somebody else holds an account for longer than a transaction that stores usage takes.
var ErrHeld = errors.New("an account is held")

// ErrRefused says that the database refused the written values, not the moment.
var ErrRefused = errors.New("the values were refused")
