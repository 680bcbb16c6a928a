package invoice

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Ref names an invoice that is due for something.
type Ref struct {
	Account account.ID
	Invoice ID
	Due     time.Time
}

// Store keeps invoices.
type Store interface {
	// Create writes a draft. There is one cycle invoice per subscription and period: a second one
	// gives subscription.ErrPeriodClosed.
	Create(ctx context.Context, i Invoice) error
	// Get returns the invoice or ErrNotFound.
	Get(ctx context.Context, a account.ID, id ID) (Invoice, error)
	// Lock returns the invoice and holds it until the transaction ends, or ErrNotFound.
	Lock(ctx context.Context, a account.ID, id ID) (Invoice, error)
	// Save writes the invoice's life and raises its version. It returns account.ErrStale if the version is another.
	Save(ctx context.Context, i *Invoice) error
	// List pages through the account's invoices, newest first. An empty status means any.
	List(ctx context.Context, a account.ID, s Status, r page.Request) (page.Page[Invoice], error)
	// Unpaid returns the account's open invoices, oldest first.
	Unpaid(ctx context.Context, a account.ID) ([]Invoice, error)
	// Suspending returns the debts of the account, written off or not, that have led to a suspension, oldest first.
	Suspending(ctx context.Context, a account.ID) ([]Invoice, error)
	// OfPeriod returns the cycle invoice of a period or ErrNotFound.
	OfPeriod(ctx context.Context, a account.ID, s subscription.ID, start time.Time) (Invoice, error)

	// NextNumber takes the account's next invoice number; a rollback gives it back, so there is no gap.
	NextNumber(ctx context.Context, a account.ID) (string, error)
	// Issue writes the content of a final invoice. It is written once: again, it gives ErrTransition.
	Issue(ctx context.Context, c Content) error
	// Content returns what a final invoice says, or ErrNotFound for a draft.
	Content(ctx context.Context, a account.ID, id ID) (Content, error)
	// Contents returns what several final invoices say, without their lines.
	Contents(ctx context.Context, a account.ID, ids []ID) (map[ID]Content, error)

	// Parts returns what final cycle invoices bill for the periods that start at the given times, with what spend limits
	// kept off: a part for each invoice and period, oldest invoice first.
	Parts(ctx context.Context, a account.ID, starts []time.Time) ([]Part, error)
	// Absorb raises what a final invoice has absorbed, or lowers it where some of it is taken back.
	Absorb(ctx context.Context, a account.ID, id ID, amount money.Amount) error

	// Draw adds what grants of credit have paid of an invoice, Return what of it is credit again. Draws returns it by grant, the last
	// that would be spent first.
	Draw(ctx context.Context, a account.ID, id ID, draws []wallet.Draw) error
	Return(ctx context.Context, a account.ID, id ID, d wallet.Draw) error
	Draws(ctx context.Context, a account.ID, id ID) ([]Draw, error)

	// AddCreditNote writes a credit note, or returns ErrNotFound. CreditNote returns one or
	// ErrCreditNoteNotFound, CreditNotesOf those of an invoice, oldest first, CreditNotesBroughtBy those that invoices
	// brought with them, oldest first; CreditNotes pages through those of the account, newest first.
	AddCreditNote(ctx context.Context, n CreditNote) error
	CreditNote(ctx context.Context, a account.ID, id CreditNoteID) (CreditNote, error)
	CreditNotesOf(ctx context.Context, a account.ID, i ID) ([]CreditNote, error)
	CreditNotesBroughtBy(ctx context.Context, a account.ID) ([]CreditNote, error)
	CreditNotes(ctx context.Context, a account.ID, r page.Request) (page.Page[CreditNote], error)

	// ToFinalize returns up to limit drafts whose grace is over on their account's clock, the longest due first, from
	// behind the given one on; the zero one is before them all.
	ToFinalize(ctx context.Context, now time.Time, after Ref, limit int) ([]Ref, error)
	// ToCollect returns up to limit open invoices that are due for an attempt on their account's clock, as ToFinalize does.
	ToCollect(ctx context.Context, now time.Time, after Ref, limit int) ([]Ref, error)
}
