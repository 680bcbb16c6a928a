package metering

import (
	"time"

	"github.com/accrue-billing/accrue/pkg/money"
)

// Status says what became of one event.
type Status uint8

// The fates of an event. Each but the last leaves the event stored.
const (
	Rejected  Status = iota // not stored, and why is in Problem
	Accepted                // stored and counted, now
	Duplicate               // stored before, with the same content: nothing was changed
	Conflict                // stored before, with other content: nothing was changed
)

var statusNames = [...]string{Rejected: "rejected", Accepted: "accepted", Duplicate: "duplicate", Conflict: "conflict"}

// String returns the status as the API writes it.
func (s Status) String() string { return statusNames[s] }

// Problem says why an event was not taken. Code is part of the API.
type Problem struct {
	Code    string
	Detail  string
	Pointer string // RFC 6901, within the event; empty where no one value is to blame
	// ResetsAt is when a limit that stands in the way counts from zero again; zero otherwise.
	ResetsAt time.Time
	// Kept says that the event was put on record as rejected, for reconciliation.
	Kept bool
}

// Result is the answer to one event.
type Result struct {
	Status  Status
	sent    bool // accepted by a commit whose outcome is not known: if it is stored, then by that
	Problem *Problem
	// Stored is, on a conflict, the event that has the identity: nil once it is too old to be kept.
	Stored *Record
}

func invalid(field, code, detail string) *Problem {
	return &Problem{Code: code, Detail: detail, Pointer: "/" + field}
}

// The problems that only the account's state shows.
var (
	problemUnknownAccount = &Problem{Code: "unknown_account", Detail: "There is no such account.", Pointer: "/subject"}
	problemClosed         = &Problem{Code: "account_closed", Detail: "The account is closed and takes no usage."}
	problemSuspended      = &Problem{Code: "account_suspended", Detail: "The account is suspended. Send the event again once it is active.", Kept: true}
	problemTooOld         = &Problem{Code: "too_old", Detail: "The event is more than 35 days old.", Pointer: "/timestamp"}
	problemInFuture       = &Problem{Code: "in_future", Detail: "The event lies more than 5 minutes in the future.", Pointer: "/timestamp"}
	problemPeriodNotOpen  = &Problem{Code: "period_not_open", Detail: "The event lies in no billing period that takes usage.", Pointer: "/timestamp"}
	problemSourceTaken    = &Problem{Code: "source_taken", Detail: "This source is kept for what reservations count.", Pointer: "/source"}
	problemNotStorable    = &Problem{Code: "not_storable", Detail: "The event cannot be added to what is stored, for instance because a total would pass its bound."}
)

// The problems of quantities beyond what can be billed of a meter in a period. See entitlement.MaxQuantity.
func problemQuantity(most money.Decimal) *Problem {
	return invalid("quantity", "quantity_too_large", "At most "+most.String()+" of this meter can be billed in a period, and no event may have more.")
}

func problemTotal(most money.Decimal) *Problem {
	return &Problem{Code: problemNotStorable.Code, Detail: "With the event the period's total would pass " + most.String() + ", the most that can be billed of this meter."}
}

func tooMuch(most money.Decimal) error {
	return ErrTotalRange.Details("With it the period's total would pass %s, the most that can be billed of this meter.", most)
}

// Summary counts results by Status.
type Summary [len(statusNames)]int

// Summarize counts results.
func Summarize(results []Result) Summary {
	var s Summary
	for i := range results {
		s[results[i].Status]++
	}
	return s
}
