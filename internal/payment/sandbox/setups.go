package sandbox

import (
	"net/url"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
)

type setupRequest struct {
	Account   string `json:"account"`
	Customer  string `json:"customer,omitempty"`
	ReturnURL string `json:"return_url,omitempty"`
}

type attachRequest struct {
	Account   string      `json:"account"`
	Customer  string      `json:"customer,omitempty"`
	Setup     string      `json:"setup,omitempty"`
	Token     string      `json:"token,omitempty"`
	Billing   billingInfo `json:"billing"`
	ReturnURL string      `json:"return_url,omitempty"`
}

// attachment is a setup with the method that it made.
type attachment struct {
	Setup  setup   `json:"setup"`
	Method *method `json:"method,omitempty"`
}

func (s *Server) createSetup(st *state, c *change, r *call) (any, error) {
	var in setupRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	su, err := newSetup(st, c, r, in)
	if err != nil {
		return nil, err
	}
	su.PageTicket = newID("card_")
	su.URL = r.origin + "/card/" + su.PageTicket
	c.Setups = []setup{su}
	return su.wire(), nil
}

// newSetup prepares a setup, and a customer where the account has none.
func newSetup(st *state, c *change, r *call, in setupRequest) (setup, error) {
	if in.Account == "" {
		return setup{}, badRequest("account is needed")
	}
	if err := checkReturnURL(in.ReturnURL); err != nil {
		return setup{}, err
	}
	known := st.customerOf[in.Account]
	switch {
	case in.Customer != "" && in.Customer != known:
		return setup{}, foreignToken("the customer is not the account's")
	case known == "":
		known = newID("cus_sbx_")
		c.Customers = append(c.Customers, customer{ID: known, Account: in.Account, CreatedAt: r.now})
	}
	id := newID("seti_sbx_")
	return setup{
		ID: id, Status: statusRequiresMethod, Account: in.Account, Customer: known,
		ClientSecret: id + "_secret_" + newID(""), ReturnURL: in.ReturnURL,
		CreatedAt: r.now, ExpiresAt: r.now.Add(payment.SetupLifetime),
	}, nil
}

func checkReturnURL(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return badRequest("return_url is an absolute http or https URL")
	}
	return nil
}

func (s *Server) getSetup(st *state, r *call) (any, error) {
	su, ok := st.setups[r.id]
	if !ok {
		return nil, notFound("setup")
	}
	su.ClientSecret = "" // told once, to whoever made it
	return su.expired(r.now).wire(), nil
}

func (s *Server) getAttachment(st *state, r *call) (any, error) {
	su, ok := st.setups[r.id]
	if !ok {
		return nil, notFound("setup")
	}
	m := st.methods[su.Method]
	return su.expired(r.now).attachment(m), nil
}

// expired returns the setup as canceled if it has waited too long for the customer.
func (su setup) expired(now time.Time) setup {
	if (su.Status == statusRequiresMethod || su.Status == statusRequiresAction) && now.After(su.ExpiresAt) {
		su.Status, su.NextAction = statusCanceled, nil
	}
	return su
}

// attachment returns the setup with the method that it made; the zero method is none.
func (su setup) attachment(m method) attachment {
	out := attachment{Setup: su.wire()}
	out.Setup.ClientSecret = "" // told once, to whoever made the setup
	if m.ID != "" {
		m = m.wire()
		out.Method = &m
	}
	return out
}

// attach saves a card from a finished setup, from a symbolic token or from a method that the same
// customer has already.
func (s *Server) attach(st *state, c *change, r *call) (any, error) {
	var in attachRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if (in.Setup == "") == (in.Token == "") {
		return nil, badRequest("either setup or token is needed")
	}
	if in.Setup != "" {
		return s.attachSetup(st, c, r, in)
	}
	su, err := newSetup(st, c, r, setupRequest{in.Account, in.Customer, in.ReturnURL})
	if err != nil {
		return nil, err
	}
	su.Billing = in.Billing
	if m, ok := st.methods[in.Token]; ok {
		if m.Customer != su.Customer {
			return nil, foreignToken("the payment method is another customer's, or was removed")
		}
		m.Billing = in.Billing
		su.Status, su.Method = statusSucceeded, m.ID
		c.Setups, c.Methods = []setup{su}, []method{m}
		emit(st, c, r, "method.updated", payment.ObjectMethod, m.ID)
		return afterChange(su, c), nil
	}
	if _, ok := behaviours[in.Token]; !ok {
		return nil, foreignToken("there is no such token")
	}
	su = giveCard(st, c, r, su, in.Token)
	if su.DeclineCode != "" {
		su.Status = statusDeclined // an attachment is one attempt; the card page may try again
	}
	c.Setups = append(c.Setups, su)
	r.silent = behaviours[in.Token].timeout
	return afterChange(su, c), nil
}

func (s *Server) attachSetup(st *state, c *change, r *call, in attachRequest) (any, error) {
	su, ok := st.setups[in.Setup]
	if !ok || su.Account != in.Account || (in.Customer != "" && in.Customer != su.Customer) {
		return nil, foreignToken("the setup is unknown or another account's")
	}
	su = su.expired(r.now)
	su.Billing = in.Billing
	switch su.Status {
	case statusRequiresMethod:
		return nil, &apiError{409, codeSetupIncomplete, "no card has been given"}
	case statusCanceled:
		return nil, &apiError{409, codeSetupExpired, "the setup has expired"}
	case statusSucceeded:
		m := st.methods[su.Method]
		if m.Customer != su.Customer {
			return nil, foreignToken("the setup was used, and its card removed")
		}
		m.Billing = in.Billing
		c.Methods = append(c.Methods, m)
	case statusRequiresAction:
		if err := checkReturnURL(in.ReturnURL); err != nil {
			return nil, err
		}
		if in.ReturnURL != "" {
			su.ReturnURL = in.ReturnURL
		}
	}
	c.Setups = []setup{su}
	return afterChange(su, c), nil
}

// afterChange returns the attachment with the method that the change makes or touches.
func afterChange(su setup, c *change) attachment {
	for _, m := range c.Methods {
		if m.ID == su.Method {
			return su.attachment(m)
		}
	}
	return su.attachment(method{})
}

// giveCard takes the setup as far as the token's card lets it: to success, to 3-D Secure, or to a
// decline, after which another card may be given.
func giveCard(st *state, c *change, r *call, su setup, token string) setup {
	b := behaviours[token]
	su.Token, su.DeclineCode = token, b.save
	if r.fault.is(FaultDecline) {
		su.DeclineCode = declineCode(r.fault)
	}
	switch {
	case su.DeclineCode != "":
		emit(st, c, r, "setup.failed", payment.ObjectSetup, su.ID)
	case b.saveAuth || r.fault.is(FaultRequiresAction):
		su.Status, su.AuthTicket = statusRequiresAction, newID("auth_")
		su.NextAction = &nextAction{Type: payment.ActionRedirect, URL: r.origin + "/3ds/" + su.AuthTicket}
		emit(st, c, r, "setup.requires_action", payment.ObjectSetup, su.ID)
	default:
		su = finishSetup(st, c, r, su)
	}
	return su
}

func declineCode(f Fault) string {
	if f.Code == "" {
		return "generic_decline"
	}
	return f.Code
}

// finishSetup makes the method.
func finishSetup(st *state, c *change, r *call, su setup) setup {
	m := method{
		ID: newID(methodPrefix), Customer: su.Customer, Card: cardFor(su.Token, r.now), Billing: su.Billing,
		CreatedAt: r.now, Behaviour: su.Token,
	}
	su.Status, su.Method, su.NextAction = statusSucceeded, m.ID, nil
	c.Methods = append(c.Methods, m)
	emit(st, c, r, "setup.succeeded", payment.ObjectSetup, su.ID)
	emit(st, c, r, "method.attached", payment.ObjectMethod, m.ID)
	return su
}

// authenticateSetup records what the customer did at the 3-D Secure page.
func authenticateSetup(st *state, c *change, r *call, su setup, approve bool) setup {
	if approve {
		su = finishSetup(st, c, r, su)
	} else {
		su.Status, su.NextAction, su.DeclineCode = statusDeclined, nil, "setup_intent_authentication_failure"
		emit(st, c, r, "setup.failed", payment.ObjectSetup, su.ID)
	}
	c.Setups = append(c.Setups, su)
	return su
}

func (s *Server) getMethod(st *state, r *call) (any, error) {
	m, ok := st.methods[r.id]
	if !ok {
		return nil, notFound("method")
	}
	return m.wire(), nil
}

type updateRequest struct {
	Customer string      `json:"customer"`
	Billing  billingInfo `json:"billing"`
	ExpMonth int         `json:"exp_month,omitempty"`
	ExpYear  int         `json:"exp_year,omitempty"`
}

func (s *Server) updateMethod(st *state, c *change, r *call) (any, error) {
	var in updateRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	m, err := ownMethod(st, r.id, in.Customer)
	if err != nil {
		return nil, err
	}
	m.Billing = in.Billing
	if in.ExpMonth != 0 || in.ExpYear != 0 {
		if in.ExpMonth < 1 || in.ExpMonth > 12 || in.ExpYear < 2000 || in.ExpYear > 2100 {
			return nil, badRequest("exp_month is 1 to 12 and exp_year has four digits")
		}
		m.Card.ExpMonth, m.Card.ExpYear = in.ExpMonth, in.ExpYear
	}
	c.Methods = []method{m}
	emit(st, c, r, "method.updated", payment.ObjectMethod, m.ID)
	return m.wire(), nil
}

func (s *Server) detachMethod(st *state, c *change, r *call) (any, error) {
	var in struct {
		Customer string `json:"customer"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	m, ok := st.methods[r.id]
	if !ok {
		return nil, notFound("method")
	}
	if m.Customer == "" {
		return m.wire(), nil // gone already
	}
	if m.Customer != in.Customer {
		return nil, foreignToken("the payment method is another customer's")
	}
	m.Customer = ""
	c.Methods = []method{m}
	emit(st, c, r, "method.detached", payment.ObjectMethod, m.ID)
	return m.wire(), nil
}

// ownMethod returns the method if the customer has it.
func ownMethod(st *state, id, customer string) (method, error) {
	m, ok := st.methods[id]
	switch {
	case !ok && strings.HasPrefix(id, methodPrefix), ok && m.Customer == "":
		return method{}, notFound("method")
	case !ok, m.Customer != customer:
		return method{}, foreignToken("the payment method is unknown or another customer's")
	}
	return m, nil
}
