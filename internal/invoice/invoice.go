// Package invoice is the document that states what an account owes and why.
//
// It owns: the invoice's life, its lines and totals, its number and its hash.
// It does not own: prices (pricing), the books (ledger) or how it is paid (payment).
//
//	          finalise                collect
//	draft ───────────────▶ open ───────────────▶ paid
//	                        │ ╲                    ▲
//	                        │  ╲ write off         │ paid after all
//	                        ▼   ▼                  │
//	                      void  uncollectible ─────┘
//
// A draft has no stored content: it is computed from the usage as it stands, so an event that comes
// within the grace is in it. What a final invoice says is written once; the service has not been
// granted to change it, and a correction is a credit note.
package invoice

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ID names an invoice.
type ID = id.ID[Invoice]

// CreditNoteID names a credit note.
type CreditNoteID = id.ID[CreditNote]

// Kind says why an invoice was made.
type Kind string

// The kinds of invoice.
const (
	Cycle      Kind = "cycle"      // a billing period has ended
	Threshold  Kind = "threshold"  // a progress bill within a period, deducted by its cycle invoice
	Prepayment Kind = "prepayment" // what a contract has its account pay ahead, drawn on by cycle invoices
)

// Status is where an invoice is in its life.
type Status string

// The statuses of an invoice.
const (
	Draft         Status = "draft"
	Open          Status = "open"
	Paid          Status = "paid"
	Void          Status = "void"
	Uncollectible Status = "uncollectible"
)

// next is the whole life of an invoice.
var next = map[Status][]Status{
	Draft:         {Open, Paid}, // nothing to pay: paid at once
	Open:          {Paid, Void, Uncollectible},
	Uncollectible: {Paid, Void},
	Paid:          {Open}, // a dispute or a provider's refund took the money back
	Void:          {},
}

// CanBecome reports whether an invoice of status s may become t.
func (s Status) CanBecome(t Status) bool {
	return slices.Contains(next[s], t)
}

// Dunning is where the collection of an open invoice stands.
type Dunning string

// The stages of dunning.
const (
	NotDunned Dunning = "none"
	Retrying  Dunning = "retrying"
	Suspended Dunning = "suspended" // out of attempts: paid use is stopped, the debt stays
	Stopped   Dunning = "stopped"   // by a person or by a dispute
)

// Invoice is the life of an invoice. Its content, once final, is a Content.
type Invoice struct {
	ID           ID
	Account      account.ID
	Kind         Kind
	Status       Status
	Subscription subscription.ID
	Period       period.Bounds
	Currency     money.Currency
	Total        money.Amount // zero while a draft
	AmountPaid   money.Amount
	Credited     money.Amount // by credit notes, of what was due
	FinalizeAt   time.Time    // when a draft's grace ends
	FinalizedAt  time.Time
	DueAt        time.Time
	PaidAt       time.Time
	ClosedAt     time.Time // void or uncollectible
	Attempts     int       // to charge a card
	NextAttempt  time.Time // zero: none is planned
	Dunning      Dunning
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Version      int64
}

// IDPrefix makes invoice identifiers read "inv_…".
func (Invoice) IDPrefix() string { return "inv" }

// AmountDue is what is still to be paid.
func (i Invoice) AmountDue() money.Amount {
	return money.New(i.Total.Minor-i.AmountPaid.Minor-i.Credited.Minor, i.Currency)
}

// Errors of the concept.
var (
	ErrNotFound           = errs.New(errs.NotFound, "invoice_not_found", "There is no such invoice.")
	ErrNotOpen            = errs.New(errs.Conflict, "invoice_not_open", "Only an open invoice can be paid.")
	ErrCreditNoteNotFound = errs.New(errs.NotFound, "credit_note_not_found", "There is no such credit note.")
	ErrTransition         = errs.New(errs.Conflict, "invoice_state", "The invoice's status does not allow this.")
)

// NewCycle returns the draft for a period that has ended.
func NewCycle(p subscription.Period, c money.Currency, finalizeAt, now time.Time) Invoice {
	return draft(Cycle, p, c, finalizeAt, now)
}

// NewPrepayment returns the draft of what is paid ahead from a period on.
func NewPrepayment(p subscription.Period, c money.Currency, now time.Time) Invoice {
	return draft(Prepayment, p, c, now, now)
}

func draft(k Kind, p subscription.Period, c money.Currency, finalizeAt, now time.Time) Invoice {
	zero := money.Zero(c)
	return Invoice{
		ID: id.New[Invoice](), Account: p.Account, Kind: k, Status: Draft, Subscription: p.Subscription,
		Period: p.Bounds, Currency: c, Total: zero, AmountPaid: zero, Credited: zero, FinalizeAt: finalizeAt,
		Dunning: NotDunned, CreatedAt: now, UpdatedAt: now, Version: 1,
	}
}

// Become changes the status along the drawing above.
func (i *Invoice) Become(s Status, now time.Time) error {
	if !i.Status.CanBecome(s) {
		return ErrTransition.Details("The invoice is %s and cannot become %s.", i.Status, s)
	}
	i.Status, i.UpdatedAt = s, now
	switch s {
	case Paid:
		i.PaidAt, i.NextAttempt = now, time.Time{}
	case Void, Uncollectible:
		i.ClosedAt, i.NextAttempt = now, time.Time{}
	case Open:
		i.PaidAt, i.ClosedAt = time.Time{}, time.Time{}
	case Draft:
	}
	return nil
}

// Line is one entry of a final invoice. It is written once.
type Line struct {
	Number      int             `json:"number"` // 1, 2, 3, …
	Kind        string          `json:"kind"`   // usage, fee, adjustment, absorbed, minimum, …
	Meter       string          `json:"meter,omitempty"`
	Description string          `json:"description"`
	Period      period.Bounds   `json:"period"`
	Quantity    money.Decimal   `json:"quantity"`
	Amount      money.Amount    `json:"amount"`
	Derivation  json.RawMessage `json:"derivation"` // how the amount came about, recomputable
}

// Content is what a final invoice says. It is written once.
type Content struct {
	Invoice  ID
	Account  account.ID
	Number   string // of the account's own series, without gaps
	BillTo   account.Profile
	Lines    []Line
	Subtotal money.Amount
	Tax      money.Amount
	Total    money.Amount
	Absorbed money.Amount // used beyond the spend limit and not billed, less what is taken back of what earlier invoices absorbed
	IssuedAt time.Time
	Hash     [32]byte // Fingerprint, when it was issued
}

// Part is what a final invoice says of one period: its own, or one that late usage came for.
type Part struct {
	Invoice  ID
	Period   time.Time    // its start
	Amount   money.Amount // before what is absorbed
	Absorbed money.Amount // of the whole invoice: what it absorbed and has not been taken back since
	Owed     money.Amount // of the whole invoice: what is left to be paid of it, if it was written off

	FinalizedAt time.Time // of the invoice
	VoidedAt    time.Time // of the invoice; zero: it is not void
}

// WasVoid reports whether the invoice was void at a time, or with the zero time whether it is.
func (p Part) WasVoid(at time.Time) bool {
	return !p.VoidedAt.IsZero() && (at.IsZero() || !p.VoidedAt.After(at))
}

// Number writes the n-th number of an account's series: the tail of the account's identifier keeps the
// series of different accounts apart.
func Number(a account.ID, n int64) string {
	s := a.String()
	return fmt.Sprintf("%s-%06d", s[len(s)-8:], n)
}

// Sum sets Subtotal and Total from the lines and the tax: a total is never anything but their sum.
func (c *Content) Sum(tax money.Amount) error {
	sum := money.Zero(tax.Currency)
	var err error
	for _, l := range c.Lines {
		if sum, err = sum.Add(l.Amount); err != nil {
			return err
		}
	}
	c.Subtotal, c.Tax = sum, tax
	c.Total, err = sum.Add(tax)
	return err
}

// Fingerprint is SHA-256 over the content's canonical JSON, but for the hash itself. Times count in
// microseconds, the derivations as they are stored (jsonb), so it can be recomputed from the database.
func (c Content) Fingerprint() ([32]byte, error) {
	type line struct {
		N      int    `json:"n"`
		K      string `json:"k"`
		M      string `json:"m"`
		D      string `json:"d"`
		From   int64  `json:"from"`
		To     int64  `json:"to"`
		Q      string `json:"q"`
		A      int64  `json:"a"`
		Reason any    `json:"reason"`
	}
	doc := struct {
		Invoice, Account, Number, Currency string
		BillTo                             any
		Lines                              []line
		Subtotal, Tax, Total, Absorbed     int64
		IssuedAt                           int64
	}{
		Invoice: c.Invoice.String(), Account: c.Account.String(), Number: c.Number, Currency: string(c.Total.Currency),
		BillTo:   map[string]any{"name": c.BillTo.Name, "email": c.BillTo.Email, "address": c.BillTo.Address, "tax_id": c.BillTo.TaxID},
		Subtotal: c.Subtotal.Minor, Tax: c.Tax.Minor, Total: c.Total.Minor, Absorbed: c.Absorbed.Minor,
		IssuedAt: c.IssuedAt.UnixMicro(),
	}
	for _, l := range c.Lines {
		reason, err := canonical(l.Derivation)
		if err != nil {
			return [32]byte{}, fmt.Errorf("derivation of line %d: %w", l.Number, err)
		}
		doc.Lines = append(doc.Lines, line{
			l.Number, l.Kind, l.Meter, l.Description, l.Period.Start.UnixMicro(), l.Period.End.UnixMicro(),
			l.Quantity.String(), l.Amount.Minor, reason,
		})
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(b), nil
}

// canonical reads JSON so that it marshals to one text, however it was written: members sorted, and whole numbers to
// their last digit, which a float would hide of a large one.
func canonical(text []byte) (any, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return nil, err
	}
	return canonicalNumbers(v), nil
}

func canonicalNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = canonicalNumbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = canonicalNumbers(v[i])
		}
	case json.Number:
		if n, ok := new(big.Rat).SetString(v.String()); ok && n.IsInt() {
			return json.Number(n.Num().String())
		}
		f, _ := v.Float64() // out of range only beyond what jsonb and a derivation hold
		return f
	}
	return v
}

// Draw is what one grant of promotional credit has paid of an invoice.
type Draw struct {
	Grant    wallet.GrantID
	Amount   money.Amount
	Returned money.Amount // of it, with what was given back of the invoice
}

// CreditNote corrects a final invoice.
type CreditNote struct {
	ID       CreditNoteID
	Account  account.ID
	Invoice  ID
	By       ID // the invoice that takes usage back and brought the note with it; zero: an operator wrote it
	Number   string
	Amount   money.Amount
	ToDue    money.Amount // taken off what was still due
	ToFunds  money.Amount // cards and funds had paid it: funds again
	ToCredit money.Amount // promotional credit had paid it: credit again
	Reason   string
	Actor    string
	IssuedAt time.Time
}

// IDPrefix makes credit notes read "cn_…".
func (CreditNote) IDPrefix() string { return "cn" }
