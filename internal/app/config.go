// Package app assembles the service from its configuration.
//
// It owns: every option and what contradicts what, the order in which parts start and stop, and the
// commands of the program. It has no logic of its own: whatever decides anything about billing is in
// the rooms below.
package app

import (
	"time"

	"github.com/accrue-billing/accrue/internal/secret"
)

// Config is everything that can be configured. An option is a flag, a variable ACCRUE_… of the
// environment, or a line of the configuration file, in this order of precedence; the name is the same
// everywhere, but that DATABASE_URL is read too. `accrue config` prints what is in force.
type Config struct {
	// Listening.
	Addr          string        `group:"Listening" default:"127.0.0.1:8080" help:"Address of the API."`
	AdminAddr     string        `group:"Listening" help:"Address for the operator's routes and /metrics; without it they are served on addr."`
	SandboxAddr   string        `group:"Listening" default:"127.0.0.1:8081" help:"Address of the sandbox payment provider's page; used with provider=sandbox only."`
	PublicURL     string        `group:"Listening" name:"public-url" help:"Where the API is reached from outside, for links and problem types; by default http://<addr>."`
	ReturnURL     string        `group:"Listening" name:"return-url" help:"Page that a customer's browser comes back to from the provider's card form and from 3-D Secure: your Billing page. Without it the sandbox says that its page can be closed, and Stripe is given public-url."`
	CORSOrigin    []string      `group:"Listening" name:"cors-origin" help:"Origin of a page that may call the API from a browser, as scheme://host[:port]; may be repeated."`
	TrustedProxy  []string      `group:"Listening" help:"Network (CIDR) of a proxy whose X-Forwarded-For is believed; may be repeated."`
	ShutdownDelay time.Duration `group:"Listening" default:"0s" help:"How long requests are still taken after SIGTERM, while /readyz says no, so that load balancers can look away first."`
	DrainTimeout  time.Duration `group:"Listening" default:"20s" help:"How long open requests and jobs may take to finish after SIGTERM."`
	StreamLimit   int           `group:"Listening" default:"20" help:"Event streams that one account may have open."`
	Connections   int           `group:"Listening" default:"1024" help:"Connections that each address takes at once, idle ones and event streams included; more wait until one is closed. Each costs memory, so raise memory-limit with it."`
	RateLimit     int           `group:"Listening" default:"600" help:"Reads per minute of one caller, on each instance. Of requests that move money it may send a tenth of that, of those with usage a hundred times as many."`

	// Deployment.
	Mode        string `group:"Deployment" enum:"test,live" default:"test" help:"test: sandbox, test clocks, development tokens. live: real money, none of these."`
	MemoryLimit int    `group:"Deployment" default:"48" help:"MiB of memory that the service tries to stay within; GOMEMLIMIT in its environment wins."`
	Env         string `group:"Deployment" enum:"development,staging,production" default:"development" help:"What the deployment is for; production refuses what only developers want."`
	DataDir     string `group:"Deployment" help:"Folder of the private database and of generated keys; by default /var/lib/accrue for root, else ~/.local/state/accrue."`

	// Database.
	DatabaseURL      secret.Text   `group:"Database" name:"database-url" help:"URL of a PostgreSQL 15 or newer; of several hosts the primary is used. Without it a private one is started in data-dir; required in live mode."`
	DatabaseConns    int           `group:"Database" default:"16" help:"Connections in the pool. Usage is stored and looked up over others: those of ingest-committers, and two."`
	PgBin            string        `group:"Database" help:"Folder of PostgreSQL's programs, for the private database; by default the usual places are searched."`
	MigrateOnStart   bool          `group:"Database" negatable:"" default:"true" help:"Apply missing migrations when the service starts."`
	DatabaseDeadline time.Duration `group:"Database" default:"60s" help:"How long the database may take to be there, start, recover and migrate, when the service starts."`

	// Who may call.
	JWTIssuer          []IssuerOption `group:"Identity" name:"jwt-issuer" sep:";" help:"An identity provider, as issuer=URL,audience=NAME and either jwks=URL or keys=FILE (JWK Set or PEM); optionally type=at+jwt and scopes=A B, which are all that it may give (without them any, operator too). May be repeated; in one text, separated by semicolons."`
	DevAudience        string         `group:"Identity" default:"accrue" help:"Audience of development tokens (test mode)."`
	APIKeyPepper       secret.Text    `group:"Identity" name:"api-key-pepper" help:"Secret of 32 bytes or more that API keys are hashed with; made and kept in data-dir in test mode, required in live mode. With another pepper no key works any more."`
	CursorKey          secret.Text    `group:"Identity" help:"Secret of 32 bytes or more that signs page cursors; by default derived from the pepper."`
	LeaseKey           []secret.Text  `group:"Identity" help:"Secrets of 32 bytes or more that leases are signed by: the first signs, and the public keys of all are shown; by default one derived from the pepper."`
	AutoCreateAccounts bool           `group:"Identity" negatable:"" default:"true" help:"Let the first valid token with a new account_id open an account on the free plan."`

	// Payments.
	Provider             string        `group:"Payments" enum:"sandbox,stripe" default:"sandbox" help:"Who moves the money."`
	StripeSecretKey      secret.Text   `group:"Payments" help:"Stripe's secret key, sk_… or rk_…"`
	StripePublishableKey string        `group:"Payments" help:"Stripe's publishable key, pk_…, which pages are given."`
	StripeWebhookSecret  []secret.Text `group:"Payments" help:"Signing secret of Stripe's webhook endpoint, whsec_…; several while one is being replaced."`
	StripeAPIURL         string        `group:"Payments" name:"stripe-api-url" default:"https://api.stripe.com" help:"Where Stripe's API is; another address is for tests only."`
	SandboxURL           string        `group:"Payments" name:"sandbox-url" help:"Where the sandbox provider is reached, if not at its own address: that of another instance with the same data-dir, or a proxy in a test of the network."`
	ProviderTimeout      time.Duration `group:"Payments" default:"8s" help:"How long one request to the provider may take, at most 20 s."`
	AlarmAfter           time.Duration `group:"Payments" default:"15m" help:"How long the outcome of a payment may be unknown before the log and the metrics say so."`
	WebhookRetention     time.Duration `group:"Payments" default:"2160h" help:"How long the provider's webhooks are kept after they were acted on, at least 30 days, in which it may send one again."`
	CardRemoval          string        `group:"Payments" enum:"request,when-paid" default:"request" help:"What follows when a customer removes a card. request: support decides. when-paid: granted by itself where nothing is owed."`

	// Catalogue and billing.
	Catalogue    string        `group:"Billing" help:"YAML file of the meters, plans and prices that an empty database begins with; by default the built-in one. Afterwards accrue plans apply and the API put prices on sale, and a start only warns where the file differs."`
	InvoiceGrace time.Duration `group:"Billing" default:"1h" help:"How long after the end of a period late usage still enters its invoice."`

	// Usage.
	IngestCommitters int           `group:"Usage" default:"2" help:"Transactions that store usage at the same time."`
	IngestFlushSize  int           `group:"Usage" default:"2000" help:"Events of one transaction."`
	IngestQueue      int           `group:"Usage" default:"20000" help:"Events that may wait to be stored, and 20 times the requests; beyond it requests are answered 503."`
	UsageRetention   time.Duration `group:"Usage" default:"9600h" help:"How long raw events are kept, at least 100 days; totals and the identity of events are kept for ever."`

	// Logs.
	LogLevel  string `group:"Logs" enum:"debug,info,warn,error" default:"info" help:"The least important lines that are written: debug, info, warn or error."`
	LogFormat string `group:"Logs" enum:"text,json" default:"text" help:"text for people, json for machines."`
}

// Live reports whether real money moves.
func (c Config) Live() bool { return c.Mode == "live" }
