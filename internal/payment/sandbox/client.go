package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Name is the gateway's name beside every reference.
const Name = "sandbox"

const defaultTimeout = 10 * time.Second

// ClientConfig says how the gateway reaches its provider.
type ClientConfig struct {
	Mode           payment.Mode // must be ModeTest
	BaseURL        string       // of the provider's listener
	Provider       http.Handler // the provider itself, if this process plays it: then no socket is between; nil: it is reached at BaseURL
	SecretKey      payment.Secret
	WebhookSecrets []payment.Secret // any of them may have signed; several during a rotation
	Timeout        time.Duration    // of one call; 0: 10 seconds
}

// Client is the gateway to the sandbox provider. It is safe for concurrent use.
type Client struct {
	cfg  ClientConfig
	http *http.Client
}

var _ payment.Gateway = (*Client)(nil)

// NewClient returns the gateway. It makes no call. It returns ErrLiveMode outside of test mode.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Mode != payment.ModeTest {
		return nil, ErrLiveMode
	}
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the sandbox's URL %q is not absolute", cfg.BaseURL)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	cfg.BaseURL = strings.TrimSuffix(cfg.BaseURL, "/")
	c := &Client{cfg: cfg, http: payment.NewHTTPClient(cfg.Timeout)}
	if cfg.Provider != nil {
		c.http = payment.NewClientOver(inProcess{cfg.Provider}, cfg.Timeout)
	}
	return c, nil
}

// Name returns "sandbox".
func (c *Client) Name() string { return Name }

// Mode returns ModeTest.
func (c *Client) Mode() payment.Mode { return payment.ModeTest }

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Limits implements payment.Gateway.
func (c *Client) Limits(currency money.Currency) (payment.Limits, error) { return limits(currency) }

// CreateSetup implements payment.Gateway.
func (c *Client) CreateSetup(ctx context.Context, r payment.SetupRequest) (payment.Setup, error) {
	var out setup
	err := c.post(ctx, "/v1/setups", r.Key, setupRequest{r.AccountRef, r.CustomerRef, r.ReturnURL}, &out)
	if err != nil {
		return payment.Setup{}, err
	}
	return out.port()
}

// LookupSetup implements payment.Gateway.
func (c *Client) LookupSetup(ctx context.Context, ref string) (payment.Setup, error) {
	var out setup
	if err := c.get(ctx, "/v1/setups/"+url.PathEscape(ref), &out); err != nil {
		return payment.Setup{}, err
	}
	return out.port()
}

// Attach implements payment.Gateway.
func (c *Client) Attach(ctx context.Context, r payment.AttachRequest) (payment.AttachResult, error) {
	var out attachment
	err := c.post(ctx, "/v1/attachments", r.Key, attachRequest{
		Account: r.AccountRef, Customer: r.CustomerRef, Setup: r.Setup, Token: r.Token,
		Billing: billingFrom(r.Billing), ReturnURL: r.ReturnURL,
	}, &out)
	if err != nil {
		return payment.AttachResult{}, err
	}
	return out.port()
}

// ConfirmSetup implements payment.Gateway. The provider has taken the customer's answer by itself, and
// has kept the billing details since Attach.
func (c *Client) ConfirmSetup(ctx context.Context, r payment.ConfirmSetupRequest) (payment.AttachResult, error) {
	var out attachment
	if err := c.get(ctx, "/v1/attachments/"+url.PathEscape(r.Ref), &out); err != nil {
		return payment.AttachResult{}, err
	}
	return out.port()
}

// UpdateBilling implements payment.Gateway.
func (c *Client) UpdateBilling(ctx context.Context, r payment.UpdateRequest) (payment.MethodResult, error) {
	var out method
	err := c.post(ctx, "/v1/methods/"+url.PathEscape(r.MethodRef), r.Key,
		updateRequest{r.CustomerRef, billingFrom(r.Billing), r.ExpMonth, r.ExpYear}, &out)
	if err != nil {
		return payment.MethodResult{}, err
	}
	return out.port()
}

// Detach implements payment.Gateway.
func (c *Client) Detach(ctx context.Context, r payment.DetachRequest) error {
	var out method
	err := c.post(ctx, "/v1/methods/"+url.PathEscape(r.MethodRef)+"/detach", r.Key,
		map[string]string{"customer": r.CustomerRef}, &out)
	if errors.Is(err, payment.ErrMissing) {
		return nil
	}
	return err
}

// Charge implements payment.Gateway.
func (c *Client) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	l, err := limits(r.Amount.Currency)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	if err := l.Check(r.Amount); err != nil {
		return payment.ChargeResult{}, err
	}
	var out charge
	err = c.post(ctx, "/v1/charges", r.Key, chargeRequest{
		Account: r.AccountRef, Payment: r.PaymentRef, Amount: r.Amount.Minor, Currency: string(r.Amount.Currency),
		Customer: r.CustomerRef, Method: r.MethodRef, OffSession: r.OffSession, Description: r.Description,
		ReturnURL: r.ReturnURL,
	}, &out)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	return out.port()
}

// ConfirmCharge implements payment.Gateway. The provider has taken the customer's answer by itself.
func (c *Client) ConfirmCharge(ctx context.Context, r payment.ConfirmRequest) (payment.ChargeResult, error) {
	return c.LookupCharge(ctx, payment.ChargeLookup{Ref: r.Ref})
}

// LookupCharge implements payment.Gateway.
func (c *Client) LookupCharge(ctx context.Context, l payment.ChargeLookup) (payment.ChargeResult, error) {
	if l.Ref != "" {
		var out charge
		if err := c.get(ctx, "/v1/charges/"+url.PathEscape(l.Ref), &out); err != nil {
			return payment.ChargeResult{}, err
		}
		return out.port()
	}
	var out list[charge]
	if err := c.get(ctx, "/v1/charges?payment="+url.QueryEscape(l.PaymentRef), &out); err != nil {
		return payment.ChargeResult{}, err
	}
	if len(out.Data) == 0 {
		return payment.ChargeResult{}, payment.ErrMissing
	}
	found := out.Data[0]
	for _, ch := range out.Data[1:] { // there should be one; money that moved counts most
		if ch.Status == statusSucceeded && found.Status != statusSucceeded {
			found = ch
		}
	}
	return found.port()
}

// CancelCharge implements payment.Gateway.
func (c *Client) CancelCharge(ctx context.Context, r payment.CancelRequest) (payment.ChargeResult, error) {
	var out charge
	err := c.post(ctx, "/v1/charges/"+url.PathEscape(r.Ref)+"/cancel", r.Key, struct{}{}, &out)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	return out.port()
}

// Refund implements payment.Gateway.
func (c *Client) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundResult, error) {
	var out refund
	err := c.post(ctx, "/v1/refunds", r.Key,
		refundRequest{r.ChargeRef, r.RefundID, r.Amount.Minor, string(r.Amount.Currency)}, &out)
	if err != nil {
		return payment.RefundResult{}, err
	}
	return out.port()
}

// LookupRefund implements payment.Gateway.
func (c *Client) LookupRefund(ctx context.Context, l payment.RefundLookup) (payment.RefundResult, error) {
	if l.Ref != "" {
		var out refund
		if err := c.get(ctx, "/v1/refunds/"+url.PathEscape(l.Ref), &out); err != nil {
			return payment.RefundResult{}, err
		}
		return out.port()
	}
	all, err := c.Refunds(ctx, l.ChargeRef)
	if err != nil {
		return payment.RefundResult{}, err
	}
	for _, f := range all {
		if f.RefundID == l.RefundID && l.RefundID != "" {
			return f, nil
		}
	}
	return payment.RefundResult{}, payment.ErrMissing
}

// Refunds implements payment.Gateway.
func (c *Client) Refunds(ctx context.Context, chargeRef string) ([]payment.RefundResult, error) {
	var in list[refund]
	if err := c.get(ctx, "/v1/refunds?charge="+url.QueryEscape(chargeRef), &in); err != nil {
		return nil, err
	}
	out := make([]payment.RefundResult, 0, len(in.Data))
	for _, f := range in.Data {
		p, err := f.port()
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// ListCharges implements payment.Gateway.
func (c *Client) ListCharges(ctx context.Context, from, to time.Time) iter.Seq2[payment.ChargeResult, error] {
	return func(yield func(payment.ChargeResult, error) bool) {
		q := url.Values{
			"from": {from.UTC().Format(time.RFC3339Nano)}, "to": {to.UTC().Format(time.RFC3339Nano)}, "limit": {"500"},
		}
		for {
			var out list[charge]
			if err := c.get(ctx, "/v1/charges?"+q.Encode(), &out); err != nil {
				yield(payment.ChargeResult{}, err)
				return
			}
			for _, ch := range out.Data {
				p, err := ch.port()
				if !yield(p, err) || err != nil {
					return
				}
			}
			if out.Next == "" {
				return
			}
			q.Set("after", out.Next)
		}
	}
}

// VerifyEvent implements payment.Gateway.
func (c *Client) VerifyEvent(header map[string][]string, body []byte, now time.Time) (payment.Event, error) {
	if err := payment.VerifySignature(http.Header(header).Get(signatureHeader), body, c.cfg.WebhookSecrets, now); err != nil {
		return payment.Event{}, err
	}
	var e eventBody
	if err := json.Unmarshal(body, &e); err != nil || e.ID == "" || e.Mode != payment.ModeTest {
		return payment.Event{}, payment.ErrSignature.Because(errors.New("signed, but not an event of the sandbox"))
	}
	kind := payment.ObjectKind(e.Object.Kind)
	switch kind {
	case payment.ObjectCharge, payment.ObjectRefund, payment.ObjectDispute, payment.ObjectMethod, payment.ObjectSetup:
	default:
		kind = payment.ObjectOther
	}
	return payment.Event{
		ID: e.ID, Type: e.Type, Object: kind, Ref: e.Object.ID, Succeeded: e.Type == chargeSucceeded, CreatedAt: e.Created,
	}, nil
}

// Fetch implements payment.Gateway.
func (c *Client) Fetch(ctx context.Context, kind payment.ObjectKind, ref string) (payment.Object, error) {
	ref = url.PathEscape(ref)
	var out payment.Object
	var err error
	switch kind {
	case payment.ObjectCharge:
		out.Charge, err = fetch(ctx, c, "/v1/charges/"+ref, charge.port)
	case payment.ObjectRefund:
		out.Refund, err = fetch(ctx, c, "/v1/refunds/"+ref, refund.port)
	case payment.ObjectDispute:
		out.Dispute, err = fetch(ctx, c, "/v1/disputes/"+ref, dispute.port)
	case payment.ObjectMethod:
		out.Method, err = fetch(ctx, c, "/v1/methods/"+ref, method.port)
	case payment.ObjectSetup:
		out.Setup, err = fetch(ctx, c, "/v1/setups/"+ref, setup.port)
	default:
		err = payment.ErrMissing
	}
	return out, err
}

// fetch gets one object and returns it in the port's words, or nil and an error.
func fetch[W, P any](ctx context.Context, c *Client, path string, port func(W) (P, error)) (*P, error) {
	var w W
	if err := c.get(ctx, path, &w); err != nil {
		return nil, err
	}
	p, err := port(w)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

func (c *Client) post(ctx context.Context, path, key string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return payment.ErrRejected.Because(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return payment.ErrRejected.Because(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	return c.do(r, out)
}

func (c *Client) get(ctx context.Context, path string, out any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.BaseURL+path, nil)
	if err != nil {
		return payment.ErrRejected.Because(err)
	}
	return c.do(r, out)
}

func (c *Client) do(r *http.Request, out any) error {
	r.Header.Set("Authorization", "Bearer "+c.cfg.SecretKey.Reveal())
	res, err := c.http.Do(r)
	if err != nil {
		return payment.TransportError(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return payment.ErrUnknown.Because(err)
	}
	if res.StatusCode != http.StatusOK {
		return statusError(res.StatusCode, res.Header, body)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return payment.ErrUnknown.Because(fmt.Errorf("the answer cannot be read: %w", err))
	}
	return nil
}

// statusError turns an answer that says no into an error of the port: by its code where that says
// more than the status.
func statusError(status int, h http.Header, body []byte) error {
	var in struct {
		Error apiError `json:"error"`
	}
	_ = json.Unmarshal(body, &in) // without a code the status decides
	cause := &in.Error
	switch in.Error.Code {
	case codeForeignToken:
		return payment.ErrForeignToken.Because(cause)
	case codeSetupIncomplete:
		return payment.ErrSetupIncomplete.Because(cause)
	case codeSetupExpired:
		return payment.ErrSetupExpired.Because(cause)
	case codeAmount:
		return payment.ErrAmount.Because(cause)
	case codeRefundTooLarge:
		return payment.ErrRefundTooLarge.Because(cause)
	case codeKeyReused: // something was done under the key, if not what this call asks for
		return payment.ErrUnknown.Because(cause)
	}
	return payment.StatusError(status, h, cause)
}
