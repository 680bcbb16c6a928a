// Package v1 is version 1 of the HTTP API: one file for each resource, with its wire types, its
// handlers and the conversion between the two.
//
// A handler decodes, calls once, converts and answers. It returns errors and never writes them; the
// account comes from middleware.Account, never from a body or an address. Each resource declares its
// operations as route values in a function of its own, which Routes joins.
package v1

import (
	"context"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
)

// Deps is what the handlers use: the concepts' stores for reading and the operations for writing.
type Deps struct {
	Lists    Lists
	Metering Metering
	Streams  Streams
	Billing  *billing.Core // every operation, and through its DB every store
	Keys     *auth.Keys
	Auth     *auth.Authenticator // asks again, while a stream is open, whether what opened it is still good
	Plans    planReader          // the catalogue; Billing's if nil
	Mode     auth.Mode           // test clocks exist in test mode only
	Proofs   Proofs
	// Published is called after a catalogue was put on sale, so that new meters are known; nil: nobody asks.
	Published func(ctx context.Context) error
}

// Routes returns the operations of version 1.
func Routes(d Deps) []route.Route {
	all := route.Complete(slices.Concat(
		planRoutes(d),
		overviewRoutes(d),
		accountRoutes(d),
		paymentMethodRoutes(d),
		upgradeRoutes(d),
		downgradeRoutes(d),
		balanceRoutes(d),
		topUpRoutes(d),
		spendLimitRoutes(d),
		usageAlertRoutes(d),
		salesInquiryRoutes(d),
		usageEventRoutes(d),
		usageRoutes(d),
		invoiceRoutes(d),
		explanationRoutes(d),
		paymentRoutes(d),
		usageCorrectionRoutes(d),
		entitlementRoutes(d),
		reservationRoutes(d),
		gatewayEventRoutes(d),
		apiKeyRoutes(d),
		accountEventRoutes(d),
		eventStreamRoutes(d),
		estimateRoutes(d),
		planFitRoutes(d),
		adminAccountRoutes(d),
		adminTestClockRoutes(d),
		adminPlanRoutes(d),
		adminMigrationRoutes(d),
		adminContractRoutes(d),
		adminRefundRoutes(d),
		adminCreditRoutes(d),
		adminInvoiceRoutes(d),
		adminSupportRoutes(d),
		adminWorkRoutes(d),
		adminProofRoutes(d),
	))
	for i, r := range all {
		if r.Creates != "" {
			all[i].Handler = creating(r)
		}
	}
	return all
}

// creating tells the handler, by way of its context, what its 201 has made; see locate.
func creating(r route.Route) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Set(createsKey, r.Creates)
		return r.Handler(c)
	}
}
