package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
)

func adminTestClockRoutes(d Deps) []route.Route {
	h := adminTestClock{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/admin/test-clock", Scope: auth.Operator, Handler: h.get},
		{
			Method: http.MethodPost, Path: "/v1/admin/test-clock", Scope: auth.Operator, Class: route.Money, Idempotent: true,
			Timeout: providerTimeout, Handler: h.advance,
		},
	}
}

// ErrTestModeOnly says that a live deployment does not play with time.
var ErrTestModeOnly = errs.New(errs.Conflict, "test_mode_only", "Test clocks exist in test mode only.")

// TestClock is the time on an account's clock.
type TestClock struct {
	Account string    `json:"account" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	Now     time.Time `json:"now" validate:"required" format:"date-time"`
	Frozen  bool      `json:"frozen" validate:"required"` // whether time stands still until it is advanced; false in real time
} //@name TestClock

func (d Deps) toTestClock(a account.Account) TestClock {
	return TestClock{Account: a.ID.String(), Now: a.Now(d.Billing.Clock()).UTC(), Frozen: !a.ClockAt.IsZero()}
}

// TestClockAdvance moves an account through time.
type TestClockAdvance struct {
	Now time.Time `json:"now" validate:"required" format:"date-time" example:"2026-12-01T00:00:00Z"` // at most 366 days after the account's own time
} //@name TestClockAdvance

// TestClockAdvanced is where the clock stands, and what fell due on the way.
type TestClockAdvanced struct {
	TestClock
	Done Swept `json:"done" validate:"required"`
} //@name TestClockAdvanced

// Swept counts what was due and has been done.
type Swept struct {
	PeriodsClosed     int `json:"periods_closed" validate:"required"`
	InvoicesFinalized int `json:"invoices_finalized" validate:"required"`
	PaymentsAttempted int `json:"payments_attempted" validate:"required"`
	OutcomesAsked     int `json:"outcomes_asked" validate:"required"` // of payments, refunds and cards that a provider had not answered for
	GatewayEvents     int `json:"gateway_events" validate:"required"` // of the provider, that waited to be processed
	CreditsExpired    int `json:"credits_expired" validate:"required"`
	UpgradesExpired   int `json:"upgrades_expired" validate:"required"`
} //@name Swept

func toSwept(s billing.Swept) Swept {
	return Swept{
		PeriodsClosed: s.Closed, InvoicesFinalized: s.Finalized, PaymentsAttempted: s.Collected, OutcomesAsked: s.Resolved,
		GatewayEvents: s.Events, CreditsExpired: s.Expired, UpgradesExpired: s.Upgrades,
	}
}

type adminTestClock struct{ Deps }

// get tells an account's time.
//
//	@ID			getTestClock
//	@Summary	Get the time on an account's clock
//	@Tags		admin
//	@Success	200	{object}	TestClock
//	@Failure	404	{object}	problem.Problem	"account_not_found"
//	@Router		/v1/admin/test-clock [get]
func (h adminTestClock) get(c echo.Context) error {
	a, err := h.Billing.DB.Accounts().Get(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, h.toTestClock(a))
}

// advance moves an account through time.
//
//	@ID				advanceTestClock
//	@Summary		Move an account's clock forward
//	@Description	In test mode. What falls due on the way is done at its own moment: periods close, invoices become final, cards are charged and dunned, credit expires. An account in real time is on a test clock from then on. A move that was interrupted is carried on by asking for it again.
//	@Tags			admin
//	@Param			advance	body		TestClockAdvance	true	"The new time"
//	@Success		200		{object}	TestClockAdvanced
//	@Failure		404		{object}	problem.Problem	"account_not_found"
//	@Failure		409		{object}	problem.Problem	"test_mode_only, clock_moves_forward (with now)"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/test-clock [post]
func (h adminTestClock) advance(c echo.Context) error {
	if h.Mode != auth.Test {
		return ErrTestModeOnly
	}
	var in TestClockAdvance
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	to := checkMoment(&checks, "#/now", in.Now)
	if err := checks.Err(); err != nil {
		return err
	}
	return h.keyed(c, func(asked billing.Asked) (any, error) {
		acct, done, err := billing.TestClock{Core: h.Billing}.Advance(c.Request().Context(), asked, to)
		return TestClockAdvanced{TestClock: h.toTestClock(acct), Done: toSwept(done)}, err
	})
}

// checkMoment checks a time that an account may live at, and returns it as it is stored.
func checkMoment(checks *validate.Checks, pointer string, t time.Time) time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	if t.Year() < 2000 || t.Year() > 2100 {
		checks.Fail(pointer, "out_of_range", "must be in the years from 2000 to 2100")
	}
	return t
}
