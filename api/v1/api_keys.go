package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/secret"
	"github.com/accrue-billing/accrue/pkg/money"
)

func apiKeyRoutes(d Deps) []route.Route {
	own, platform := apiKeys{d, ofAccount}, apiKeys{d, ofPlatform}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/api-keys", Scope: auth.KeysManage, Class: route.Money, Idempotent: true, Handler: own.create},
		{Method: http.MethodGet, Path: "/v1/api-keys", Scope: auth.KeysManage, Query: paged(), Handler: own.list},
		{Method: http.MethodPost, Path: "/v1/api-keys/{id}/rotate", Scope: auth.KeysManage, Class: route.Money, Idempotent: true, Handler: own.rotate},
		{Method: http.MethodPost, Path: "/v1/api-keys/{id}/revoke", NoBody: true, Scope: auth.KeysManage, Class: route.Money, Handler: own.revoke},

		{Method: http.MethodPost, Path: "/v1/admin/api-keys", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, Idempotent: true, Handler: platform.createPlatform},
		{Method: http.MethodGet, Path: "/v1/admin/api-keys", Scope: auth.Operator, Account: route.AccountNone, Query: paged(), Handler: platform.listPlatform},
		{Method: http.MethodPost, Path: "/v1/admin/api-keys/{id}/rotate", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, Idempotent: true, Handler: platform.rotatePlatform},
		{Method: http.MethodPost, Path: "/v1/admin/api-keys/{id}/revoke", NoBody: true, Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, Handler: platform.revokePlatform},
	}
}

// Bounds of API keys.
const (
	maxKeys        = 100 // of one owner that are good
	maxRotated     = 200 // the same, while some of them overlap with their successors
	maxOverlap     = 7 * 24 * time.Hour
	defaultOverlap = 24 * time.Hour
)

// ErrTooManyKeys says that the owner has as many keys as it may have.
var ErrTooManyKeys = errs.New(errs.Conflict, "too_many_api_keys", "There are as many API keys as there may be. Revoke those that are not used.")

// APIKey is what is known of a key. Its text is shown once, when it is made.
type APIKey struct {
	ID            string     `json:"id" validate:"required" example:"key_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Name          string     `json:"name" validate:"required" example:"billing server"`
	Prefix        string     `json:"prefix" validate:"required" example:"acr_test_"`
	LastFour      string     `json:"last_four" validate:"required" example:"x9Qa"` // to tell keys apart
	Scopes        []string   `json:"scopes" validate:"required" example:"usage:write"`
	Ceilings      Ceilings   `json:"ceilings" validate:"required"`
	Status        string     `json:"status" validate:"required" enums:"active,expired,revoked"`
	CreatedAt     time.Time  `json:"created_at" validate:"required" format:"date-time"`
	ExpiresAt     *time.Time `json:"expires_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	RevokedAt     *time.Time `json:"revoked_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	LastUsedAt    *time.Time `json:"last_used_at" validate:"required" extensions:"x-nullable" format:"date-time"` // to about a minute
	Secret        *string    `json:"key,omitempty" example:"acr_test_…"`                                          // the key itself; in the first answer to its creation only
	SecretOmitted bool       `json:"key_omitted,omitempty" example:"true"`                                        // this is a repeated answer, which never holds the key
} //@name APIKey

// Ceilings bound the money that a key may move; null is no ceiling.
type Ceilings struct {
	PerPayment *Money `json:"per_payment" extensions:"x-nullable"` // of one payment
	PerDay     *Money `json:"per_day" extensions:"x-nullable"`     // of all payments within 24 hours
} //@name Ceilings

// NewAPIKey is what a key is to be.
type NewAPIKey struct {
	Name      string     `json:"name" validate:"required" maxLength:"200" example:"billing server"`
	Scopes    []string   `json:"scopes" validate:"required" example:"usage:write"` // at most those of whoever makes it
	Ceilings  *Ceilings  `json:"ceilings,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" format:"date-time"` // never if left out
} //@name NewAPIKey

// APIKeyRotation says how long the old key goes on.
type APIKeyRotation struct {
	OverlapSeconds *int64 `json:"overlap_seconds,omitempty" minimum:"0" maximum:"604800" default:"86400"`
} //@name APIKeyRotation

// made is a key with its text.
type made struct {
	auth.APIKey
	text secret.Text
}

// apiKeys serves the keys of an account or of the platform.
type apiKeys struct {
	Deps
	owner func(echo.Context) account.ID
}

func ofAccount(c echo.Context) account.ID { return middleware.Account(c) }
func ofPlatform(echo.Context) account.ID  { return account.ID{} }

// create makes a key.
//
//	@ID				createAPIKey
//	@Summary		Make an API key
//	@Description	The key is shown in this answer and never again; a repetition with the same Idempotency-Key leaves it out. A key holds at most the scopes, ceilings and lifetime of whoever makes it; one with a ceiling per day makes none that moves money.
//	@Tags			api keys
//	@Security		Token[keys:manage]
//	@Param			body	body		NewAPIKey	true	"What it is to be"
//	@Success		201		{object}	APIKey
//	@Failure		403		{object}	problem.Problem	"insufficient_scope: wider than its maker"
//	@Failure		409		{object}	problem.Problem	"too_many_api_keys"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/api-keys [post]
func (h apiKeys) create(c echo.Context) error {
	in, err := h.decode(c)
	if err != nil {
		return err
	}
	return h.make(c, "api_key.create", func(ctx context.Context) (made, error) {
		if err := h.fewerThan(ctx, in.Account, maxKeys); err != nil {
			return made{}, err
		}
		k, text, err := h.Keys.Create(ctx, middleware.Principal(c), in)
		return made{k, text}, err
	})
}

// fewerThan returns ErrTooManyKeys where an owner has as many good keys.
func (h apiKeys) fewerThan(ctx context.Context, owner account.ID, n int) error {
	good, err := h.Keys.Good(ctx, owner)
	if err == nil && good >= n {
		err = ErrTooManyKeys
	}
	return err
}

// createPlatform makes a key of the operator's own services.
//
//	@ID				createPlatformAPIKey
//	@Summary		Make a platform API key
//	@Description	For the operator's own services: it acts for any account, named with each request or event.
//	@Tags			admin
//	@Security		Token[operator]
//	@Param			body	body		NewAPIKey	true	"What it is to be"
//	@Success		201		{object}	APIKey
//	@Failure		409		{object}	problem.Problem	"too_many_api_keys"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/api-keys [post]
func (h apiKeys) createPlatform(c echo.Context) error { return h.create(c) }

func (h apiKeys) decode(c echo.Context) (auth.NewKey, error) {
	var in NewAPIKey
	if err := strictjson.Decode(c, &in); err != nil {
		return auth.NewKey{}, err
	}
	var checks validate.Checks
	checks.RequiredLine("#/name", in.Name, validate.MaxName)
	checks.Count("#/scopes", len(in.Scopes), 1, len(auth.All()))
	out := auth.NewKey{Account: h.owner(c), Name: in.Name}
	seen := map[string]bool{}
	for i, s := range in.Scopes {
		pointer := "#/scopes/" + strconv.Itoa(i)
		switch {
		case auth.Scope(s) == auth.Operator || len(auth.ParseScopes(s)) != 1:
			checks.Fail(pointer, "unknown_scope", "is not a scope that a key can have")
		case seen[s]:
			checks.Fail(pointer, "duplicate", "stands twice")
		}
		seen[s] = true
		out.Scopes = append(out.Scopes, auth.Scope(s))
	}
	if in.Ceilings != nil {
		out.Ceilings.PerPayment = ceiling(&checks, "#/ceilings/per_payment", in.Ceilings.PerPayment)
		out.Ceilings.PerDay = ceiling(&checks, "#/ceilings/per_day", in.Ceilings.PerDay)
	}
	if in.ExpiresAt != nil {
		if out.ExpiresAt = in.ExpiresAt.UTC().Truncate(time.Microsecond); !out.ExpiresAt.After(h.Billing.Clock()) {
			checks.Fail("#/expires_at", "in_the_past", "must lie in the future")
		}
	}
	return out, checks.Err()
}

func ceiling(checks *validate.Checks, pointer string, m *Money) *money.Amount {
	if m == nil {
		return nil
	}
	a := m.amount()
	checks.Positive(pointer, a)
	return &a
}

// make runs what makes a key under the request's Idempotency-Key, and writes it into the audit log.
func (h apiKeys) make(c echo.Context, action string, fn func(context.Context) (made, error)) error {
	owner := h.owner(c)
	show := func(m made, s secrets) shown {
		out := h.wire(m.APIKey)
		if s {
			text := m.text.Reveal()
			out.Secret = &text
		} else {
			out.SecretOmitted = true
		}
		return shown{status: http.StatusCreated, body: out}
	}
	return once(c, h.Deps, show, func(in billing.Asked, render billing.Renderer[made]) (billing.Result[made], error) {
		in.Account = owner
		return billing.Keyed(c.Request().Context(), h.Billing, in, render, func(ctx context.Context) (made, error) {
			m, err := fn(ctx)
			if err != nil {
				return m, err
			}
			return m, h.audit(ctx, c, action, m.ID)
		})
	})
}

func (h apiKeys) audit(ctx context.Context, c echo.Context, action string, k auth.KeyID) error {
	detail, err := json.Marshal(map[string]any{"api_key": k})
	if err != nil {
		return err
	}
	return h.Billing.DB.Accounts().Audit(ctx, h.owner(c), account.Entry{Actor: actor(c), Action: action, Detail: detail, At: h.Billing.Clock()})
}

// list shows the keys.
//
//	@ID			listAPIKeys
//	@Summary	List API keys, the newest first
//	@Tags		api keys
//	@Security	Token[keys:manage]
//	@Param		limit	query		int		false	"How many at most"	minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[APIKey]
//	@Router		/v1/api-keys [get]
func (h apiKeys) list(c echo.Context) error {
	return listOf(c, h.Lists, h.wire, h.Keys.List) // AccountIfAny is none for the platform's
}

// listPlatform shows the platform's keys.
//
//	@ID			listPlatformAPIKeys
//	@Summary	List platform API keys, the newest first
//	@Tags		admin
//	@Security	Token[operator]
//	@Param		limit	query		int		false	"How many at most"	minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[APIKey]
//	@Router		/v1/admin/api-keys [get]
func (h apiKeys) listPlatform(c echo.Context) error { return h.list(c) }

// rotate gives a key a successor.
//
//	@ID				rotateAPIKey
//	@Summary		Replace an API key
//	@Description	Makes a successor with the same rights, shown once, and lets the old key go on for the overlap.
//	@Tags			api keys
//	@Security		Token[keys:manage]
//	@Param			id		path		string			true	"The old key's id"
//	@Param			body	body		APIKeyRotation	false	"The overlap"
//	@Success		201		{object}	APIKey			"The successor"
//	@Failure		403		{object}	problem.Problem	"insufficient_scope: the key is wider than who rotates it"
//	@Failure		404		{object}	problem.Problem	"api_key_not_found: unknown, or no longer good"
//	@Failure		409		{object}	problem.Problem	"too_many_api_keys: old ones have yet to end"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/api-keys/{id}/rotate [post]
func (h apiKeys) rotate(c echo.Context) error {
	id, err := param[auth.APIKey](c, "id", auth.ErrKeyNotFound)
	if err != nil {
		return err
	}
	var in APIKeyRotation
	if len(body.Bytes(c)) > 0 {
		if err := strictjson.Decode(c, &in); err != nil {
			return err
		}
	}
	overlap := defaultOverlap
	if in.OverlapSeconds != nil {
		overlap = time.Duration(*in.OverlapSeconds) * time.Second
		if *in.OverlapSeconds < 0 || *in.OverlapSeconds > int64(maxOverlap/time.Second) {
			return errs.InvalidField("#/overlap_seconds", "out_of_range", "must be from 0 to %d", int64(maxOverlap/time.Second))
		}
	}
	return h.make(c, "api_key.rotate", func(ctx context.Context) (made, error) {
		if err := h.fewerThan(ctx, h.owner(c), maxRotated); err != nil {
			return made{}, err
		}
		k, text, err := h.Keys.Rotate(ctx, middleware.Principal(c), h.owner(c), id, overlap)
		return made{k, text}, err
	})
}

// rotatePlatform gives a platform key a successor.
//
//	@ID			rotatePlatformAPIKey
//	@Summary	Replace a platform API key
//	@Tags		admin
//	@Security	Token[operator]
//	@Param		id		path		string			true	"The old key's id"
//	@Param		body	body		APIKeyRotation	false	"The overlap"
//	@Success	201		{object}	APIKey			"The successor"
//	@Failure	404		{object}	problem.Problem	"api_key_not_found"
//	@Failure	422		{object}	problem.Problem	"invalid_request"
//	@Router		/v1/admin/api-keys/{id}/rotate [post]
func (h apiKeys) rotatePlatform(c echo.Context) error { return h.rotate(c) }

// revoke ends a key.
//
//	@ID				revokeAPIKey
//	@Summary		Revoke an API key
//	@Description	It works on every replica within a second. Revoking twice changes nothing.
//	@Tags			api keys
//	@Security		Token[keys:manage]
//	@Param			id	path	string	true	"The key's id"
//	@Success		204
//	@Failure		404	{object}	problem.Problem	"api_key_not_found"
//	@Router			/v1/api-keys/{id}/revoke [post]
func (h apiKeys) revoke(c echo.Context) error {
	id, err := param[auth.APIKey](c, "id", auth.ErrKeyNotFound)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	if err := h.Keys.Revoke(ctx, h.owner(c), id); err != nil {
		return err
	}
	if err := h.audit(ctx, c, "api_key.revoke", id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// revokePlatform ends a platform key.
//
//	@ID			revokePlatformAPIKey
//	@Summary	Revoke a platform API key
//	@Tags		admin
//	@Security	Token[operator]
//	@Param		id	path	string	true	"The key's id"
//	@Success	204
//	@Failure	404	{object}	problem.Problem	"api_key_not_found"
//	@Router		/v1/admin/api-keys/{id}/revoke [post]
func (h apiKeys) revokePlatform(c echo.Context) error { return h.revoke(c) }

func (h apiKeys) status(k auth.APIKey) string {
	switch {
	case !k.RevokedAt.IsZero():
		return "revoked"
	case !k.ExpiresAt.IsZero() && !h.Billing.Clock().Before(k.ExpiresAt):
		return "expired"
	}
	return "active"
}

func (h apiKeys) wire(k auth.APIKey) APIKey {
	return APIKey{
		ID: k.ID.String(), Name: k.Name, Prefix: "acr_" + string(k.Mode) + "_", LastFour: k.LastFour, Scopes: convert(k.Scopes, text),
		Ceilings: Ceilings{PerPayment: toMoneyIf(k.Ceilings.PerPayment), PerDay: toMoneyIf(k.Ceilings.PerDay)}, Status: h.status(k),
		CreatedAt: k.CreatedAt, ExpiresAt: timeIf(k.ExpiresAt), RevokedAt: timeIf(k.RevokedAt), LastUsedAt: timeIf(k.LastUsedAt),
	}
}
