package middleware

import (
	"errors"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/errs"
)

const (
	headerAccount = "Accrue-Account"
	// loginClass is the class of wrong credentials; it has no routes.
	loginClass route.Class = "credentials"
)

// Errors of authentication and of naming an account.
var (
	ErrScheme           = errs.New(errs.Malformed, "invalid_authorization", "Send one Authorization header of the form \"Bearer …\".")
	ErrAccountRequired  = errs.New(errs.Malformed, "account_required", "Name the account that you act for in the header Accrue-Account.")
	ErrAccountForbidden = errs.New(errs.Forbidden, "account_not_allowed", "This credential acts for its own account only; leave Accrue-Account out.")
)

// authenticate finds the principal of a bearer credential and asks for the route's scope. Credentials
// travel in the Authorization header only, never in an address.
func (ch *Chain) authenticate(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			credential, err := bearer(c.Request().Header.Values(echo.HeaderAuthorization))
			if err != nil {
				return err
			}
			p, err := ch.cfg.Auth.Authenticate(c.Request().Context(), credential)
			if errs.KindOf(err) == errs.Unauthenticated {
				// Good credentials are asked nothing of: many callers can share an address with one who guesses.
				if left, wait := ch.failures.take(loginClass, who{name: network(c.RealIP())}, ch.now(c)); left < 0 {
					return ErrRateLimited.With("violated-policies", []string{string(loginClass)}).After(wait)
				}
			}
			if err != nil {
				return err
			}
			k := callOf(c)
			k.principal, k.authenticated = p, true
			if err := p.Require(r.Scope); err != nil {
				return err
			}
			return next(c)
		}
	}
}

func bearer(headers []string) (string, error) {
	switch {
	case len(headers) == 0:
		return "", auth.ErrNoCredential
	case len(headers) > 1:
		return "", ErrScheme
	}
	scheme, credential, ok := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") { // another scheme is no credential that we know of
		return "", auth.ErrNoCredential
	}
	credential = strings.TrimLeft(credential, " ")
	if !ok || credential == "" || strings.IndexByte(credential, ' ') >= 0 || strings.IndexByte(credential, '\t') >= 0 || strings.IndexByte(credential, ',') >= 0 {
		return "", ErrScheme
	}
	return credential, nil
}

// settleAccount decides which account the request is about. It comes from the credential; only
// operators and platform services name one. Nothing in a body or an address can.
func (ch *Chain) settleAccount(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if r.Account == route.AccountNone {
				return next(c)
			}
			p := Principal(c)
			optional := r.Account == route.AccountOptional && (p.Kind == auth.Platform || r.Scope == auth.Operator)
			a, err := ch.account(c, p, optional)
			if err != nil {
				return err
			}
			callOf(c).account = a
			return next(c)
		}
	}
}

func (ch *Chain) account(c echo.Context, p auth.Principal, optional bool) (account.ID, error) {
	ctx := c.Request().Context()
	named := c.Request().Header.Get(headerAccount)
	if n := len(c.Request().Header.Values(headerAccount)); n > 1 || n == 1 && strings.TrimSpace(named) == "" {
		return account.ID{}, ErrAccountRequired.Details("Send one header Accrue-Account, and one account in it.")
	}
	if p.ActsForAny() {
		if named == "" {
			if optional {
				return account.ID{}, nil
			}
			return account.ID{}, ErrAccountRequired
		}
		return ch.cfg.Accounts.Lookup(ctx, named)
	}
	own := p.Account
	if own.IsZero() {
		if p.ExternalAccount == "" {
			return account.ID{}, auth.ErrNoAccount
		}
		var err error
		own, err = ch.cfg.Accounts.Resolve(ctx, p.ExternalAccount)
		if errors.Is(err, account.ErrNotFound) {
			return account.ID{}, auth.ErrUnknownAccount
		}
		if err != nil {
			return account.ID{}, err
		}
	}
	// Whether another account exists must not show, so the name is compared and never looked up.
	if named != "" && named != own.String() && named != p.ExternalAccount {
		return account.ID{}, ErrAccountForbidden
	}
	return own, nil
}

// Principal returns who is calling. It panics on a public route, which has no caller.
func Principal(c echo.Context) auth.Principal {
	p, ok := principal(c)
	if !ok {
		panic("middleware: no principal on " + c.Path())
	}
	return p
}

func principal(c echo.Context) (auth.Principal, bool) {
	k, _ := known(c)
	return k.principal, k.authenticated
}

// Account returns the account that the request is about. It is never zero: it panics on a route that
// does not require one.
func Account(c echo.Context) account.ID {
	a := AccountIfAny(c)
	if a.IsZero() {
		panic("middleware: no account on " + c.Path())
	}
	return a
}

// AccountIfAny returns the account that the request is about, or the zero ID where a platform service
// names accounts in the body.
func AccountIfAny(c echo.Context) account.ID {
	k, _ := known(c)
	return k.account
}
