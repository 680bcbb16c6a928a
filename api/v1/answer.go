package v1

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/problem"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/payment"
)

// secrets says whether an answer may hold what is sent once: the answer that is kept may not.
type secrets bool

const (
	withSecrets    secrets = true
	withoutSecrets secrets = false
)

// showing is a conversion that shows what is sent once, or does not.
func showing[D, W any](convert func(D, secrets) W, s secrets) func(D) W {
	return func(d D) W { return convert(d, s) }
}

// shown is how a record looks to the caller: a body with its status or, if what was asked for has
// failed, a problem.
type shown struct {
	status  int
	body    any
	problem *errs.Error
}

// once runs an operation under the request's Idempotency-Key and answers with its record, or with the
// stored answer of the first request that sent the key. show must be pure: what it makes without
// secrets is kept, and given again byte for byte.
func once[R any](c echo.Context, d Deps, show func(R, secrets) shown, run func(billing.Asked, billing.Renderer[R]) (billing.Result[R], error)) error {
	w := problem.Writer{BaseURL: d.Lists.PublicURL}
	write := func(s shown) (idempotency.Answer, error) {
		if s.problem != nil {
			status, doc, err := w.Document(c.Request().Context(), s.problem)
			return idempotency.Answer{Status: status, Body: doc}, err
		}
		body, err := encode(s.body)
		return idempotency.Answer{Status: s.status, Body: body}, err
	}
	res, err := run(asked(c), func(r R) (idempotency.Answer, error) { return write(show(r, withoutSecrets)) })
	if err != nil {
		return err
	}
	if res.Replayed != nil {
		c.Response().Header().Set(headerReplayed, "true")
		return send(c, *res.Replayed)
	}
	ans, err := write(show(res.Record, withSecrets))
	if err != nil {
		return err
	}
	return send(c, ans)
}

// keyed runs what commits step by step, under the request's Idempotency-Key. run must be harmless to
// repeat: what dies on the way is done again by a repetition.
func (d Deps) keyed(c echo.Context, run func(billing.Asked) (any, error)) error {
	show := func(v any, _ secrets) shown { return shown{status: http.StatusOK, body: v} }
	return once(c, d, show, func(asked billing.Asked, keep billing.Renderer[any]) (billing.Result[any], error) {
		ctx := c.Request().Context()
		return billing.Keyed(ctx, d.Billing, asked, keep, func(context.Context) (any, error) { return run(asked) })
	})
}

func send(c echo.Context, a idempotency.Answer) error {
	locate(c, a)
	switch {
	case a.Status >= http.StatusBadRequest:
		return problem.Send(c, a.Status, a.Body)
	case a.Status == http.StatusNoContent:
		return c.NoContent(a.Status)
	}
	return c.JSONBlob(a.Status, a.Body)
}

// created shows what was made, where it holds nothing that is sent once.
func created[R, W any](convert func(R) W) func(R, secrets) shown {
	return func(r R, _ secrets) shown { return shown{status: http.StatusCreated, body: convert(r)} }
}

// createsKey holds the path of what a route makes.
const createsKey = "accrue.creates"

// locate puts the address of what was made on an answer that says so.
func locate(c echo.Context, a idempotency.Answer) {
	path, ok := c.Get(createsKey).(string)
	if !ok || a.Status != http.StatusCreated {
		return
	}
	if made := idOf(a.Body); made != "" {
		for _, name := range c.ParamNames() { // of what it was made under
			path = strings.Replace(path, "{"+name+"}", url.PathEscape(c.Param(name)), 1)
		}
		c.Response().Header().Set(echo.HeaderLocation, strings.Replace(path, "{id}", url.PathEscape(made), 1))
	}
}

// idOf returns the member id of an answer, which nearly always is the first, and empty text without one.
func idOf(body []byte) string {
	if after, ok := bytes.CutPrefix(body, []byte(`{"id":"`)); ok {
		if id, _, ok := bytes.Cut(after, []byte(`"`)); ok && bytes.IndexByte(id, '\\') < 0 {
			return string(id)
		}
	}
	var made struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(body, &made)
	return made.ID
}

// expected returns the version that the caller's If-Match names. For "*" it is the present one, which
// current reads.
func expected(c echo.Context, current func() (int64, error)) (int64, error) {
	if v := middleware.ExpectedVersion(c); v != middleware.AnyVersion {
		return v, nil
	}
	return current()
}

// NextAction is what the customer must do before an operation can go on.
type NextAction struct {
	Type                string  `json:"type" validate:"required" enums:"redirect_to_url,use_provider_script"` // send the browser to url, or give client_secret to the provider's script
	URL                 *string `json:"url" validate:"required" extensions:"x-nullable" format:"uri"`         // where to send the browser, with redirect_to_url
	ClientSecret        *string `json:"client_secret" validate:"required" extensions:"x-nullable"`            // for the provider's script; sent once
	ClientSecretOmitted bool    `json:"client_secret_omitted,omitempty" example:"true"`                       // there is one, and it is not kept: POST …/confirm gives it again
} //@name NextAction

func toNextAction(a *payment.NextAction, s secrets) *NextAction {
	if a == nil {
		return nil
	}
	out := &NextAction{Type: a.Type, URL: textIf(a.URL)}
	switch {
	case a.ClientSecret != "" && bool(s):
		secret := a.ClientSecret.Reveal()
		out.ClientSecret = &secret
	case a.ClientSecret != "" || a.Type == payment.ActionProviderScript:
		out.ClientSecretOmitted = true
	}
	return out
}

// Failure is why a provider refused.
type Failure struct {
	Code    string  `json:"code" validate:"required" example:"insufficient_funds"`
	Class   *string `json:"class" validate:"required" extensions:"x-nullable" enums:"soft,hard,authentication,expired,data" example:"soft"` // soft may pass later, hard never will with this card; or the customer must be there, the card is out of date, or a detail of it is wrong
	Retry   *string `json:"retry" validate:"required" extensions:"x-nullable" enums:"later,on_session,new_method" example:"later"`          // what may be tried: the same card later, with the customer present, another card
	Message string  `json:"message" validate:"required"`                                                                                    // for the customer
} //@name Failure

func toFailure(f *payment.Failure) *Failure {
	if f == nil {
		return nil
	}
	f = f.Told()
	return &Failure{Code: f.Code, Class: textIf(f.Class), Retry: textIf(f.Advice), Message: f.Message}
}

// declined is the problem of a card that was refused. member and id name the record that stays.
func declined(f *payment.Failure, member, id string) *errs.Error {
	if f == nil {
		f = &payment.Failure{Code: "generic_decline", Message: payment.ErrDeclined.Detail}
	}
	w := toFailure(f)
	return payment.ErrDeclined.Details("%s", w.Message).With(member, id).
		With("decline_code", w.Code).With("decline_class", w.Class).With("retry", w.Retry)
}
