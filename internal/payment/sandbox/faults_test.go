package sandbox_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// TestEveryOperationCanFailInEveryWay plans each fault of an answer for each operation: the caller
// sees what it should, and a repetition gives the one right result.
func TestEveryOperationCanFailInEveryWay(t *testing.T) {
	t.Parallel()

	type world struct {
		provider
		customer, method, charge string
	}
	no, yes := false, true
	operations := map[string]func(t *testing.T, w world) error{
		"setup": func(t *testing.T, w world) error {
			_, err := w.gateway.CreateSetup(t.Context(), payment.SetupRequest{Key: "k", AccountRef: "acct_1"})
			return err
		},
		"attach": func(t *testing.T, w world) error {
			_, err := w.gateway.Attach(t.Context(), payment.AttachRequest{Key: "k", AccountRef: "acct_1", Token: sandbox.TokenAmex})
			return err
		},
		"update": func(t *testing.T, w world) error {
			_, err := w.gateway.UpdateBilling(t.Context(), payment.UpdateRequest{Key: "k", CustomerRef: w.customer, MethodRef: w.method})
			return err
		},
		"detach": func(t *testing.T, w world) error {
			return w.gateway.Detach(t.Context(), payment.DetachRequest{Key: "k", CustomerRef: w.customer, MethodRef: w.method})
		},
		"charge": func(t *testing.T, w world) error {
			_, err := w.gateway.Charge(t.Context(), payment.ChargeRequest{
				Key: "k", Amount: usd(500), CustomerRef: w.customer, MethodRef: w.method, AccountRef: "acct_1", PaymentRef: "pay_k",
			})
			return err
		},
		"cancel": func(t *testing.T, w world) error {
			_, err := w.gateway.CancelCharge(t.Context(), payment.CancelRequest{Key: "k", Ref: w.charge})
			return err
		},
		"refund": func(t *testing.T, w world) error {
			_, err := w.gateway.Refund(t.Context(), payment.RefundRequest{Key: "k", ChargeRef: w.charge, Amount: usd(60), RefundID: "rfnd_k"})
			return err
		},
		"lookup": func(t *testing.T, w world) error {
			_, err := w.gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: w.charge})
			return err
		},
	}
	faults := map[string]struct {
		fault sandbox.Fault
		want  error
	}{
		"hang, carried out":       {sandbox.Fault{Kind: sandbox.FaultHang}, payment.ErrUnknown},
		"hang, not carried out":   {sandbox.Fault{Kind: sandbox.FaultHang, Effect: &no}, payment.ErrUnknown},
		"reset, carried out":      {sandbox.Fault{Kind: sandbox.FaultReset}, payment.ErrUnknown},
		"reset, not carried out":  {sandbox.Fault{Kind: sandbox.FaultReset, Effect: &no}, payment.ErrUnknown},
		"half of no answer":       {sandbox.Fault{Kind: sandbox.FaultGarbage, Effect: &no}, payment.ErrUnknown},
		"half an answer":          {sandbox.Fault{Kind: sandbox.FaultGarbage}, payment.ErrUnknown},
		"500":                     {sandbox.Fault{Kind: sandbox.FaultStatus}, payment.ErrUnknown},
		"503, carried out":        {sandbox.Fault{Kind: sandbox.FaultStatus, Status: 503, Effect: &yes}, payment.ErrUnknown},
		"302":                     {sandbox.Fault{Kind: sandbox.FaultStatus, Status: 302}, payment.ErrRejected},
		"rate limit":              {sandbox.Fault{Kind: sandbox.FaultRateLimit}, payment.ErrRetry},
		"key in use":              {sandbox.Fault{Kind: sandbox.FaultKeyInUse}, payment.ErrRetry},
		"slow, but within time":   {sandbox.Fault{Kind: sandbox.FaultSlow, DelayMS: 1}, nil},
		"webhook before answer":   {sandbox.Fault{Kind: sandbox.FaultWebhookFirst}, nil},
		"another account's fault": {sandbox.Fault{Kind: sandbox.FaultStatus, Account: "acct_2"}, nil},
	}
	for way, gateway := range transports {
		for op, run := range operations {
			t.Run(way+"/"+op, func(t *testing.T) {
				t.Parallel()

				for name, c := range faults {
					p := gateway(t, start(t, nil))
					request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
					ch, err := p.gateway.Charge(t.Context(), request(0))
					must(t, err)
					w := world{provider: p, customer: ch.CustomerRef, method: ch.MethodRef, charge: ch.Ref}
					f := c.fault
					f.Op = op
					must(t, p.control.Plan(t.Context(), f))
					// net/http repeats a read by itself when a kept connection breaks.
					err = run(t, w)
					repeated := op == "lookup" && err == nil && (f.Kind == sandbox.FaultHang || f.Kind == sandbox.FaultReset)
					if (!errors.Is(err, c.want) || (c.want == nil) != (err == nil)) && !repeated {
						t.Fatalf("%s: got %v, want %v", name, err, c.want)
					}
					if err := run(t, w); err != nil {
						t.Fatalf("repeated after %s: %v", name, err)
					}
					refunds, err := p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: w.charge})
					must(t, err)
					if refunds.Refunded.Minor > 60 {
						t.Fatalf("%s: refunded %s", name, refunds.Refunded)
					}
				}
			})
		}
	}
}

// However the call is carried, a caller who stops waiting does not know what came of it, and finds it later.
func TestCallerMayStopWaiting(t *testing.T) {
	t.Parallel()

	for way, gateway := range transports {
		t.Run(way, func(t *testing.T) {
			t.Parallel()

			p := gateway(t, start(t, func(c *sandbox.Config) { c.HangFor = time.Hour }))
			r := card(t, p.gateway, sandbox.TokenVisa, "acct_1")(1)
			must(t, p.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultHang}))
			waits, enough := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer enough()
			if _, err := p.gateway.Charge(waits, r); !errors.Is(err, payment.ErrUnknown) {
				t.Fatalf("got %v, want %v", err, payment.ErrUnknown)
			}
			if c, err := p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{PaymentRef: r.PaymentRef}); err != nil || c.Outcome != payment.OutcomeSucceeded {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

func TestPlanIsTakenInOrderAndCounted(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	must(t, p.control.Plan(t.Context(),
		sandbox.Fault{Op: "charge", Kind: sandbox.FaultRateLimit, Times: 2},
		sandbox.Fault{Op: "charge", Kind: sandbox.FaultDecline, Code: "do_not_honor"},
		sandbox.Fault{Op: "*", Kind: sandbox.FaultStatus, Status: 500},
	))
	r := request(1)
	for range 2 {
		if _, err := p.gateway.Charge(t.Context(), r); !errors.Is(err, payment.ErrRetry) {
			t.Fatalf("got %v", err)
		}
	}
	if c, err := p.gateway.Charge(t.Context(), r); err != nil || c.Decline == nil || c.Decline.Code != "do_not_honor" {
		t.Fatalf("got %+v, %v", c, err)
	}
	if _, err := p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{PaymentRef: r.PaymentRef}); !errors.Is(err, payment.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	if c, err := p.gateway.Charge(t.Context(), request(2)); err != nil || c.Outcome != payment.OutcomeSucceeded {
		t.Fatalf("got %+v, %v", c, err)
	}
}

func TestFaultsOfTheChargeItself(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	ctx := t.Context()
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	n := 0
	charge := func(f sandbox.Fault) (payment.ChargeRequest, payment.ChargeResult) {
		t.Helper()
		n++
		f.Op = "charge"
		must(t, p.control.Plan(ctx, f))
		r := request(n)
		c, err := p.gateway.Charge(ctx, r)
		must(t, err)
		return r, c
	}
	for _, kind := range []string{sandbox.FaultWrongAmount, sandbox.FaultWrongCurrency} {
		if r, c := charge(sandbox.Fault{Kind: kind}); !errors.Is(c.Agrees(r), payment.ErrMismatch) {
			t.Errorf("%s: %+v", kind, c)
		}
	}
	if _, c := charge(sandbox.Fault{Kind: sandbox.FaultRequiresAction}); c.Outcome != payment.OutcomeRequiresAction || c.NextAction.URL == "" {
		t.Errorf("action: %+v", c)
	}
	_, c := charge(sandbox.Fault{Kind: sandbox.FaultProcessing})
	if c.Outcome != payment.OutcomeProcessing {
		t.Errorf("processing: %+v", c)
	}
	must(t, p.control.Settle(ctx, c.Ref, ""))
	c, err := p.gateway.LookupCharge(ctx, payment.ChargeLookup{Ref: c.Ref})
	if err != nil || c.Outcome != payment.OutcomeSucceeded {
		t.Errorf("settled: %+v, %v", c, err)
	}
}

func TestControlRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	for _, f := range []sandbox.Fault{
		{Op: "everything", Kind: sandbox.FaultHang},
		{Op: "charge", Kind: "explode"},
		{Op: "charge", Kind: sandbox.FaultWebhookTwice},
		{Op: "webhook", Kind: sandbox.FaultHang},
		{Op: "charge", Kind: sandbox.FaultSlow, Effect: new(bool)},
		{Op: "charge", Kind: sandbox.FaultHang, Times: -1},
		{Op: "charge", Kind: sandbox.FaultStatus, Status: 200},
		{Op: "charge", Kind: sandbox.FaultSlow, DelayMS: -1},
	} {
		if err := p.control.Plan(t.Context(), f); err == nil {
			t.Errorf("%+v is planned", f)
		}
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"card of no setup":       p.control.GiveCard(ctx, "seti_none", sandbox.TokenVisa),
		"action of nothing":      p.control.Act(ctx, "ch_none", true),
		"behaviour of no method": p.control.Behave(ctx, "pm_none", sandbox.TokenVisa),
		"settling nothing":       p.control.Settle(ctx, "ch_none", ""),
		"refund of nothing":      p.control.Refund(ctx, "ch_none", 1),
		"closing no dispute":     p.control.CloseDispute(ctx, "dp_none", true),
	} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestNobodyIsServedWithoutTheKey(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	for _, path := range []string{
		"GET /v1/charges", "POST /v1/charges", "POST /v1/setups", "POST /v1/attachments", "POST /v1/refunds", "GET /v1/disputes/x",
		"GET /control/faults", "POST /control/faults", "DELETE /control/faults", "GET /control/events", "POST /control/events/x/deliver",
		"PUT /control/webhooks", "POST /control/keys/forget",
	} {
		method, where, _ := strings.Cut(path, " ")
		for _, authorization := range []string{"", "Bearer ", "Bearer sk_sandbox_wrong", "Basic " + secretKey.Reveal(), secretKey.Reveal()} {
			r, err := http.NewRequestWithContext(t.Context(), method, p.url+where, strings.NewReader("{}"))
			must(t, err)
			r.Header.Set("Authorization", authorization)
			res, err := http.DefaultClient.Do(r)
			must(t, err)
			_ = res.Body.Close()
			if res.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d", path, authorization, res.StatusCode)
			}
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	for body, want := range map[string]int{
		strings.Repeat(" ", 64<<10+1):                 http.StatusRequestEntityTooLarge,
		`{"account":"a","number":"x"}`:                http.StatusBadRequest,
		`{"account":`:                                 http.StatusBadRequest,
		`{"account":"a","return_url":"javascript:1"}`: http.StatusBadRequest,
		`{"account":"a","return_url":"/relative"}`:    http.StatusBadRequest,
		`{}`: http.StatusBadRequest,
		`{"account":"a","return_url":"https://u@example.com/"}`: http.StatusBadRequest,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/setups", strings.NewReader(body))
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+secretKey.Reveal())
		r.Header.Set("Idempotency-Key", "k")
		res, err := http.DefaultClient.Do(r)
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%.60s: %d, want %d", body, res.StatusCode, want)
		}
	}
}
