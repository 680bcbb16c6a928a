package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// reserver makes and settles reservations: metering.Ingester.
type reserver interface {
	Reserve(ctx context.Context, r metering.Reserving) (metering.Reserved, error)
}

func reservationRoutes(d Deps) []route.Route {
	h := reservations{d}
	write := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{
			Method: http.MethodPost, Path: path, Scope: auth.UsageWrite, Class: route.Ingest, Idempotent: true, Handler: handler,
		}
	}
	return []route.Route{
		write("/v1/usage/reservations", h.create),
		{Method: http.MethodGet, Path: "/v1/usage/reservations", Scope: auth.UsageRead, Query: paged("status"), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/usage/reservations/{id}", Scope: auth.UsageRead, Handler: h.get},
		write("/v1/usage/reservations/{id}/extend", h.extend),
		write("/v1/usage/reservations/{id}/commit", h.commit),
		write("/v1/usage/reservations/{id}/release", h.release).WithoutBody(),
		write("/v1/usage/leases", h.lease),
		{Method: http.MethodGet, Path: "/v1/usage/leases/keys", Public: true, Handler: h.keys},
	}
}

// NewReservation asks for units of a meter.
type NewReservation struct {
	Meter      string        `json:"meter" validate:"required" example:"voice"`
	Quantity   money.Decimal `json:"quantity" validate:"required" swaggertype:"string" format:"decimal" example:"600"` // in the meter's unit
	TTLSeconds *int64        `json:"ttl_seconds" minimum:"1" maximum:"86400" default:"900"`                            // how long to hold them
	Reference  string        `json:"reference" maxLength:"255" example:"call-8f2c"`                                    // the caller's own name for it
} //@name NewReservation

// ExtendReservation asks for more time, and for more units.
type ExtendReservation struct {
	Quantity   money.Decimal `json:"quantity" swaggertype:"string" format:"decimal" example:"60"` // to hold in addition
	TTLSeconds *int64        `json:"ttl_seconds" minimum:"1" maximum:"86400" default:"900"`       // from now on
} //@name ExtendReservation

// CommitReservation says what was used. It is counted as an event, whose source is "reservation" and
// whose id is the reservation's.
type CommitReservation struct {
	Quantity   *money.Decimal    `json:"quantity" validate:"required" swaggertype:"string" format:"decimal" example:"421.5"` // 0 if nothing was used
	Timestamp  *time.Time        `json:"timestamp" format:"date-time"`                                                       // when it was used; left out: now
	Dimensions map[string]string `json:"dimensions"`
} //@name CommitReservation

// Reservation holds units of a meter until it is settled or its time is over.
type Reservation struct {
	ID        string     `json:"id" validate:"required" example:"rsv_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Meter     string     `json:"meter" validate:"required" example:"voice"`
	Status    string     `json:"status" validate:"required" enums:"open,committed,released,expired"`
	Quantity  string     `json:"quantity" validate:"required" format:"decimal" example:"600"`       // held while open
	Used      *string    `json:"used" validate:"required" extensions:"x-nullable" format:"decimal"` // of a committed one
	Reference string     `json:"reference" validate:"required"`                                     // the caller's own name for it; empty if none was given
	Lease     bool       `json:"lease" validate:"required"`                                         // it was given out as a signed token
	ExpiresAt time.Time  `json:"expires_at" validate:"required" format:"date-time"`
	CreatedAt time.Time  `json:"created_at" validate:"required" format:"date-time"`
	SettledAt *time.Time `json:"settled_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name Reservation

// Lease is a reservation as a signed token, which a gateway checks offline with the public key.
type Lease struct {
	Reservation
	Token string `json:"token" validate:"required"` // a JWS in compact form, signed with Ed25519
} //@name Lease

// LeaseKey is a public key, as gateways fetch it (RFC 8037).
type LeaseKey struct {
	KeyType   string `json:"kty" validate:"required" example:"OKP"`
	Curve     string `json:"crv" validate:"required" example:"Ed25519"`
	X         string `json:"x" validate:"required"`
	KeyID     string `json:"kid" validate:"required"` // as in the header of leases
	Algorithm string `json:"alg" validate:"required" example:"EdDSA"`
	Use       string `json:"use" validate:"required" example:"sig"`
} //@name LeaseKey

// ExtendedReservation is a reservation that holds on.
type ExtendedReservation struct {
	Reservation
	Token string `json:"token,omitempty"` // of a lease: a new one
} //@name ExtendedReservation

// LeaseKeys are the public keys that leases are checked with (RFC 7517).
type LeaseKeys struct {
	Keys []LeaseKey `json:"keys" validate:"required"`
} //@name LeaseKeys

func toReservation(r entitlement.Reservation) Reservation {
	out := Reservation{
		ID: r.ID.String(), Meter: r.Meter, Status: string(r.Status), Quantity: r.Quantity.String(), Reference: r.Reference, Lease: r.Lease,
		ExpiresAt: r.ExpiresAt, CreatedAt: r.CreatedAt, SettledAt: timeIf(r.SettledAt),
	}
	if r.Status == entitlement.Committed {
		used := r.Used.String()
		out.Used = &used
	}
	return out
}

type reservations struct{ Deps }

// create reserves units.
//
//	@ID				createReservation
//	@Summary		Reserve units before they are used
//	@Description	Holds units against the account's limit and spend limit, which are never passed under any concurrency. It expires by itself.
//	@Tags			entitlements
//	@Security		Token[usage:write]
//	@Param			body			body		NewReservation	true	"What to hold"
//	@Success		201				{object}	Reservation
//	@Failure		404				{object}	problem.Problem	"unknown_meter"
//	@Failure		409				{object}	problem.Problem	"limit_reached, spend_limit_reached, account_suspended, account_closed"
//	@Failure		422				{object}	problem.Problem	"invalid_request"
//	@Failure		503				{object}	problem.Problem	"ingest_busy, ingest_stopping, ingest_unavailable"
//	@Router			/v1/usage/reservations [post]
func (h reservations) create(c echo.Context) error {
	r, err := h.asked(c, false)
	if err != nil {
		return err
	}
	return h.act(c, r, http.StatusCreated)
}

func (h reservations) asked(c echo.Context, lease bool) (metering.Reserving, error) {
	var in NewReservation
	if err := strictjson.Decode(c, &in); err != nil {
		return metering.Reserving{}, err
	}
	var checks validate.Checks
	checks.Require("#/meter", in.Meter)
	if in.Quantity.Sign() <= 0 {
		checks.Fail("#/quantity", "out_of_range", "must be more than 0")
	}
	if utf8.RuneCountInString(in.Reference) > 255 {
		checks.Fail("#/reference", "too_long", "must have at most 255 characters")
	}
	if err := checks.Err(); err != nil {
		return metering.Reserving{}, err
	}
	ttl, err := ttl(in.TTLSeconds)
	return metering.Reserving{
		Action: metering.Reserve, ID: id.New[entitlement.Reservation](), Meter: in.Meter, Quantity: in.Quantity, TTL: ttl,
		Reference: in.Reference, Lease: lease,
	}, err
}

func ttl(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return entitlement.DefaultTTL, nil
	}
	if *seconds < 1 || *seconds > int64(entitlement.MaxTTL/time.Second) {
		return 0, errs.InvalidField("#/ttl_seconds", "out_of_range", "must be from 1 to %d", int64(entitlement.MaxTTL/time.Second))
	}
	return time.Duration(*seconds) * time.Second, nil
}

// act does one action and answers with the reservation, or with the stored answer.
func (h reservations) act(c echo.Context, r metering.Reserving, status int) error {
	out, err := h.reserve(c, r, status)
	if err != nil {
		return err
	}
	return send(c, out)
}

func (h reservations) reserve(c echo.Context, r metering.Reserving, status int) (idempotency.Answer, error) {
	r.Account, r.Key = middleware.Account(c), middleware.Idempotency(c)
	r.Render = as(status, toReservation)
	out, err := h.Metering.Reserver.Reserve(c.Request().Context(), r)
	if err != nil {
		return idempotency.Answer{}, err
	}
	if out.Replayed != nil {
		c.Response().Header().Set(headerReplayed, "true")
		return *out.Replayed, nil
	}
	if out.Rendered != nil {
		return *out.Rendered, nil
	}
	return r.Render(out.Reservation)
}

// lease reserves units and signs the reservation.
//
//	@ID				createLease
//	@Summary		Reserve units as a signed token
//	@Description	A reservation that a media gateway checks offline, with the public keys of GET /v1/usage/leases/keys. It is settled as any reservation is.
//	@Tags			entitlements
//	@Security		Token[usage:write]
//	@Param			body			body		NewReservation	true	"What to hold"
//	@Success		201				{object}	Lease
//	@Failure		404				{object}	problem.Problem	"unknown_meter"
//	@Failure		409				{object}	problem.Problem	"limit_reached, spend_limit_reached, account_suspended, account_closed"
//	@Failure		422				{object}	problem.Problem	"invalid_request"
//	@Failure		503				{object}	problem.Problem	"ingest_busy, ingest_stopping, ingest_unavailable"
//	@Router			/v1/usage/leases [post]
func (h reservations) lease(c echo.Context) error {
	r, err := h.asked(c, true)
	if err != nil {
		return err
	}
	ans, err := h.reserve(c, r, http.StatusCreated)
	if err != nil {
		return err
	}
	out, err := h.sign(middleware.Account(c), ans)
	if err != nil {
		return err
	}
	return c.JSON(ans.Status, out)
}

// sign makes a lease of an answer. The token is not stored: it follows from the reservation, so a repetition is signed
// again and has the same bytes.
func (h reservations) sign(a account.ID, ans idempotency.Answer) (out Lease, err error) {
	if err = json.Unmarshal(ans.Body, &out.Reservation); err != nil || !out.Lease {
		return out, err
	}
	signed := entitlement.Reservation{Account: a, Meter: out.Meter, CreatedAt: out.CreatedAt, ExpiresAt: out.ExpiresAt}
	if signed.ID, err = id.Parse[entitlement.Reservation](out.ID); err != nil {
		return out, err
	}
	if signed.Quantity, err = money.ParseDecimal(out.Quantity); err != nil {
		return out, err
	}
	out.Token, err = h.Metering.Leases.Sign(signed)
	return out, err
}

// keys shows what leases are checked with.
//
//	@ID			listLeaseKeys
//	@Summary	Get the public keys of leases
//	@Description	A lease's header names its key by kid. Fetch the keys again at a kid that is not among them, and now and then: a new key is shown before it signs.
//	@Tags		entitlements
//	@Success	200	{object}	LeaseKeys
//	@Router		/v1/usage/leases/keys [get]
func (h reservations) keys(c echo.Context) error {
	out := LeaseKeys{Keys: []LeaseKey{}}
	for _, k := range h.Metering.Leases.Keys() {
		out.Keys = append(out.Keys, LeaseKey(k))
	}
	return c.JSON(http.StatusOK, out)
}

// list shows reservations, oldest first.
//
//	@ID			listReservations
//	@Summary	List reservations
//	@Tags		entitlements
//	@Security	Token[usage:read]
//	@Param		status	query		string	false	"Those with this status"	Enums(open, committed, released, expired)
//	@Param		limit	query		int		false	"Items on a page"			minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"Where to read on"
//	@Success	200		{object}	Page[Reservation]
//	@Router		/v1/usage/reservations [get]
func (h reservations) list(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	status := entitlement.ReservationStatus(q.Get("status"))
	switch status {
	case "", entitlement.Open, entitlement.Committed, entitlement.Released, entitlement.Expired:
	default:
		return errs.InvalidField("#/status", "unknown_value", "must be open, committed, released or expired")
	}
	found, err := h.Metering.Reservations.List(c.Request().Context(), middleware.Account(c), status, r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, found, toReservation)
}

// get shows one reservation.
//
//	@ID			getReservation
//	@Summary	Get a reservation
//	@Tags		entitlements
//	@Security	Token[usage:read]
//	@Param		id	path		string	true	"The reservation"
//	@Success	200	{object}	Reservation
//	@Failure	404	{object}	problem.Problem	"reservation_not_found"
//	@Router		/v1/usage/reservations/{id} [get]
func (h reservations) get(c echo.Context) error {
	return recordOf(c, entitlement.ErrReservationNotFound, h.Metering.Reservations.Get, toReservation)
}

// extend holds on, and holds more.
//
//	@ID				extendReservation
//	@Summary		Extend a reservation
//	@Description	A lease comes with a new token, which says how much is held now, and until when.
//	@Tags			entitlements
//	@Security		Token[usage:write]
//	@Param			id				path		string				true	"The reservation"
//	@Param			body			body		ExtendReservation	true	"What to hold in addition, and for how long"
//	@Success		200				{object}	ExtendedReservation
//	@Failure		404				{object}	problem.Problem	"reservation_not_found"
//	@Failure		409				{object}	problem.Problem	"limit_reached, spend_limit_reached, reservation_settled, account_suspended, account_closed"
//	@Failure		422				{object}	problem.Problem	"invalid_request"
//	@Failure		503				{object}	problem.Problem	"ingest_busy, ingest_stopping, ingest_unavailable"
//	@Router			/v1/usage/reservations/{id}/extend [post]
func (h reservations) extend(c echo.Context) error {
	rid, err := param[entitlement.Reservation](c, "id", entitlement.ErrReservationNotFound)
	if err != nil {
		return err
	}
	var in ExtendReservation
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	if in.Quantity.Sign() < 0 {
		return errs.InvalidField("#/quantity", "out_of_range", "must not be negative")
	}
	ttl, err := ttl(in.TTLSeconds)
	if err != nil {
		return err
	}
	ans, err := h.reserve(c, metering.Reserving{Action: metering.Extend, ID: rid, Quantity: in.Quantity, TTL: ttl}, http.StatusOK)
	if err != nil {
		return err
	}
	out, err := h.sign(middleware.Account(c), ans)
	if err != nil {
		return err
	}
	return c.JSON(ans.Status, ExtendedReservation(out))
}

// commit settles a reservation.
//
//	@ID				commitReservation
//	@Summary		Settle a reservation with what was used
//	@Description	What was used is counted, the rest let go. Use within the reservation is always counted; more, or after it expired, only where the limit has room.
//	@Tags			entitlements
//	@Security		Token[usage:write]
//	@Param			id				path		string				true	"The reservation"
//	@Param			body			body		CommitReservation	true	"What was used"
//	@Success		200				{object}	Reservation
//	@Failure		404				{object}	problem.Problem	"reservation_not_found"
//	@Failure		409				{object}	problem.Problem	"limit_reached, spend_limit_reached, reservation_settled, account_closed"
//	@Failure		422				{object}	problem.Problem	"invalid_request"
//	@Failure		503				{object}	problem.Problem	"ingest_busy, ingest_stopping, ingest_unavailable"
//	@Router			/v1/usage/reservations/{id}/commit [post]
func (h reservations) commit(c echo.Context) error {
	rid, err := param[entitlement.Reservation](c, "id", entitlement.ErrReservationNotFound)
	if err != nil {
		return err
	}
	var in CommitReservation
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	switch {
	case in.Quantity == nil: // left out it is no 0: what was used would be given away
		return errs.InvalidField("#/quantity", "required", "is required")
	case in.Quantity.Sign() < 0:
		return errs.InvalidField("#/quantity", "out_of_range", "must not be negative")
	}
	r := metering.Reserving{Action: metering.Commit, ID: rid, Quantity: *in.Quantity, Dimensions: metering.DimensionsOf(in.Dimensions)}
	if in.Timestamp != nil {
		r.OccurredAt = in.Timestamp.UTC().Truncate(time.Microsecond)
	}
	return h.act(c, r, http.StatusOK)
}

// release lets a reservation go.
//
//	@ID			releaseReservation
//	@Summary	Let a reservation go unused
//	@Tags		entitlements
//	@Security	Token[usage:write]
//	@Param		id				path		string	true	"The reservation"
//	@Success	200				{object}	Reservation
//	@Failure	404				{object}	problem.Problem	"reservation_not_found"
//	@Failure	409				{object}	problem.Problem	"reservation_settled"
//	@Failure	503				{object}	problem.Problem	"ingest_busy, ingest_stopping, ingest_unavailable"
//	@Router		/v1/usage/reservations/{id}/release [post]
func (h reservations) release(c echo.Context) error {
	rid, err := param[entitlement.Reservation](c, "id", entitlement.ErrReservationNotFound)
	if err != nil {
		return err
	}
	return h.act(c, metering.Reserving{Action: metering.Release, ID: rid}, http.StatusOK)
}
