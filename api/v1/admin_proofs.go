package v1

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/invariant"
)

func adminProofRoutes(d Deps) []route.Route {
	h := adminProofs{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/admin/checks", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, Timeout: checksTimeout, AtMost: 1, Handler: h.checks},
		{Method: http.MethodGet, Path: "/v1/admin/proofs/{date}", Scope: auth.Operator, Account: route.AccountNone, Handler: h.proof},
		{Method: http.MethodGet, Path: "/v1/admin/audit-log", Scope: auth.Operator, Account: route.AccountOptional, Query: paged("actor", "action"), Handler: h.audit},
	}
}

// checksTimeout is how long the checks may take, which read everything. Where that is not enough,
// "accrue check" has no bound.
const checksTimeout = 28 * time.Second

// Proofs is what the books are proved with.
type Proofs struct {
	Source invariant.Source
	Store  invariant.ProofStore
}

// CheckResult is what came of a check of the books.
type CheckResult struct {
	ID       string   `json:"id" validate:"required" example:"I3"`
	Title    string   `json:"title" validate:"required" example:"Every balance, cached or running, is the sum of its postings"`
	Status   string   `json:"status" validate:"required" enums:"ok,broken,skipped"`
	Skipped  *string  `json:"skipped" validate:"required" extensions:"x-nullable"` // why it could not be made
	Findings []string `json:"findings" validate:"required"`                        // the first 20
} //@name CheckResult

func toCheckResult(r invariant.Result) CheckResult {
	out := CheckResult{ID: string(r.ID), Title: r.Title, Status: "ok", Skipped: textIf(r.Skipped), Findings: convert(r.Findings, text)}
	switch {
	case r.Skipped != "":
		out.Status = "skipped"
	case !r.OK:
		out.Status = "broken"
	}
	return out
}

// CheckReport is the state of the books.
type CheckReport struct {
	Passed int           `json:"passed" validate:"required" example:"14"`
	Made   int           `json:"made" validate:"required" example:"14"`
	Checks []CheckResult `json:"checks" validate:"required"`
} //@name CheckReport

func toReport(results []invariant.Result) CheckReport {
	passed, made := invariant.Passed(results)
	return CheckReport{Passed: passed, Made: made, Checks: convert(results, toCheckResult)}
}

type adminProofs struct{ Deps }

// checks proves the books.
//
//	@ID				runChecks
//	@Summary		Make the fourteen checks of the books, now
//	@Description	What "accrue check" does. Each reads one consistent state of the whole database and writes nothing.
//	@Tags			admin
//	@Success		200	{object}	CheckReport
//	@Failure		503	{object}	problem.Problem	"operation_busy: the checks are being made"
//	@Router			/v1/admin/checks [get]
func (h adminProofs) checks(c echo.Context) error {
	results, err := invariant.Run(c.Request().Context(), h.Proofs.Source, invariant.Options{Clock: h.Billing.Clock, Gateway: h.Billing.Gateway})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toReport(results))
}

// Proof ties a day's books to one hash. Kept elsewhere, the hash shows for ever after whether a
// transaction of that day or before was changed, removed or slipped in.
type Proof struct {
	Date       string      `json:"date" validate:"required" format:"date" example:"2026-11-23"`
	Root       string      `json:"root" validate:"required" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"` // SHA-256 over the heads of all accounts' hash chains at the end of the day
	Accounts   int         `json:"accounts" validate:"required"`                                                                        // with at least one transaction
	Report     CheckReport `json:"report" validate:"required"`                                                                          // of the checks, as they were when the day was over
	RecordedAt time.Time   `json:"recorded_at" validate:"required" format:"date-time"`
} //@name Proof

// proof shows the proof of a day.
//
//	@ID			getProof
//	@Summary	Get the proof of a day's books
//	@Tags		admin
//	@Param		date	path		string	true	"The day, in UTC"	format(date)	example(2026-11-23)
//	@Success	200		{object}	Proof
//	@Failure	404		{object}	problem.Problem	"proof_not_found: the day is not over, or the service did not run"
//	@Router		/v1/admin/proofs/{date} [get]
func (h adminProofs) proof(c echo.Context) error {
	day, err := time.Parse(time.DateOnly, c.Param("date"))
	if err != nil {
		return invariant.ErrNoProof
	}
	p, err := h.Proofs.Store.Proof(c.Request().Context(), day)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Proof{
		Date: p.Day.Format(time.DateOnly), Root: hex.EncodeToString(p.Root[:]), Accounts: p.Accounts, Report: toReport(p.Results), RecordedAt: p.RecordedAt.UTC(),
	})
}

// AuditEntry says who did what to which account, when and why.
type AuditEntry struct {
	ID      string          `json:"id" validate:"required" example:"aud_01jqxyzabcdefghjkmnpqrstvw"`
	Account *string         `json:"account" validate:"required" extensions:"x-nullable"` // null: it concerns no one account
	Actor   string          `json:"actor" validate:"required" example:"operator:grace"`
	Action  string          `json:"action" validate:"required" example:"payment.refund"`
	Reason  *string         `json:"reason" validate:"required" extensions:"x-nullable"`
	Detail  json.RawMessage `json:"detail" validate:"required" swaggertype:"object"` // the records that it is about, by kind
	At      time.Time       `json:"at" validate:"required" format:"date-time"`       // on the account's clock
} //@name AuditEntry

func toAuditEntry(e account.Entry) AuditEntry {
	out := AuditEntry{ID: e.ID.String(), Actor: e.Actor, Action: e.Action, Reason: textIf(e.Reason), Detail: e.Detail, At: e.At.UTC()}
	if !e.Account.IsZero() {
		name := e.Account.String()
		out.Account = &name
	}
	return out
}

// audit pages through the audit log.
//
//	@ID				listAuditLog
//	@Summary		Read the audit log, the newest entry first
//	@Description	Of all accounts and of the staff, or of the account that Accrue-Account names. An entry is written in the transaction of what it tells of, and never changed.
//	@Tags			admin
//	@Param			actor	query		string	false	"Only what this one did"
//	@Param			action	query		string	false	"Only this action"	example(payment.refund)
//	@Param			limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[AuditEntry]
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/audit-log [get]
func (h adminProofs) audit(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	var checks validate.Checks
	checks.Line("#/actor", q.Get("actor"), validate.MaxLine)
	checks.Line("#/action", q.Get("action"), validate.MaxLine)
	if err := checks.Err(); err != nil {
		return err
	}
	p, err := h.Billing.DB.Accounts().Audited(c.Request().Context(), account.EntryFilter{
		Account: middleware.AccountIfAny(c), Actor: q.Get("actor"), Action: q.Get("action"),
	}, r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, toAuditEntry)
}
