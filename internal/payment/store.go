package payment

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

// RecordKind says what a provider's reference stands for with us.
type RecordKind string

// The kinds of record that a provider knows.
const (
	RecordPayment  RecordKind = "payment"
	RecordRefund   RecordKind = "refund"
	RecordMethod   RecordKind = "payment_method"
	RecordCustomer RecordKind = "customer"
)

// Pending names a record that waits for a provider's word.
type Pending struct {
	Located           // a payment, refund or payment_method
	Due     time.Time // when it is to be asked for
}

// Overdue counts what waits for a provider's word for too long, and what waits for a person.
type Overdue struct {
	Payments, Refunds, Cards, Events int
	Oldest                           time.Time // since when the oldest of these has waited; zero without any
	Parked                           int       // payments and refunds of which the provider reports another amount
}

// Located names a record that a provider knows of.
type Located struct {
	Account account.ID
	Kind    RecordKind
	Payment ID
	Refund  RefundID
	Method  MethodID
}

// Attempt is one try at a card, by whomever, or that a card has paused automatic top-ups.
type Attempt struct {
	At       time.Time
	Declined bool
	Class    DeclineClass
}

// Store keeps cards, payments and what belongs to them.
type Store interface {
	// Customer returns the provider's customer for the account, or "" while there is none.
	Customer(ctx context.Context, a account.ID, provider string) (string, error)
	// SaveCustomer remembers it. Another customer for the same account replaces nothing.
	SaveCustomer(ctx context.Context, a account.ID, provider, ref string) error

	CreateSetup(ctx context.Context, s SavedSetup) error
	// Setup finds a setup by our identifier or by the provider's reference, or ErrSetupNotFound.
	Setup(ctx context.Context, a account.ID, ref string) (SavedSetup, error)
	// UseSetup records which card came of a setup. It returns ErrSetupUsed if another did, unless that
	// one failed.
	UseSetup(ctx context.Context, a account.ID, s SetupID, m MethodID) error
	// DropSetups removes up to limit setups that expired before t and of which no card came, and returns their number.
	DropSetups(ctx context.Context, t time.Time, limit int) (int, error)

	// CreateMethod writes the intent to attach a card.
	CreateMethod(ctx context.Context, m Method) error
	// Method returns the card or ErrMethodNotFound. A removed card is found, a list leaves it out.
	Method(ctx context.Context, a account.ID, id MethodID) (Method, error)
	// DefaultMethod returns the active card that is charged, or ErrNoMethod.
	DefaultMethod(ctx context.Context, a account.ID) (Method, error)
	// Methods returns the account's cards that are neither failed nor removed, the default first.
	Methods(ctx context.Context, a account.ID) ([]Method, error)
	// SaveMethod writes the card and raises its version. Like every Save here that takes a pointer, it
	// returns account.ErrStale if the version is another.
	SaveMethod(ctx context.Context, m *Method) error
	// MakeDefault makes an active card the one that is charged, and no other. It raises the versions of
	// the cards that it changes, and returns ErrMethodNotFound unless the card is active.
	MakeDefault(ctx context.Context, a account.ID, id MethodID, at time.Time) error
	// Expiring returns up to limit active default cards whose last month ends before t and whose
	// holder has not been told, the first to expire first, from behind the given one on; the zero one is before them all.
	Expiring(ctx context.Context, t time.Time, after Method, limit int) ([]Method, error)

	CreateRemoval(ctx context.Context, r Removal) error // or ErrRemovalOpen
	// Removal returns the request or ErrRemovalNotFound; OpenRemovals lists the open ones, oldest first.
	Removal(ctx context.Context, a account.ID, id RemovalID) (Removal, error)
	OpenRemovals(ctx context.Context, a account.ID) ([]Removal, error)
	SaveRemoval(ctx context.Context, r Removal) error
	// Removals pages through the requests of an account or, for the zero one, of all, newest first. An
	// empty status means any.
	Removals(ctx context.Context, a account.ID, s RemovalStatus, r page.Request) (page.Page[Removal], error)

	// CreatePayment writes the intent to charge. One payment of an invoice may be active: a second
	// one gives ErrPaymentPending.
	CreatePayment(ctx context.Context, p Payment) error
	// Payment returns the payment or ErrNotFound.
	Payment(ctx context.Context, a account.ID, id ID) (Payment, error)
	// LockPayment returns the payment and holds it until the transaction ends.
	LockPayment(ctx context.Context, a account.ID, id ID) (Payment, error)
	SavePayment(ctx context.Context, p *Payment) error
	// Payments pages through the account's payments, newest first.
	Payments(ctx context.Context, a account.ID, r page.Request) (page.Page[Payment], error)
	// Parked pages through the parked payments of an account or, for the zero one, of all, newest first.
	Parked(ctx context.Context, a account.ID, r page.Request) (page.Page[Payment], error)
	// PaymentsOf returns the payments of an invoice, oldest first.
	PaymentsOf(ctx context.Context, a account.ID, i invoice.ID) ([]Payment, error)
	// Paying returns the invoices for which a payment may still succeed: it is pending or parked.
	Paying(ctx context.Context, a account.ID) ([]invoice.ID, error)
	// RefundablePayments returns the account's payments that have something left to give back, newest first.
	RefundablePayments(ctx context.Context, a account.ID) ([]Payment, error)

	// CreateTopUp writes a top-up. One may be pending per account: a second one gives ErrTopUpPending.
	CreateTopUp(ctx context.Context, t TopUp) error
	TopUp(ctx context.Context, a account.ID, id TopUpID) (TopUp, error)
	// TopUps pages through the account's top-ups, newest first.
	TopUps(ctx context.Context, a account.ID, r page.Request) (page.Page[TopUp], error)
	SaveTopUp(ctx context.Context, t *TopUp) error
	// PendingTopUp returns the account's pending top-up, or ErrTopUpNotFound.
	PendingTopUp(ctx context.Context, a account.ID) (TopUp, error)
	// ToppedUp sums the top-ups of an origin that have succeeded or may yet, since t.
	ToppedUp(ctx context.Context, a account.ID, o Origin, since time.Time, c money.Currency) (money.Amount, error)

	// Moved sums the payments that an actor asked for and that have succeeded or may yet, since t.
	Moved(ctx context.Context, a account.ID, actor string, since time.Time, c money.Currency) (money.Amount, error)

	// Refund returns the refund or ErrRefundNotFound; RefundsOf lists those of a payment, oldest first; Refunds pages
	// through those of the account, newest first.
	CreateRefund(ctx context.Context, r Refund) error
	Refund(ctx context.Context, a account.ID, id RefundID) (Refund, error)
	RefundsOf(ctx context.Context, a account.ID, p ID) ([]Refund, error)
	Refunds(ctx context.Context, a account.ID, r page.Request) (page.Page[Refund], error)
	SaveRefund(ctx context.Context, r Refund) error

	// DisputeByRef returns the dispute or ErrNotFound; SaveDispute creates or changes it.
	DisputeByRef(ctx context.Context, a account.ID, ref string) (Dispute, error)
	SaveDispute(ctx context.Context, d Dispute) error

	// Remember ties a provider's reference to a record, for ever: repeating it is no error, another
	// record is. Locate finds the record again, or returns ErrNotFound.
	Remember(ctx context.Context, provider, ref string, l Located) error
	Locate(ctx context.Context, provider, ref string) (Located, error)

	// ToCheck returns up to limit records whose check is due, in real time, the longest due first, from behind the given
	// one on; the zero one is before them all.
	ToCheck(ctx context.Context, now time.Time, after Pending, limit int) ([]Pending, error)
	// Overdue counts what has waited for a provider's word since before t, of all accounts, and what is parked. What
	// waits for a customer (3-D Secure) is not overdue.
	Overdue(ctx context.Context, t time.Time) (Overdue, error)

	// SaveEvent stores an inbound webhook and reports whether it is new.
	SaveEvent(ctx context.Context, e ProviderEvent) (bool, error)
	// LockEvent returns a stored webhook and holds it until the transaction ends, or ErrNotFound.
	LockEvent(ctx context.Context, provider, eventID string) (ProviderEvent, error)
	UpdateEvent(ctx context.Context, e ProviderEvent) error
	// PendingEvents returns up to limit stored webhooks that are due to be processed, in the order in which they came,
	// from behind the given one on; the zero one is before them all.
	PendingEvents(ctx context.Context, now time.Time, after ProviderEvent, limit int) ([]ProviderEvent, error)
	// DropEvents removes up to limit stored webhooks that were processed before t, the oldest first, and returns their number.
	DropEvents(ctx context.Context, t time.Time, limit int) (int, error)

	// AddAttempt counts a try at a card; Attempts returns those since t, of any account.
	AddAttempt(ctx context.Context, fingerprint string, a Attempt) error
	Attempts(ctx context.Context, fingerprint string, since time.Time) ([]Attempt, error)
	// DropAttempts removes up to limit attempts that were counted before t, in real time, and returns their number. Those at a
	// card that was lost stay: it is never asked again.
	DropAttempts(ctx context.Context, t time.Time, limit int) (int, error)
}
