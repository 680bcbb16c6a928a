package entitlement

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ReservationID names a reservation.
type ReservationID = id.ID[Reservation]

// ReservationStatus says what became of a reservation.
type ReservationStatus string

// The statuses of a reservation. Only an open one holds units; every other is final, but that an
// expired one may still be committed so far as the limit has room.
const (
	Open      ReservationStatus = "open"
	Committed ReservationStatus = "committed" // what was used is counted, the rest let go
	Released  ReservationStatus = "released"  // nothing was used
	Expired   ReservationStatus = "expired"   // nobody came back in time
)

// Reservation holds units of a meter for somebody who is about to use them.
type Reservation struct {
	ID        ReservationID
	Account   account.ID
	Meter     string
	Period    time.Time     // start of the period whose limit it counts against
	Quantity  money.Decimal // held while open
	Used      money.Decimal // of a committed one
	Status    ReservationStatus
	Lease     bool   // it was given out as a signed token
	Reference string // the caller's own name for it
	ExpiresAt time.Time
	CreatedAt time.Time // by the database's clock, as ExpiresAt and SettledAt
	SettledAt time.Time
	Version   int64
}

// IDPrefix makes identifiers read "rsv_…".
func (Reservation) IDPrefix() string { return "rsv" }

// Bounds of a reservation's life.
const (
	DefaultTTL = 15 * time.Minute
	MaxTTL     = 24 * time.Hour
)

// Errors of reservations. Those of limits carry when they reset, and how much is left.
var (
	ErrReservationNotFound = errs.New(errs.NotFound, "reservation_not_found", "There is no such reservation.")
	ErrSettled             = errs.New(errs.Conflict, "reservation_settled", "The reservation is settled and cannot be changed any more.")
	ErrLimitReached        = errs.New(errs.Conflict, "limit_reached", "The account's limit on the meter leaves too little.")
	ErrSpendLimitReached   = errs.New(errs.Conflict, "spend_limit_reached", "The account's spend limit leaves too little.")
	ErrSuspended           = errs.New(errs.Conflict, "account_suspended", "The account is suspended until what is due has been paid.")
	ErrClosed              = account.ErrClosed.Details("The account is closed and may use nothing.")
)

// Reservations reads reservations. They are made and settled by metering's ingester, which holds the
// lock of the account's entitlement.
type Reservations interface {
	// Get returns a reservation, or ErrReservationNotFound.
	Get(ctx context.Context, a account.ID, id ReservationID) (Reservation, error)
	// List pages through an account's reservations, oldest first; the empty status is any.
	List(ctx context.Context, a account.ID, status ReservationStatus, r page.Request) (page.Page[Reservation], error)
	// Holders returns accounts with open reservations whose time is over by the database's clock.
	Holders(ctx context.Context, limit int) ([]account.ID, error)
}
