package v1

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
)

const mediaYAML = "application/yaml"

// catalogueTimeout is for operations that price the last months of many accounts.
const catalogueTimeout = time.Minute

func adminPlanRoutes(d Deps) []route.Route {
	h := adminPlans{d}
	document := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{
			Method: http.MethodPost, Path: path, Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, MaxBody: plan.MaxDocument,
			Consumes: []string{echo.MIMEApplicationJSON, mediaYAML}, Timeout: catalogueTimeout, Handler: handler,
		}
	}
	publish := document("/v1/admin/plans", h.publish)
	publish.Idempotent = true
	get := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{Method: http.MethodGet, Path: path, Scope: auth.Operator, Account: route.AccountNone, Handler: handler}
	}
	return []route.Route{
		get("/v1/admin/plans", h.list),
		document("/v1/admin/plans/preview", h.preview),
		publish,
		get("/v1/admin/plans/{code}/versions", h.versions),
		get("/v1/admin/plans/{code}/versions/{version}", h.version),
		{
			Method: http.MethodPost, Path: "/v1/admin/plans/{code}/versions/{version}/archive", Scope: auth.Operator, Account: route.AccountNone,
			Class: route.Money, Idempotent: true, Handler: h.archive,
		},
	}
}

// AdminPlan is a plan as the operator sees it, archived or not.
type AdminPlan struct {
	Code         string         `json:"code" validate:"required" example:"pro"`
	Name         string         `json:"name" validate:"required" example:"Pro"`
	Description  string         `json:"description" validate:"required"`
	RequiresCard bool           `json:"requires_card" validate:"required"`
	ContactSales bool           `json:"contact_sales" validate:"required"`
	Archived     bool           `json:"archived" validate:"required"`                        // nothing of it is on sale
	OnSale       *int           `json:"on_sale" validate:"required" extensions:"x-nullable"` // the version that can be bought now
	Accounts     []AccountsOnIt `json:"accounts" validate:"required"`                        // by version, the latest first; versions without accounts are left out
} //@name AdminPlan

// AccountsOnIt counts the accounts on a version.
type AccountsOnIt struct {
	Version  int `json:"version" validate:"required" example:"1"`
	Accounts int `json:"accounts" validate:"required" example:"12"`
} //@name AccountsOnVersion

func toAccountsOn(on map[int]int) []AccountsOnIt {
	numbers := slices.Sorted(maps.Keys(on))
	slices.Reverse(numbers)
	return convert(numbers, func(n int) AccountsOnIt { return AccountsOnIt{n, on[n]} })
}

// PlanVersion is one immutable version of a plan.
type PlanVersion struct {
	Plan        string     `json:"plan" validate:"required" example:"pro"`
	Version     int        `json:"version" validate:"required" example:"1"`
	Hash        string     `json:"hash" validate:"required"`     // SHA-256 of the terms
	Accounts    int        `json:"accounts" validate:"required"` // that are on it now
	PublishedAt time.Time  `json:"published_at" validate:"required" format:"date-time"`
	ArchivedAt  *time.Time `json:"archived_at" validate:"required" extensions:"x-nullable" format:"date-time"` // null while it can be bought
	Terms       *Terms     `json:"terms" validate:"required"`
} //@name PlanVersion

func toPlanVersion(v plan.Version, accounts int) PlanVersion {
	return PlanVersion{
		Plan: string(v.Plan), Version: v.Number, Hash: v.Hash, Accounts: accounts, PublishedAt: v.PublishedAt.UTC(),
		ArchivedAt: timeIf(v.ArchivedAt), Terms: toTerms(v),
	}
}

// CatalogueEffects is what publishing a catalogue does, or would do, plan by plan.
type CatalogueEffects struct {
	Plans []PlanEffect `json:"plans" validate:"required"`
} //@name CatalogueEffects

// PlanEffect is what publishing does to one plan. Accounts stay on the versions that they have.
type PlanEffect struct {
	Plan       string         `json:"plan" validate:"required" example:"pro"`
	Before     *int           `json:"before" validate:"required" extensions:"x-nullable"` // the version on sale; null: none
	After      int            `json:"after" validate:"required" example:"2"`              // the version on sale then; equal to before where the terms are the same
	Changes    []TermsChange  `json:"changes" validate:"required"`
	Accounts   []AccountsOnIt `json:"accounts" validate:"required"`                            // who stays where
	IfMigrated *Repricing     `json:"if_migrated" validate:"required" extensions:"x-nullable"` // in a preview: what moving them would have changed; of at most 1,000 accounts
} //@name PlanEffect

// TermsChange is one difference between two versions.
type TermsChange struct {
	Pointer string  `json:"pointer" validate:"required" example:"#/charges/voice/prices/USD/tiers/0/unit_price"` // charges by code, limits by meter, prices by currency
	Before  *string `json:"before" validate:"required" extensions:"x-nullable" example:"0.027"`                  // null: it was not there
	After   *string `json:"after" validate:"required" extensions:"x-nullable" example:"0.026"`                   // null: it is taken away
} //@name TermsChange

func toEffects(of []billing.PlanEffect) CatalogueEffects {
	return CatalogueEffects{Plans: convert(of, func(e billing.PlanEffect) PlanEffect {
		out := PlanEffect{
			Plan: string(e.Plan), After: e.After, Accounts: toAccountsOn(e.Accounts),
			Changes: convert(e.Changes, func(c plan.Change) TermsChange {
				return TermsChange{Pointer: c.Pointer, Before: textIf(c.Before), After: textIf(c.After)}
			}),
		}
		if e.Before > 0 {
			out.Before = &e.Before
		}
		if e.IfMigrated != nil {
			r := toRepricing(*e.IfMigrated)
			out.IfMigrated = &r
		}
		return out
	})}
}

// CatalogueDocument is the whole price list, as YAML or JSON; its form is written down in the operations
// that take it, and in docs/pricing.md.
type CatalogueDocument struct {
	Source     string   `json:"source"`
	Currencies []string `json:"currencies"`
	Meters     []any    `json:"meters" validate:"required"`
	Plans      []any    `json:"plans" validate:"required"`
} //@name CatalogueDocument

type adminPlans struct{ Deps }

func (h adminPlans) store() plan.Store { return h.Billing.DB.Plans() }

// list lists all plans.
//
//	@ID			adminListPlans
//	@Summary	List every plan, archived ones included, with its accounts
//	@Tags		admin
//	@Success	200	{object}	Page[AdminPlan]
//	@Router		/v1/admin/plans [get]
func (h adminPlans) list(c echo.Context) error {
	ctx := c.Request().Context()
	all, err := h.store().Plans(ctx)
	if err != nil {
		return err
	}
	out := Page[AdminPlan]{Data: []AdminPlan{}}
	for _, p := range all {
		on, err := h.Billing.DB.Subscriptions().OnPlan(ctx, p.Code)
		if err != nil {
			return err
		}
		versions, err := h.store().Versions(ctx, p.Code)
		if err != nil {
			return err
		}
		wire := AdminPlan{
			Code: string(p.Code), Name: p.Name, Description: p.Description, RequiresCard: p.RequiresCard, ContactSales: p.ContactSales,
			Archived: p.Archived, Accounts: toAccountsOn(on),
		}
		if i := slices.IndexFunc(versions, func(v plan.Version) bool { return v.ArchivedAt.IsZero() }); i >= 0 {
			wire.OnSale = &versions[i].Number
		}
		out.Data = append(out.Data, wire)
	}
	return c.JSON(http.StatusOK, out)
}

// versions lists a plan's versions.
//
//	@ID			adminListPlanVersions
//	@Summary	List the versions of a plan, the latest first
//	@Tags		admin
//	@Param		code	path		string	true	"The plan's code"
//	@Success	200		{object}	Page[PlanVersion]
//	@Failure	404		{object}	problem.Problem	"plan_not_found"
//	@Router		/v1/admin/plans/{code}/versions [get]
func (h adminPlans) versions(c echo.Context) error {
	ctx, code := c.Request().Context(), plan.Code(c.Param("code"))
	all, err := h.store().Versions(ctx, code)
	if err != nil {
		return err
	}
	on, err := h.Billing.DB.Subscriptions().OnPlan(ctx, code)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Page[PlanVersion]{Data: convert(all, func(v plan.Version) PlanVersion { return toPlanVersion(v, on[v.Number]) })})
}

// versionNumber reads the version of the address.
func versionNumber(c echo.Context) (int, error) {
	s := c.Param("version")
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || strconv.Itoa(n) != s {
		return 0, plan.ErrVersionNotFound
	}
	return n, nil
}

// version shows one version.
//
//	@ID			adminGetPlanVersion
//	@Summary	Get one version of a plan
//	@Tags		admin
//	@Param		code	path		string	true	"The plan's code"
//	@Param		version	path		int		true	"The version's number"
//	@Success	200		{object}	PlanVersion
//	@Failure	404		{object}	problem.Problem	"plan_version_not_found"
//	@Router		/v1/admin/plans/{code}/versions/{version} [get]
func (h adminPlans) version(c echo.Context) error {
	n, err := versionNumber(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	v, err := h.store().Version(ctx, plan.Code(c.Param("code")), n)
	if err != nil {
		return err
	}
	on, err := h.Billing.DB.Subscriptions().OnPlan(ctx, v.Plan)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toPlanVersion(v, on[v.Number]))
}

// catalogueOf reads the catalogue that was sent.
func catalogueOf(c echo.Context) (plan.Catalogue, error) {
	text := body.Bytes(c)
	if len(text) == 0 {
		return plan.Catalogue{}, strictjson.ErrNoBody
	}
	return plan.ParseCatalogue(text)
}

// preview says what publishing would do.
//
//	@ID				adminPreviewCatalogue
//	@Summary		What publishing a catalogue would change
//	@Description	A dry run: every fault by its place, or every difference to what is on sale, how many accounts stay on which version, and what their last months would have come to on the new terms. Changes nothing.
//	@Tags			admin
//	@Accept			json
//	@Param			catalogue	body		CatalogueDocument	true	"The whole price list"
//	@Success		200			{object}	CatalogueEffects
//	@Failure		400			{object}	problem.Problem	"catalogue_unreadable"
//	@Failure		422			{object}	problem.Problem	"catalogue_invalid, meter_changed, version_immutable: each entry is named"
//	@Router			/v1/admin/plans/preview [post]
func (h adminPlans) preview(c echo.Context) error {
	doc, err := catalogueOf(c)
	if err != nil {
		return err
	}
	effects, err := billing.Publisher{Core: h.Billing}.Preview(c.Request().Context(), doc)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toEffects(effects))
}

// publish puts a catalogue on sale.
//
//	@ID				adminPublishCatalogue
//	@Summary		Put a catalogue on sale
//	@Description	Whole or not at all: a new version of every plan whose terms differ. Accounts stay on the versions that they have until they are migrated. A plan that the catalogue does not name stays as it is. The same catalogue again changes nothing. A plan may state the version that its terms are: a published version with other terms is refused, each entry named.
//	@Tags			admin
//	@Accept			json
//	@Param			catalogue	body		CatalogueDocument	true	"The whole price list"
//	@Success		201			{object}	CatalogueEffects
//	@Failure		400			{object}	problem.Problem	"catalogue_unreadable"
//	@Failure		409			{object}	problem.Problem	"version_taken"
//	@Failure		422			{object}	problem.Problem	"catalogue_invalid, meter_changed, version_immutable: each entry is named"
//	@Router			/v1/admin/plans [post]
func (h adminPlans) publish(c echo.Context) error {
	doc, err := catalogueOf(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	render := as(http.StatusCreated, toEffects)
	res, err := billing.Publisher{Core: h.Billing}.PublishOnce(ctx, asked(c), doc, render)
	if err != nil {
		return err
	}
	h.published(ctx)
	return answer(c, res, render)
}

// published has this process know new meters at once; the others hear of them by themselves.
func (d Deps) published(ctx context.Context) {
	if d.Published == nil {
		return
	}
	if err := d.Published(ctx); err != nil {
		d.Billing.Log.WarnContext(ctx, "new meters are known a little later", "error", err)
	}
}

// archive takes a version off sale.
//
//	@ID				adminArchivePlanVersion
//	@Summary		Take a version off sale
//	@Description	Accounts on it stay. A plan whose versions are all archived can no longer be bought. Archiving twice changes nothing.
//	@Tags			admin
//	@Param			code	path		string	true	"The plan's code"
//	@Param			version	path		int		true	"The version's number"
//	@Param			reason	body		Reason	true	"Why"
//	@Success		200		{object}	PlanVersion
//	@Failure		404		{object}	problem.Problem	"plan_version_not_found"
//	@Failure		409		{object}	problem.Problem	"start_plan: new accounts begin on it"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/plans/{code}/versions/{version}/archive [post]
func (h adminPlans) archive(c echo.Context) error {
	n, err := versionNumber(c)
	if err != nil {
		return err
	}
	why, err := reason(c)
	if err != nil {
		return err
	}
	ctx, code := c.Request().Context(), plan.Code(c.Param("code"))
	on, err := h.Billing.DB.Subscriptions().OnPlan(ctx, code)
	if err != nil {
		return err
	}
	render := as(http.StatusOK, func(v plan.Version) PlanVersion { return toPlanVersion(v, on[v.Number]) })
	res, err := billing.Publisher{Core: h.Billing}.Archive(ctx, asked(c), code, n, why, render)
	if err != nil {
		return err
	}
	return answer(c, res, render)
}
