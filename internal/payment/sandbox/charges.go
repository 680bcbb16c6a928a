package sandbox

import (
	"strconv"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

const (
	minMinor = 50         // of a currency with two decimals or none
	maxMinor = 99_999_999 // the eight digits of the card networks
)

// limits are those of the card networks, roughly: half a unit to eight digits, and thousandths of a
// dinar in tens.
func limits(c money.Currency) (payment.Limits, error) {
	if _, err := money.ParseCurrency(string(c)); err != nil {
		return payment.Limits{}, payment.ErrAmount.Because(err)
	}
	l := payment.Limits{Minimum: money.New(minMinor, c), Maximum: money.New(maxMinor, c), Step: 1}
	if c.Exponent() == 3 {
		l.Minimum.Minor, l.Maximum.Minor, l.Step = 10*minMinor, 10*maxMinor, 10
	}
	return l, nil
}

type chargeRequest struct {
	Account     string `json:"account"`
	Payment     string `json:"payment"`
	Amount      int64  `json:"amount"`
	Currency    string `json:"currency"`
	Customer    string `json:"customer"`
	Method      string `json:"method"`
	OffSession  bool   `json:"off_session"`
	Description string `json:"description,omitempty"`
	ReturnURL   string `json:"return_url,omitempty"`
}

func (s *Server) createCharge(st *state, c *change, r *call) (any, error) {
	var in chargeRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Account == "" || in.Payment == "" {
		return nil, badRequest("account and payment are needed")
	}
	if err := checkReturnURL(in.ReturnURL); err != nil {
		return nil, err
	}
	amount := money.New(in.Amount, money.Currency(in.Currency))
	l, err := limits(amount.Currency)
	if err == nil {
		err = l.Check(amount)
	}
	if err != nil {
		return nil, &apiError{422, codeAmount, "the amount or its currency cannot be charged"}
	}
	m, err := ownMethod(st, in.Method, in.Customer)
	if err != nil {
		return nil, err
	}
	b := behaviours[m.Behaviour]
	ch := charge{
		ID: newID("ch_sbx_"), Amount: in.Amount, Currency: in.Currency, Customer: in.Customer, Method: in.Method,
		Account: in.Account, Payment: in.Payment, Description: in.Description, OffSession: in.OffSession,
		CreatedAt: r.now, ReturnURL: in.ReturnURL,
	}
	switch r.fault.Kind {
	case FaultWrongAmount:
		ch.Amount++
	case FaultWrongCurrency:
		if ch.Currency = "EUR"; in.Currency == "EUR" {
			ch.Currency = "USD"
		}
	}
	switch auth := b.chargeAuth || r.fault.is(FaultRequiresAction); {
	case r.fault.is(FaultDecline):
		ch = declineCharge(st, c, r, ch, declineCode(r.fault))
	case m.Card.expired(r.now):
		ch = declineCharge(st, c, r, ch, declineExpired)
	case auth && in.OffSession:
		ch = declineCharge(st, c, r, ch, declineAuthentication)
	case auth:
		ch.Status, ch.AuthTicket = statusRequiresAction, newID("auth_")
		ch.NextAction = &nextAction{Type: payment.ActionRedirect, URL: r.origin + "/3ds/" + ch.AuthTicket}
		emit(st, c, r, "charge.requires_action", payment.ObjectCharge, ch.ID)
	case b.processing || r.fault.is(FaultProcessing):
		ch.Status = statusProcessing
		emit(st, c, r, "charge.processing", payment.ObjectCharge, ch.ID)
	default:
		ch = settleCharge(st, c, r, ch, b)
	}
	c.Charges = append(c.Charges, ch)
	r.silent = b.timeout
	return ch.wire(), nil
}

// settleCharge lets the card's issuer decide.
func settleCharge(st *state, c *change, r *call, ch charge, b behaviour) charge {
	if b.charge != "" {
		return declineCharge(st, c, r, ch, b.charge)
	}
	ch.Status, ch.NextAction = statusSucceeded, nil
	emit(st, c, r, chargeSucceeded, payment.ObjectCharge, ch.ID)
	if b.dispute {
		ch = openDispute(st, c, r, ch, ch.Amount, "fraudulent")
	}
	return ch
}

func declineCharge(st *state, c *change, r *call, ch charge, code string) charge {
	ch.Status, ch.DeclineCode, ch.NextAction = statusDeclined, code, nil
	emit(st, c, r, "charge.failed", payment.ObjectCharge, ch.ID)
	return ch
}

// authenticateCharge records what the customer did at the 3-D Secure page.
func authenticateCharge(st *state, c *change, r *call, ch charge, approve bool) charge {
	if approve {
		ch = settleCharge(st, c, r, ch, behaviours[st.methods[ch.Method].Behaviour])
	} else {
		ch = declineCharge(st, c, r, ch, declineAuthenticationBad)
	}
	c.Charges = append(c.Charges, ch)
	return ch
}

func openDispute(st *state, c *change, r *call, ch charge, amount int64, reason string) charge {
	d := dispute{
		ID: newID("dp_sbx_"), Status: string(payment.DisputeOpen), Charge: ch.ID, Payment: ch.Payment,
		Amount: amount, Currency: ch.Currency, Reason: reason, CreatedAt: r.now,
	}
	ch.Disputed = true
	c.Disputes = append(c.Disputes, d)
	emit(st, c, r, "dispute.opened", payment.ObjectDispute, d.ID)
	return ch
}

func (s *Server) getCharge(st *state, r *call) (any, error) {
	ch, ok := st.charges[r.id]
	if !ok {
		return nil, notFound("charge")
	}
	return ch.wire(), nil
}

// listCharges answers with the charges of a payment, or with those of a span of time, page by page.
func (s *Server) listCharges(st *state, r *call) (any, error) {
	if p := r.query("payment"); p != "" {
		out := list[charge]{Data: []charge{}}
		for _, id := range st.byPayment[p] {
			out.Data = append(out.Data, st.charges[id].wire())
		}
		return out, nil
	}
	from, to, limit := time.Time{}, r.now.Add(time.Hour), 100
	for _, q := range []struct {
		name string
		into *time.Time
	}{{"from", &from}, {"to", &to}} {
		if v := r.query(q.name); v != "" {
			t, err := time.Parse(time.RFC3339Nano, v)
			if err != nil {
				return nil, badRequest("%s is an RFC 3339 time", q.name)
			}
			*q.into = t
		}
	}
	if v := r.query("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1000 {
			return nil, badRequest("limit is 1 to 1000")
		}
		limit = n
	}
	after := 0
	if v := r.query("after"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > len(st.order) {
			return nil, badRequest("after is not a cursor")
		}
		after = n
	}
	out := list[charge]{Data: []charge{}}
	for i, id := range st.order[after:] {
		ch := st.charges[id]
		if ch.CreatedAt.Before(from) || !ch.CreatedAt.Before(to) {
			continue
		}
		if len(out.Data) == limit {
			out.Next = strconv.Itoa(after + i)
			break
		}
		out.Data = append(out.Data, ch.wire())
	}
	return out, nil
}

func (s *Server) cancelCharge(st *state, c *change, r *call) (any, error) {
	ch, ok := st.charges[r.id]
	if !ok {
		return nil, notFound("charge")
	}
	if ch.Status == statusRequiresAction || ch.Status == statusProcessing {
		ch.Status, ch.NextAction = statusCanceled, nil
		c.Charges = []charge{ch}
		emit(st, c, r, "charge.canceled", payment.ObjectCharge, ch.ID)
	}
	return ch.wire(), nil
}

type refundRequest struct {
	Charge   string `json:"charge"`
	Refund   string `json:"refund"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

func (s *Server) createRefund(st *state, c *change, r *call) (any, error) {
	var in refundRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	return makeRefund(st, c, r, in)
}

func makeRefund(st *state, c *change, r *call, in refundRequest) (any, error) {
	ch, ok := st.charges[in.Charge]
	switch {
	case !ok:
		return nil, notFound("charge")
	case in.Amount <= 0, in.Currency != ch.Currency:
		return nil, badRequest("a refund is positive and in the charge's currency")
	case ch.Status != statusSucceeded, ch.Disputed, in.Amount > ch.Amount-ch.Refunded:
		return nil, &apiError{409, codeRefundTooLarge, "the charge has less left"}
	}
	f := refund{
		ID: newID("re_sbx_"), Status: statusSucceeded, Charge: ch.ID, Payment: ch.Payment, Refund: in.Refund,
		Amount: in.Amount, Currency: in.Currency, CreatedAt: r.now,
	}
	switch r.fault.Kind {
	case FaultDecline:
		f.Status, f.Failure = statusFailed, declineCode(r.fault)
	case FaultProcessing:
		f.Status = statusProcessing
	case FaultWrongAmount:
		f.Amount--
	}
	if f.Status != statusFailed {
		ch.Refunded += f.Amount
		c.Charges = []charge{ch}
	}
	c.Refunds = []refund{f}
	emit(st, c, r, "refund.created", payment.ObjectRefund, f.ID)
	return f, nil
}

func (s *Server) getRefund(st *state, r *call) (any, error) {
	f, ok := st.refunds[r.id]
	if !ok {
		return nil, notFound("refund")
	}
	return f, nil
}

func (s *Server) listRefunds(st *state, r *call) (any, error) {
	out := list[refund]{Data: []refund{}}
	for _, id := range st.byCharge[r.query("charge")] {
		out.Data = append(out.Data, st.refunds[id])
	}
	return out, nil
}

func (s *Server) getDispute(st *state, r *call) (any, error) {
	d, ok := st.disputes[r.id]
	if !ok {
		return nil, notFound("dispute")
	}
	return d, nil
}
