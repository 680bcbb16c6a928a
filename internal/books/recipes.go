package books

import (
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The kinds of transactions, one a recipe.
const (
	KindTopUp          = "top_up"
	KindInvoice        = "invoice"
	KindFundsApplied   = "funds_applied"
	KindPromoApplied   = "promo_applied"
	KindInvoicePayment = "invoice_payment"
	KindPromoGranted   = "promo_granted"
	KindPromoExpired   = "promo_expired"
	KindRefund         = "refund"
	KindRefundFailed   = "refund_failed"
	KindCreditNote     = "credit_note"
	KindWriteOff       = "write_off"
	KindWriteOffUndone = "write_off_undone"
	KindDisputeOpened  = "dispute_opened"
	KindDisputeWon     = "dispute_won"
)

// Fact is what all recipes need to know: whose books, which record, when, and the words of the statement.
type Fact struct {
	Account     account.ID
	Reference   string    // the record's identifier; a recipe books it once
	At          time.Time // on the account's clock
	RecordedAt  time.Time // real
	Description string
}

func (f Fact) transaction(kind string, postings ...ledger.Posting) *ledger.Transaction {
	kept := postings[:0]
	for _, p := range postings {
		if p.Amount.Minor != 0 { // a part that is nothing is not booked
			kept = append(kept, p)
		}
	}
	return &ledger.Transaction{
		ID: id.New[ledger.Transaction](), Account: f.Account, Kind: kind, Reference: f.Reference,
		Description: f.Description, Postings: kept, BookedAt: f.At, RecordedAt: f.RecordedAt,
	}
}

func move(amount money.Amount, debit, credit ledger.Name) ledger.Posting {
	return ledger.Posting{Debit: debit, Credit: credit, Amount: amount}
}

// TopUp books money that a card paid in: the provider holds it, the customer may spend it.
// It is a deposit, so there is no revenue and no tax in it.
func TopUp(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindTopUp, move(amount, Cash, Funds))
}

// Invoice books a finalised invoice: net is earned, tax is owed to the state, both are due from the
// customer. What a spend limit kept off the bill is earned too, and borne by the operator; less than nothing is what
// corrections take back of what it kept off earlier bills.
func Invoice(f Fact, net, tax, absorbed money.Amount) *ledger.Transaction {
	kept := move(absorbed, Absorbed, Revenue)
	if absorbed.Sign() < 0 {
		kept = move(absorbed.Neg(), Revenue, Absorbed)
	}
	return f.transaction(KindInvoice, move(net, Receivable, Revenue), move(tax, Receivable, Tax), kept)
}

// FundsApplied books that prepaid funds pay for an invoice.
func FundsApplied(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindFundsApplied, move(amount, Funds, Receivable))
}

// PromoApplied books that promotional credit pays for an invoice.
func PromoApplied(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindPromoApplied, move(amount, Promo, Receivable))
}

// InvoicePayment books that a card paid for an invoice.
func InvoicePayment(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindInvoicePayment, move(amount, Cash, Receivable))
}

// PromoGranted books promotional credit given.
func PromoGranted(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindPromoGranted, move(amount, Promotions, Promo))
}

// PromoExpired books promotional credit that ran out unspent.
func PromoExpired(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindPromoExpired, move(amount, Promo, Promotions))
}

// Refund books money given back to the card that paid it: what it had paid of an invoice is due again, the rest
// comes from the funds.
func Refund(f Fact, ofInvoice, ofFunds money.Amount) *ledger.Transaction {
	return f.transaction(KindRefund, move(ofInvoice, Receivable, Cash), move(ofFunds, Funds, Cash))
}

// RefundFailed books that the provider could not give the money back: it pays what is due of the invoice, and the
// rest goes to the funds.
func RefundFailed(f Fact, ofInvoice, ofFunds money.Amount) *ledger.Transaction {
	return f.transaction(KindRefundFailed, move(ofInvoice, Cash, Receivable), move(ofFunds, Cash, Funds))
}

// CreditNote books a correction of an issued invoice: toDue is no longer owed, toFunds was paid with money and toCredit
// by promotional credit, and are so again.
func CreditNote(f Fact, toDue, toFunds, toCredit money.Amount) *ledger.Transaction {
	return f.transaction(KindCreditNote, move(toDue, Waived, Receivable), move(toFunds, Waived, Funds), move(toCredit, Waived, Promo))
}

// WriteOff books that nobody expects the invoice to be paid any more.
func WriteOff(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindWriteOff, move(amount, BadDebt, Receivable))
}

// WriteOffUndone books that a debt which was written off is paid after all; the payment follows as InvoicePayment.
func WriteOffUndone(f Fact, amount money.Amount) *ledger.Transaction {
	return f.transaction(KindWriteOffUndone, move(amount, Receivable, BadDebt))
}

// DisputeOpened books that the card network took a payment back while it looks into it. Like a refund
// it takes back what the payment paid for.
func DisputeOpened(f Fact, ofInvoice, ofFunds money.Amount) *ledger.Transaction {
	return f.transaction(KindDisputeOpened, move(ofInvoice, Receivable, Cash), move(ofFunds, Funds, Cash))
}

// DisputeWon books that a disputed payment is ours again, like a refund that failed. A lost dispute needs no entry
// of its own: the money stays gone, and what it had paid for stays owed.
func DisputeWon(f Fact, ofInvoice, ofFunds money.Amount) *ledger.Transaction {
	return f.transaction(KindDisputeWon, move(ofInvoice, Cash, Receivable), move(ofFunds, Cash, Funds))
}
