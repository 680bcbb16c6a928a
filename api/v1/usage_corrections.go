package v1

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Bounds of a reconciliation.
const (
	maxReconciledHours = 31 * 24
	maxReconciledIDs   = 10_000
)

func usageCorrectionRoutes(d Deps) []route.Route {
	h := usageCorrections{d}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/usage/corrections", Scope: auth.UsageWrite, Class: route.Money, Idempotent: true, Handler: h.create},
		{Method: http.MethodGet, Path: "/v1/usage/corrections", Scope: auth.UsageRead, Query: paged("id", "source", "meter", "from", "to"), Handler: h.list},
		{Method: http.MethodPost, Path: "/v1/usage/reconciliations", Scope: auth.UsageRead, MaxBody: 1 << 20, Handler: h.reconcile},
	}
}

// NewUsageCorrection voids or amends one stored event.
type NewUsageCorrection struct {
	Action   string         `json:"action" validate:"required" enums:"void,amend"`
	ID       string         `json:"id" validate:"required" example:"call-8f2c"`                  // the event's
	Source   string         `json:"source" default:"default" example:"media-eu-1"`               // of the event
	Quantity *money.Decimal `json:"quantity" swaggertype:"string" format:"decimal" example:"60"` // what it should have reported; of an amendment
	Reason   string         `json:"reason" validate:"required" maxLength:"500" example:"The call was dropped by us."`
} //@name NewUsageCorrection

// UsageCorrection is a correction on record.
type UsageCorrection struct {
	ID        string    `json:"id" validate:"required" example:"ucor_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Action    string    `json:"action" validate:"required" enums:"void,amend"`
	EventID   string    `json:"event_id" validate:"required"` // empty, as source, of an old correction whose event was dropped before this was kept with it
	Source    string    `json:"source" validate:"required"`
	Meter     string    `json:"meter" validate:"required" example:"voice"`
	Before    string    `json:"before" validate:"required" format:"decimal" example:"63.5"` // what the event counted
	After     string    `json:"after" validate:"required" format:"decimal" example:"60"`    // what it counts now
	Timestamp time.Time `json:"timestamp" validate:"required" format:"date-time"`           // the event's
	Reason    string    `json:"reason" validate:"required"`
	CreatedBy string    `json:"created_by" validate:"required" example:"user:anna"`
	CreatedAt time.Time `json:"created_at" validate:"required" format:"date-time"`
} //@name UsageCorrection

func toUsageCorrection(c metering.Correction) UsageCorrection {
	return UsageCorrection{
		ID: c.ID.String(), Action: string(c.Kind), EventID: c.EventID, Source: c.Source, Meter: c.Meter, Before: c.Before.String(),
		After: c.After.String(), Timestamp: c.OccurredAt, Reason: c.Reason, CreatedBy: c.Actor, CreatedAt: c.At,
	}
}

type usageCorrections struct{ Deps }

// create corrects usage.
//
//	@ID				createUsageCorrection
//	@Summary		Void or amend a usage event
//	@Description	The event stays on record, and the correction beside it, with who made it and why. Where the period's invoice is final, the difference is a line of the next one, at the old period's prices.
//	@Tags			usage
//	@Security		Token[usage:write]
//	@Param			body			body		NewUsageCorrection	true	"The correction"
//	@Success		201				{object}	UsageCorrection
//	@Failure		404				{object}	problem.Problem	"usage_event_not_found"
//	@Failure		409				{object}	problem.Problem	"usage_event_gone, usage_event_voided, usage_event_not_amendable, limit_reached, total_out_of_range, account_closed"
//	@Failure		422				{object}	problem.Problem	"invalid_request"
//	@Router			/v1/usage/corrections [post]
func (h usageCorrections) create(c echo.Context) error {
	var in NewUsageCorrection
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var v validate.Checks
	v.OneOf("#/action", in.Action, string(metering.Void), string(metering.Amend))
	v.RequiredLine("#/id", in.ID, metering.MaxIDLength)
	v.RequiredLine("#/reason", in.Reason, 500)
	wanted := metering.Correction{Source: in.Source, EventID: in.ID, Kind: metering.Kind(in.Action), Reason: in.Reason}
	switch {
	case wanted.Kind == metering.Amend && in.Quantity == nil:
		v.Fail("#/quantity", "required", "is what an amendment changes")
	case wanted.Kind == metering.Amend && in.Quantity.Sign() < 0:
		v.Fail("#/quantity", "out_of_range", "must not be negative")
	case wanted.Kind == metering.Void && in.Quantity != nil:
		v.Fail("#/quantity", "unexpected", "a void takes the whole event back")
	case in.Quantity != nil:
		wanted.Quantity = *in.Quantity
	}
	if err := v.Err(); err != nil {
		return err
	}
	if wanted.Source == "" {
		wanted.Source = metering.DefaultSource
	}
	render := as(http.StatusCreated, toUsageCorrection)
	corrections := billing.Corrections{Core: h.Billing, Catalogue: h.Metering.Catalogue}
	res, err := corrections.Correct(c.Request().Context(), asked(c), wanted, render)
	if err != nil {
		return err
	}
	return answer(c, res, render)
}

// list shows corrections.
//
//	@ID				listUsageCorrections
//	@Summary		List corrections
//	@Description	The latest first: what was changed, from what to what, by whom and why. An operator names the account by Accrue-Account.
//	@Tags			usage
//	@Security		Token[usage:read]
//	@Param			id		query		string	false	"Corrections of one event, by its id (and source, unless it is the default one)"
//	@Param			source	query		string	false	"Of events of one source"
//	@Param			meter	query		string	false	"Of events of one meter"
//	@Param			from	query		string	false	"Made at or after this time"	format(date-time)
//	@Param			to		query		string	false	"Made before this time"		format(date-time)
//	@Param			limit	query		int		false	"Items on a page"			minimum(1)	maximum(100)	default(20)
//	@Param			cursor	query		string	false	"Where to read on"
//	@Success		200		{object}	Page[UsageCorrection]
//	@Failure		404		{object}	problem.Problem	"unknown_meter"
//	@Router			/v1/usage/corrections [get]
func (h usageCorrections) list(c echo.Context) error {
	return listSelected(c, h.Deps, toUsageCorrection, h.Metering.Store.Corrections)
}

// NewReconciliation is what a partner counted by itself: by hour, by event, or both.
type NewReconciliation struct {
	Meter  string          `json:"meter" validate:"required" example:"voice"`
	Source string          `json:"source" example:"media-eu-1"` // left out: every source; required with ids
	Hours  []ReconcileHour `json:"hours" maxItems:"744"`
	IDs    []string        `json:"ids" maxItems:"10000"` // to be told one by one
} //@name NewReconciliation

// ReconcileHour is a partner's count of one hour of UTC, by the time of use.
type ReconcileHour struct {
	Hour   time.Time `json:"hour" validate:"required" format:"date-time" example:"2026-11-23T10:00:00Z"`
	Events *int64    `json:"events" minimum:"0"`                                                              // left out: the hash alone is compared
	Hash   string    `json:"hash" example:"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"` // SHA-256 in hex over the events' ids, ascending by bytes, each followed by a line feed
} //@name ReconcileHour

// Reconciliation compares a partner's counts with what is stored.
type Reconciliation struct {
	Matches  bool             `json:"matches" validate:"required"` // every hour matches, and every id is stored; false too where that is not known any more
	Hours    []ReconciledHour `json:"hours" validate:"required"`
	IDs      []ReconciledID   `json:"ids" validate:"required"`      // those that are not plainly stored
	Stored   int              `json:"stored" validate:"required"`   // of the ids
	Repeated int              `json:"repeated" validate:"required"` // ids that the request names more than once
} //@name Reconciliation

// ReconciledHour compares one hour.
type ReconciledHour struct {
	Hour     time.Time `json:"hour" validate:"required" format:"date-time"`
	Status   string    `json:"status" validate:"required" enums:"matches,differs,not_retained"` // not_retained: events of the hour are no longer kept, of this source or another, so that it cannot be compared
	Matches  bool      `json:"matches" validate:"required"`
	Events   int64     `json:"events" validate:"required"`                           // stored here, not void
	Expected *int64    `json:"expected" validate:"required" extensions:"x-nullable"` // by the partner's count
	Missing  int64     `json:"missing" validate:"required"`                          // expected and not here; 0 where events are no longer kept
	Extra    int64     `json:"extra" validate:"required"`                            // here and not expected
	Quantity string    `json:"quantity" validate:"required" format:"decimal"`
	Late     int64     `json:"late" validate:"required"`     // of the stored: came more than an hour after the hour
	Voided   int64     `json:"voided" validate:"required"`   // stored and taken back since
	Rejected int64     `json:"rejected" validate:"required"` // refused for limits or standing
	Dropped  int64     `json:"dropped" validate:"required"`  // counted of any source, and no longer kept: in none of the other figures
	Hash     string    `json:"hash" validate:"required"`
} //@name ReconciledHour

// ReconciledID says what became of an event.
type ReconciledID struct {
	ID     string  `json:"id" validate:"required"`
	Status string  `json:"status" validate:"required" enums:"missing,rejected,voided,late,other_meter"`
	Code   *string `json:"code" validate:"required" extensions:"x-nullable" example:"limit_reached"` // why it was rejected
} //@name ReconciledID

// reconcile compares counts.
//
//	@ID				createReconciliation
//	@Summary		Compare your own counts with ours
//	@Description	Post hourly counts or hashes to find the hours that differ, then the ids of such an hour to find the events: missing, rejected, voided, late, or stored for another meter. An hour whose events retention has dropped is not_retained.
//	@Tags			usage
//	@Security		Token[usage:read]
//	@Param			body	body		NewReconciliation	true	"Your counts"
//	@Success		200		{object}	Reconciliation
//	@Failure		404		{object}	problem.Problem	"unknown_meter"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/usage/reconciliations [post]
func (h usageCorrections) reconcile(c echo.Context) error {
	var in NewReconciliation
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	if in.Meter == "" {
		return errs.InvalidField("#/meter", "required", "is required")
	}
	if h.Metering.Catalogue.Meter(in.Meter) == nil {
		return metering.ErrUnknownMeter
	}
	b, err := checkReconciliation(in)
	if err != nil {
		return err
	}
	out := Reconciliation{Matches: true, Hours: []ReconciledHour{}, IDs: []ReconciledID{}}
	if len(in.Hours) > 0 {
		if err := h.reconcileHours(c, in, b, &out); err != nil {
			return err
		}
	}
	if len(in.IDs) > 0 {
		if err := h.reconcileIDs(c, in, &out); err != nil {
			return err
		}
	}
	return c.JSON(http.StatusOK, out)
}

func checkReconciliation(in NewReconciliation) (b period.Bounds, err error) {
	var v validate.Checks
	v.Count("#/hours", len(in.Hours), 0, maxReconciledHours)
	v.Count("#/ids", len(in.IDs), 0, maxReconciledIDs)
	if len(in.Hours)+len(in.IDs) == 0 {
		v.Fail("#/hours", "required", "hours or ids are required")
	}
	if len(in.IDs) > 0 && in.Source == "" {
		v.Fail("#/source", "required", "ids belong to a source")
	}
	if err := v.Err(); err != nil {
		return b, err
	}
	for i, hour := range in.Hours {
		switch {
		case hour.Events == nil && hour.Hash == "":
			return b, errs.InvalidField(fmt.Sprintf("#/hours/%d/events", i), "required", "events or a hash are required")
		case hour.Events != nil && *hour.Events < 0:
			return b, errs.InvalidField(fmt.Sprintf("#/hours/%d/events", i), "out_of_range", "must not be negative")
		}
		if sum, err := hex.DecodeString(hour.Hash); hour.Hash != "" && (err != nil || len(sum) != sha256.Size) { // it would match nothing, ever
			return b, errs.InvalidField(fmt.Sprintf("#/hours/%d/hash", i), "invalid_hash", "must be a SHA-256 in hex: 64 digits")
		}
		if !hour.Hour.Equal(hour.Hour.Truncate(time.Hour)) || (i > 0 && !in.Hours[i-1].Hour.Before(hour.Hour)) {
			return b, errs.InvalidField("#/hours", "invalid_hours", "must be whole hours of UTC, ascending")
		}
		if i == 0 {
			b.Start = hour.Hour.UTC()
		}
		b.End = hour.Hour.UTC().Add(time.Hour)
	}
	if b.Duration() > maxReconciledHours*time.Hour {
		return b, errs.InvalidField("#/hours", "range_too_long", "must lie within 31 days")
	}
	return b, nil
}

func (h usageCorrections) reconcileHours(c echo.Context, in NewReconciliation, b period.Bounds, out *Reconciliation) error {
	hours, err := h.Metering.Store.Hours(c.Request().Context(), middleware.Account(c), in.Meter, in.Source, b)
	if err != nil {
		return err
	}
	stored := make(map[int64]metering.Hour, len(hours))
	for _, s := range hours {
		stored[s.Start.Unix()] = s
	}
	for _, asked := range in.Hours {
		s, ok := stored[asked.Hour.Unix()]
		if !ok {
			s = metering.EmptyHour(asked.Hour.UTC())
		}
		r := ReconciledHour{
			Hour: s.Start, Events: s.Events, Expected: asked.Events, Quantity: s.Quantity.String(), Late: s.Late, Voided: s.Voided,
			Rejected: s.Rejected, Dropped: s.Dropped, Hash: hex.EncodeToString(s.Hash[:]),
		}
		if asked.Events != nil {
			r.Missing, r.Extra = max(0, *asked.Events-s.Events), max(0, s.Events-*asked.Events)
		}
		switch {
		case s.Dropped > 0:
			r.Status, r.Missing = "not_retained", 0
		case r.Missing+r.Extra == 0 && (asked.Hash == "" || strings.EqualFold(asked.Hash, r.Hash)):
			r.Status, r.Matches = "matches", true
		default:
			r.Status = "differs"
		}
		out.Matches = out.Matches && r.Matches
		out.Hours = append(out.Hours, r)
	}
	return nil
}

func (h usageCorrections) reconcileIDs(c echo.Context, in NewReconciliation, out *Reconciliation) error {
	fates, err := h.Metering.Store.Fates(c.Request().Context(), middleware.Account(c), in.Source, in.IDs)
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(in.IDs))
	for _, eventID := range in.IDs {
		if seen[eventID] {
			out.Repeated++
			continue
		}
		seen[eventID] = true
		f := fates[eventID]
		r := ReconciledID{ID: eventID}
		switch {
		case f.Rejected != "":
			r.Status, r.Code = "rejected", new(f.Rejected)
		case !f.Stored:
			r.Status = "missing"
		case f.Meter != "" && f.Meter != in.Meter:
			r.Status = "other_meter"
		case f.Voided:
			r.Status = "voided"
		case f.Late:
			r.Status = "late"
			out.Stored++
		default:
			out.Stored++
			continue
		}
		out.Matches = out.Matches && r.Status == "late"
		out.IDs = append(out.IDs, r)
	}
	return nil
}
