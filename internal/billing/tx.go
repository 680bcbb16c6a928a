// Package billing runs the operations that touch more than one record.
//
// It owns: what happens, in which order, and what commits together: opening and closing accounts,
// upgrades, cards, top-ups, closing a period, collecting, dunning, refunds, and the sweeps that finish
// what a crash interrupted.
// It does not own: rules of one concept (they live there), SQL (postgres), providers (payment's
// gateways), HTTP (api).
//
// Always true:
//   - a money operation is two transactions with the provider's call between them: the first commits the
//     intent and the claim on the idempotency key, the second commits the result, the postings, the
//     change of plan, the events and the stored answer;
//   - the second transaction is the same code whether the request, a webhook or a sweep runs it, finds
//     out under the account's lock whether it has been run, and then does nothing;
//   - locks are taken in one order. The account's row is first, and whoever holds it is alone with all that the account
//     has, in whatever order: subscription, invoice, payment, counters, balances. Three go without it. Whoever stores or
//     corrects usage takes entitlement rows, in ascending order, and behind each the account's totals and reservations;
//     it writes nothing that is counted. Whoever only tells something (an event) takes the counters, last. Whoever
//     publishes a plan takes the plan's row. An idempotency key is taken before the account where it is claimed first
//     (once), after it elsewhere, and by no operation in both ways but on the second try of what shared a transaction;
//     that, and what a new path gets wrong, PostgreSQL ends as a deadlock, which is run again.
//   - no lock is held while a provider is asked.
package billing

import (
	"context"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/internal/wallet"
)

// Tx is everything one database transaction can read and write.
type Tx interface {
	Accounts() account.Store
	Entitlements() entitlement.Store
	Usage() metering.Store
	Reservations() entitlement.Reservations
	Ledger() ledger.Store
	Plans() plan.Store
	Subscriptions() subscription.Store
	PlanMigrations() subscription.Migrations
	Outbox() outbox.Store
	Jobs() job.Queue
	Idempotency() idempotency.Store
	Invoices() invoice.Store
	Payments() payment.Store
	Upgrades() upgrade.Store
	Wallet() wallet.Store
	Alerts() alert.Store
	Inquiries() inquiry.Store
}

// A Transactor runs fn so that either all of its writes happen or none do.
// fn may run more than once, so it must have no effects outside tx.
type Transactor interface {
	InTx(ctx context.Context, fn func(tx Tx) error) error
	// InTxOf is InTx for what locks the account first and stays within it. Under load such operations share
	// transactions.
	InTxOf(ctx context.Context, start Start, fn func(tx Tx) error) error
}

// inTx runs fn in a transaction: one of its own, as a Transactor does, or one that is there.
type inTx func(ctx context.Context, fn func(tx Tx) error) error

// A Start is what an operation begins with, so that it can be read for several at once.
type Start struct {
	Account account.ID          // the zero one: it locks nothing
	Key     idempotency.Request // that it claims; the zero one: none
	Books   bool                // it writes to the ledger
	Charges bool                // it charges the default card
	Payment payment.ID          // that it settles
	TopUp   payment.TopUpID     // that the payment is for
}

// A Database runs transactions, and serves reads that need none.
type Database interface {
	Tx
	Transactor
}
