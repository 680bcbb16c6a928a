// Package job writes down work that is to be done later, at least once.
//
// It owns: the intent to run a job, committed with the state that asks for it.
// It does not own: running it. A relay hands intents to the queue, package worker runs them.
//
// A job is a nudge: its arguments name a record, the record's state says what is due, and every job
// may run twice. What a lost nudge left undone, a sweep finds.
package job

import (
	"context"
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
)

// ID names an intent.
type ID = id.ID[Intent]

// Kind is what is to be done.
type Kind string

// The kinds of job.
const (
	CloseCycle      Kind = "close_cycle"      // the account's period may have ended
	FinalizeInvoice Kind = "finalize_invoice" // its draft's grace may be over
	CollectInvoice  Kind = "collect_invoice"  // an open invoice may be due for an attempt
	ResolvePayment  Kind = "resolve_payment"  // a payment, a refund or a card waits for the provider's word
	CheckFunds      Kind = "check_funds"      // alerts, auto top-up and spend limit may have something to say
	ProcessEvent    Kind = "process_event"    // an inbound webhook is stored and not yet believed
)

// Intent is a job that is to run, not before DueAt.
type Intent struct {
	ID      ID
	Account account.ID
	Kind    Kind
	Args    json.RawMessage
	DueAt   time.Time
}

// IDPrefix makes intent identifiers read "job_…".
func (Intent) IDPrefix() string { return "job" }

// Queue writes intents within a transaction.
type Queue interface {
	// Enqueue writes down that kind is to run for the account at due or soon after.
	// args must marshal to a JSON object.
	Enqueue(ctx context.Context, a account.ID, kind Kind, args any, due time.Time) error
	// Due returns up to limit intents that are due and not yet handed on, oldest first, over all accounts.
	Due(ctx context.Context, now time.Time, limit int) ([]Intent, error)
	// Relayed removes an intent that was handed on. One that is gone already is no error.
	Relayed(ctx context.Context, in Intent) error
	// LastSweep returns when the last sweep began, whoever made it: the zero time if there was none.
	LastSweep(ctx context.Context) (time.Time, error)
	// Sweeping writes down that a sweep begins. A later one that is written down already stays.
	Sweeping(ctx context.Context, at time.Time) error
}
