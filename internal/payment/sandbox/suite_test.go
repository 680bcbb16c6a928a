package sandbox_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/gatewaytest"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

const (
	secretKey = payment.Secret("sk_sandbox_0123456789abcdef")
	oldSecret = payment.Secret("whsec_old")
	newSecret = payment.Secret("whsec_new")
)

var now = time.Date(2026, 11, 23, 10, 15, 0, 0, time.UTC)

// provider is a sandbox that listens, with the gateway to it and the control of it.
type provider struct {
	server  *sandbox.Server
	url     string
	gateway *sandbox.Client
	control sandbox.Control
}

func start(t *testing.T, change func(*sandbox.Config)) provider {
	t.Helper()
	cfg := sandbox.Config{
		Mode: payment.ModeTest, SecretKey: secretKey, WebhookSecret: newSecret, HangFor: 20 * time.Millisecond,
		Clock: clock.Fixed(now),
	}
	if change != nil {
		change(&cfg)
	}
	server, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(server)
	gateway, err := sandbox.NewClient(sandbox.ClientConfig{
		Mode: payment.ModeTest, BaseURL: listener.URL, SecretKey: secretKey, WebhookSecrets: []payment.Secret{oldSecret, newSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		gateway.Close()
		listener.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return provider{server, listener.URL, gateway, sandbox.Control{BaseURL: listener.URL, SecretKey: secretKey}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func faultFor(f gatewaytest.Failure) sandbox.Fault {
	no := false
	switch f {
	case gatewaytest.NoAnswer:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultHang}
	case gatewaytest.NotCarried:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Effect: &no}
	case gatewaytest.Broken:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultStatus, Status: 503}
	case gatewaytest.Busy:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultRateLimit}
	case gatewaytest.KeyInUse:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultKeyInUse}
	case gatewaytest.HalfAnAnswer:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultGarbage}
	case gatewaytest.WrongAmount:
		return sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount}
	}
	panic("no fault for " + f)
}

// played makes p's gateway speak to its provider without a socket between them.
func played(t *testing.T, p provider) provider {
	t.Helper()
	var err error
	p.gateway, err = sandbox.NewClient(sandbox.ClientConfig{
		Mode: payment.ModeTest, BaseURL: p.url, Provider: p.server, SecretKey: secretKey, WebhookSecrets: []payment.Secret{oldSecret, newSecret},
	})
	must(t, err)
	return p
}

// transports are the ways from the gateway to its provider.
var transports = map[string]func(*testing.T, provider) provider{
	"OverTheNetwork": func(_ *testing.T, p provider) provider { return p },
	"InProcess":      played,
}

func TestSuite(t *testing.T) {
	t.Parallel()

	for name, gateway := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runSuite(t, gateway)
		})
	}
}

func runSuite(t *testing.T, gateway func(*testing.T, provider) provider) {
	t.Helper()
	gatewaytest.Run(t, func(t *testing.T) gatewaytest.Harness {
		p := gateway(t, start(t, func(c *sandbox.Config) { c.Dir = t.TempDir() }))
		return gatewaytest.Harness{
			Gateway: p.gateway, Now: now, Remembers: true,
			Tokens: gatewaytest.Tokens{
				Good: sandbox.TokenVisa, SaveDeclined: sandbox.TokenDeclined, ChargeDeclined: sandbox.TokenChargeDeclined,
				InsufficientFunds: sandbox.TokenInsufficientFunds, Lost: sandbox.TokenLost,
				SaveAuth: sandbox.Token3DSSetup, ChargeAuth: sandbox.Token3DSRequired,
			},
			GiveCard:   func(t *testing.T, ref, token string) { must(t, p.control.GiveCard(t.Context(), ref, token)) },
			Act:        func(t *testing.T, ref string, yes bool) { must(t, p.control.Act(t.Context(), ref, yes)) },
			Fail:       func(t *testing.T, f gatewaytest.Failure) { must(t, p.control.Plan(t.Context(), faultFor(f))) },
			ForgetKeys: func(t *testing.T) { must(t, p.control.ForgetKeys(t.Context())) },
			RefundOutside: func(t *testing.T, ref string, minor int64) {
				must(t, p.control.Refund(t.Context(), ref, minor))
			},
			Dispute: func(t *testing.T, ref string) string {
				d, err := p.control.Dispute(t.Context(), ref)
				must(t, err)
				return d
			},
			Event: signedEvent,
		}
	})
}

// signedEvent is written by hand, so that it would notice a change of the wire.
func signedEvent(t *testing.T, kind payment.ObjectKind, ref string, at time.Time, secret int) (http.Header, []byte) {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"id": "evt_sbx_abc", "type": "charge.succeeded", "mode": "test", "created": at,
		"object": map[string]string{"kind": string(kind), "id": ref},
	})
	must(t, err)
	h := http.Header{}
	h.Set("Sandbox-Signature", payment.Sign([]payment.Secret{oldSecret, newSecret, "whsec_unknown"}[secret], body, at))
	return h, body
}

func runWebhooks(t *testing.T, s *sandbox.Server) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
