package account

import "context"

// Revision names a state of an account: what is computed from the account's records alone is the same
// as long as its revision is. It holds counters that only grow, so two revisions are either equal or of
// different states.
type Revision struct {
	Account, Entitlement, Subscriptions int64 // versions of the records
	Events, Invoices, Ledger            int64 // lengths of the account's series
	Usage, Corrections                  int64 // changes of the totals of periods that take events; corrections of any
	Meters                              int   // of the catalogue as this process has it, which answers list; zero from the store
	// PeriodOver says that the current period has ended by the account's clock and is not closed yet.
	PeriodOver bool
}

// Revisions reads revisions.
type Revisions interface {
	// Revision returns the account's revision as of a moment after the call began, or ErrNotFound.
	Revision(ctx context.Context, a ID) (Revision, error)
}
