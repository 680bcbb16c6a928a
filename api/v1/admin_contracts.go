package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

func adminContractRoutes(d Deps) []route.Route {
	h := adminContracts{d}
	document := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{
			Method: http.MethodPost, Path: path, Scope: auth.Operator, Class: route.Money, MaxBody: plan.MaxDocument,
			Consumes: []string{echo.MIMEApplicationJSON, mediaYAML}, Handler: handler,
		}
	}
	create := document("/v1/admin/contracts", h.create)
	create.Idempotent = true
	return []route.Route{
		document("/v1/admin/contracts/preview", h.preview),
		create,
		{Method: http.MethodGet, Path: "/v1/admin/contracts", Scope: auth.Operator, Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/admin/contracts/{id}", Scope: auth.Operator, Handler: h.get},
		{Method: http.MethodPost, Path: "/v1/admin/contracts/{id}/end", Scope: auth.Operator, Class: route.Money, Idempotent: true, Handler: h.end},
	}
}

// Contract is what was agreed with one account on top of a version of a plan.
type Contract struct {
	ID          string      `json:"id" validate:"required" example:"ctr_01jqxyzabcdefghjkmnpqrstvw"`
	Account     string      `json:"account" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	Reference   string      `json:"reference" validate:"required" example:"MER-2026-001"`
	Plan        string      `json:"plan" validate:"required" example:"enterprise"`
	PlanVersion int         `json:"plan_version" validate:"required" example:"1"`
	Status      string      `json:"status" validate:"required" enums:"scheduled,active,ended"`
	Start       time.Time   `json:"start" validate:"required" format:"date-time"`
	End         *time.Time  `json:"end" validate:"required" extensions:"x-nullable" format:"date-time"`
	EndedAt     *time.Time  `json:"ended_at" validate:"required" extensions:"x-nullable" format:"date-time"`     // when it was, or is to be, ended before its time
	TakesEffect *time.Time  `json:"takes_effect" validate:"required" extensions:"x-nullable" format:"date-time"` // of one that is scheduled: where its first period begins
	Then        *string     `json:"then" validate:"required" extensions:"x-nullable" example:"pro"`              // the plan after it
	Fee         *Fee        `json:"fee" validate:"required" extensions:"x-nullable"`                             // instead of the version's
	Credit      []Money     `json:"credit" validate:"required"`                                                  // by currency, instead of the version's; empty: the version's
	Minimum     []Money     `json:"minimum" validate:"required"`                                                 // by currency, instead of the version's; empty: the version's
	Charges     []Charge    `json:"charges" validate:"required"`                                                 // instead of the version's of the same code, or added
	Limits      []Limit     `json:"limits" validate:"required"`                                                  // instead of the version's on the same meter, or added
	Unlimited   []string    `json:"unlimited" validate:"required"`                                               // meters whose limits fall away
	Commitment  *Commitment `json:"commitment" validate:"required" extensions:"x-nullable"`
	CreatedAt   time.Time   `json:"created_at" validate:"required" format:"date-time"`
} //@name Contract

// Commitment is spending that was agreed on.
type Commitment struct {
	Term        bool             `json:"term" validate:"required"`                                                  // for the whole time of a step, and not for each period
	Prepaid     bool             `json:"prepaid" validate:"required"`                                               // a step's sum is billed when it begins; usage then draws on it
	OverageRate *string          `json:"overage_rate" validate:"required" extensions:"x-nullable" format:"decimal"` // what usage beyond it costs, in percent of its price
	Steps       []CommitmentStep `json:"steps" validate:"required"`
} //@name Commitment

// CommitmentStep is one stage of a ramp; it holds until the next.
type CommitmentStep struct {
	From time.Time `json:"from" validate:"required" format:"date-time"`
	Sums []Money   `json:"sums" validate:"required"`
} //@name CommitmentStep

func toContract(a billing.Agreement) Contract {
	d := a.Definition
	out := Contract{
		ID: a.ID.String(), Account: a.Account.String(), Reference: d.Reference, Plan: string(d.Plan), PlanVersion: d.Version, Status: string(a.Status),
		Start: d.Start.UTC(), End: timeIf(d.End), EndedAt: timeIf(a.EndedAt), TakesEffect: timeIf(a.TakesEffect), Then: textIf(d.Then),
		Credit: convert(d.Credit, toMoney), Minimum: convert(d.Minimum, toMoney), Charges: convert(d.Charges, toCharge),
		Limits: convert(d.Limits, toLimit), Unlimited: convert(d.Unlimited, text), CreatedAt: a.CreatedAt.UTC(),
	}
	if d.Fee != nil {
		out.Fee = &Fee{Name: d.Fee.Name, Prices: convert(d.Fee.Prices, toMoney)}
	}
	if c := d.Commitment; c != nil {
		out.Commitment = &Commitment{
			Term: c.Term, Prepaid: c.Prepaid, OverageRate: decimalIf(c.OverageRate),
			Steps: convert(c.Steps, func(s plan.Step) CommitmentStep { return CommitmentStep{s.From.UTC(), convert(s.Sums, toMoney)} }),
		}
	}
	return out
}

// ContractPreview is what a contract would change.
type ContractPreview struct {
	Contract    Contract `json:"contract" validate:"required"` // as it would be; its id is not kept
	Months      []Period `json:"months" validate:"required"`   // what is compared: up to three periods that are over, or else the running one
	Before      []Money  `json:"before" validate:"required"`   // what each came to on the terms that the account has, tax not included
	After       []Money  `json:"after" validate:"required"`    // what each would have come to under the contract, a commitment per period included
	TotalBefore Money    `json:"total_before" validate:"required"`
	TotalAfter  Money    `json:"total_after" validate:"required"`
} //@name ContractPreview

// ContractDocument is a contract, as YAML or JSON; its form is written down in the operations that take
// it, and in docs/pricing.md.
type ContractDocument struct {
	Plan      string `json:"plan" validate:"required"`
	Reference string `json:"reference" validate:"required"`
} //@name ContractDocument

type adminContracts struct{ Deps }

func (h adminContracts) contractor() billing.Contractor { return billing.Contractor{Core: h.Billing} }

// document reads the contract that was sent.
func (h adminContracts) document(c echo.Context) (plan.Contract, error) {
	text := body.Bytes(c)
	if len(text) == 0 {
		return plan.Contract{}, strictjson.ErrNoBody
	}
	return h.contractor().Read(c.Request().Context(), middleware.Account(c), text)
}

// preview says what a contract would change.
//
//	@ID				adminPreviewContract
//	@Summary		What a contract would change
//	@Description	Names every fault by its place, or says when the contract would begin and what the account's last months would have come to under it. Changes nothing.
//	@Tags			admin
//	@Accept			json
//	@Param			contract	body		ContractDocument	true	"The contract"
//	@Success		200			{object}	ContractPreview
//	@Failure		400			{object}	problem.Problem	"catalogue_unreadable"
//	@Failure		409			{object}	problem.Problem	"contract_scheduled (with contract), contract_over, account_closed"
//	@Failure		422			{object}	problem.Problem	"catalogue_invalid, invalid_request: each entry is named; currency_mismatch"
//	@Router			/v1/admin/contracts/preview [post]
func (h adminContracts) preview(c echo.Context) error {
	def, err := h.document(c)
	if err != nil {
		return err
	}
	p, err := h.contractor().Preview(c.Request().Context(), middleware.Account(c), def)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, ContractPreview{
		Contract: toContract(p.Agreement), Months: convert(p.Months, func(b period.Bounds) Period { return Period{b.Start.UTC(), b.End.UTC()} }),
		Before: convert(p.Before.Months, toMoney), After: convert(p.After.Months, toMoney),
		TotalBefore: toMoney(p.Before.Total), TotalAfter: toMoney(p.After.Total),
	})
}

// create agrees on a contract.
//
//	@ID				adminCreateContract
//	@Summary		Put an account on a contract
//	@Description	Overrides on a version of a plan: prices, limits, fee, committed spend with ramp and true-up, or usage that is paid ahead and drawn on. A contract holds for whole periods: one without a start, or whose start is not after the running period's, takes effect at once for all of the running period and replaces the contract that the account has; any other begins by itself with the first period after its start. When it ends, by its own date or by the end operation, the account goes to the plan named in then.
//	@Tags			admin
//	@Accept			json
//	@Param			contract	body		ContractDocument	true	"The contract"
//	@Success		201			{object}	Contract
//	@Failure		400			{object}	problem.Problem	"catalogue_unreadable"
//	@Failure		409			{object}	problem.Problem	"contract_scheduled (with contract), contract_over, account_closed"
//	@Failure		422			{object}	problem.Problem	"catalogue_invalid, invalid_request: each entry is named; currency_mismatch"
//	@Router			/v1/admin/contracts [post]
func (h adminContracts) create(c echo.Context) error {
	def, err := h.document(c)
	if err != nil {
		return err
	}
	render := as(http.StatusCreated, toContract)
	res, err := h.contractor().Agree(c.Request().Context(), asked(c), def, render)
	if err != nil {
		return err
	}
	return answer(c, res, render)
}

// list lists an account's contracts.
//
//	@ID			adminListContracts
//	@Summary	List an account's contracts, in the order in which they begin
//	@Tags		admin
//	@Success	200	{object}	Page[Contract]
//	@Router		/v1/admin/contracts [get]
func (h adminContracts) list(c echo.Context) error {
	all, err := billing.Reader{Core: h.Billing}.Contracts(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Page[Contract]{Data: convert(all, toContract)})
}

// get shows a contract.
//
//	@ID			adminGetContract
//	@Summary	Get a contract
//	@Tags		admin
//	@Param		id	path		string	true	"The contract"
//	@Success	200	{object}	Contract
//	@Failure	404	{object}	problem.Problem	"contract_not_found"
//	@Router		/v1/admin/contracts/{id} [get]
func (h adminContracts) get(c echo.Context) error {
	kid, err := param[subscription.Contract](c, "id", subscription.ErrContractNotFound)
	if err != nil {
		return err
	}
	k, err := billing.Reader{Core: h.Billing}.Contract(c.Request().Context(), middleware.Account(c), kid)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toContract(k))
}

// ContractEnd says when a contract is to end, and why.
type ContractEnd struct {
	At     *time.Time `json:"at,omitempty" format:"date-time"` // left out: now
	Reason string     `json:"reason" validate:"required" maxLength:"4000" example:"terminated by the customer"`
} //@name ContractEnd

// end ends a contract.
//
//	@ID				adminEndContract
//	@Summary		End a contract before its time
//	@Description	It still holds for the period that is running at that instant, with which what is missing from a commitment for the term is due; with the next one the account goes to the plan named in then. One that has not begun never does.
//	@Tags			admin
//	@Param			id	path		string		true	"The contract"
//	@Param			end	body		ContractEnd	true	"When and why"
//	@Success		200	{object}	Contract
//	@Failure		404	{object}	problem.Problem	"contract_not_found"
//	@Failure		409	{object}	problem.Problem	"contract_over, account_closed"
//	@Failure		422	{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/contracts/{id}/end [post]
func (h adminContracts) end(c echo.Context) error {
	kid, err := param[subscription.Contract](c, "id", subscription.ErrContractNotFound)
	if err != nil {
		return err
	}
	var in ContractEnd
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checkReason(&checks, in.Reason)
	if err := checks.Err(); err != nil {
		return err
	}
	what := billing.EndInput{Contract: kid, Reason: in.Reason}
	if in.At != nil {
		what.At = in.At.UTC()
	}
	render := as(http.StatusOK, toContract)
	res, err := h.contractor().End(c.Request().Context(), asked(c), what, render)
	if err != nil {
		return err
	}
	return answer(c, res, render)
}
