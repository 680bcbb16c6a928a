package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
)

// Control plays the rest of the world over the control API: for tests and harnesses, in the same
// process or another. Its errors are for people; it makes no difference between them.
type Control struct {
	BaseURL   string
	SecretKey payment.Secret
}

// Event is a webhook as the provider's list shows it, in the order in which things happened.
type Event struct {
	ID        string
	Type      string
	Ref       string // the object's
	Delivered int    // how often the receiver took it
}

// Plan adds faults to the end of the fault plan.
func (c Control) Plan(ctx context.Context, faults ...Fault) error {
	return c.do(ctx, http.MethodPost, "/control/faults", faults, nil)
}

// ClearPlan drops what is left of the fault plan.
func (c Control) ClearPlan(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/control/faults", nil, nil)
}

// ForgetKeys does to the keys what 24 hours do. Charges stay.
func (c Control) ForgetKeys(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/control/keys/forget", struct{}{}, nil)
}

// GiveCard gives a setup the card of a token, as the customer does at the card page.
func (c Control) GiveCard(ctx context.Context, setupRef, token string) error {
	return c.do(ctx, http.MethodPost, "/control/setups/"+url.PathEscape(setupRef)+"/card", map[string]string{"token": token}, nil)
}

// Act approves or rejects at the 3-D Secure page of a setup or a charge, which ref or the end of the page's address names.
func (c Control) Act(ctx context.Context, ref string, approve bool) error {
	return c.do(ctx, http.MethodPost, "/control/actions/"+url.PathEscape(ref), map[string]bool{"approve": approve}, nil)
}

// Behave makes a saved card behave as the token's from now on.
func (c Control) Behave(ctx context.Context, methodRef, token string) error {
	return c.do(ctx, http.MethodPost, "/control/methods/"+url.PathEscape(methodRef), map[string]string{"behaviour": token}, nil)
}

// Renew changes a saved card's expiry, as the networks' updater does.
func (c Control) Renew(ctx context.Context, methodRef string, month, year int) error {
	return c.do(ctx, http.MethodPost, "/control/methods/"+url.PathEscape(methodRef), map[string]int{"exp_month": month, "exp_year": year}, nil)
}

// Replace gives a saved card another number and expiry, as the networks' updater does.
func (c Control) Replace(ctx context.Context, methodRef, last4 string, month, year int) error {
	in := map[string]any{"last4": last4, "exp_month": month, "exp_year": year}
	return c.do(ctx, http.MethodPost, "/control/methods/"+url.PathEscape(methodRef), in, nil)
}

// Settle ends a charge that is processing, with success where decline is empty.
func (c Control) Settle(ctx context.Context, chargeRef, decline string) error {
	return c.do(ctx, http.MethodPost, "/control/charges/"+url.PathEscape(chargeRef)+"/settle", map[string]string{"decline": decline}, nil)
}

// Refund refunds at the provider, past the service. 0 is all that is left.
func (c Control) Refund(ctx context.Context, chargeRef string, minor int64) error {
	return c.do(ctx, http.MethodPost, "/control/charges/"+url.PathEscape(chargeRef)+"/refund", map[string]int64{"amount": minor}, nil)
}

// SettleRefund ends a refund: with success, or with a failure where one is named.
func (c Control) SettleRefund(ctx context.Context, refundRef, failure string) error {
	return c.do(ctx, http.MethodPost, "/control/refunds/"+url.PathEscape(refundRef)+"/settle", map[string]string{"failure": failure}, nil)
}

// Dispute opens a dispute over all of a charge and returns its reference.
func (c Control) Dispute(ctx context.Context, chargeRef string) (ref string, err error) {
	var d dispute
	err = c.do(ctx, http.MethodPost, "/control/charges/"+url.PathEscape(chargeRef)+"/dispute", struct{}{}, &d)
	return d.ID, err
}

// CloseDispute decides a dispute.
func (c Control) CloseDispute(ctx context.Context, disputeRef string, won bool) error {
	status := payment.DisputeLost
	if won {
		status = payment.DisputeWon
	}
	return c.do(ctx, http.MethodPost, "/control/disputes/"+url.PathEscape(disputeRef)+"/close", map[string]string{"status": string(status)}, nil)
}

// HoldWebhooks stops the sending of webhooks by themselves, or resumes it.
func (c Control) HoldWebhooks(ctx context.Context, hold bool) error {
	return c.do(ctx, http.MethodPut, "/control/webhooks", map[string]bool{"hold": hold}, nil)
}

// Events returns every webhook.
func (c Control) Events(ctx context.Context) ([]Event, error) {
	var in []event
	if err := c.do(ctx, http.MethodGet, "/control/events", nil, &in); err != nil {
		return nil, err
	}
	out := make([]Event, len(in))
	for i, e := range in {
		out[i] = Event{ID: e.ID, Type: e.Type, Ref: e.Ref, Delivered: e.Delivered}
	}
	return out, nil
}

// Deliver sends a webhook now, once more if need be, and returns the receiver's status: 200 for any
// success, 0 for no answer.
func (c Control) Deliver(ctx context.Context, eventID string) (status int, err error) {
	var out struct {
		Status int `json:"status"`
	}
	err = c.do(ctx, http.MethodPost, "/control/events/"+url.PathEscape(eventID)+"/deliver", struct{}{}, &out)
	return out.Status, err
}

func (c Control) do(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.BaseURL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.SecretKey.Reveal())
	hc := payment.NewHTTPClient(30 * time.Second)
	defer hc.CloseIdleConnections()
	res, err := hc.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("control %s %s: %d %s", method, path, res.StatusCode, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
