// Package stripe is the Stripe gateway.
//
// It owns: how the words of payment.Gateway are said to Stripe and how Stripe's answers are read:
// SetupIntents, PaymentMethods, PaymentIntents, refunds, disputes, signed events, amounts in Stripe's
// own minor units, and what each of its errors means.
//
// It does not own: when anything is called, and what follows. It keeps nothing between calls, has no
// globals, and is the only package that knows stripe-go.
//
// A charge is a PaymentIntent, a setup a SetupIntent, and our identifiers travel in their metadata. A
// PaymentIntent is created and confirmed in one request, so that one key covers both; retries are the
// caller's alone (stripe-go's are off).
package stripe

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/payment"
)

// Name is the gateway's name beside every reference.
const Name = "stripe"

const defaultTimeout = 20 * time.Second

// The keys of our metadata on Stripe's objects.
const (
	metaAccount = "accrue_account"
	metaPayment = "accrue_payment"
	metaRefund  = "accrue_refund"
)

// Config says how Stripe is reached.
type Config struct {
	Mode           payment.Mode   // must agree with the keys
	SecretKey      payment.Secret // "sk_test_…", "rk_live_…"
	PublishableKey string         // "pk_test_…"
	WebhookSecrets []payment.Secret
	Timeout        time.Duration // of one call; 0: 20 seconds
	BaseURL        string        // test mode only: another server than Stripe's
	Clock          clock.Clock   // for the age of setups
}

// Gateway is the gateway to Stripe. It is safe for concurrent use.
type Gateway struct {
	cfg    Config
	client *stripe.Client
	close  func()
}

var _ payment.Gateway = (*Gateway)(nil)

// New returns the gateway. It makes no call. It refuses a key of the other mode.
func New(cfg Config) (*Gateway, error) {
	for name, key := range map[string]string{"secret": cfg.SecretKey.Reveal(), "publishable": cfg.PublishableKey} {
		if !strings.Contains(key, "_"+string(cfg.Mode)+"_") || (cfg.Mode != payment.ModeTest && cfg.Mode != payment.ModeLive) {
			return nil, fmt.Errorf("the %s key for Stripe is not one of %s mode", name, cfg.Mode)
		}
	}
	if cfg.Clock == nil {
		return nil, errors.New("the gateway to Stripe needs a clock")
	}
	if cfg.BaseURL != "" && cfg.Mode != payment.ModeTest {
		return nil, errors.New("another server than Stripe's is for test mode")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	hc := payment.NewHTTPClient(cfg.Timeout)
	backend := &stripe.BackendConfig{
		HTTPClient:        hc,
		EnableTelemetry:   new(false),
		MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull}, // it would log answers
	}
	if cfg.BaseURL != "" {
		backend.URL = stripe.String(cfg.BaseURL)
	}
	return &Gateway{
		cfg:    cfg,
		client: stripe.NewClient(cfg.SecretKey.Reveal(), stripe.WithBackends(stripe.NewBackendsWithConfig(backend))),
		close:  hc.CloseIdleConnections,
	}, nil
}

// Name returns "stripe".
func (g *Gateway) Name() string { return Name }

// Mode returns the mode of the keys.
func (g *Gateway) Mode() payment.Mode { return g.cfg.Mode }

// Close lets idle connections go.
func (g *Gateway) Close() { g.close() }

// optional returns nil for the empty string, which Stripe would take for "clear it".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// expand names the objects that an answer is to hold in full.
func expand(names ...string) []*string { return stripe.StringSlice(names) }

// customerID returns the identifier of a customer, or nothing where there is none.
func customerID(c *stripe.Customer) string {
	if c == nil {
		return ""
	}
	return c.ID
}

// when returns a time of Stripe's, in whole seconds.
func when(unix int64) time.Time { return time.Unix(unix, 0).UTC() }
