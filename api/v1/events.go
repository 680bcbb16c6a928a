package v1

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
)

func accountEventRoutes(d Deps) []route.Route {
	h := accountEvents{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/events", Scope: auth.BillingRead, Query: []string{"after", "limit"}, Handler: h.list},
	}
}

// AccountEvent is one thing that happened to the account.
type AccountEvent struct {
	ID       string `json:"id" validate:"required" example:"evt_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Sequence int64  `json:"sequence" validate:"required" example:"1"` // 1, 2, 3, … in the account's own order, without a gap

	Type string `json:"type" validate:"required" enums:"account.closed,account.created,account.reinstated,account.suspended,alert.fired,auto_top_up.tripped,credit.expired,credit.granted,invoice.credited,invoice.finalized,invoice.paid,invoice.uncollectible,invoice.voided,payment.dispute_won,payment.disputed,payment.failed,payment.parked,payment.refund_failed,payment.refunded,payment.requires_action,payment.succeeded,payment_method.added,payment_method.changed,payment_method.expiring,payment_method.removal_requested,payment_method.removed,period.closed,sales_inquiry.changed,sales_inquiry.received,spend_limit.reached,subscription.change_dropped,subscription.changed,top_up.failed,top_up.requires_action,top_up.succeeded,upgrade.canceled,upgrade.failed,upgrade.requires_action,upgrade.succeeded,usage_limit.reached" example:"invoice.paid"` // more may come: pass over what is not known

	OccurredAt time.Time       `json:"occurred_at" validate:"required" format:"date-time"` // on the account's clock
	Data       json.RawMessage `json:"data" validate:"required" swaggertype:"object"`      // what the event is about, by its type
} //@name AccountEvent

// AccountEvents is a stretch of an account's events.
type AccountEvents struct {
	Data      []AccountEvent `json:"data" validate:"required"`
	HasMore   bool           `json:"has_more" validate:"required"`
	NextAfter int64          `json:"next_after" validate:"required" example:"100"` // send it as after to read on, now or when something new has happened
} //@name AccountEvents

type accountEvents struct{ Deps }

// list returns what happened after a given event.
//
//	@ID				listEvents
//	@Summary		List what happened to the account, the oldest first
//	@Description	Webhooks and the stream tell the same events with the same ids and sequence. Whoever keeps the last sequence and reads on from it misses nothing.
//	@Tags			events
//	@Security		Token[billing:read]
//	@Param			after	query		int	false	"The last sequence that is known"	default(0)	minimum(0)
//	@Param			limit	query		int	false	"At most so many"					default(20)	minimum(1)	maximum(100)
//	@Success		200		{object}	AccountEvents
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/events [get]
func (h accountEvents) list(c echo.Context) error {
	q := middleware.Query(c)
	after, limit := int64(0), page.DefaultLimit
	var err error
	if s := q.Get("after"); s != "" {
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			return errs.InvalidField("#/after", "out_of_range", "must be the sequence of an event, or 0")
		}
	}
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > page.MaxLimit {
			return errs.InvalidField("#/limit", "out_of_range", "must be a whole number from 1 to %d", page.MaxLimit)
		}
	}
	list, err := h.Billing.DB.Outbox().After(c.Request().Context(), middleware.Account(c), after, limit+1)
	if err != nil {
		return err
	}
	out := AccountEvents{HasMore: len(list) > limit, NextAfter: after}
	out.Data = convert(list[:min(limit, len(list))], toAccountEvent)
	if n := len(out.Data); n > 0 {
		out.NextAfter = out.Data[n-1].Sequence
	}
	return c.JSON(http.StatusOK, out)
}

func toAccountEvent(e outbox.Event) AccountEvent {
	return AccountEvent{ID: e.ID.String(), Sequence: e.Sequence, Type: string(e.Type), OccurredAt: e.OccurredAt, Data: e.Payload}
}
