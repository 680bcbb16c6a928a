// Package books says how each business fact is booked. It is the only place that names ledger accounts.
//
// It owns: the chart of accounts and one recipe per business fact; a recipe is a pure function from the
// fact to a balanced transaction.
// It does not own: when a fact is booked (billing) or how the journal keeps it (ledger).
package books

import (
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The chart. Every name is a sub-account of one customer's account. "Normal" is the side on which the
// balance usually stands; the journal keeps debits less credits, so the balance of an account that is
// normally on the credit side is negative there.
const (
	Cash       ledger.Name = "operator:cash"       // debit: money that the provider holds for us
	Receivable ledger.Name = "customer:receivable" // debit: issued and not yet paid
	Funds      ledger.Name = "customer:funds"      // credit: what the customer paid in ahead
	Promo      ledger.Name = "customer:promo"      // credit: promotional credit not yet spent
	Revenue    ledger.Name = "operator:revenue"    // credit: earned, net of tax
	Tax        ledger.Name = "operator:tax"        // credit: collected for the state
	Absorbed   ledger.Name = "operator:absorbed"   // debit: used beyond a spend limit, borne by the operator
	Promotions ledger.Name = "operator:promotions" // debit: what promotional credit costs
	BadDebt    ledger.Name = "operator:bad_debt"   // debit: written off
	Waived     ledger.Name = "operator:waived"     // debit: revenue taken back by credit notes
)

// Chart lists every ledger account there is, for the invariant checker and the documentation.
func Chart() []ledger.Name {
	return []ledger.Name{Cash, Receivable, Funds, Promo, Revenue, Tax, Absorbed, Promotions, BadDebt, Waived}
}

// Standing is where a customer stands with the operator, from the customer's side.
type Standing struct {
	Funds money.Amount // paid in ahead and not yet spent; negative after a disputed top-up that was spent
	Promo money.Amount // promotional credit not yet spent
	Due   money.Amount // issued and not yet paid
}

// StandingOf reads the customer's side of the balances.
func StandingOf(b ledger.Balances, c money.Currency) Standing {
	return Standing{
		Funds: money.New(-b[Funds], c),
		Promo: money.New(-b[Promo], c),
		Due:   money.New(b[Receivable], c),
	}
}

// StatementNames are the ledger accounts whose entries make a customer's statement.
func StatementNames() []ledger.Name { return []ledger.Name{Funds, Promo, Receivable} }
