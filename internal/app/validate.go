package app

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/secret"
)

// UsageError says that the command line or the configuration cannot be meant; the program exits with
// status 2. Each problem begins with the option's name.
type UsageError struct{ Problems []string }

// Error lists the problems, one a line.
func (e *UsageError) Error() string { return strings.Join(e.Problems, "\n  ") }

// minSecret is the length in bytes below which a secret can be guessed.
const minSecret = 32

// notSecrets are words that stand in documentation and in secrets that nobody replaced.
var notSecrets = []string{"change", "example", "default", "secret", "password", "pepper", "development", "insecure"}

// Check returns a *UsageError that names every option that is missing, malformed or contradicted by
// another. It is the start-up self-check: what must not run in production does not start.
func (c Config) Check() error {
	var p problems
	c.checkAddresses(&p)
	c.checkMoney(&p)
	c.checkLive(&p)
	c.checkNumbers(&p)
	c.checkFiles(&p)
	if len(p) > 0 {
		slices.Sort(p)
		return &UsageError{slices.Compact(p)}
	}
	return nil
}

type problems []string

func (p *problems) add(option, format string, args ...any) {
	*p = append(*p, option+": "+fmt.Sprintf(format, args...))
}

func (c Config) checkAddresses(p *problems) {
	listeners := map[string]string{}
	for _, l := range [][2]string{{"addr", c.Addr}, {"admin-addr", c.AdminAddr}, {"sandbox-addr", c.SandboxAddr}} {
		name, addr := l[0], l[1]
		if addr == "" {
			if name == "addr" {
				p.add(name, "is required")
			}
			continue
		}
		if name == "sandbox-addr" && c.Provider != "sandbox" {
			continue
		}
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			p.add(name, "%q is not host:port", addr)
			continue
		}
		if other, taken := listeners[addr]; taken && port != "0" {
			p.add(name, "is the same as %s", other)
		}
		listeners[addr] = name
	}
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || strings.HasSuffix(u.Path, "/") {
			p.add("public-url", "%q is not an http(s) URL without a query and without a slash at its end", c.PublicURL)
		}
	}
	if c.ReturnURL != "" {
		if u, err := url.Parse(c.ReturnURL); err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			p.add("return-url", "%q is not an http(s) URL", c.ReturnURL)
		}
	}
	if c.SandboxURL != "" {
		if u, err := url.Parse(c.SandboxURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			p.add("sandbox-url", "%q is not a URL", c.SandboxURL)
		}
	}
	for _, o := range c.CORSOrigin {
		u, err := url.Parse(o)
		switch {
		case strings.Contains(o, "*"):
			p.add("cors-origin", "%q: a wildcard would let any page in; name the origins", o)
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" || u.RawQuery != "":
			p.add("cors-origin", "%q is not an origin (scheme://host[:port])", o)
		case c.Live() && u.Scheme != "https":
			p.add("cors-origin", "%q must be https in live mode", o)
		}
	}
	for _, n := range c.TrustedProxy {
		if prefix, err := netip.ParsePrefix(n); err != nil {
			p.add("trusted-proxy", "%q is not a network (CIDR)", n)
		} else if prefix.Bits() == 0 {
			p.add("trusted-proxy", "%q is every network", n)
		}
	}
}

func (c Config) checkMoney(p *problems) {
	if c.Provider == "sandbox" {
		for name, set := range map[string]bool{
			"stripe-secret-key":      c.StripeSecretKey != "",
			"stripe-publishable-key": c.StripePublishableKey != "",
			"stripe-webhook-secret":  len(c.StripeWebhookSecret) > 0,
		} {
			if set {
				p.add(name, "is given, but provider is sandbox; set provider=stripe or leave it out")
			}
		}
		return
	}
	kind := map[bool]string{false: "_test_", true: "_live_"}[c.Live()]
	switch key := c.StripeSecretKey.Reveal(); {
	case key == "":
		p.add("stripe-secret-key", "is required with provider=stripe")
	case !strings.HasPrefix(key, "sk_") && !strings.HasPrefix(key, "rk_"):
		p.add("stripe-secret-key", "does not begin with sk_ or rk_")
	case !strings.HasPrefix(key[2:], kind):
		p.add("stripe-secret-key", "is not a key of %s mode", c.Mode)
	}
	switch key := c.StripePublishableKey; {
	case key == "":
		p.add("stripe-publishable-key", "is required with provider=stripe")
	case !strings.HasPrefix(key, "pk"+kind):
		p.add("stripe-publishable-key", "is not a publishable key of %s mode", c.Mode)
	}
	if len(c.StripeWebhookSecret) == 0 {
		p.add("stripe-webhook-secret", "is required with provider=stripe")
	}
	for _, s := range c.StripeWebhookSecret {
		if !strings.HasPrefix(s.Reveal(), "whsec_") {
			p.add("stripe-webhook-secret", "does not begin with whsec_")
		}
	}
	if u, err := url.Parse(c.StripeAPIURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		p.add("stripe-api-url", "%q is not a URL", c.StripeAPIURL)
	}
}

// checkLive refuses in live mode, and in production, what only developers want.
func (c Config) checkLive(p *problems) {
	if c.Env == "production" && !c.Live() {
		p.add("mode", "test is refused with env=production; a production deployment is live")
	}
	if !c.Live() {
		return
	}
	if c.Provider == "sandbox" {
		p.add("provider", "sandbox is refused in live mode: nothing would ever be paid")
	}
	if c.StripeAPIURL != "https://api.stripe.com" {
		p.add("stripe-api-url", "only https://api.stripe.com is accepted in live mode")
	}
	if c.DatabaseURL == "" {
		p.add("database-url", "is required in live mode: the private database is for trying things out")
	}
	if c.APIKeyPepper == "" {
		p.add("api-key-pepper", "is required in live mode")
	}
	if len(c.JWTIssuer) == 0 {
		p.add("jwt-issuer", "is required in live mode: without one nobody can sign in")
	}
	if c.PublicURL == "" {
		p.add("public-url", "is required in live mode")
	} else if !strings.HasPrefix(c.PublicURL, "https://") {
		p.add("public-url", "must be https in live mode")
	}
	if c.ReturnURL != "" && !strings.HasPrefix(c.ReturnURL, "https://") {
		p.add("return-url", "must be https in live mode")
	}
	for name, s := range map[string]secret.Text{"api-key-pepper": c.APIKeyPepper, "cursor-key": c.CursorKey} {
		if s != "" && guessable(s.Reveal()) {
			p.add(name, "looks like a default; use random bytes, for example: openssl rand -hex 32")
		}
	}
	for _, s := range c.LeaseKey {
		if guessable(s.Reveal()) {
			p.add("lease-key", "one looks like a default; use random bytes, for example: openssl rand -hex 32")
		}
	}
	for _, i := range c.JWTIssuer {
		if i.JWKSURL != "" && !strings.HasPrefix(i.JWKSURL, "https://") {
			p.add("jwt-issuer", "the key set of %s must be fetched by https in live mode", i.Issuer)
		}
	}
	if c.LogLevel == "debug" && c.Env == "production" {
		p.add("log-level", "debug is refused with env=production")
	}
}

// guessable finds secrets that were copied from documentation, or that hardly vary.
func guessable(s string) bool {
	lower := strings.ToLower(s)
	if slices.ContainsFunc(notSecrets, func(word string) bool { return strings.Contains(lower, word) }) {
		return true
	}
	different := map[rune]bool{}
	for _, r := range s {
		different[r] = true
	}
	return len(different) < 8
}

func (c Config) checkNumbers(p *problems) {
	for name, s := range map[string]secret.Text{"api-key-pepper": c.APIKeyPepper, "cursor-key": c.CursorKey} {
		if s != "" && len(s) < minSecret {
			p.add(name, "is shorter than %d bytes", minSecret)
		}
	}
	for _, s := range c.LeaseKey {
		if len(s) < minSecret {
			p.add("lease-key", "one is shorter than %d bytes", minSecret)
		}
	}
	for _, n := range []struct {
		name             string
		value, low, high int64
	}{
		{"stream-limit", int64(c.StreamLimit), 1, 10_000},
		{"connections", int64(c.Connections), 16, 1_000_000},
		{"rate-limit", int64(c.RateLimit), 1, 1_000_000},
		{"database-conns", int64(c.DatabaseConns), 4, 1000},
		{"ingest-committers", int64(c.IngestCommitters), 1, 64},
		{"ingest-flush-size", int64(c.IngestFlushSize), 20, 50_000},
		{"ingest-queue", int64(c.IngestQueue), 1, 10_000_000},
		{"memory-limit", int64(c.MemoryLimit), 32, 1 << 20},
	} {
		if n.value < n.low || n.value > n.high {
			p.add(n.name, "%d is not between %d and %d", n.value, n.low, n.high)
		}
	}
	if c.IngestQueue < 10_000 {
		p.add("ingest-queue", "%d is smaller than a full batch of 10000, which could never be taken", c.IngestQueue)
	}
	for name, d := range map[string]int64{
		"drain-timeout": int64(c.DrainTimeout), "database-deadline": int64(c.DatabaseDeadline), "provider-timeout": int64(c.ProviderTimeout),
		"alarm-after": int64(c.AlarmAfter),
	} {
		if d <= 0 {
			p.add(name, "must be longer than nothing")
		}
	}
	if c.ProviderTimeout > billing.CallTimeout {
		p.add("provider-timeout", "%s is longer than %s, after which no call is waited for", c.ProviderTimeout, billing.CallTimeout)
	}
	if c.InvoiceGrace < 0 {
		p.add("invoice-grace", "must not be negative")
	}
	if c.ShutdownDelay < 0 {
		p.add("shutdown-delay", "must not be negative")
	}
	if c.WebhookRetention < billing.MinEventRetention {
		p.add("webhook-retention", "%s is shorter than %s, in which a provider may send a webhook again", c.WebhookRetention, billing.MinEventRetention)
	}
	if c.UsageRetention < metering.MinRetention {
		p.add("usage-retention", "%s is shorter than %s, in which usage can still be corrected", c.UsageRetention, metering.MinRetention)
	}
}

func (c Config) checkFiles(p *problems) {
	if c.DatabaseURL != "" {
		if u, err := url.Parse(c.DatabaseURL.Reveal()); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			p.add("database-url", "is not of the form postgres://…") // never the value: it holds a password
		}
		if c.PgBin != "" {
			p.add("pg-bin", "is for the private database, but database-url names another")
		}
	}
	if c.Catalogue != "" {
		if _, err := os.Stat(c.Catalogue); err != nil {
			p.add("catalogue", "%v", err)
		}
	}
	for _, i := range c.JWTIssuer {
		if i.KeysFile != "" {
			if _, err := os.Stat(i.KeysFile); err != nil {
				p.add("jwt-issuer", "keys of %s: %v", i.Issuer, err)
			}
		}
	}
}
