package stripe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/payment"
)

// symbolicPrefix begins the tokens of the sandbox provider, which are not Stripe's to judge.
const symbolicPrefix = "pm_sandbox_"

// customer returns the account's customer, and makes it where there is none. The request says nothing
// that could change, so that its key always fits.
func (g *Gateway) customer(ctx context.Context, known, account string) (string, error) {
	if known != "" {
		return known, nil
	}
	if account == "" {
		return "", payment.ErrRejected.Because(errors.New("no account"))
	}
	p := &stripe.CustomerCreateParams{Metadata: map[string]string{metaAccount: account}}
	p.SetIdempotencyKey("customer-" + account)
	c, err := g.client.V1Customers.Create(ctx, p)
	if err != nil {
		return "", classify(err)
	}
	return c.ID, nil
}

// CreateSetup implements payment.Gateway.
func (g *Gateway) CreateSetup(ctx context.Context, r payment.SetupRequest) (payment.Setup, error) {
	customer, err := g.customer(ctx, r.CustomerRef, r.AccountRef)
	if err != nil {
		return payment.Setup{}, err
	}
	p := &stripe.SetupIntentCreateParams{
		Customer:           &customer,
		Usage:              stripe.String("off_session"),
		PaymentMethodTypes: expand("card"),
		Metadata:           map[string]string{metaAccount: r.AccountRef},
	}
	p.SetIdempotencyKey(r.Key)
	si, err := g.client.V1SetupIntents.Create(ctx, p)
	if err != nil {
		return payment.Setup{}, classify(err)
	}
	out := g.setup(si)
	out.CustomerRef, out.AccountRef = customer, r.AccountRef
	out.ClientSecret = payment.Secret(si.ClientSecret)
	return out, nil
}

// setup reads a SetupIntent.
func (g *Gateway) setup(si *stripe.SetupIntent) payment.Setup {
	out := payment.Setup{
		Ref: si.ID, AccountRef: si.Metadata[metaAccount], CustomerRef: customerID(si.Customer),
		PublishableKey: g.cfg.PublishableKey, ExpiresAt: when(si.Created).Add(payment.SetupLifetime),
	}
	if si.PaymentMethod != nil {
		out.MethodRef = si.PaymentMethod.ID
	}
	switch si.Status {
	case stripe.SetupIntentStatusSucceeded:
		out.Outcome = payment.OutcomeSucceeded
	case stripe.SetupIntentStatusCanceled:
		out.Outcome = payment.OutcomeCanceled
	case stripe.SetupIntentStatusRequiresAction:
		out.Outcome = payment.OutcomeRequiresAction
		out.NextAction = &payment.NextAction{Type: payment.ActionProviderScript, ClientSecret: payment.Secret(si.ClientSecret)}
		if a := si.NextAction; a != nil && a.RedirectToURL != nil {
			out.NextAction = &payment.NextAction{Type: payment.ActionRedirect, URL: a.RedirectToURL.URL}
		}
	default:
		out.Outcome = payment.OutcomeProcessing
		if e := si.LastSetupError; e != nil && si.Status == stripe.SetupIntentStatusRequiresPaymentMethod {
			out.Outcome, out.Decline = payment.OutcomeDeclined, decline(e)
		}
	}
	return out
}

// LookupSetup implements payment.Gateway.
func (g *Gateway) LookupSetup(ctx context.Context, ref string) (payment.Setup, error) {
	si, err := g.setupIntent(ctx, ref)
	if err != nil {
		return payment.Setup{}, err
	}
	return g.setup(si), nil
}

func (g *Gateway) setupIntent(ctx context.Context, ref string) (*stripe.SetupIntent, error) {
	p := &stripe.SetupIntentRetrieveParams{}
	p.Expand = expand("payment_method")
	si, err := g.client.V1SetupIntents.Retrieve(ctx, ref, p)
	if err != nil {
		return nil, classify(err)
	}
	return si, nil
}

// Attach implements payment.Gateway.
func (g *Gateway) Attach(ctx context.Context, r payment.AttachRequest) (payment.AttachResult, error) {
	if (r.Setup == "") == (r.Token == "") {
		return payment.AttachResult{}, payment.ErrRejected.Because(errors.New("either a setup or a token is attached"))
	}
	if r.Setup != "" {
		return g.attachSetup(ctx, r)
	}
	if strings.HasPrefix(r.Token, symbolicPrefix) {
		return payment.AttachResult{}, payment.ErrForeignToken.Because(errors.New("a token of the sandbox"))
	}
	customer, err := g.customer(ctx, r.CustomerRef, r.AccountRef)
	if err != nil {
		return payment.AttachResult{}, err
	}
	p := &stripe.SetupIntentCreateParams{
		Customer:           &customer,
		PaymentMethod:      &r.Token,
		Confirm:            new(true),
		Usage:              stripe.String("off_session"),
		PaymentMethodTypes: expand("card"),
		ReturnURL:          optional(r.ReturnURL),
		Metadata:           map[string]string{metaAccount: r.AccountRef},
		Expand:             expand("payment_method"),
	}
	p.SetIdempotencyKey(r.Key)
	si, err := g.client.V1SetupIntents.Create(ctx, p)
	if e, ok := declined(err); ok {
		out := payment.AttachResult{Outcome: payment.OutcomeDeclined, CustomerRef: customer, Decline: decline(e)}
		if e.SetupIntent != nil {
			out.SetupRef = e.SetupIntent.ID
		}
		return out, nil
	}
	if e, ok := aboutMethod(err); ok {
		return payment.AttachResult{}, payment.ErrForeignToken.Because(summary(e))
	}
	if err != nil {
		return payment.AttachResult{}, classify(err)
	}
	return g.attachment(ctx, si, customer, r.Key, r.Billing)
}

// attachSetup takes a setup that the browser has finished, for the account that began it and no other.
func (g *Gateway) attachSetup(ctx context.Context, r payment.AttachRequest) (payment.AttachResult, error) {
	si, err := g.setupIntent(ctx, r.Setup)
	if errors.Is(err, payment.ErrMissing) {
		return payment.AttachResult{}, payment.ErrForeignToken.Because(err)
	}
	if err != nil {
		return payment.AttachResult{}, err
	}
	customer := customerID(si.Customer)
	if si.Metadata[metaAccount] != r.AccountRef || (r.CustomerRef != "" && customer != r.CustomerRef) {
		return payment.AttachResult{}, payment.ErrForeignToken.Because(errors.New("the setup is another account's"))
	}
	switch si.Status {
	case stripe.SetupIntentStatusRequiresPaymentMethod:
		if g.cfg.Clock().Sub(when(si.Created)) > payment.SetupLifetime {
			return payment.AttachResult{}, payment.ErrSetupExpired
		}
		if si.LastSetupError == nil {
			return payment.AttachResult{}, payment.ErrSetupIncomplete
		}
	case stripe.SetupIntentStatusCanceled:
		return payment.AttachResult{}, payment.ErrSetupExpired
	}
	return g.attachment(ctx, si, customer, r.Key, r.Billing)
}

// ConfirmSetup implements payment.Gateway.
func (g *Gateway) ConfirmSetup(ctx context.Context, r payment.ConfirmSetupRequest) (payment.AttachResult, error) {
	si, err := g.setupIntent(ctx, r.Ref)
	if err != nil {
		return payment.AttachResult{}, err
	}
	if si.Status == stripe.SetupIntentStatusRequiresConfirmation {
		p := &stripe.SetupIntentConfirmParams{Expand: expand("payment_method")}
		p.SetIdempotencyKey(r.Key)
		confirmed, err := g.client.V1SetupIntents.Confirm(ctx, r.Ref, p)
		if e, ok := declined(err); ok {
			return payment.AttachResult{
				Outcome: payment.OutcomeDeclined, SetupRef: r.Ref, CustomerRef: customerID(si.Customer), Decline: decline(e),
			}, nil
		}
		if err != nil {
			return payment.AttachResult{}, classify(err)
		}
		si = confirmed
	}
	return g.attachment(ctx, si, customerID(si.Customer), r.Key, r.Billing)
}

// attachment reads a SetupIntent and, where the card is saved, gives it its billing details. Each
// request has a key of its own made of the caller's, so that all of it can be repeated.
func (g *Gateway) attachment(ctx context.Context, si *stripe.SetupIntent, customer, key string, b payment.Billing) (payment.AttachResult, error) {
	su := g.setup(si)
	out := payment.AttachResult{
		Outcome: su.Outcome, SetupRef: su.Ref, CustomerRef: customer, NextAction: su.NextAction, Decline: su.Decline,
	}
	if out.Outcome != payment.OutcomeSucceeded {
		return out, nil
	}
	if si.PaymentMethod == nil {
		return payment.AttachResult{}, payment.ErrUnknown.Because(fmt.Errorf("setup %s succeeded without a method", si.ID))
	}
	if owner := customerID(si.PaymentMethod.Customer); owner != customer {
		return payment.AttachResult{}, payment.ErrForeignToken.Because(errors.New("the setup's card was removed, or is another customer's"))
	}
	m, err := g.updateMethod(ctx, payment.UpdateRequest{Key: key + "-billing", MethodRef: si.PaymentMethod.ID, Billing: b})
	if err != nil {
		return payment.AttachResult{}, err
	}
	out.Method = m
	return out, nil
}

// UpdateBilling implements payment.Gateway.
func (g *Gateway) UpdateBilling(ctx context.Context, r payment.UpdateRequest) (payment.MethodResult, error) {
	m, err := g.method(ctx, r.MethodRef)
	switch {
	case err != nil:
		return payment.MethodResult{}, err
	case m.CustomerRef == "":
		return payment.MethodResult{}, payment.ErrMissing.Because(errors.New("the card is removed"))
	case m.CustomerRef != r.CustomerRef:
		return payment.MethodResult{}, payment.ErrForeignToken.Because(errors.New("the card is another customer's"))
	}
	return g.updateMethod(ctx, r)
}

func (g *Gateway) updateMethod(ctx context.Context, r payment.UpdateRequest) (payment.MethodResult, error) {
	a := r.Billing.Address
	p := &stripe.PaymentMethodUpdateParams{
		BillingDetails: &stripe.PaymentMethodUpdateBillingDetailsParams{
			Name: &r.Billing.Name, Email: optional(r.Billing.Email),
			Address: &stripe.AddressParams{
				Line1: &a.Line1, Line2: &a.Line2, City: &a.City, State: &a.State, PostalCode: &a.PostalCode, Country: &a.Country,
			},
		},
	}
	if r.ExpMonth != 0 || r.ExpYear != 0 {
		p.Card = &stripe.PaymentMethodUpdateCardParams{
			ExpMonth: new(int64(r.ExpMonth)), ExpYear: new(int64(r.ExpYear)),
		}
	}
	p.SetIdempotencyKey(r.Key)
	pm, err := g.client.V1PaymentMethods.Update(ctx, r.MethodRef, p)
	if err != nil {
		return payment.MethodResult{}, classify(err)
	}
	return method(pm)
}

func (g *Gateway) method(ctx context.Context, ref string) (payment.MethodResult, error) {
	pm, err := g.client.V1PaymentMethods.Retrieve(ctx, ref, nil)
	if err != nil {
		return payment.MethodResult{}, classify(err)
	}
	return method(pm)
}

// method reads a PaymentMethod.
func method(pm *stripe.PaymentMethod) (payment.MethodResult, error) {
	c := pm.Card
	if pm.ID == "" || c == nil {
		return payment.MethodResult{}, payment.ErrUnknown.Because(fmt.Errorf("payment method %q is not a card", pm.ID))
	}
	out := payment.MethodResult{
		Ref: pm.ID, CustomerRef: customerID(pm.Customer),
		Card: payment.Card{
			Brand: string(c.Brand), Last4: c.Last4, ExpMonth: int(c.ExpMonth), ExpYear: int(c.ExpYear), Country: c.Country,
			Fingerprint: c.Fingerprint, Funding: string(c.Funding),
		},
	}
	if b := pm.BillingDetails; b != nil {
		out.Billing.Name, out.Billing.Email = b.Name, b.Email
		if a := b.Address; a != nil {
			out.Billing.Address = payment.Address{
				Line1: a.Line1, Line2: a.Line2, City: a.City, State: a.State, PostalCode: a.PostalCode, Country: a.Country,
			}
		}
	}
	return out, nil
}

// Detach implements payment.Gateway.
func (g *Gateway) Detach(ctx context.Context, r payment.DetachRequest) error {
	m, err := g.method(ctx, r.MethodRef)
	switch {
	case errors.Is(err, payment.ErrMissing):
		return nil
	case err != nil:
		return err
	case m.CustomerRef == "":
		return nil
	case m.CustomerRef != r.CustomerRef:
		return payment.ErrForeignToken.Because(errors.New("the card is another customer's"))
	}
	return g.detachMethod(ctx, r)
}

func (g *Gateway) detachMethod(ctx context.Context, r payment.DetachRequest) error {
	p := &stripe.PaymentMethodDetachParams{}
	p.SetIdempotencyKey(r.Key)
	_, err := g.client.V1PaymentMethods.Detach(ctx, r.MethodRef, p)
	if err := classify(err); !errors.Is(err, payment.ErrMissing) {
		return err
	}
	return nil
}
