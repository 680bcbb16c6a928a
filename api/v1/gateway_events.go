package v1

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
)

func gatewayEventRoutes(d Deps) []route.Route {
	h := gatewayEvents{d}
	return []route.Route{
		{
			Method: http.MethodPost, Path: "/v1/gateway-events/{provider}", Public: true, Signed: true, Class: route.Ingest,
			MaxBody: maxGatewayEvent, Timeout: paymentTimeout, Handler: h.receive,
		},
	}
}

// maxGatewayEvent bounds a provider's event. Stripe's are at most some tens of kilobytes. It is less than body.Small: whoever
// sends here is not known before the body is read, and must not take the room of large ones.
const maxGatewayEvent = 128 << 10

// ErrUnknownProvider says that events of this provider are not taken here.
var ErrUnknownProvider = errs.New(errs.NotFound, "provider_not_found", "There is no such payment provider here.")

// GatewayEventReceipt says that an event is stored.
type GatewayEventReceipt struct {
	Received  bool `json:"received" validate:"required"`
	Duplicate bool `json:"duplicate" validate:"required"` // it was stored before
} //@name GatewayEventReceipt

type gatewayEvents struct{ Deps }

// receive takes in a payment provider's event.
//
//	@ID				receiveGatewayEvent
//	@Summary		Take in a payment provider's event
//	@Description	For the provider, which signs the body. The answer is given when the event is stored; that it is worked on at once is a favour, and what fails is tried again by itself. An event is never believed: it is a nudge to ask for the object's present state.
//	@Tags			payments
//	@Param			provider	path		string	true	"The provider"	Enums(stripe, sandbox)
//	@Param			body		body		map[string]interface{}	true	"As the provider sends it"
//	@Success		200			{object}	GatewayEventReceipt
//	@Failure		400			{object}	problem.Problem	"webhook_signature_invalid; nothing was stored"
//	@Failure		404			{object}	problem.Problem	"provider_not_found"
//	@Router			/v1/gateway-events/{provider} [post]
func (h gatewayEvents) receive(c echo.Context) error {
	if c.Param("provider") != h.Billing.Gateway.Name() {
		return ErrUnknownProvider
	}
	ctx, l := c.Request().Context(), billing.Listener{Core: h.Billing}
	e, fresh, err := l.Receive(ctx, c.Request().Header, body.Bytes(c))
	if err != nil {
		return err
	}
	if fresh {
		if err := l.ProcessFresh(ctx, e); err != nil {
			h.Billing.Log.WarnContext(ctx, "gateway event is left to the sweep", "event", e.EventID, "type", e.Type, "error", err)
		}
	}
	return c.JSON(http.StatusOK, GatewayEventReceipt{Received: true, Duplicate: !fresh})
}
