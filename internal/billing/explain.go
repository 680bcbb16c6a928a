package billing

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ErrLineNotFound says that the invoice has no such line.
var ErrLineNotFound = errs.New(errs.NotFound, "invoice_line_not_found", "The invoice has no such line. A draft has none yet.")

// Explanation is how one line of a final invoice came about.
type Explanation struct {
	Invoice    invoice.ID
	Number     string
	Line       invoice.Line
	Derivation pricing.Derivation
}

// Explain returns the derivation of a line. It returns invoice.ErrNotFound or ErrLineNotFound.
func (r Reader) Explain(ctx context.Context, a account.ID, iid invoice.ID, number int) (e Explanation, err error) {
	defer errs.Wrap(&err, "explain line %d of %s", number, iid)
	e, _, err = r.explain(ctx, a, iid, number)
	return e, err
}

func (r Reader) explain(ctx context.Context, a account.ID, iid invoice.ID, number int) (e Explanation, c invoice.Content, err error) {
	inv, err := r.DB.Invoices().Get(ctx, a, iid)
	if err != nil {
		return e, c, err
	}
	if inv.Status == invoice.Draft {
		return e, c, ErrLineNotFound
	}
	if c, err = r.DB.Invoices().Content(ctx, a, iid); err != nil {
		return e, c, err
	}
	for _, l := range c.Lines {
		if l.Number != number {
			continue
		}
		e = Explanation{Invoice: iid, Number: c.Number, Line: l}
		return e, c, json.Unmarshal(l.Derivation, &e.Derivation)
	}
	return e, c, ErrLineNotFound
}

// What a verification looks at.
const (
	CheckDocument   = "document"   // the invoice says what it said when it was issued
	CheckDerivation = "derivation" // the recorded figures follow from each other
	CheckAmount     = "amount"     // the line's amount is what the derivation gives
	CheckPlan       = "plan"       // the version of the plan is the one that was applied
	CheckEvents     = "events"     // the events that were counted are still those
)

// Finding is what one check of a verification found. Recorded and Found are what was compared, where
// that can be shown.
type Finding struct {
	Check    string
	OK       bool
	Recorded string
	Found    string
	Detail   string // what differs, for a person; empty where nothing does
}

// Verification is a line computed again.
type Verification struct {
	Explanation
	Verified bool // every check holds
	Amount   money.Amount
	Findings []Finding
}

// Verify computes a line again from what it records, checks that the invoice, the terms and the events
// it stands on are those that it was made from, and says what differs.
func (r Reader) Verify(ctx context.Context, a account.ID, iid invoice.ID, number int) (v Verification, err error) {
	defer errs.Wrap(&err, "verify line %d of %s", number, iid)
	e, content, err := r.explain(ctx, a, iid, number)
	if err != nil {
		return v, err
	}
	v.Explanation = e
	print, err := content.Fingerprint()
	if err != nil {
		return v, err
	}
	v.compare(CheckDocument, hex.EncodeToString(content.Hash[:]), hex.EncodeToString(print[:]), "The invoice is not what it was when it was issued.")
	v.compute()
	if err := r.verifyPlan(ctx, &v); err != nil {
		return v, err
	}
	if err := r.verifyEvents(ctx, a, &v); err != nil {
		return v, err
	}
	v.Verified = true
	for _, f := range v.Findings {
		v.Verified = v.Verified && f.OK
	}
	return v, nil
}

func (v *Verification) compare(check, recorded, found, differs string) {
	f := Finding{Check: check, OK: recorded == found, Recorded: recorded, Found: found}
	if !f.OK {
		f.Detail = differs
	}
	v.Findings = append(v.Findings, f)
}

// compute takes the derivation apart and puts it together again.
func (v *Verification) compute() {
	amount, err := v.again()
	f := Finding{Check: CheckDerivation, OK: err == nil}
	if e := (*errs.Error)(nil); errors.As(err, &e) {
		f.Detail = e.Detail
	} else if err != nil {
		f.Detail = err.Error()
	}
	v.Findings = append(v.Findings, f)
	v.Amount = amount
	v.compare(CheckAmount, v.Line.Amount.String(), amount.String(), "The line's amount is not what its derivation gives.")
}

func (v *Verification) again() (money.Amount, error) {
	amount, err := pricing.Verify(v.Derivation)
	if amount.Currency == "" {
		amount.Currency = v.Line.Amount.Currency
	}
	return amount, err
}

// verifyPlan checks that the version that the line names still has the terms that it was rated by.
func (r Reader) verifyPlan(ctx context.Context, v *Verification) error {
	d := v.Derivation
	if d.Plan == "" || d.Hash == "" {
		return nil // a line that no plan stands behind
	}
	version, err := r.DB.Plans().Version(ctx, d.Plan, d.Version)
	if errs.KindOf(err) == errs.NotFound {
		v.Findings = append(v.Findings, Finding{Check: CheckPlan, Recorded: d.Hash, Detail: plan.ErrVersionNotFound.Detail})
		return nil
	}
	if err != nil {
		return err
	}
	v.compare(CheckPlan, d.Hash, version.ContentHash(), "The version's terms are others than those that were applied.")
	return nil
}

// verifyEvents counts the events again, so far as they had come when the line was made. Raw events are
// kept for a time only, so an old line may have fewer left than it counted.
func (r Reader) verifyEvents(ctx context.Context, a account.ID, v *Verification) error {
	was := v.Derivation.Evidence
	if was.IsZero() {
		return nil
	}
	var by time.Time
	if was.AsOf != "" {
		var err error
		if by, err = time.Parse(time.RFC3339Nano, was.AsOf); err != nil {
			return fmt.Errorf("evidence of the line: %w", err)
		}
	}
	d, err := r.DB.Usage().Digest(ctx, a, v.Line.Meter, v.Line.Period, by)
	if err != nil {
		return err
	}
	now := evidenceOf(d, by)
	text := func(e pricing.Evidence) string { return fmt.Sprintf("events: %d, hash: %s", e.Events, e.Hash) }
	differs := "The events are not those that were counted."
	if now.Events < was.Events {
		differs = fmt.Sprintf("Of %d events that were counted, %d are kept.", was.Events, now.Events)
	}
	v.compare(CheckEvents, text(was), text(now), differs)
	return nil
}
