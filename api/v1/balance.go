package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/runway"
	"github.com/accrue-billing/accrue/pkg/money"
)

func balanceRoutes(d Deps) []route.Route {
	h := balances{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/balance", Scope: auth.BillingRead, OfState: true, Query: []string{"at"}, Handler: h.get},
		{Method: http.MethodGet, Path: "/v1/balance/transactions", Scope: auth.BillingRead, Query: paged("part"), Handler: h.transactions},
		{Method: http.MethodGet, Path: "/v1/balance/runway", Scope: auth.BillingRead, Handler: h.runway},
	}
}

// Balance is where the account stands: available is funds and promotional credit, less what is due,
// accrued and reserved. It may be negative.
type Balance struct {
	Currency  string `json:"currency" validate:"required" example:"USD"`
	Funds     Money  `json:"funds" validate:"required"`                             // paid in ahead and not yet spent
	Promo     Money  `json:"promotional_credit" validate:"required"`                // given by the operator and not yet spent
	Due       Money  `json:"due" validate:"required"`                               // on final invoices and not yet paid
	Accrued   *Money `json:"accrued" validate:"required" extensions:"x-nullable"`   // used and on no final invoice yet, tax not included; null of a moment that is past
	Reserved  *Money `json:"reserved" validate:"required" extensions:"x-nullable"`  // held for calls that are going on; null of a moment that is past
	Available *Money `json:"available" validate:"required" extensions:"x-nullable"` // null of a moment that is past
} //@name Balance

func toBalance(b billing.Balance) Balance {
	return Balance{
		Currency: string(b.Currency), Funds: toMoney(b.Funds), Promo: toMoney(b.Promo), Due: toMoney(b.Due),
		Accrued: toMoneyIf(&b.Accrued), Reserved: toMoneyIf(&b.Reserved), Available: toMoneyIf(&b.Available),
	}
}

type balances struct{ Deps }

// get shows the balance.
//
//	@ID				getBalance
//	@Summary		Get the balance now or at a moment
//	@Description	Now, it is true of every event that was acknowledged. At a moment in the past it is what the ledger had booked before it: funds, credit and what was due.
//	@Tags			balance
//	@Param			at	query		string	false	"A moment that is past"	format(date-time)
//	@Success		200	{object}	Balance
//	@Failure		422	{object}	problem.Problem	"invalid_request"
//	@Router			/v1/balance [get]
func (h balances) get(c echo.Context) error {
	q := middleware.Query(c)
	if q.Get("at") != "" {
		return h.past(c, q.Get("at"))
	}
	b, err := billing.Reader{Core: h.Billing}.Balance(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toBalance(b))
}

func (h balances) past(c echo.Context, moment string) error {
	at, err := strictjson.ParseTime(moment)
	if err != nil {
		return errs.InvalidField("#/at", "invalid_timestamp", "%s", err.Error())
	}
	ctx := c.Request().Context()
	acct, err := h.Billing.DB.Accounts().Get(ctx, middleware.Account(c))
	if err != nil {
		return err
	}
	if at.After(acct.Now(h.Billing.Clock())) {
		return errs.InvalidField("#/at", "in_the_future", "must not lie in the future")
	}
	booked, err := h.Billing.DB.Ledger().BalancesAt(ctx, acct.ID, at)
	if err != nil {
		return err
	}
	s := books.StandingOf(booked, acct.Currency)
	return c.JSON(http.StatusOK, Balance{Currency: string(acct.Currency), Funds: toMoney(s.Funds), Promo: toMoney(s.Promo), Due: toMoney(s.Due)})
}

// BalanceTransaction is one row of the statement.
type BalanceTransaction struct {
	ID          string    `json:"id" validate:"required" example:"txn_01jqxyzabcdefghjkmnpqrstvw"` // rows that were booked together have the same
	Kind        string    `json:"kind" validate:"required" enums:"top_up,invoice,funds_applied,promo_applied,invoice_payment,promo_granted,promo_expired,refund,refund_failed,credit_note,write_off,write_off_undone,dispute_opened,dispute_won"`
	Reference   string    `json:"reference" validate:"required" example:"pay_01jqxyzabcdefghjkmnpqrstvw"` // the record that was booked
	Description string    `json:"description" validate:"required"`
	Part        string    `json:"part" validate:"required" enums:"funds,promotional_credit,due"` // which part of the balance it moved
	Change      Money     `json:"change" validate:"required"`                                    // from the customer's side: what it gained is positive
	Balance     Money     `json:"balance" validate:"required"`                                   // of the part, after the row; what is due is negative
	BookedAt    time.Time `json:"booked_at" validate:"required" format:"date-time"`
} //@name BalanceTransaction

// parts are the ledger accounts of a statement by what the customer calls them.
var parts = map[ledger.Name]string{books.Funds: "funds", books.Promo: "promotional_credit", books.Receivable: "due"}

func toBalanceTransaction(e ledger.Entry) BalanceTransaction {
	return BalanceTransaction{
		ID: e.Transaction.String(), Kind: e.Kind, Reference: e.Reference, Description: e.Description, Part: parts[e.Name],
		Change: toMoney(money.New(-e.Change.Minor, e.Change.Currency)), Balance: toMoney(money.New(-e.Balance.Minor, e.Balance.Currency)),
		BookedAt: e.BookedAt.UTC(),
	}
}

// transactions shows the statement.
//
//	@ID				listBalanceTransactions
//	@Summary		Get the statement
//	@Description	From the ledger, the newest first, with the running balance on each row. A page ends between transactions, so it may hold a row or two more than the limit.
//	@Tags			balance
//	@Param			part	query		string	false	"One part of the balance only"	Enums(funds, promotional_credit, due)
//	@Param			limit	query		int		false	"How many at most"				minimum(1)	maximum(100)	default(20)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[BalanceTransaction]
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/balance/transactions [get]
func (h balances) transactions(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	names := books.StatementNames()
	if want := q.Get("part"); want != "" {
		names = nil
		for name, part := range parts {
			if part == want {
				names = append(names, name)
			}
		}
		if names == nil {
			return errs.InvalidField("#/part", "unknown_value", "must be funds, promotional_credit or due")
		}
	}
	p, err := h.Billing.DB.Ledger().Entries(c.Request().Context(), middleware.Account(c), names, r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, toBalanceTransaction)
}

// Runway is how long what is available will last.
type Runway struct {
	At           time.Time        `json:"at" validate:"required" format:"date-time"`
	Available    Money            `json:"available" validate:"required"`
	Known        bool             `json:"known" validate:"required"`                   // false while the account is too young for an estimate
	DaysObserved int              `json:"days_observed" validate:"required"`           // the latest days that the estimate stands on, 28 at most
	DaysNeeded   int              `json:"days_needed" validate:"required" example:"7"` // before there is an estimate
	Estimates    []RunwayEstimate `json:"estimates" validate:"required"`               // by an ordinary day and, for caution, by a dear one
} //@name Runway

// RunwayEstimate is how long it lasts if every day costs what the given percentile of the days observed did.
type RunwayEstimate struct {
	Percentile int        `json:"percentile" validate:"required" example:"50"` // of the days observed: 50 is an ordinary day
	DailySpend Money      `json:"daily_spend" validate:"required"`
	LastsUntil *time.Time `json:"lasts_until" validate:"required" extensions:"x-nullable" format:"date-time"` // null: for years, or nothing is spent
} //@name RunwayEstimate

// runway says how long the funds will last.
//
//	@ID				getRunway
//	@Summary		How long the funds will last
//	@Description	From what the usage of the last days costs under the present plan, tiers and allowances counted, tax not included. An estimate, not a promise.
//	@Tags			balance
//	@Success		200	{object}	Runway
//	@Router			/v1/balance/runway [get]
func (h balances) runway(c echo.Context) error {
	r, err := billing.Reader{Core: h.Billing}.Runway(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Runway{
		At: r.At.UTC(), Available: toMoney(r.Balance.Available), Known: len(r.Estimates) > 0, DaysObserved: r.Days, DaysNeeded: runway.MinDays,
		Estimates: convert(r.Estimates, func(e runway.Estimate) RunwayEstimate {
			return RunwayEstimate{Percentile: e.Percentile, DailySpend: toMoney(money.New(e.Daily, r.Balance.Currency)), LastsUntil: timeIf(e.Until)}
		}),
	})
}
