package stripe_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment/gatewaytest"
)

// object is one of Stripe's, as its JSON is. An object that refers to another holds its identifier.
type object map[string]any

func (o object) str(key string) string { s, _ := o[key].(string); return s }

func (o object) num(key string) int64 { n, _ := o[key].(int64); return n }

// card is how one of the fake's test cards answers.
type card struct {
	saveDecline, chargeDecline string
	saveAuth, chargeAuth       bool
}

var cards = map[string]card{
	"pm_card_good":         {},
	"pm_card_saveDeclined": {saveDecline: "generic_decline"},
	"pm_card_declined":     {chargeDecline: "generic_decline"},
	"pm_card_funds":        {chargeDecline: "insufficient_funds"},
	"pm_card_lost":         {chargeDecline: "lost_card"},
	"pm_card_saveAuth":     {saveAuth: true},
	"pm_card_chargeAuth":   {saveAuth: true, chargeAuth: true},
}

// fakeStripe plays the part of Stripe that stripe-mock cannot: it remembers, declines, asks for
// authentication, honours idempotency keys and fails on demand. Its answers have the shapes and codes
// that Stripe documents; stripe-mock holds our requests to Stripe's specification.
type fakeStripe struct {
	mu      sync.Mutex
	now     time.Time
	objects map[string]object
	order   []string // payment intents as they were made
	refunds map[string][]string
	cards   map[string]card // of payment methods
	keys    map[string]stored
	busy    map[string]bool
	fail    gatewaytest.Failure
	seq     int
	seen    []string // headers and bodies of requests, for what must not be in them
}

type stored struct {
	fingerprint string
	status      int
	body        []byte
}

// problem is an answer that says no.
type problem struct {
	status                         int
	kind, code, declineCode, param string
	message                        string
	paymentIntent, setupIntent     object
	remembered                     bool // the key replays it
}

func (p *problem) Error() string { return p.message }

func newFake(t *testing.T, now time.Time) (*fakeStripe, string) {
	t.Helper()
	f := &fakeStripe{
		now: now, objects: map[string]object{}, refunds: map[string][]string{}, cards: map[string]card{},
		keys: map[string]stored{}, busy: map[string]bool{},
	}
	m := http.NewServeMux()
	m.HandleFunc("POST /v1/customers", f.handle(f.createCustomer))
	m.HandleFunc("POST /v1/setup_intents", f.handle(f.createSetupIntent))
	m.HandleFunc("GET /v1/setup_intents/{id}", f.handle(f.get))
	m.HandleFunc("POST /v1/payment_methods/{id}", f.handle(f.updateMethod))
	m.HandleFunc("POST /v1/payment_methods/{id}/detach", f.handle(f.detach))
	m.HandleFunc("GET /v1/payment_methods/{id}", f.handle(f.get))
	m.HandleFunc("POST /v1/payment_intents", f.handle(f.createPaymentIntent))
	m.HandleFunc("GET /v1/payment_intents", f.handle(f.listPaymentIntents))
	m.HandleFunc("GET /v1/payment_intents/search", f.handle(f.searchPaymentIntents))
	m.HandleFunc("GET /v1/payment_intents/{id}", f.handle(f.get))
	m.HandleFunc("POST /v1/payment_intents/{id}/cancel", f.handle(f.cancel))
	m.HandleFunc("POST /v1/refunds", f.handle(f.createRefund))
	m.HandleFunc("GET /v1/refunds", f.handle(f.listRefunds))
	m.HandleFunc("GET /v1/refunds/{id}", f.handle(f.get))
	m.HandleFunc("GET /v1/disputes/{id}", f.handle(f.get))
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return f, s.URL
}

func missing(param, id string) *problem {
	return &problem{status: 404, kind: "invalid_request_error", code: "resource_missing", param: param, message: "No such object: " + id}
}

func invalid(code, param, message string) *problem {
	return &problem{status: 400, kind: "invalid_request_error", code: code, param: param, message: message}
}

// handle wraps an operation with authentication, keys and failures, under one lock.
func (f *fakeStripe) handle(fn func(id string, form url.Values) (object, *problem)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secretKey.Reveal() {
			f.write(w, 401, object{"error": object{"type": "invalid_request_error", "message": "Invalid API Key"}})
			return
		}
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		key, fingerprint := r.Header.Get("Idempotency-Key"), r.URL.Path+"?"+r.Form.Encode()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.seen = append(f.seen, key+" "+fingerprint)

		var failure gatewaytest.Failure
		if r.Method == http.MethodPost && r.URL.Path == "/v1/payment_intents" {
			failure, f.fail = f.fail, ""
		}
		switch failure {
		case gatewaytest.NotCarried:
			panic(http.ErrAbortHandler)
		case gatewaytest.Broken:
			f.write(w, 500, object{"error": object{"type": "api_error", "message": "An unknown error occurred"}})
			return
		case gatewaytest.Busy:
			w.Header().Set("Retry-After", "2")
			f.write(w, 429, object{"error": object{"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}})
			return
		case gatewaytest.KeyInUse:
			f.write(w, 409, object{"error": object{"type": "idempotency_error", "code": "idempotency_key_in_use", "message": "There is another request in progress"}})
			return
		}
		status, body := f.answer(r, key, fingerprint, failure, fn)
		switch failure {
		case gatewaytest.NoAnswer:
			panic(http.ErrAbortHandler)
		case gatewaytest.HalfAnAnswer:
			body = body[:len(body)/2]
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

func (f *fakeStripe) answer(r *http.Request, key, fingerprint string, failure gatewaytest.Failure,
	fn func(string, url.Values) (object, *problem),
) (int, []byte) {
	if old, ok := f.keys[key]; ok && r.Method == http.MethodPost {
		if old.fingerprint != fingerprint {
			return 400, encode(object{"error": object{"type": "idempotency_error", "message": "Keys for idempotent requests can only be used with the same parameters"}})
		}
		return old.status, old.body
	}
	if failure == gatewaytest.WrongAmount {
		n, _ := strconv.Atoi(r.Form.Get("amount"))
		r.Form.Set("amount", strconv.Itoa(n+1))
	}
	o, p := fn(r.PathValue("id"), r.Form)
	status, remembered := 200, true
	if p != nil {
		status, remembered = p.status, p.remembered
		e := object{"type": p.kind, "code": p.code, "message": p.message, "param": p.param}
		if p.declineCode != "" {
			e["decline_code"] = p.declineCode
		}
		if p.paymentIntent != nil {
			e["payment_intent"] = p.paymentIntent
		}
		if p.setupIntent != nil {
			e["setup_intent"] = p.setupIntent
		}
		o = object{"error": e}
	}
	body := encode(f.expand(o, r.Form["expand[0]"]))
	if r.Method == http.MethodPost && remembered {
		f.keys[key] = stored{fingerprint, status, body}
	}
	return status, body
}

// expand puts objects in the place of their identifiers, as the request asks.
func (f *fakeStripe) expand(o object, names []string) object {
	out := object{}
	maps.Copy(out, o)
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, "data."); ok {
			var data []object
			for _, item := range o["data"].([]object) {
				data = append(data, f.expand(item, []string{rest}))
			}
			out["data"] = data
		} else if id := o.str(name); id != "" {
			out[name] = f.objects[id]
		}
	}
	return out
}

func encode(o object) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return b
}

func (f *fakeStripe) write(w http.ResponseWriter, status int, o object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(o))
}

// add stores a new object under a new identifier.
func (f *fakeStripe) add(prefix, kind string, o object) object {
	f.seq++
	o["id"], o["object"], o["created"], o["livemode"] = fmt.Sprintf("%s_%06d", prefix, f.seq), kind, f.now.Unix(), false
	f.objects[o.str("id")] = o
	return o
}

func metadata(form url.Values) object {
	out := object{}
	for k, v := range form {
		if name, ok := strings.CutPrefix(k, "metadata["); ok {
			out[strings.TrimSuffix(name, "]")] = v[0]
		}
	}
	return out
}

func (f *fakeStripe) get(id string, _ url.Values) (object, *problem) {
	if o, ok := f.objects[id]; ok {
		return o, nil
	}
	return nil, missing("id", id)
}

func (f *fakeStripe) createCustomer(_ string, form url.Values) (object, *problem) {
	return f.add("cus", "customer", object{"metadata": metadata(form)}), nil
}

func (f *fakeStripe) createSetupIntent(_ string, form url.Values) (object, *problem) {
	customer, token := form.Get("customer"), form.Get("payment_method")
	if _, ok := f.objects[customer]; !ok {
		return nil, missing("customer", customer)
	}
	if token != "" {
		pm, exists := f.objects[token]
		_, isCard := cards[token]
		switch {
		case exists && pm["customer"] != customer && pm["customer"] != nil:
			return nil, invalid("", "payment_method", "The payment method belongs to another customer")
		case exists && pm["customer"] == nil:
			return nil, invalid("payment_method_unexpected_state", "payment_method", "It was detached and may not be used again")
		case !exists && !isCard:
			return nil, &problem{status: 400, kind: "invalid_request_error", code: "resource_missing", param: "payment_method", message: "No such PaymentMethod"}
		}
	}
	si := f.add("seti", "setup_intent", object{
		"status": "requires_payment_method", "customer": customer, "metadata": metadata(form), "client_secret": "canary_secret_setup",
	})
	if token == "" {
		return si, nil
	}
	return si, f.giveCard(si, token, form.Get("return_url"))
}

// giveCard confirms a setup intent with a card.
func (f *fakeStripe) giveCard(si object, token, returnURL string) *problem {
	c, isCard := cards[token]
	if !isCard { // a method that the customer has
		si["status"], si["payment_method"] = "succeeded", token
		return nil
	}
	if c.saveDecline != "" {
		return &problem{
			status: 402, kind: "card_error", code: "card_declined", declineCode: c.saveDecline, message: "Your card was declined.",
			setupIntent: si, remembered: true,
		}
	}
	pm := f.add("pm", "payment_method", object{
		"type": "card", "customer": si["customer"], "billing_details": object{},
		"card": object{
			"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": f.now.Year() + 3, "country": "US", "fingerprint": "fp_" + token, "funding": "credit",
		},
	})
	f.cards[pm.str("id")] = c
	si["payment_method"] = pm.str("id")
	if c.saveAuth {
		pm["customer"] = nil // attached when the setup succeeds
		si["status"], si["next_action"] = "requires_action", nextAction(returnURL)
		return nil
	}
	si["status"] = "succeeded"
	return nil
}

func nextAction(returnURL string) object {
	if returnURL == "" {
		return object{"type": "use_stripe_sdk", "use_stripe_sdk": object{}}
	}
	return object{"type": "redirect_to_url", "redirect_to_url": object{"url": "https://hooks.example.com/3ds", "return_url": returnURL}}
}

// act plays the customer at the 3-D Secure page.
func (f *fakeStripe) act(id string, approve bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.objects[id]
	delete(o, "next_action")
	setup := o.str("object") == "setup_intent"
	switch {
	case approve && setup:
		o["status"] = "succeeded"
		f.objects[o.str("payment_method")]["customer"] = o["customer"]
	case approve:
		f.succeed(o)
	default:
		field, code := "last_payment_error", "payment_intent_authentication_failure"
		if setup {
			field, code = "last_setup_error", "setup_intent_authentication_failure"
		}
		o["status"], o[field] = "requires_payment_method", object{"type": "invalid_request_error", "code": code, "message": "not authenticated"}
	}
}

func (f *fakeStripe) updateMethod(id string, form url.Values) (object, *problem) {
	pm, ok := f.objects[id]
	if !ok {
		return nil, missing("payment_method", id)
	}
	if pm["customer"] == nil {
		return nil, invalid("", "", "You must save this PaymentMethod to a customer before you can update it.")
	}
	details, address := object{}, object{}
	for k, v := range form {
		if name, ok := strings.CutPrefix(k, "billing_details[address]["); ok {
			address[strings.TrimSuffix(name, "]")] = v[0]
		} else if name, ok := strings.CutPrefix(k, "billing_details["); ok {
			details[strings.TrimSuffix(name, "]")] = v[0]
		}
	}
	details["address"] = address
	pm["billing_details"] = details
	for _, name := range []string{"exp_month", "exp_year"} {
		if v := form.Get("card[" + name + "]"); v != "" {
			pm["card"].(object)[name], _ = strconv.Atoi(v)
		}
	}
	return pm, nil
}

func (f *fakeStripe) detach(id string, _ url.Values) (object, *problem) {
	pm, ok := f.objects[id]
	if !ok {
		return nil, missing("payment_method", id)
	}
	if pm["customer"] == nil {
		return nil, invalid("", "", "The payment method you provided is not attached to a customer so detachment is impossible.")
	}
	pm["customer"] = nil
	return pm, nil
}

func (f *fakeStripe) createPaymentIntent(_ string, form url.Values) (object, *problem) {
	pm, ok := f.objects[form.Get("payment_method")]
	switch {
	case !ok:
		return nil, &problem{status: 400, kind: "invalid_request_error", code: "resource_missing", param: "payment_method", message: "No such PaymentMethod"}
	case pm["customer"] == nil:
		return nil, invalid("payment_method_unexpected_state", "payment_method", "It was detached and may not be used again")
	case pm["customer"] != form.Get("customer"):
		return nil, invalid("", "payment_method", "The payment method belongs to another customer")
	}
	amount, _ := strconv.ParseInt(form.Get("amount"), 10, 64)
	pi := f.add("pi", "payment_intent", object{
		"amount": amount, "currency": form.Get("currency"), "customer": form.Get("customer"), "payment_method": pm.str("id"),
		"metadata": metadata(form), "client_secret": "canary_secret_payment", "status": "requires_confirmation",
	})
	f.order = append(f.order, pi.str("id"))
	c, offSession := f.cards[pm.str("id")], form.Get("off_session") == "true"
	declineCode := c.chargeDecline
	if c.chargeAuth && offSession {
		declineCode = "authentication_required"
	}
	switch {
	case declineCode != "":
		code := "card_declined"
		if declineCode == "authentication_required" {
			code = declineCode
		}
		pi["status"] = "requires_payment_method"
		pi["last_payment_error"] = object{"type": "card_error", "code": code, "decline_code": declineCode, "message": "Your card was declined."}
		return nil, &problem{
			status: 402, kind: "card_error", code: code, declineCode: declineCode, message: "Your card was declined.",
			paymentIntent: f.copyOf(pi), remembered: true,
		}
	case c.chargeAuth:
		pi["status"], pi["next_action"] = "requires_action", nextAction(form.Get("return_url"))
	default:
		f.succeed(pi)
	}
	return pi, nil
}

func (f *fakeStripe) copyOf(o object) object { return f.expand(o, nil) }

func (f *fakeStripe) succeed(pi object) {
	ch := f.add("ch", "charge", object{
		"payment_intent": pi.str("id"), "amount": pi.num("amount"), "currency": pi.str("currency"), "amount_refunded": int64(0), "disputed": false,
	})
	pi["status"], pi["amount_received"], pi["latest_charge"] = "succeeded", pi.num("amount"), ch.str("id")
}

func (f *fakeStripe) cancel(id string, _ url.Values) (object, *problem) {
	pi, ok := f.objects[id]
	if !ok {
		return nil, missing("intent", id)
	}
	if s := pi.str("status"); s == "succeeded" || s == "canceled" {
		return nil, invalid("payment_intent_unexpected_state", "", "You cannot cancel this PaymentIntent because it has a status of "+s)
	}
	pi["status"] = "canceled"
	delete(pi, "next_action")
	return pi, nil
}

// page returns a list as Stripe does: newest first, bounded, with a cursor.
func page(all []object, form url.Values) object {
	limit, _ := strconv.Atoi(form.Get("limit"))
	limit = min(max(limit, 1), 3) // small, so that there is more than one page
	if after := form.Get("starting_after"); after != "" {
		i := slices.IndexFunc(all, func(o object) bool { return o.str("id") == after })
		all = all[i+1:]
	}
	n := min(limit, len(all))
	return object{"object": "list", "data": append([]object{}, all[:n]...), "has_more": len(all) > n}
}

func (f *fakeStripe) listPaymentIntents(_ string, form url.Values) (object, *problem) {
	var all []object
	for _, id := range slices.Backward(f.order) {
		pi := f.objects[id]
		from, _ := strconv.ParseInt(form.Get("created[gte]"), 10, 64)
		to, err := strconv.ParseInt(form.Get("created[lt]"), 10, 64)
		created := pi.num("created")
		if created < from || (err == nil && created >= to) || (form.Get("customer") != "" && pi.str("customer") != form.Get("customer")) {
			continue
		}
		all = append(all, pi)
	}
	return page(all, form), nil
}

func (f *fakeStripe) searchPaymentIntents(_ string, form url.Values) (object, *problem) {
	want, ok := strings.CutPrefix(form.Get("query"), "metadata['accrue_payment']:'")
	if !ok {
		return nil, invalid("", "query", "cannot parse the query")
	}
	var all []object
	for _, id := range f.order {
		if f.objects[id]["metadata"].(object).str("accrue_payment") == strings.TrimSuffix(want, "'") {
			all = append(all, f.objects[id])
		}
	}
	return object{"object": "search_result", "data": append([]object{}, all...), "has_more": false}, nil
}

func (f *fakeStripe) createRefund(_ string, form url.Values) (object, *problem) {
	pi, ok := f.objects[form.Get("payment_intent")]
	if !ok {
		return nil, missing("payment_intent", form.Get("payment_intent"))
	}
	amount, _ := strconv.ParseInt(form.Get("amount"), 10, 64)
	ch := f.objects[pi.str("latest_charge")]
	switch {
	case ch == nil:
		return nil, invalid("payment_intent_unexpected_state", "", "This PaymentIntent does not have a successful charge to refund.")
	case ch["disputed"] == true:
		return nil, invalid("charge_disputed", "", "The charge has been charged back.")
	case ch.num("amount_refunded") == ch.num("amount"):
		return nil, invalid("charge_already_refunded", "", "The charge has already been refunded.")
	case ch.num("amount_refunded")+amount > ch.num("amount"):
		return nil, invalid("", "amount", "Refund amount is greater than unrefunded amount on charge")
	}
	ch["amount_refunded"] = ch.num("amount_refunded") + amount
	re := f.add("re", "refund", object{
		"amount": amount, "currency": pi.str("currency"), "payment_intent": pi.str("id"), "charge": ch.str("id"),
		"metadata": metadata(form), "status": "succeeded",
	})
	f.refunds[pi.str("id")] = append(f.refunds[pi.str("id")], re.str("id"))
	return re, nil
}

func (f *fakeStripe) listRefunds(_ string, form url.Values) (object, *problem) {
	var all []object
	for _, id := range slices.Backward(f.refunds[form.Get("payment_intent")]) {
		all = append(all, f.objects[id])
	}
	return page(all, form), nil
}

func (f *fakeStripe) openDispute(piID string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	pi := f.objects[piID]
	ch := f.objects[pi.str("latest_charge")]
	ch["disputed"] = true
	return f.add("dp", "dispute", object{
		"amount": ch.num("amount"), "currency": ch.str("currency"), "payment_intent": piID, "charge": ch.str("id"), "reason": "fraudulent",
		"status": "needs_response", "balance_transactions": []object{{"id": "txn_1", "object": "balance_transaction", "amount": -ch.num("amount")}},
	}).str("id")
}
