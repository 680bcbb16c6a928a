// Package inquiry is "contact sales": a request for the Enterprise plan, with the usage it stands on.
//
// It owns: the inquiry, its frozen snapshot and its status, which the customer can see.
package inquiry

import (
	"context"
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
)

// ID names an inquiry.
type ID = id.ID[Inquiry]

// Status is where the salesperson is with it.
type Status string

// The statuses of an inquiry.
const (
	Received   Status = "received"
	InProgress Status = "in_progress"
	Won        Status = "won"
	Lost       Status = "lost"
)

// Inquiry is a customer's wish to talk.
type Inquiry struct {
	ID        ID
	Account   account.ID
	Status    Status
	Name      string
	Email     string
	Company   string
	Message   string
	Snapshot  json.RawMessage // usage and prices as they were when it was sent
	Note      string          // of the salesperson; the customer does not see it
	CreatedAt time.Time
	UpdatedAt time.Time
	Version   int64
}

// IDPrefix makes inquiries read "inq_…".
func (Inquiry) IDPrefix() string { return "inq" }

// ErrNotFound says that the account has no such inquiry.
var ErrNotFound = errs.New(errs.NotFound, "sales_inquiry_not_found", "There is no such inquiry.")

// Store keeps inquiries.
type Store interface {
	Create(ctx context.Context, i Inquiry) error
	// Get returns the inquiry or ErrNotFound; List pages through those of an account, newest first.
	Get(ctx context.Context, a account.ID, id ID) (Inquiry, error)
	List(ctx context.Context, a account.ID, r page.Request) (page.Page[Inquiry], error)
	// All pages through the inquiries of an account or, for the zero one, of all, newest first, for the
	// operator. An empty status means any.
	All(ctx context.Context, a account.ID, s Status, r page.Request) (page.Page[Inquiry], error)
	// Save writes the status and the note and raises the version. It returns account.ErrStale if the version is another.
	Save(ctx context.Context, i *Inquiry) error
}
