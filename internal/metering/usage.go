package metering

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Total is what an account used of a meter in a period.
type Total struct {
	Meter    string
	Period   time.Time // its start
	Quantity money.Decimal
	Events   int64
	Reserved money.Decimal // held by open reservations, on top of Quantity
	// Billed is the quantity that stands on finalised invoices, with the events it comes from; nil
	// before the period's invoice is final.
	Billed       *money.Decimal
	BilledEvents int64
	// Version grows with each change of what was used or is reserved.
	Version int64
	// Series is the quantity by dimensions, where it was asked for. A meter without dimensions has
	// one series, its total.
	Series []SeriesTotal
}

// SeriesTotal is what was used with one combination of dimensions.
type SeriesTotal struct {
	Dimensions map[string]string
	Other      bool // what is beyond the meter's cap on series, whatever its dimensions
	Quantity   money.Decimal
	Events     int64
	// Billed is the part of Quantity that stands on finalised invoices, with its events.
	Billed       money.Decimal
	BilledEvents int64
}

// Billed says how much of a meter stands on finalised invoices.
type Billed struct {
	Meter    string
	Quantity money.Decimal
	Events   int64
}

// Digest describes the events behind a total, so that an invoice line can prove what it counted.
type Digest struct {
	Events      int64
	First, Last time.Time // of the events' own times; zero without events
	Corrections int64
	// Hash is SHA-256 over the keys of the events, by time and then key, followed by the ids of their
	// corrections, ascending.
	Hash [32]byte
}

// Query selects usage by time. From and To bound the events' own times, half-open.
type Query struct {
	period.Bounds
	Meters  []string // by code; none: nothing
	GroupBy string   // a dimension; empty: none
	// Steps are ascending starts of the intervals to split by; the first is not after Start. None: no
	// splitting.
	Steps []time.Time
}

// Slice is the usage of one meter, in one group, in one interval.
type Slice struct {
	Meter  string
	Group  string // value of the dimension; empty for events without it
	Step   int    // index into Query.Steps
	Events int64
	// One of these is the quantity, by the meter's aggregation. Unique is only set where the store was
	// asked for a meter of distinct values.
	Sum, Max, Last, Unique money.Decimal
}

// Quantity returns the slice's quantity under an aggregation.
func (s Slice) Quantity(a Aggregation) money.Decimal {
	switch a {
	case Max:
		return s.Max
	case Last:
		return s.Last
	case Unique:
		return s.Unique
	default:
		return s.Sum
	}
}

// Record is a stored event as it is shown.
type Record struct {
	Event
	ReceivedAt time.Time
	Counted    money.Decimal // after rounding and corrections
	Period     time.Time
	Voided     bool
}

// Filter selects stored events, or corrections by the event that they are about and the time at which they were made.
type Filter struct {
	period.Bounds
	Meter, Source, ID string // empty: any
}

// SourceOrDefault is the source of the one event that a filter with an ID selects.
func (f Filter) SourceOrDefault() string {
	if f.Source == "" {
		return DefaultSource
	}
	return f.Source
}

// Kind says what a correction does.
type Kind string

// The kinds of corrections.
const (
	Void  Kind = "void"  // the event counts nothing
	Amend Kind = "amend" // the event counts another quantity
)

// CorrectionID names a correction.
type CorrectionID = id.ID[Correction]

// Correction changes what one stored event counts. It is kept for ever beside the event.
type Correction struct {
	ID         CorrectionID
	Account    account.ID
	Source     string
	EventID    string
	Kind       Kind
	Quantity   money.Decimal // the new one, as reported; of an amendment only
	Reason     string
	Actor      string
	At         time.Time
	Meter      string        // filled in by Correct, as everything below
	Before     money.Decimal // as counted
	After      money.Decimal
	Period     time.Time
	OccurredAt time.Time
}

// IDPrefix makes identifiers read "ucor_…".
func (Correction) IDPrefix() string { return "ucor" }

// Errors of corrections.
var (
	ErrEventNotFound = errs.New(errs.NotFound, "usage_event_not_found", "There is no event with this source and id.")
	ErrEventGone     = errs.New(errs.Conflict, "usage_event_gone", "The event counts, but is too old to be kept and cannot be corrected any more.")
	ErrVoided        = errs.New(errs.Conflict, "usage_event_voided", "The event is void and cannot be corrected again.")
	ErrNotAmendable  = errs.New(errs.Conflict, "usage_event_not_amendable", "The meter does not go by quantity: the event can be voided, not amended.")
	ErrOverLimit     = entitlement.ErrLimitReached.Details("The amended event would pass the account's limit on the meter.")
	ErrTotalRange    = errs.New(errs.Conflict, "total_out_of_range", "A total would leave its range.")
)

// Hour is what is stored, or was refused, of a meter's events in one hour.
type Hour struct {
	Start    time.Time
	Events   int64 // stored and not void
	Quantity money.Decimal
	Late     int64    // of Events: came more than an hour after the hour
	Voided   int64    // stored, and void since
	Rejected int64    // refused for the account's limits or standing
	Dropped  int64    // counted of any source, and not kept any more: in none of the others
	Hash     [32]byte // SHA-256 over the ids of Events, ascending by bytes, each followed by a newline
}

// EmptyHour is an hour of which nothing is stored.
func EmptyHour(start time.Time) Hour { return Hour{Start: start, Hash: sha256.Sum256(nil)} }

// Fate is what became of an event id that a partner asks about.
type Fate struct {
	Stored   bool
	Meter    string // of a stored one, while it is kept
	Voided   bool
	Late     bool
	Rejected string // the reason, where the id was refused and is not stored
}

// Store reads usage and corrects it. Within a transaction it sees what the transaction wrote.
type Store interface {
	// Totals returns an account's totals of a period, by meter code, with their series if wanted.
	Totals(ctx context.Context, a account.ID, period time.Time, series bool) ([]Total, error)
	// LatePeriods returns the starts of periods before a time whose invoice is final and whose usage is not what was
	// billed, in total or by dimensions, oldest first.
	LatePeriods(ctx context.Context, a account.ID, before time.Time) ([]time.Time, error)
	// MarkBilled records what stands on finalised invoices: the given quantities of the meters, and
	// their series as they stand. The caller holds the entitlement's lock.
	MarkBilled(ctx context.Context, a account.ID, period time.Time, billed []Billed) error
	// Digest describes the events of a meter in a period, so far as they had come by the given real time
	// (zero: all). It reads all of them, in flat memory.
	Digest(ctx context.Context, a account.ID, meter string, b period.Bounds, by time.Time) (Digest, error)
	// Slices returns usage by meter, group and step. Bounds that are no multiples of BucketWidth are
	// exact so far as the raw events there are kept. For the named unique meters it counts raw events.
	Slices(ctx context.Context, a account.ID, q Query, unique []string) ([]Slice, error)
	// Whole returns bounds for which Slices is exact: an end within a quarter of an hour of which not all events are kept
	// is moved outward to the quarter's own.
	Whole(ctx context.Context, a account.ID, meters []string, b period.Bounds) (period.Bounds, error)
	// Events returns stored events by time, then key.
	Events(ctx context.Context, a account.ID, f Filter, r page.Request) (page.Page[Record], error)
	// Export calls each for every selected event, by time, in flat memory. The Record is only valid
	// during the call.
	Export(ctx context.Context, a account.ID, f Filter, each func(*Record) error) error
	// Correct applies a correction to the event that it names and to all roll-ups, and returns it
	// completed. It takes the entitlement's lock. The errors are those declared beside Correction, and account.ErrClosed.
	Correct(ctx context.Context, c Correction, m *Meter) (Correction, error)
	// Corrections returns corrections, the latest first. Source and EventID are empty of those that were made before they were kept
	// with them, and whose event was dropped by then.
	Corrections(ctx context.Context, a account.ID, f Filter, r page.Request) (page.Page[Correction], error)
	// Hours returns what is stored of a meter, hour by hour; hours without anything are left out. An
	// empty source means every source.
	Hours(ctx context.Context, a account.ID, meter, source string, b period.Bounds) ([]Hour, error)
	// Fates returns, by id, what became of events of one source; ids that were never heard of are left
	// out.
	Fates(ctx context.Context, a account.ID, source string, ids []string) (map[string]Fate, error)
	// Refused reports whether an event of the period that starts at periodStart, or of a later one, was
	// refused for the reason since t.
	Refused(ctx context.Context, a account.ID, reason string, periodStart, t time.Time) (bool, error)
}
