package v1_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/plan"
)

// plans is a stand-in for the catalogue's store.
type plans struct {
	list    []plan.Plan
	current func(plan.Code) (plan.Version, error)
	meters  []plan.Meter
}

func (p plans) Meters(context.Context) ([]plan.Meter, error) { return p.meters, nil }

func (p plans) Plans(context.Context) ([]plan.Plan, error) { return p.list, nil }

func (p plans) Plan(_ context.Context, code plan.Code) (plan.Plan, error) {
	for _, pl := range p.list {
		if pl.Code == code {
			return pl, nil
		}
	}
	return plan.Plan{}, plan.ErrNotFound
}

func (p plans) Current(_ context.Context, code plan.Code) (plan.Version, error) {
	return p.current(code)
}

// call runs the handler of a route without the middleware, which has its own tests.
func call(t *testing.T, d v1.Deps, name, target string, params ...string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	for _, r := range v1.Routes(d) {
		if r.Name() != name {
			continue
		}
		rec := httptest.NewRecorder()
		c := echo.New().NewContext(httptest.NewRequestWithContext(t.Context(), r.Method, target, nil), rec)
		c.SetPath(r.EchoPath())
		for i := 0; i+1 < len(params); i += 2 {
			c.SetParamNames(params[i])
			c.SetParamValues(params[i+1])
		}
		return rec, r.Handler(c)
	}
	t.Fatalf("no route %s", name)
	return nil, nil
}

func shipped() plans {
	c := plan.Shipped()
	p := plans{meters: c.Meters, current: func(code plan.Code) (plan.Version, error) {
		o, _ := c.Offer(code)
		if o.Plan.ContactSales {
			return plan.Version{}, plan.ErrVersionNotFound
		}
		o.Version.Number = 1
		return o.Version, nil
	}}
	for _, o := range c.Offers {
		p.list = append(p.list, o.Plan)
	}
	return p
}

func TestPlans(t *testing.T) {
	t.Parallel()
	d := v1.Deps{Plans: shipped()}

	t.Run("ShippedCatalogue", func(t *testing.T) {
		t.Parallel()
		rec, err := call(t, d, "GET /v1/plans", "/v1/plans")
		if err != nil || rec.Code != http.StatusOK {
			t.Fatalf("%d, %v", rec.Code, err)
		}
		golden(t, "plans", rec.Body.Bytes())
	})
	t.Run("OnePlan", func(t *testing.T) {
		t.Parallel()
		rec, err := call(t, d, "GET /v1/plans/{code}", "/v1/plans/pro", "code", "pro")
		if err != nil || rec.Code != http.StatusOK {
			t.Fatalf("%d, %v", rec.Code, err)
		}
		golden(t, "plan_pro", rec.Body.Bytes())
	})
	t.Run("UnknownPlan", func(t *testing.T) {
		t.Parallel()
		if _, err := call(t, d, "GET /v1/plans/{code}", "/v1/plans/none", "code", "none"); !errors.Is(err, plan.ErrNotFound) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("ArchivedPlanIsNotOffered", func(t *testing.T) {
		t.Parallel()
		p := shipped()
		for i := range p.list {
			p.list[i].Archived = true
		}
		rec, err := call(t, v1.Deps{Plans: p}, "GET /v1/plans", "/v1/plans")
		if err != nil {
			t.Fatal(err)
		}
		if got := rec.Body.String(); got != `{"data":[],"has_more":false,"next_cursor":null}` {
			t.Errorf("got %s", got)
		}
	})
	t.Run("StoreFails", func(t *testing.T) {
		t.Parallel()
		boom := errors.New("boom")
		p := shipped()
		p.current = func(plan.Code) (plan.Version, error) { return plan.Version{}, boom }
		if _, err := call(t, v1.Deps{Plans: p}, "GET /v1/plans", "/v1/plans"); !errors.Is(err, boom) {
			t.Errorf("got %v", err)
		}
	})
}
