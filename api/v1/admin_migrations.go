package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

func adminMigrationRoutes(d Deps) []route.Route {
	h := adminMigrations{d}
	const path = "/v1/admin/plans/{code}/migrations"
	return []route.Route{
		{
			Method: http.MethodPost, Path: path + "/preview", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money,
			Timeout: catalogueTimeout, Handler: h.preview,
		},
		{Method: http.MethodPost, Path: path, Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, Idempotent: true, Handler: h.create},
		{Method: http.MethodGet, Path: path, Scope: auth.Operator, Account: route.AccountNone, Handler: h.list},
		{Method: http.MethodGet, Path: path + "/{id}", Scope: auth.Operator, Account: route.AccountNone, Handler: h.get},
		{
			Method: http.MethodPost, Path: path + "/{id}/cancel", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, Idempotent: true,
			Handler: h.cancel,
		},
	}
}

// Repricing is what moving a plan's accounts to a version would have changed in their last months, from
// real usage: up to three periods that are over, or else the running one.
type Repricing struct {
	Accounts int               `json:"accounts" validate:"required"` // on other versions of the plan
	Compared int               `json:"compared" validate:"required"` // of these
	Move     int               `json:"move" validate:"required"`     // that a migration would move
	More     int               `json:"more" validate:"required"`     // of these: who would have paid more
	Less     int               `json:"less" validate:"required"`     // who would have paid less
	Same     int               `json:"same" validate:"required"`     // who would have paid as much
	Totals   []RepricingTotal  `json:"totals" validate:"required"`   // of those that would move, by currency
	Data     []RepricedAccount `json:"data" validate:"required"`     // whose bill rises most comes first
} //@name Repricing

// RepricingTotal sums the compared months in one currency, tax not included.
type RepricingTotal struct {
	Before Money `json:"before" validate:"required"`
	After  Money `json:"after" validate:"required"`
} //@name RepricingTotal

// RepricedAccount is one account's last months under both versions, tax not included.
type RepricedAccount struct {
	Account    string         `json:"account" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	ExternalID string         `json:"external_id" validate:"required" example:"customer-17"`
	Name       string         `json:"name" validate:"required"`
	Version    int            `json:"plan_version" validate:"required" example:"1"` // that it has
	Months     int            `json:"months" validate:"required" example:"3"`
	Before     Money          `json:"before" validate:"required"`
	After      Money          `json:"after" validate:"required"`
	Difference Money          `json:"difference" validate:"required"`
	Blocked    []BlockedMonth `json:"blocked" validate:"required"`                                                 // usage that the new limits would have refused
	Stays      *string        `json:"stays" validate:"required" extensions:"x-nullable" enums:"contract,currency"` // why it would not be moved; null: it would
} //@name RepricedAccount

func toRepricing(r billing.Repricing) Repricing {
	return Repricing{
		Accounts: r.Accounts, Compared: r.Compared, Move: r.Move, More: r.More, Less: r.Less, Same: r.Same,
		Totals: convert(r.Totals, func(t billing.RepricingTotal) RepricingTotal {
			return RepricingTotal{toMoney(t.Before), toMoney(t.After)}
		}),
		Data: convert(r.Rows, toRepricedAccount),
	}
}

func toRepricedAccount(r billing.Repriced) RepricedAccount {
	return RepricedAccount{
		Account: r.Account.ID.String(), ExternalID: r.Account.ExternalID, Name: r.Account.Name, Version: r.From, Months: r.Months,
		Before: toMoney(r.Before), After: toMoney(r.After), Difference: toMoney(r.Difference), Blocked: convert(r.Blocked, toBlockedMonth),
		Stays: textIf(r.Stays),
	}
}

// PlanMigration moves the accounts on other versions of a plan to one version.
type PlanMigration struct {
	ID          string            `json:"id" validate:"required" example:"pmg_01jqxyzabcdefghjkmnpqrstvw"`
	Plan        string            `json:"plan" validate:"required" example:"pro"`
	To          int               `json:"to" validate:"required" example:"2"`
	When        string            `json:"when" validate:"required" enums:"period_end,now"`
	Status      string            `json:"status" validate:"required" enums:"running,completed,canceled"`
	Done        MigrationOutcomes `json:"done" validate:"required"` // so far
	Reason      *string           `json:"reason" validate:"required" extensions:"x-nullable"`
	Actor       string            `json:"actor" validate:"required" example:"operator:grace"`
	CreatedAt   time.Time         `json:"created_at" validate:"required" format:"date-time"`
	CompletedAt *time.Time        `json:"completed_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	CanceledAt  *time.Time        `json:"canceled_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name PlanMigration

// MigrationOutcomes counts accounts by what a migration did about them.
type MigrationOutcomes struct {
	Migrated    int `json:"migrated" validate:"required"`
	Contract    int `json:"contract" validate:"required"`     // left: they have a contract on their version
	Currency    int `json:"currency" validate:"required"`     // left: the version has no prices in their currency
	PlanChanged int `json:"plan_changed" validate:"required"` // they had left the plan
} //@name MigrationOutcomes

func toPlanMigration(m subscription.Migration) PlanMigration {
	return PlanMigration{
		ID: m.ID.String(), Plan: string(m.Plan), To: m.To, When: string(m.When), Status: string(m.Status),
		Done: MigrationOutcomes{
			Migrated: m.Outcomes[subscription.Migrated], Contract: m.Outcomes[subscription.KeptContract],
			Currency: m.Outcomes[subscription.KeptCurrency], PlanChanged: m.Outcomes[subscription.KeptLeaving],
		},
		Reason: textIf(m.Reason), Actor: m.Actor, CreatedAt: m.CreatedAt.UTC(), CompletedAt: timeIf(m.CompletedAt), CanceledAt: timeIf(m.CanceledAt),
	}
}

// MigrationQuestion asks what a migration would change.
type MigrationQuestion struct {
	To    int `json:"to" validate:"required" minimum:"1" example:"2"`           // the version
	Limit int `json:"limit,omitempty" minimum:"1" maximum:"1000" default:"100"` // accounts to list
} //@name MigrationQuestion

// NewPlanMigration asks for a migration.
type NewPlanMigration struct {
	To     int    `json:"to" validate:"required" minimum:"1" example:"2"`
	When   string `json:"when,omitempty" enums:"period_end,now" default:"period_end"` // period_end: each account's running period is still billed by the version that it has; now: it is billed by the new one as a whole
	Reason string `json:"reason,omitempty" maxLength:"4000" example:"prices of spring 2026"`
} //@name NewPlanMigration

type adminMigrations struct{ Deps }

// preview compares.
//
//	@ID				adminPreviewMigration
//	@Summary		Who would pay more, and how much
//	@Description	Prices the last months of every account on another version of the plan under both versions, from real usage, at most 10,000 of them. Changes nothing.
//	@Tags			admin
//	@Param			code		path		string				true	"The plan's code"
//	@Param			question	body		MigrationQuestion	true	"The version"
//	@Success		200			{object}	Repricing
//	@Failure		404			{object}	problem.Problem	"plan_not_found, plan_version_not_found"
//	@Failure		409			{object}	problem.Problem	"plan_version_archived"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/plans/{code}/migrations/preview [post]
func (h adminMigrations) preview(c echo.Context) error {
	in := MigrationQuestion{Limit: 100}
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checkVersion(&checks, in.To)
	checks.Count("#/limit", in.Limit, 1, 1000)
	if err := checks.Err(); err != nil {
		return err
	}
	r, err := billing.Migrator{Core: h.Billing}.Preview(c.Request().Context(), plan.Code(c.Param("code")), in.To, in.Limit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toRepricing(r))
}

func checkVersion(checks *validate.Checks, n int) {
	if n < 1 {
		checks.Fail("#/to", "out_of_range", "must be the number of a version")
	}
}

// create starts a migration.
//
//	@ID				adminMigratePlan
//	@Summary		Move accounts to a version of their plan
//	@Description	Records the migration and answers; the accounts follow in the background, one by one and each once, also if the service stops in between. Accounts with a contract, or whose currency the version does not have, stay. One migration of a plan runs at a time.
//	@Tags			admin
//	@Param			code		path		string				true	"The plan's code"
//	@Param			migration	body		NewPlanMigration	true	"The version"
//	@Success		201			{object}	PlanMigration
//	@Failure		404			{object}	problem.Problem	"plan_not_found, plan_version_not_found"
//	@Failure		409			{object}	problem.Problem	"plan_version_archived, migration_running"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/plans/{code}/migrations [post]
func (h adminMigrations) create(c echo.Context) error {
	in := NewPlanMigration{When: string(subscription.AtPeriodEnd)}
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checkVersion(&checks, in.To)
	checks.OneOf("#/when", in.When, string(subscription.AtPeriodEnd), string(subscription.AtOnce))
	checks.Text("#/reason", in.Reason, validate.MaxText)
	if err := checks.Err(); err != nil {
		return err
	}
	render := as(http.StatusCreated, toPlanMigration)
	res, err := billing.Migrator{Core: h.Billing}.Begin(c.Request().Context(), asked(c), billing.MigrationInput{
		Plan: plan.Code(c.Param("code")), To: in.To, When: subscription.When(in.When), Reason: in.Reason,
	}, render)
	if err != nil {
		return err
	}
	return answer(c, res, render)
}

// list lists the migrations of a plan.
//
//	@ID			adminListMigrations
//	@Summary	List the migrations of a plan, the newest first
//	@Tags		admin
//	@Param		code	path		string	true	"The plan's code"
//	@Success	200		{object}	Page[PlanMigration]
//	@Failure	404		{object}	problem.Problem	"plan_not_found"
//	@Router		/v1/admin/plans/{code}/migrations [get]
func (h adminMigrations) list(c echo.Context) error {
	ctx, code := c.Request().Context(), plan.Code(c.Param("code"))
	if _, err := h.Billing.DB.Plans().Plan(ctx, code); err != nil {
		return err
	}
	all, err := h.Billing.DB.PlanMigrations().List(ctx, code)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Page[PlanMigration]{Data: convert(all, toPlanMigration)})
}

// get shows a migration.
//
//	@ID			adminGetMigration
//	@Summary	Get a migration with its progress
//	@Tags		admin
//	@Param		code	path		string	true	"The plan's code"
//	@Param		id		path		string	true	"The migration"
//	@Success	200		{object}	PlanMigration
//	@Failure	404		{object}	problem.Problem	"migration_not_found"
//	@Router		/v1/admin/plans/{code}/migrations/{id} [get]
func (h adminMigrations) get(c echo.Context) error {
	mid, err := param[subscription.Migration](c, "id", subscription.ErrMigrationNotFound)
	if err != nil {
		return err
	}
	m, err := h.Billing.DB.PlanMigrations().Get(c.Request().Context(), mid)
	if err == nil && string(m.Plan) != c.Param("code") {
		err = subscription.ErrMigrationNotFound
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toPlanMigration(m))
}

// cancel ends a migration that runs.
//
//	@ID				adminCancelMigration
//	@Summary		Cancel a migration that runs
//	@Description	Accounts that it has dealt with stay as they are, those whose new version begins with their next period included; the others are left alone. Canceling twice changes nothing.
//	@Tags			admin
//	@Param			code	path		string	true	"The plan's code"
//	@Param			id		path		string	true	"The migration"
//	@Param			reason	body		Reason	true	"Why"
//	@Success		200		{object}	PlanMigration
//	@Failure		404		{object}	problem.Problem	"migration_not_found"
//	@Failure		409		{object}	problem.Problem	"migration_over: it is completed"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/plans/{code}/migrations/{id}/cancel [post]
func (h adminMigrations) cancel(c echo.Context) error {
	mid, err := param[subscription.Migration](c, "id", subscription.ErrMigrationNotFound)
	if err != nil {
		return err
	}
	why, err := reason(c)
	if err != nil {
		return err
	}
	render := as(http.StatusOK, toPlanMigration)
	res, err := billing.Migrator{Core: h.Billing}.Cancel(c.Request().Context(), asked(c), plan.Code(c.Param("code")), mid, why, render)
	if err != nil {
		return err
	}
	return answer(c, res, render)
}
