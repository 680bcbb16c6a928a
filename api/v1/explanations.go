package v1

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// maxRecounts is how many lines an instance computes again at one time: each counts all events of a period.
const maxRecounts = 3

func explanationRoutes(d Deps) []route.Route {
	h := explanations{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/invoices/{id}/lines/{line}/explanation", Scope: auth.BillingRead, Handler: h.get},
		{Method: http.MethodPost, Path: "/v1/invoices/{id}/lines/{line}/explanation/verify", NoBody: true, Scope: auth.BillingRead, Timeout: paymentTimeout, AtMost: maxRecounts, Handler: h.verify},
	}
}

// LineExplanation says how a line came about, in words and in figures that can be computed again.
type LineExplanation struct {
	Invoice    string      `json:"invoice" validate:"required" example:"inv_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Number     string      `json:"number" validate:"required" example:"6d1x9q2c-000001"`
	Line       InvoiceLine `json:"line" validate:"required"`
	Steps      []string    `json:"steps" validate:"required"` // for a person
	Derivation Derivation  `json:"derivation" validate:"required"`
} //@name LineExplanation

// Derivation is all that a line's amount follows from, exactly: fractions are written as "numerator/denominator".
type Derivation struct {
	Plan     *string `json:"plan" validate:"required" extensions:"x-nullable" example:"pro"`
	Version  int     `json:"plan_version" validate:"required" example:"1"`
	Hash     *string `json:"plan_hash" validate:"required" extensions:"x-nullable"`                                                                                                // SHA-256 of the version's terms
	Contract *string `json:"contract" validate:"required" extensions:"x-nullable"`                                                                                                 // the reference of the contract applied
	Kind     string  `json:"kind" validate:"required" enums:"fee,usage,minimum,maximum,percent,credit,commitment,prepayment,drawdown,overage,adjustment,absorbed" example:"usage"` // what the line is
	Charge   *string `json:"charge" validate:"required" extensions:"x-nullable"`                                                                                                   // the charge in the version
	Model    *string `json:"model" validate:"required" extensions:"x-nullable" enums:"per_unit,package,graduated,volume"`
	Quantity string  `json:"quantity" validate:"required" format:"decimal"`                     // in the meter's unit
	Rounded  string  `json:"rounded" validate:"required" format:"decimal"`                      // quantity, rounded up to a multiple of step
	Step     *string `json:"step" validate:"required" extensions:"x-nullable" format:"decimal"` // null: quantities are not rounded up
	Included string  `json:"included" validate:"required" format:"decimal"`                     // of that: taken by the allowance
	Billable string  `json:"billable" validate:"required" format:"decimal"`                     // the rest
	Per      int64   `json:"per" validate:"required" example:"60"`                              // the meter's units in one priced unit

	// Lines that are no usage: the share of base from from_share to numerator, in parts of denominator, with what it stands against.
	Base        *Money `json:"base" validate:"required" extensions:"x-nullable"`
	Numerator   int64  `json:"numerator" validate:"required"`  // where the share of base ends, in parts of denominator
	From        int64  `json:"from_share" validate:"required"` // where it begins
	Denominator int64  `json:"denominator" validate:"required"`
	Against     *Money `json:"against" validate:"required" extensions:"x-nullable"` // a minimum, true-up or adjustment is what is due less this; a credit or drawdown takes off at most this

	Exact     string    `json:"exact" validate:"required" example:"783/1"` // in major units, before the one rounding
	Remainder string    `json:"remainder" validate:"required" example:"0"` // exact less amount: what the rounding took or gave
	Amount    Money     `json:"amount" validate:"required"`                // exact, rounded once, half away from zero
	Evidence  *Evidence `json:"evidence" validate:"required" extensions:"x-nullable"`
	Before    *Money    `json:"before" validate:"required" extensions:"x-nullable"` // an adjustment: what was billed before
	After     *Money    `json:"after" validate:"required" extensions:"x-nullable"`  // and what is right with the late usage
} //@name Derivation

// Evidence says which events a line counted.
type Evidence struct {
	Events int64   `json:"events" validate:"required"`
	First  *string `json:"first" validate:"required" extensions:"x-nullable" format:"date-time"` // time of the first event
	Last   *string `json:"last" validate:"required" extensions:"x-nullable" format:"date-time"`
	Hash   *string `json:"hash" validate:"required" extensions:"x-nullable"`                     // SHA-256 over the events' keys by time, and the ids of their corrections
	AsOf   *string `json:"as_of" validate:"required" extensions:"x-nullable" format:"date-time"` // when they were counted; what came later is an adjustment
} //@name Evidence

type explanations struct{ Deps }

func derivation(l invoice.Line) (d pricing.Derivation, err error) {
	if err = json.Unmarshal(l.Derivation, &d); err != nil {
		err = fmt.Errorf("derivation of line %d: %w", l.Number, err)
	}
	return d, err
}

// line reads which line is meant.
func (h explanations) line(c echo.Context) (invoice.ID, int, error) {
	id, err := param[invoice.Invoice](c, "id", invoice.ErrNotFound)
	if err != nil {
		return id, 0, err
	}
	n, err := strconv.Atoi(c.Param("line"))
	if err != nil || n < 1 || strconv.Itoa(n) != c.Param("line") {
		return id, 0, billing.ErrLineNotFound
	}
	return id, n, nil
}

// get explains a line.
//
//	@ID			explainInvoiceLine
//	@Summary	Explain a line of an invoice
//	@Tags		invoices
//	@Security	Token[billing:read]
//	@Param		id		path		string	true	"The invoice"
//	@Param		line	path		int		true	"The line's number, from 1"
//	@Success	200		{object}	LineExplanation
//	@Failure	404		{object}	problem.Problem	"invoice_not_found or invoice_line_not_found"
//	@Router		/v1/invoices/{id}/lines/{line}/explanation [get]
func (h explanations) get(c echo.Context) error {
	id, n, err := h.line(c)
	if err != nil {
		return err
	}
	e, err := billing.Reader{Core: h.Billing}.Explain(c.Request().Context(), middleware.Account(c), id, n)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toExplanation(e))
}

// LineVerification is a line computed again, and all that it stands on looked at again.
type LineVerification struct {
	Verified bool           `json:"verified" validate:"required"` // every check holds
	Recorded Money          `json:"recorded" validate:"required"` // the line's amount
	Computed Money          `json:"computed" validate:"required"` // the same, computed again
	Checks   []Verification `json:"checks" validate:"required"`
} //@name LineVerification

// Verification is one thing that was looked at.
type Verification struct {
	Check    string  `json:"check" validate:"required" enums:"document,derivation,amount,plan,events"` // the invoice's hash; the derivation, computed again; the line's amount; the terms of the version; the events
	OK       bool    `json:"ok" validate:"required"`
	Recorded *string `json:"recorded" validate:"required" extensions:"x-nullable"` // what is kept
	Found    *string `json:"found" validate:"required" extensions:"x-nullable"`    // what was found now
	Detail   *string `json:"detail" validate:"required" extensions:"x-nullable"`   // what differs
} //@name Verification

// verify computes a line again.
//
//	@ID				verifyInvoiceLine
//	@Summary		Compute a line again and compare
//	@Description	Recomputes the amount from the recorded figures by another algorithm than the one that made it, counts the events again, and compares the invoice and the plan's terms with their hashes. It changes nothing, so it takes no Idempotency-Key.
//	@Tags			invoices
//	@Security		Token[billing:read]
//	@Param			id		path		string	true	"The invoice"
//	@Param			line	path		int		true	"The line's number, from 1"
//	@Success		200		{object}	LineVerification
//	@Failure		404		{object}	problem.Problem	"invoice_not_found or invoice_line_not_found"
//	@Failure		503		{object}	problem.Problem	"operation_busy"
//	@Router			/v1/invoices/{id}/lines/{line}/explanation/verify [post]
func (h explanations) verify(c echo.Context) error {
	id, n, err := h.line(c)
	if err != nil {
		return err
	}
	v, err := billing.Reader{Core: h.Billing}.Verify(c.Request().Context(), middleware.Account(c), id, n)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, LineVerification{
		Verified: v.Verified, Recorded: toMoney(v.Line.Amount), Computed: toMoney(v.Amount),
		Checks: convert(v.Findings, func(f billing.Finding) Verification {
			return Verification{Check: f.Check, OK: f.OK, Recorded: textIf(f.Recorded), Found: textIf(f.Found), Detail: textIf(f.Detail)}
		}),
	})
}

func toExplanation(e billing.Explanation) LineExplanation {
	line := toLine(e.Derivation, e.Line)
	return LineExplanation{
		Invoice: e.Invoice.String(), Number: e.Number, Line: line, Steps: steps(e.Derivation, line), Derivation: toDerivation(e.Derivation),
	}
}

func toDerivation(d pricing.Derivation) Derivation {
	out := Derivation{
		Plan: textIf(d.Plan), Version: d.Version, Hash: textIf(d.Hash), Contract: textIf(d.Contract), Kind: string(d.Kind), Charge: textIf(d.Charge),
		Model: textIf(d.Model), Quantity: d.Quantity.String(), Rounded: d.Rounded.String(), Step: decimalIf(d.Step), Included: d.Included.String(),
		Billable: d.Billable.String(), Per: d.Per.Divisor(), Base: toMoneyIf(d.Base), Numerator: d.Numerator, From: d.From, Denominator: d.Denominator,
		Against: toMoneyIf(d.Against), Exact: d.Exact.String(), Remainder: d.Remainder.String(), Amount: toMoney(d.Amount),
	}
	if e := d.Evidence; !e.IsZero() {
		out.Evidence = &Evidence{Events: e.Events, First: textIf(e.First), Last: textIf(e.Last), Hash: textIf(e.Hash), AsOf: textIf(e.AsOf)}
	}
	if d.Kind == pricing.KindAdjustment {
		before, after := toMoney(money.Zero(d.Currency)), toMoney(money.Zero(d.Currency))
		if d.Before != nil {
			before = toMoney(d.Before.Amount)
		}
		if d.After != nil {
			after = toMoney(d.After.Amount)
		}
		out.Before, out.After = &before, &after
	}
	return out
}

// steps tells a derivation in sentences.
func steps(d pricing.Derivation, line InvoiceLine) []string {
	out := []string{}
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	cur := string(d.Currency)
	switch {
	case d.Kind == pricing.KindAdjustment:
		before, after := money.Zero(d.Currency), money.Zero(d.Currency)
		if d.Before != nil {
			before = d.Before.Amount
		}
		if d.After != nil {
			after = d.After.Amount
		}
		say("With the usage that came late, the period comes to %s; %s was billed for it before.", after, before)
	case d.Kind == pricing.KindUsage:
		say("%s %s were used.", d.Quantity, plan.Plural(d.Unit))
		if d.Step.Sign() > 0 {
			say("That is rounded up to %s, a multiple of %s.", d.Rounded, d.Step)
		}
		if d.Included.Sign() > 0 {
			say("%s of them are included; %s are billable.", d.Included, d.Billable)
		}
		for _, t := range line.Tiers {
			where := "without end"
			if t.UpTo != nil {
				where = "up to " + *t.UpTo
			}
			say("Over %s and %s: %s %s at %s %s = %s.", t.Over, where, t.Units, plan.Plural(t.Unit), t.UnitPrice, cur, t.Amount.amount())
		}
	case d.Base != nil:
		return append(out, shareSteps(d)...)
	}
	say("Exactly that is %s %s, rounded once to %s.", d.Exact, cur, d.Amount)
	return out
}

// shareSteps tells a line that is a share of a sum: a percentage, or what is due for a part of the period.
func shareSteps(d pricing.Derivation) []string {
	out := []string{}
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if d.Kind == pricing.KindDrawdown && d.Against != nil {
		say("Of what was paid ahead %s were left.", *d.Base)
		say("The usage came to %s, and the line takes off as much of it as was left: %s.", *d.Against, d.Amount)
		return out
	}
	say("The base is %s.", *d.Base)
	upTo, before := rounded(*d.Base, d.Numerator, d.Denominator), rounded(*d.Base, d.From, d.Denominator)
	switch {
	case d.Kind == pricing.KindPercent || d.Kind == pricing.KindOverage:
		say("%s percent of that is exactly %s %s.", money.DecimalFromUnits(d.Numerator-d.From, 9), d.Exact, d.Currency)
		if d.From != 0 {
			say("The whole with the percentage, %s, less the base is %s.", upTo, d.Amount)
			return out
		}
	case d.Numerator-d.From != d.Denominator:
		hours := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
		say("The plan was held from %s to %s of the period's %s.", hours(d.From), hours(d.Numerator), hours(d.Denominator))
		say("Up to the end of that, %s of the base is due; up to its beginning, %s; each is rounded once, so that the parts of a period sum to the whole.", upTo, before)
	}
	if d.Against != nil {
		say("It stands against %s.", *d.Against)
	}
	say("The line is %s.", d.Amount)
	return out
}

// rounded is a share of a sum as the line was computed from it.
func rounded(sum money.Amount, num, den int64) money.Amount {
	f, err := money.Ratio(sum, num, den)
	if err != nil { // a derivation that nobody made; its verification says so
		return money.Zero(sum.Currency)
	}
	a, err := f.Round(sum.Currency)
	if err != nil {
		return money.Zero(sum.Currency)
	}
	return a
}
