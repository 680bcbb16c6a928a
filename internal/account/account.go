// Package account knows who is billed.
//
// It owns: accounts, their status, currency, time zone and clock, and their billing profile.
// It does not own: what an account has agreed to (subscription), used (metering) or owes (invoice,
// ledger). A user of the API is the subject of a token and is never stored.
package account

import (
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ID names an account. It is the distribution key of every tenant table.
type ID = id.ID[Account]

// Status says what an account may do.
type Status string

// The statuses of an account.
const (
	Active    Status = "active"    // everything its plan allows
	Suspended Status = "suspended" // no paid use; the Billing page stays open
	Closed    Status = "closed"    // for ever: nothing is taken any more
)

// Account is a customer of the operator.
type Account struct {
	ID         ID
	ExternalID string // the operator's own name for it, unique
	Name       string
	Status     Status
	Currency   money.Currency // immutable after the first posting
	TimeZone   string         // IANA name; a change takes effect with the next period
	// ClockAt is the time on the account's test clock, and zero where it lives in real time.
	// Only a deployment in test mode ever sets it.
	ClockAt   time.Time
	CreatedAt time.Time
	UpdatedAt time.Time
	Version   int64 // for ETag and If-Match: raised by every change
}

// IDPrefix makes account identifiers read "acct_…".
func (Account) IDPrefix() string { return "acct" }

// Now returns the account's time: its test clock's, or else the given real time. What is due goes by
// this; leases, signatures and rate limits never do.
func (a Account) Now(real time.Time) time.Time {
	if a.ClockAt.IsZero() {
		return real
	}
	return a.ClockAt
}

// Errors of the concept.
var (
	ErrNotFound = errs.New(errs.NotFound, "account_not_found", "There is no such account.")
	ErrClosed   = errs.New(errs.Conflict, "account_closed", "The account is closed; nothing can be changed on it.")
)
