package v1

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
)

// headerReplayed says that an answer is the stored one of an earlier request with the same key.
const headerReplayed = "Idempotent-Replayed"

// asked says who asks for an operation on the request's account, and under which key. Without an
// Idempotency-Key no answer is kept.
func asked(c echo.Context) billing.Asked {
	return billing.Asked{
		Account: middleware.AccountIfAny(c), Actor: actor(c), Key: middleware.IdempotencyIfAny(c), Ceiling: middleware.Principal(c).Ceilings,
	}
}

// actor is the caller as the audit log names it.
func actor(c echo.Context) string {
	p := middleware.Principal(c)
	return string(p.Kind) + ":" + p.Subject
}

// as renders a record as the answer of an operation that is done with it: status and the wire form.
func as[R, W any](status int, to func(R) W) billing.Renderer[R] {
	return func(r R) (idempotency.Answer, error) {
		body, err := encode(to(r))
		return idempotency.Answer{Status: status, Body: body}, err
	}
}

// encode writes JSON as every answer of the API is written: without HTML escapes.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return out.Bytes(), err
}

// answer writes what came of an operation: the stored answer of an earlier request byte for byte, or
// the record as render gives it.
func answer[R any](c echo.Context, res billing.Result[R], render billing.Renderer[R]) error {
	if res.Replayed != nil {
		c.Response().Header().Set(headerReplayed, "true")
		return send(c, *res.Replayed)
	}
	ans, err := render(res.Record)
	if err != nil {
		return err
	}
	return send(c, ans)
}

// param reads an identifier of the address. One that cannot be of the record is missing, as one that is
// not there: which of the two it is concerns nobody.
func param[T id.Prefixed](c echo.Context, name string, missing error) (id.ID[T], error) {
	v, err := id.Parse[T](c.Param(name))
	if err != nil {
		return v, missing
	}
	return v, nil
}

// recordOf answers with the record of the request's account that the path names, as run reads it or leaves it.
func recordOf[T id.Prefixed, D, W any](c echo.Context, missing error, run func(context.Context, account.ID, id.ID[T]) (D, error), convert func(D) W) error {
	named, err := param[T](c, "id", missing)
	if err != nil {
		return err
	}
	d, err := run(c.Request().Context(), middleware.Account(c), named)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, convert(d))
}
