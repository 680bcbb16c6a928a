package app

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/cursor"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/payment/stripe"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/secret"
	"github.com/accrue-billing/accrue/internal/worker"
)

// service is what stands on the database: the operations, the ingester, and who may call.
type service struct {
	core      *billing.Core
	meters    *billing.LiveMeters
	ingester  *metering.Ingester
	checker   *metering.Checker
	hub       *changes.Hub
	memory    *middleware.Memory
	directory *billing.Directory
	keys      *auth.Keys
	signer    *auth.Signer // of development tokens; nil in live mode
	auth      *auth.Authenticator
}

// assemble builds the service bottom up: provider, operations, usage, identity, API, background.
func (a *App) assemble(ctx context.Context) error {
	if err := a.bind(ctx); err != nil {
		return err
	}
	gateway, err := a.gateway()
	if err != nil {
		return err
	}
	gateway = payment.Watch(gateway, a.clock, a.metrics.ObserveProviderCall)
	a.svc.core = &billing.Core{DB: a.db, Gateway: gateway, Clock: a.clock, Policy: a.cfg.policy(), Log: a.log}
	a.svc.core.WithholdCharges() // until a sweep knows that the database is not an earlier one
	if err := a.catalogue(ctx); err != nil {
		return err
	}
	watch := &worker.Watch{Core: a.svc.core}
	pricer := billing.Pricer{Core: a.svc.core}
	a.svc.memory = middleware.NewMemory(a.svc.meters.Revisions(postgres.Revisions(a.db.ByKey(), a.clock)))
	a.svc.checker = metering.NewChecker(postgres.Standings(a.db.ByKey()), a.svc.meters, a.clock, pricer, postgres.Uses(a.db.ByKey()))
	wire := postgres.Changes(a.db.Pool())
	a.svc.hub = changes.NewHub(wire, wire, a.log, changes.Options{PerAccount: a.cfg.StreamLimit, Changed: a.svc.memory.Forget})
	a.svc.ingester = metering.NewIngester(postgres.Journal(a.db.ByKey()), a.svc.meters, a.clock, a.log, metering.Options{
		Committers: a.cfg.IngestCommitters, FlushSize: a.cfg.IngestFlushSize, QueueSize: a.cfg.IngestQueue, OneAccount: oneAccount, Pricer: pricer,
		Changed: func(changed []account.ID) {
			a.svc.memory.Forget(changed...)
			watch.Changed(changed)
			a.svc.hub.UsageChanged(changed)
		},
	})
	expirer := metering.Expirer{Reservations: a.db.Reservations(), Ingester: a.svc.ingester, Log: a.log}
	retention := &metering.Retention{
		Partitions: postgres.UsagePartitions(a.db.Pool()), Traces: postgres.UsageTraces(a.db.Pool()), Clock: a.clock, Keep: a.cfg.UsageRetention, Log: a.log,
	}
	if err := a.identity(); err != nil {
		return err
	}
	if err := a.api(); err != nil { //nolint:contextcheck // each request brings its own
		return err
	}
	alarm := &billing.Alarm{Core: a.svc.core}
	prover := &invariant.Prover{Source: a.db, Store: a.db.Proofs(), Options: invariant.Options{Clock: a.clock, Gateway: gateway}, Log: a.log}
	a.measure(alarm, prover)
	jobs, err := worker.New(worker.Config{
		Core: a.svc.core, Pool: a.db.Pool(), Drain: a.cfg.DrainTimeout,
		Sweepers: []worker.Sweeper{
			{Name: "meters", Sweep: a.svc.meters.Refresh},
			{Name: "alarm", Sweep: alarm.Look},
			{Name: "retention", Sweep: billing.Retention{Core: a.svc.core, Events: a.cfg.WebhookRetention}.Sweep},
		},
		Swept: a.countSweeps(),
	})
	if err != nil {
		return err
	}
	a.background = append(a.background,
		part{"usage", a.svc.ingester.Run}, part{"reservations", expirer.Run}, part{"retention", retention.Run},
		part{"jobs", a.besideRequests(jobs.Run)}, part{"funds", watch.Run}, part{"changes", a.svc.hub.Run},
		part{"identity providers' keys", a.svc.auth.Tokens.Run},
		part{"proofs", prover.Run})
	return nil
}

// bind takes every address before anything is built on it, so that a port in use is found first and
// port 0 can be asked for.
func (a *App) bind(ctx context.Context) error {
	if err := a.listen(ctx, "api", a.cfg.Addr); err != nil {
		return err
	}
	if a.cfg.AdminAddr != "" {
		if err := a.listen(ctx, "admin", a.cfg.AdminAddr); err != nil {
			return err
		}
	}
	if a.cfg.Provider == sandbox.Name {
		return a.listen(ctx, "sandbox", a.cfg.SandboxAddr)
	}
	return nil
}

// publicURL is where links lead. What is told to a provider keeps to the configuration instead: a
// repeated request must say the same after a restart, whatever port was free.
func (a *App) publicURL() string {
	if a.cfg.PublicURL == "http://"+a.cfg.Addr { // the default, which port 0 makes untrue
		return "http://" + reachable(a.Addr("api"))
	}
	return a.cfg.PublicURL
}

// policy is what the configuration says of billing.
func (c Config) policy() billing.Policy {
	p := billing.DefaultPolicy()
	p.Grace = c.InvoiceGrace
	p.RemoveWhenPaid = c.CardRemoval == "when-paid"
	p.ReturnURL, p.AlarmAfter = c.ReturnURL, c.AlarmAfter
	return p
}

// mode is the deployment's for whoever needs it in the provider's words.
func (c Config) mode() payment.Mode {
	if c.Live() {
		return payment.ModeLive
	}
	return payment.ModeTest
}

// derived makes a secret for one use from the deployment's pepper, so that there is one to keep.
func (s deploymentSecrets) derived(use string) secret.Text {
	mac := hmac.New(sha256.New, []byte(s.Pepper.Reveal()))
	mac.Write([]byte(use))
	return secret.Text(hex.EncodeToString(mac.Sum(nil)))
}

// gateway connects to the payment provider; the sandbox is played by this process, on a listener of
// its own for everyone else. Where it is to be reached another way, it is spoken to over the network like any other, and
// may be played by another instance with the same data folder.
func (a *App) gateway() (payment.Gateway, error) {
	if a.cfg.Provider != sandbox.Name {
		return a.stripe()
	}
	key, signing := a.sandboxKey(), a.sandboxSigning()
	provider, err := sandbox.New(sandbox.Config{
		Mode: a.cfg.mode(), Dir: filepath.Join(a.cfg.DataDir, "sandbox"), SecretKey: key, WebhookSecret: signing,
		WebhookURL: "http://" + reachable(a.Addr("api")) + "/v1/gateway-events/" + sandbox.Name, Clock: a.clock, Logger: a.log,
	})
	switch {
	case err == nil:
		a.serve("sandbox", provider)
		a.closers = append(a.closers, provider.Close)
		a.background = append(a.background, part{"sandbox provider", provider.Run})
	case !errors.Is(err, sandbox.ErrInUse) || a.cfg.SandboxURL == "":
		return nil, err
	}
	cc := sandbox.ClientConfig{
		Mode: a.cfg.mode(), BaseURL: a.cfg.SandboxURL, SecretKey: key,
		WebhookSecrets: []payment.Secret{signing}, Timeout: a.cfg.ProviderTimeout,
	}
	if cc.BaseURL == "" {
		cc.BaseURL, cc.Provider = "http://"+reachable(a.Addr("sandbox")), provider
	}
	client, err := sandbox.NewClient(cc)
	if err == nil {
		a.closers = append(a.closers, func() error { client.Close(); return nil })
	}
	return client, err
}

// stripe connects to Stripe.
func (a *App) stripe() (payment.Gateway, error) {
	cfg := stripe.Config{
		Mode: a.cfg.mode(), SecretKey: payment.Secret(a.cfg.StripeSecretKey.Reveal()), PublishableKey: a.cfg.StripePublishableKey,
		Timeout: a.cfg.ProviderTimeout, Clock: a.clock,
	}
	for _, s := range a.cfg.StripeWebhookSecret {
		cfg.WebhookSecrets = append(cfg.WebhookSecrets, payment.Secret(s.Reveal()))
	}
	if a.cfg.StripeAPIURL != defaultStripeURL {
		cfg.BaseURL = a.cfg.StripeAPIURL
	}
	return stripe.New(cfg)
}

// The sandbox's secrets follow from the deployment's, so that there is nothing to configure.
func (a *App) sandboxKey() payment.Secret {
	return payment.Secret(a.secrets.derived("sandbox key").Reveal())
}

func (a *App) sandboxSigning() payment.Secret {
	return payment.Secret(a.secrets.derived("sandbox webhooks").Reveal())
}

// reachable is how this process reaches an address that it listens on.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// catalogue gives a database that sells nothing its first price list: the configured file, or the list that the
// service ships with. What is on sale afterwards is the operator's to change, by the API or by `accrue plans`: a
// restart never takes a price back, and says where the file has come to differ.
func (a *App) catalogue(ctx context.Context) (err error) {
	first := plan.Shipped()
	if a.cfg.Catalogue != "" {
		if first, err = (catalogueFile{a.cfg.Catalogue}).read(); err != nil {
			return err
		}
	}
	plans, err := a.db.Plans().Plans(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(plans) == 0:
		start := plan.Code(a.svc.core.Policy.StartPlan)
		if _, ok := first.Offer(start); !ok {
			return &UsageError{[]string{fmt.Sprintf("catalogue: %s has no plan %s, on which new accounts begin", a.cfg.Catalogue, start)}}
		}
		err = a.publish(ctx, first)
	case a.cfg.Catalogue != "":
		a.compare(ctx, first)
	}
	if err != nil {
		return err
	}
	a.svc.meters, err = billing.NewLiveMeters(ctx, a.svc.core)
	return err
}

// compare warns where the configured file is not what is on sale.
func (a *App) compare(ctx context.Context, file plan.Catalogue) {
	const differs = "the catalogue file is not what is on sale, and is left alone"
	log := a.log.With("hint", "accrue plans diff "+a.cfg.Catalogue+" shows the difference, plans apply puts the file on sale")
	effects, err := plan.Preview(ctx, a.db.Plans(), file)
	if err != nil {
		log.WarnContext(ctx, differs, "error", err)
		return
	}
	for _, e := range effects {
		if e.Before != e.After {
			log.WarnContext(ctx, differs, "plan", e.Plan, "on_sale", e.Before, "changes", len(e.Changes))
		}
	}
}

func (a *App) publish(ctx context.Context, c plan.Catalogue) error {
	done, err := billing.Publisher{Core: a.svc.core}.Publish(ctx, c)
	for _, e := range done {
		if e.Before != e.After {
			a.log.InfoContext(ctx, "plan version on sale", "plan", e.Plan, "version", e.After)
		}
	}
	return err
}

// identity says whose tokens and keys are believed.
func (a *App) identity() (err error) {
	mode := auth.Mode(a.cfg.Mode)
	issuers, err := a.cfg.issuers()
	if err != nil {
		return err
	}
	if !a.cfg.Live() {
		if a.svc.signer, err = auth.NewDevelopmentSigner(a.cfg.DataDir, a.cfg.DevAudience, mode, a.clock); err != nil {
			return err
		}
		issuers = append(issuers, a.svc.signer.Issuer())
	}
	tokens, err := auth.NewVerifier(issuers, mode, a.clock, nil)
	if err != nil {
		return err
	}
	tokens.Log = a.log
	if a.svc.keys, err = auth.NewKeys(a.db.APIKeys(), a.secrets.Pepper, mode, a.clock); err != nil {
		return err
	}
	a.svc.directory = &billing.Directory{Core: a.svc.core, Open: a.cfg.AutoCreateAccounts}
	a.svc.auth = &auth.Authenticator{Tokens: tokens, Keys: a.svc.keys}
	return nil
}

func (c Config) issuers() ([]auth.Issuer, error) {
	out := make([]auth.Issuer, 0, len(c.JWTIssuer))
	for _, o := range c.JWTIssuer {
		i := auth.Issuer{Name: o.Issuer, Audience: o.Audience, TokenType: o.Type, JWKSURL: o.JWKSURL}
		for _, s := range o.Scopes {
			i.Scopes = append(i.Scopes, auth.Scope(s))
		}
		if o.KeysFile != "" {
			keys, err := os.ReadFile(o.KeysFile)
			if err != nil {
				return nil, &UsageError{[]string{"jwt-issuer: " + err.Error()}}
			}
			i.Keys = keys
		}
		out = append(out, i)
	}
	return out, nil
}

// api serves the routes: all on one listener, or the operator's on one of their own.
func (a *App) api() error {
	d := api.Deps{
		Config: middleware.Config{
			Auth: a.svc.auth, Accounts: a.svc.directory, Memory: a.svc.memory, Clock: a.clock, Log: a.log,
			Fingerprint: a.secrets.derived("request fingerprints"), Limits: a.cfg.limits(),
			FailedLogins: middleware.Limit{Quota: 30, Window: time.Minute},
		},
		V1:        a.resources(),
		PublicURL: a.publicURL(), Origins: a.cfg.CORSOrigin,
		Ready: a.ready, Metrics: a.metrics.Handler(), Observe: a.metrics.ObserveRequest,
	}
	for _, cidr := range a.cfg.TrustedProxy {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			return &UsageError{[]string{"trusted-proxy: " + err.Error()}}
		}
		d.TrustedProxies = append(d.TrustedProxies, network)
	}
	if a.cfg.AdminAddr != "" {
		admin := d
		admin.Only = api.AdminOnly
		h, err := api.New(admin)
		if err != nil {
			return err
		}
		a.serve("admin", h)
		d.Only, d.Metrics = api.PublicOnly, nil
	}
	h, err := api.New(d)
	if err != nil {
		return err
	}
	a.serve("api", h)
	return nil
}

// resources is what the handlers of version 1 stand on.
func (a *App) resources() v1.Deps {
	return v1.Deps{
		Billing: a.svc.core, Keys: a.svc.keys, Auth: a.svc.auth, Mode: auth.Mode(a.cfg.Mode), Streams: v1.Streams{Hub: a.svc.hub},
		Proofs:    v1.Proofs{Source: a.db, Store: a.db.Proofs()},
		Published: a.svc.meters.Refresh,
		Lists:     v1.Lists{Cursors: cursor.NewCodec(a.secrets.CursorKey), PublicURL: a.publicURL()},
		Metering: v1.Metering{
			Ingester: a.svc.ingester, Store: a.db.Usage(), Catalogue: a.svc.meters, Accounts: a.svc.directory,
			Reader: metering.Reader{Store: a.db.Usage(), Entitlements: a.db.Entitlements(), Catalogue: a.svc.meters},
			Zone:   a.zone, Cost: a.costs,
			Answered: a.countUsage(),
			Reserver: a.svc.ingester, Reservations: a.db.Reservations(), Checker: a.svc.checker, Leases: a.leases(),
		},
	}
}

// costs prices the running period for GET /v1/usage.
func (a *App) costs(ctx context.Context, id account.ID) (map[string]v1.UsageCost, error) {
	costs, err := billing.Reader{Core: a.svc.core}.Costs(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make(map[string]v1.UsageCost, len(costs))
	for m, c := range costs {
		out[m] = v1.UsageCost(c)
	}
	return out, nil
}

// leases signs with the first of the keys that are given or, without one, with a key that follows from the deployment's secret.
func (a *App) leases() *entitlement.LeaseSigner {
	secrets := a.cfg.LeaseKey
	if len(secrets) == 0 {
		secrets = []secret.Text{a.secrets.derived("leases")}
	}
	keys := make([]ed25519.PrivateKey, 0, len(secrets))
	for _, s := range secrets {
		seed := sha256.Sum256([]byte(s.Reveal()))
		keys = append(keys, ed25519.NewKeyFromSeed(seed[:]))
	}
	return entitlement.NewLeaseSigner(a.cfg.PublicURL, keys[0], keys[1:]...)
}

func (a *App) zone(ctx context.Context, id account.ID) (*time.Location, error) {
	acct, err := a.db.Accounts().Get(ctx, id)
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(acct.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("zone of %s: %w", id, err)
	}
	return zone, nil
}

// limits are the quotas of one caller: money writes are few and dear, ingest is many and cheap.
func (c Config) limits() map[route.Class]middleware.Limit {
	return map[route.Class]middleware.Limit{
		route.Reads:  {Quota: c.RateLimit, Window: time.Minute},
		route.Ingest: {Quota: 100 * c.RateLimit, Window: time.Minute},
		route.Money:  {Quota: max(c.RateLimit/10, 1), Window: time.Minute},
	}
}

const defaultStripeURL = "https://api.stripe.com"
