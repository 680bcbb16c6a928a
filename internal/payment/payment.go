package payment

import (
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ID names a payment.
type ID = id.ID[Payment]

// TopUpID names a top-up.
type TopUpID = id.ID[TopUp]

// RefundID names a refund.
type RefundID = id.ID[Refund]

// DisputeID names a dispute.
type DisputeID = id.ID[Dispute]

// Purpose says what a payment pays for.
type Purpose string

// The purposes of a payment.
const (
	ForInvoice Purpose = "invoice"
	ForTopUp   Purpose = "top_up"
)

// Status is where a payment, a top-up or an upgrade stands.
type Status string

// The statuses of a payment.
//
//	processing ──▶ succeeded
//	    │  ▲  ╲──▶ failed
//	    ▼  │   ╲─▶ parked (a person must look) ──▶ succeeded | failed | canceled
//	requires_action ──▶ canceled
//
// What has failed or was canceled has succeeded all the same where the provider says so later: it has the money.
const (
	Processing     Status = "processing"      // asked, or about to be; the outcome is not known
	RequiresAction Status = "requires_action" // the customer must act (3-D Secure)
	Succeeded      Status = "succeeded"
	Failed         Status = "failed"
	Canceled       Status = "canceled"
	Parked         Status = "parked" // the provider reports something else than was asked: nothing is booked
)

var next = map[Status][]Status{
	Processing:     {RequiresAction, Succeeded, Failed, Canceled, Parked},
	RequiresAction: {Processing, Succeeded, Failed, Canceled, Parked},
	Parked:         {Succeeded, Failed, Canceled},
	Succeeded:      {},
	Failed:         {Succeeded},
	Canceled:       {Succeeded},
}

// CanBecome reports whether a payment of status s may become t.
func (s Status) CanBecome(t Status) bool {
	return slices.Contains(next[s], t)
}

// Pending reports whether the outcome is still open.
func (s Status) Pending() bool { return s == Processing || s == RequiresAction }

// Payment is the intent to charge a card, and what came of it.
type Payment struct {
	ID          ID // the provider's idempotency key
	Account     account.ID
	Purpose     Purpose
	Invoice     invoice.ID // with ForInvoice
	TopUp       TopUpID    // with ForTopUp
	Method      MethodID
	Amount      money.Amount
	Status      Status
	OffSession  bool   // the customer was not there
	Actor       string // who asked for it: "user:…", "key:…", "system"
	Provider    string
	ProviderRef string
	NextAction  *NextAction // without its client secret
	Failure     *Failure
	Refunded    money.Amount
	Disputed    money.Amount // taken back by a card network and not won back
	CheckAt     time.Time    // when the sweep asks the provider what became of it; zero: never
	Checks      int
	CreatedAt   time.Time
	UpdatedAt   time.Time
	SucceededAt time.Time
	Version     int64
}

// IDPrefix makes payment identifiers read "pay_…".
func (Payment) IDPrefix() string { return "pay" }

// Refundable is what of a payment can still be given back.
func (p Payment) Refundable() money.Amount {
	if p.Status != Succeeded {
		return money.Zero(p.Amount.Currency)
	}
	return money.New(p.Amount.Minor-p.Refunded.Minor-p.Disputed.Minor, p.Amount.Currency)
}

// Become changes the status along the drawing above. A status that is final stays: ErrSettled says so.
func (p *Payment) Become(s Status, now time.Time) error {
	if !p.Status.CanBecome(s) {
		return ErrSettled.Details("The payment is %s and cannot become %s.", p.Status, s)
	}
	p.Status, p.UpdatedAt = s, now
	switch s {
	case Succeeded:
		p.SucceededAt, p.NextAction, p.Failure, p.CheckAt = now, nil, nil, time.Time{}
	case Failed, Canceled, Parked:
		p.NextAction, p.CheckAt = nil, time.Time{}
	case Processing, RequiresAction:
	}
	return nil
}

// Origin says who asked for a top-up.
type Origin string

// The origins of a top-up.
const (
	Manual Origin = "manual"
	Auto   Origin = "auto"
)

// TopUp adds funds by card. Its status follows its payment's.
type TopUp struct {
	ID        TopUpID
	Account   account.ID
	Origin    Origin
	Amount    money.Amount
	Status    Status
	Payment   ID
	Failure   *Failure
	CreatedAt time.Time
	UpdatedAt time.Time
	Version   int64
}

// IDPrefix makes top-up identifiers read "top_…".
func (TopUp) IDPrefix() string { return "top" }

// RefundOrigin says who gave the money back.
type RefundOrigin string

// The origins of a refund.
const (
	ByOperator     RefundOrigin = "operator"
	ByProvider     RefundOrigin = "provider" // someone refunded at the provider itself
	ByAccountClose RefundOrigin = "account_close"
)

// Refund gives back a part or all of a payment.
type Refund struct {
	ID          RefundID // the provider's idempotency key
	Account     account.ID
	Payment     ID
	Amount      money.Amount
	Status      Status // processing, succeeded, failed or parked
	Origin      RefundOrigin
	ProviderRef string
	Reason      string
	Actor       string
	CheckAt     time.Time
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// IDPrefix makes refund identifiers read "ref_…".
func (Refund) IDPrefix() string { return "ref" }

// Dispute is a payment that the customer's bank took back.
type Dispute struct {
	ID          DisputeID
	Account     account.ID
	Payment     ID
	ProviderRef string
	Amount      money.Amount
	Status      DisputeStatus
	Reason      string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// IDPrefix makes dispute identifiers read "dsp_…".
func (Dispute) IDPrefix() string { return "dsp" }

// Errors of the concept.
var (
	ErrNotFound       = errs.New(errs.NotFound, "payment_not_found", "There is no such payment.")
	ErrTopUpNotFound  = errs.New(errs.NotFound, "top_up_not_found", "There is no such top-up.")
	ErrRefundNotFound = errs.New(errs.NotFound, "refund_not_found", "There is no such refund.")
	ErrTopUpPending   = errs.New(errs.Conflict, "top_up_pending", "A top-up of this account is still under way. Wait for it, or finish what it asks for.")
	ErrPaymentPending = errs.New(errs.Conflict, "payment_pending", "A payment for this invoice is still under way.")
	ErrSettled        = errs.New(errs.Conflict, "payment_settled", "The payment is settled.")
)
