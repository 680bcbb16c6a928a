package account

import (
	"context"
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
)

// Profile is whom the account's invoices are made out to.
type Profile struct {
	Name      string
	Email     string
	Address   Address
	TaxID     string
	UpdatedAt time.Time
	Version   int64 // 0 while there is none
}

// Address is a postal address. Country is ISO 3166-1 alpha-2.
type Address struct {
	Line1      string `json:"line1"`
	Line2      string `json:"line2,omitempty"`
	City       string `json:"city"`
	State      string `json:"state,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country"`
}

// Entry is one row of the audit log: who did what to an account, and why.
type Entry struct {
	ID      EntryID // its time is the real one
	Account ID      // set by the store; zero: it concerns no one account
	Actor   string  // "user:…", "key:…", "operator:…", "system"
	Action  string
	Reason  string
	Detail  json.RawMessage
	At      time.Time // on the account's clock
}

// EntryFilter chooses entries of all audit logs. An empty member chooses nothing.
type EntryFilter struct {
	Account ID
	Actor   string
	Action  string
}

// EntryID names an audit entry.
type EntryID = id.ID[Entry]

// IDPrefix makes audit entries read "aud_…".
func (Entry) IDPrefix() string { return "aud" }

// Errors of the store.
var (
	ErrExternalIDTaken = errs.New(errs.Conflict, "external_id_taken", "Another account has this external_id.")
	ErrStale           = errs.New(errs.PreconditionFailed, "stale_version", "The record was changed since you read it. Read it again and repeat the change on what it says now.")
	ErrNoProfile       = errs.New(errs.NotFound, "billing_profile_not_found", "The account has no billing profile yet.")
)

// Filter chooses accounts. An empty member chooses nothing.
type Filter struct {
	Status     Status
	Level      string // the code of the plan that the account is on
	ExternalID string
	Text       string // a part of the name or of the external id, in any case
}

// Store keeps accounts.
type Store interface {
	// Create writes a new account with its counters. It returns ErrExternalIDTaken.
	Create(ctx context.Context, a Account) error
	// Get returns the account or ErrNotFound.
	Get(ctx context.Context, id ID) (Account, error)
	// ByExternalID returns the account that the operator calls by this name, or ErrNotFound.
	ByExternalID(ctx context.Context, externalID string) (Account, error)
	// Known returns those of the accounts that are there, by what they were asked for: by name, and by id. It
	// asks once for all of them.
	Known(ctx context.Context, names []string, ids []ID) (map[string]ID, error)
	// Lock returns the account and holds it until the transaction ends. Every operation that moves
	// money or changes what an account has agreed to begins with it, so those of one account queue.
	Lock(ctx context.Context, id ID) (Account, error)
	// Save writes the account and raises its version. It returns ErrStale if the version is another.
	Save(ctx context.Context, a *Account) error
	// List pages through the accounts that f chooses, newest first, for the operator.
	List(ctx context.Context, f Filter, r page.Request) (page.Page[Account], error)

	// Profile returns the billing profile or ErrNoProfile.
	Profile(ctx context.Context, id ID) (Profile, error)
	// SaveProfile writes the profile and raises its version. It returns ErrStale if the version is another.
	SaveProfile(ctx context.Context, id ID, p *Profile) error

	// Audit adds to the account's audit log. The zero account has one too: what the operator's staff did
	// that concerns no one account.
	Audit(ctx context.Context, id ID, e Entry) error
	// Audited pages through the logs of all accounts and of the staff, as f chooses, newest first.
	Audited(ctx context.Context, f EntryFilter, r page.Request) (page.Page[Entry], error)
	// AuditLog pages through one, newest first.
	AuditLog(ctx context.Context, id ID, r page.Request) (page.Page[Entry], error)
}
