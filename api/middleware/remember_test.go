package middleware_test

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
)

// revision is the revision of every account.
type revision struct {
	now   int64
	asked int
}

func (r *revision) Revision(context.Context, account.ID) (account.Revision, error) {
	r.asked++
	return account.Revision{Account: r.now}, nil
}

// An answer is computed once for a revision. Whether the revision is asked for each time is the route's to
// say, and a query or a change that this process has heard of overrules it.
func TestAnswersAreRemembered(t *testing.T) {
	t.Parallel()

	computed := 0
	count := func(c echo.Context) error {
		computed++
		return c.JSON(http.StatusOK, strconv.Itoa(computed))
	}
	known := []string{"meter", "strict"}
	b := setup(t, nil,
		route.Route{Method: http.MethodGet, Path: "/exact", Scope: "billing:read", Query: known, OfState: true, Handler: count},
		route.Route{Method: http.MethodGet, Path: "/aged", Scope: "billing:read", Query: known, OfState: true, MayAge: time.Second, Handler: count},
	)
	get := func(path string) func() {
		return func() {
			if a := b.do(http.MethodGet, path, "", bearer(b.token("billing:read", nil))...); a.status != http.StatusOK {
				t.Errorf("GET %s: %d %s", path, a.status, a.body)
			}
		}
	}
	for _, step := range []struct {
		name            string
		do              func()
		asked, computed int // by this step
	}{
		{"first", get("/exact"), 1, 1},
		{"again", get("/exact"), 1, 0},
		{"another address", get("/exact?meter=voice"), 1, 1},
		{"a parameter that only answers of some age have", get("/exact?strict=false"), 1, 1},
		{"after a change", func() { b.revision.now++; get("/exact")() }, 1, 1},
		{"aged, first", get("/aged"), 1, 1},
		{"aged, at once", get("/aged"), 0, 0},
		{"aged, though changed elsewhere", func() { b.revision.now++; get("/aged")() }, 0, 0},
		{"aged, which may be said", get("/aged?strict=false"), 0, 0},
		{"aged, with a query", get("/aged?strict=true"), 1, 1},
		{"aged, after its age", func() { b.advance(time.Second); get("/aged")() }, 1, 1},
		{"aged, after its age and unchanged", func() { b.advance(time.Second); get("/aged")() }, 1, 0},
		{"aged, at once after that", get("/aged"), 0, 0},
		{"aged, the account is known to have changed", func() { b.revision.now++; b.memory.Forget(b.accounts.mine); get("/aged")() }, 1, 1},
	} {
		asked, before := b.revision.asked, computed
		step.do()
		if b.revision.asked-asked != step.asked || computed-before != step.computed {
			t.Errorf("%s: the revision was asked for %d times and the answer computed %d times, want %d and %d",
				step.name, b.revision.asked-asked, computed-before, step.asked, step.computed)
		}
	}
}
