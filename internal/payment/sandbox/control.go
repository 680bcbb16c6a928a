package sandbox

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/accrue-billing/accrue/internal/payment"
)

// controlRoutes are what a test, or a person, plays the rest of the world with: the card holder, the
// issuer, the bank's clerk and the network's faults.
func (s *Server) controlRoutes() {
	m := s.mux
	m.HandleFunc("GET /control/tokens", s.control(func(*state, *change, *call) (any, error) { return Tokens(), nil }))
	m.HandleFunc("GET /control/faults", s.control(func(st *state, _ *change, _ *call) (any, error) {
		return append([]Fault{}, st.faults...), nil
	}))
	m.HandleFunc("POST /control/faults", s.control(s.planFaults))
	m.HandleFunc("DELETE /control/faults", s.control(func(_ *state, c *change, _ *call) (any, error) {
		c.Faults = &[]Fault{}
		return []Fault{}, nil
	}))
	m.HandleFunc("POST /control/keys/forget", s.control(s.forgetKeys))
	m.HandleFunc("POST /control/setups/{id}/card", s.control(s.controlCard))
	m.HandleFunc("POST /control/actions/{id}", s.control(s.controlAction))
	m.HandleFunc("POST /control/methods/{id}", s.control(s.controlMethod))
	m.HandleFunc("POST /control/charges/{id}/settle", s.control(s.controlSettle))
	m.HandleFunc("POST /control/charges/{id}/refund", s.control(s.controlRefund))
	m.HandleFunc("POST /control/charges/{id}/dispute", s.control(s.controlDispute))
	m.HandleFunc("POST /control/refunds/{id}/settle", s.control(s.controlSettleRefund))
	m.HandleFunc("POST /control/disputes/{id}/close", s.control(s.controlCloseDispute))
	m.HandleFunc("GET /control/events", s.control(func(st *state, _ *change, _ *call) (any, error) { return sortedEvents(st), nil }))
	m.HandleFunc("POST /control/events/{id}/deliver", s.deliverNow)
	m.HandleFunc("PUT /control/webhooks", s.control(func(_ *state, c *change, r *call) (any, error) {
		var in struct {
			Hold bool `json:"hold"`
		}
		if err := r.decode(&in); err != nil {
			return nil, err
		}
		c.Hold = &in.Hold
		return in, nil
	}))
}

// control wraps an operation of the control API: authorised, durable, without key and faults.
func (s *Server) control(fn writer) http.HandlerFunc {
	return s.called(func(w http.ResponseWriter, _ *http.Request, in *call) {
		var result any
		err := s.store.update(func(st *state, c *change) (err error) {
			result, err = fn(st, c, in)
			return err
		})
		if err != nil {
			fail(w, err)
			return
		}
		s.nudge()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(result) // the caller is gone
	})
}

// planFaults adds one fault, or a list of them, to the end of the plan.
func (s *Server) planFaults(st *state, c *change, r *call) (any, error) {
	var in []Fault
	if !bytes.HasPrefix(bytes.TrimSpace(r.body), []byte("[")) {
		r.body = slices.Concat([]byte("["), r.body, []byte("]"))
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	for _, f := range in {
		if err := f.check(); err != nil {
			return nil, err
		}
	}
	plan := slices.Concat(st.faults, in)
	c.Faults = &plan
	return plan, nil
}

// forgetKeys does what 24 hours do: no key is known any more, and every charge still is.
func (s *Server) forgetKeys(st *state, c *change, _ *call) (any, error) {
	for k := range st.keys {
		c.Forget = append(c.Forget, k)
	}
	return map[string]int{"forgotten": len(c.Forget)}, nil
}

// controlCard plays the customer's browser at the card page.
func (s *Server) controlCard(st *state, c *change, r *call) (any, error) {
	var in struct {
		Token string `json:"token"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	su, ok := st.setups[r.id]
	if !ok {
		return nil, notFound("setup")
	}
	su, err := enterCard(st, c, r, su, in.Token)
	return su.wire(), err
}

// enterCard gives a setup the card that a token stands for.
func enterCard(st *state, c *change, r *call, su setup, token string) (setup, error) {
	if _, ok := behaviours[token]; !ok {
		return su, foreignToken("there is no such token")
	}
	if su = su.expired(r.now); su.Status != statusRequiresMethod {
		return su, &apiError{409, codeSetupExpired, "the setup takes no card any more"}
	}
	su = giveCard(st, c, r, su, token)
	c.Setups = append(c.Setups, su)
	return su, nil
}

// controlAction plays the customer at the 3-D Secure page of a setup or of a charge.
func (s *Server) controlAction(st *state, c *change, r *call) (any, error) {
	var in struct {
		Approve bool `json:"approve"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	id := r.id
	if waits, ok := st.tickets[id]; ok { // the end of the page's address, which is all that who called us is told
		id = waits
	}
	if su, ok := st.setups[id]; ok && su.expired(r.now).Status == statusRequiresAction {
		return authenticateSetup(st, c, r, su, in.Approve).wire(), nil
	}
	if ch, ok := st.charges[id]; ok && ch.Status == statusRequiresAction {
		return authenticateCharge(st, c, r, ch, in.Approve).wire(), nil
	}
	return nil, notFound("setup or charge that waits for the customer")
}

// controlMethod plays the issuer: the card behaves as another token's from now on, or is renewed.
func (s *Server) controlMethod(st *state, c *change, r *call) (any, error) {
	var in struct {
		Behaviour string `json:"behaviour,omitempty"`
		ExpMonth  int    `json:"exp_month,omitempty"`
		ExpYear   int    `json:"exp_year,omitempty"`
		Last4     string `json:"last4,omitempty"` // of the number that replaces the card's
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	m, ok := st.methods[r.id]
	if !ok {
		return nil, notFound("method")
	}
	if in.Behaviour != "" {
		if _, ok := behaviours[in.Behaviour]; !ok {
			return nil, badRequest("behaviour is a token")
		}
		m.Behaviour = in.Behaviour
	}
	if in.ExpMonth != 0 || in.ExpYear != 0 {
		if in.ExpMonth < 1 || in.ExpMonth > 12 || in.ExpYear < 2000 || in.ExpYear > 2100 {
			return nil, badRequest("exp_month is 1 to 12 and exp_year has four digits")
		}
		m.Card.ExpMonth, m.Card.ExpYear = in.ExpMonth, in.ExpYear
	}
	if in.Last4 != "" {
		if _, err := strconv.ParseUint(in.Last4, 10, 16); err != nil || len(in.Last4) != 4 {
			return nil, badRequest("last4 is four digits")
		}
		m.Card.Last4, m.Card.Fingerprint = in.Last4, fingerprintOf(m.Behaviour+" "+in.Last4)
	}
	if m.Card != st.methods[r.id].Card {
		emit(st, c, r, "method.updated", payment.ObjectMethod, m.ID)
	}
	c.Methods = []method{m}
	return m.wire(), nil
}

// controlSettle ends a charge that is processing: with success, or with a decline code.
func (s *Server) controlSettle(st *state, c *change, r *call) (any, error) {
	var in struct {
		Decline string `json:"decline,omitempty"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	ch, ok := st.charges[r.id]
	if !ok || ch.Status != statusProcessing {
		return nil, notFound("charge that is processing")
	}
	ch = settleCharge(st, c, r, ch, behaviour{charge: in.Decline})
	c.Charges = append(c.Charges, ch)
	return ch.wire(), nil
}

// controlRefund plays the clerk who refunds at the provider, past the service. No amount is all.
func (s *Server) controlRefund(st *state, c *change, r *call) (any, error) {
	var in struct {
		Amount int64 `json:"amount,omitempty"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	ch := st.charges[r.id]
	if in.Amount == 0 {
		in.Amount = ch.Amount - ch.Refunded
	}
	return makeRefund(st, c, r, refundRequest{Charge: r.id, Amount: in.Amount, Currency: ch.Currency})
}

func (s *Server) controlSettleRefund(st *state, c *change, r *call) (any, error) {
	var in struct {
		Failure string `json:"failure,omitempty"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	f, ok := st.refunds[r.id]
	if !ok || f.Status == statusFailed {
		return nil, notFound("refund that can be settled")
	}
	f.Status = statusSucceeded
	if in.Failure != "" {
		f.Status, f.Failure = statusFailed, in.Failure
		ch := st.charges[f.Charge]
		ch.Refunded -= f.Amount
		c.Charges = []charge{ch}
	}
	c.Refunds = []refund{f}
	emit(st, c, r, "refund.updated", payment.ObjectRefund, f.ID)
	return f, nil
}

// controlDispute plays the card holder's bank. No amount is all.
func (s *Server) controlDispute(st *state, c *change, r *call) (any, error) {
	var in struct {
		Amount int64  `json:"amount,omitempty"`
		Reason string `json:"reason,omitempty"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	ch, ok := st.charges[r.id]
	switch {
	case !ok:
		return nil, notFound("charge")
	case ch.Status != statusSucceeded, ch.Disputed, in.Amount < 0, in.Amount > ch.Amount:
		return nil, badRequest("only a charge that succeeded can be disputed, once, and no more than it took")
	}
	if in.Amount == 0 {
		in.Amount = ch.Amount
	}
	if in.Reason == "" {
		in.Reason = "fraudulent"
	}
	ch = openDispute(st, c, r, ch, in.Amount, in.Reason)
	c.Charges = []charge{ch}
	return c.Disputes[0], nil
}

func (s *Server) controlCloseDispute(st *state, c *change, r *call) (any, error) {
	var in struct {
		Status string `json:"status"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	d, ok := st.disputes[r.id]
	if !ok || d.Status != string(payment.DisputeOpen) {
		return nil, notFound("open dispute")
	}
	if in.Status != string(payment.DisputeWon) && in.Status != string(payment.DisputeLost) {
		return nil, badRequest("status is won or lost")
	}
	d.Status = in.Status
	c.Disputes = []dispute{d}
	emit(st, c, r, "dispute.closed", payment.ObjectDispute, d.ID)
	return d, nil
}

// deliverNow sends an event at once, also one that was taken before or is held back, and answers with
// the receiver's status.
func (s *Server) deliverNow(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(r) {
		fail(w, &apiError{401, codeUnauthorized, "the secret key is wrong"})
		return
	}
	var e event
	var ok bool
	if err := s.store.view(func(st *state) { e, ok = st.events[r.PathValue("id")] }); err != nil || !ok {
		fail(w, notFound("event"))
		return
	}
	status := s.deliver(r.Context(), e)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int{"status": status}) // the caller is gone
}
