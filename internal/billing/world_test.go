package billing_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/invariant/invarianttest"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// world is everything an operation needs, for real but for the provider and the clock.
type world struct {
	*billing.Core
	db      *postgres.DB
	dsn     string
	control sandbox.Control
	ingest  *metering.Ingester

	webhookErrors sync.Map // what went wrong with one, which a provider does not tell

	mu   sync.Mutex
	now  time.Time
	tick time.Duration // what passes between two looks at the clock
}

var start = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

// newWorld returns a world in which every invariant must hold when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := buildWorld(t)
	invarianttest.AtEnd(t, w.db, invariant.Options{Clock: w.clock, Gateway: w.Gateway})
	return w
}

func buildWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: start}
	w.db, w.dsn = postgrestest.NewWithDSN(t)
	const secret = "sandbox-test-key"
	hooks := httptest.NewServer(http.HandlerFunc(w.receive))
	t.Cleanup(hooks.Close)
	server, err := sandbox.New(sandbox.Config{
		Mode: payment.ModeTest, SecretKey: secret, WebhookSecret: webhookSecret, WebhookURL: hooks.URL, Clock: w.clock, HangFor: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	provider := httptest.NewServer(server)
	t.Cleanup(provider.Close)
	client, err := sandbox.NewClient(sandbox.ClientConfig{
		Mode: payment.ModeTest, BaseURL: provider.URL, SecretKey: secret, WebhookSecrets: []payment.Secret{webhookSecret}, Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.control = sandbox.Control{BaseURL: provider.URL, SecretKey: secret}
	w.Core = &billing.Core{DB: w.db, Gateway: client, Clock: w.clock, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), plan.Shipped()); err != nil {
		t.Fatal(err)
	}
	w.ingest = metering.NewIngester(postgres.Journal(w.db.ByKey()), billing.Meters(plan.Shipped().Meters), w.clock, w.Log,
		metering.Options{Pricer: billing.Pricer{Core: w.Core}})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = w.ingest.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return w
}

// another is the core of another process on the same database, with the gateway.
func (w *world) another(g payment.Gateway) *billing.Core {
	return &billing.Core{DB: w.DB, Gateway: g, Clock: w.Clock, Policy: w.Policy, Log: w.Log}
}

const webhookSecret = "whsec"

// receive takes the provider's webhooks as the API does, and acts on each at once. The provider sends
// none by itself here: a test delivers those that it wants, when it wants.
func (w *world) receive(out http.ResponseWriter, in *http.Request) {
	listen := billing.Listener{Core: w.Core}
	body, err := io.ReadAll(in.Body)
	if err == nil {
		var e payment.ProviderEvent
		if e, _, err = listen.Receive(in.Context(), in.Header, body); err == nil {
			err = listen.Process(in.Context(), e.Provider, e.EventID)
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, payment.ErrSignature):
		out.WriteHeader(http.StatusBadRequest)
	default:
		w.webhookErrors.Store(err.Error(), true)
		out.WriteHeader(http.StatusInternalServerError)
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(w.tick)
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) open(t *testing.T) account.Account {
	t.Helper()
	a, err := billing.Opener{Core: w.Core}.Open(t.Context(), billing.NewAccount{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// use reports usage now and fails the test unless every event was accepted.
func (w *world) use(t *testing.T, a account.ID, meter, quantity string) {
	t.Helper()
	if r := w.tryUse(t, a, meter, quantity); r.Status != metering.Accepted {
		t.Fatalf("usage of %s %s: %+v", quantity, meter, r)
	}
}

func (w *world) tryUse(t *testing.T, a account.ID, meter, quantity string) metering.Result {
	t.Helper()
	return w.useAt(t, a, meter, quantity, w.clock())
}

func (w *world) useAt(t *testing.T, a account.ID, meter, quantity string, at time.Time) metering.Result {
	t.Helper()
	return w.useAs(t, a, newKey(), meter, quantity, at)
}

// useAs reports usage under an id by which it can be corrected.
func (w *world) useAs(t *testing.T, a account.ID, event, meter, quantity string, at time.Time) metering.Result {
	t.Helper()
	res, err := w.ingest.Add(t.Context(), []metering.Event{{
		Account: a, Source: "test", ID: event, Meter: meter, Quantity: money.MustDecimal(quantity), OccurredAt: at,
	}})
	if err != nil || len(res) != 1 {
		t.Fatalf("ingest: %v, %v", res, err)
	}
	return res[0]
}

// correct amends an event to a quantity, or voids it where there is none.
func (w *world) correct(t *testing.T, a account.ID, event, quantity string) {
	t.Helper()
	x := metering.Correction{Source: "test", EventID: event, Kind: metering.Void, Reason: "it was otherwise"}
	if quantity != "" {
		x.Kind, x.Quantity = metering.Amend, money.MustDecimal(quantity)
	}
	fix := billing.Corrections{Core: w.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
	if _, err := fix.Correct(t.Context(), asked(a, newKey()), x, nil); err != nil {
		t.Fatalf("correct %s: %v", event, err)
	}
}

// invoiceOf is the invoice of the account's period that begins at start.
func (w *world) invoiceOf(t *testing.T, a account.ID, start time.Time) invoice.ID {
	t.Helper()
	p, err := w.DB.Subscriptions().Period(t.Context(), a, start)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := w.DB.Invoices().OfPeriod(t.Context(), a, p.Subscription, start)
	if err != nil {
		t.Fatal(err)
	}
	return inv.ID
}

// void takes back the invoice of the account's period that begins at start.
func (w *world) void(t *testing.T, a account.ID, start time.Time) error {
	t.Helper()
	_, err := billing.Adjuster{Core: w.Core}.Void(t.Context(), asked(a, newKey()), w.invoiceOf(t, a, start), "should not have been", nil)
	return err
}

func (w *world) writeOff(t *testing.T, a account.ID, inv invoice.ID) {
	t.Helper()
	if _, err := (billing.Adjuster{Core: w.Core}).WriteOff(t.Context(), asked(a, newKey()), inv, "given up", nil); err != nil {
		t.Fatal(err)
	}
}

// closed lets the period that ends then pass, with its grace.
func (w *world) closed(t *testing.T, end time.Time) {
	t.Helper()
	w.until(t, end.Add(time.Hour))
	w.until(t, end.Add(w.Policy.Grace+time.Hour))
}

// wantEarned checks what the ledger says was earned, and how much of it the operator bears.
func (w *world) wantEarned(t *testing.T, a account.ID, revenue, absorbed int64) {
	t.Helper()
	b, err := w.DB.Ledger().Balances(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if b[books.Revenue] != -revenue || b[books.Absorbed] != absorbed {
		t.Errorf("earned %d and absorbed %d, want %d and %d", -b[books.Revenue], b[books.Absorbed], revenue, absorbed)
	}
}

func (w *world) sweep(t *testing.T) billing.Swept {
	t.Helper()
	done, err := billing.Sweeper{Core: w.Core}.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func (w *world) balance(t *testing.T, a account.ID) billing.Balance {
	t.Helper()
	b, err := billing.Reader{Core: w.Core}.Balance(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var profile = account.Profile{
	Name: "Ada Lovelace", Email: "ada@example.com",
	Address: account.Address{Line1: "12 St James's Square", City: "London", PostalCode: "SW1Y 4JH", Country: "GB"},
}

// upgrade takes the account to Pro with a card.
func (w *world) upgrade(t *testing.T, a account.ID, token string) {
	t.Helper()
	got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: token}, Profile: &profile,
	}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		t.Fatalf("upgrade: %+v, %v", got.Record, err)
	}
}

// onPro opens an account on Pro, with a card that pays.
func (w *world) onPro(t *testing.T) account.ID {
	t.Helper()
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	return a
}

// behave has the account's active card behave as another token's from now on.
func (w *world) behave(t *testing.T, a account.ID, token string) {
	t.Helper()
	if err := w.control.Behave(t.Context(), w.defaultCard(t, a).ProviderRef, token); err != nil {
		t.Fatal(err)
	}
}

// fault plans what goes wrong at the provider next.
func (w *world) fault(t *testing.T, f sandbox.Fault) {
	t.Helper()
	if err := w.control.Plan(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func (w *world) topUp(t *testing.T, a account.ID, minor int64) billing.TopUp {
	t.Helper()
	got, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(minor)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record
}

func asked(a account.ID, key string) billing.Asked {
	r := idempotency.Request{Key: key, Scope: "test"}
	return billing.Asked{Account: a, Actor: "user:test", Key: r}
}

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

// asJSON renders a record as an answer, as the API does.
func asJSON[R any](status int) billing.Renderer[R] {
	return func(r R) (idempotency.Answer, error) {
		b, err := json.Marshal(r)
		return idempotency.Answer{Status: status, Body: b}, err
	}
}

// charged is an account whose card has paid an invoice of 27.00 USD.
func (w *world) charged(t *testing.T) (account.ID, invoice.ID, payment.Payment) {
	t.Helper()
	a := w.onPro(t)
	w.use(t, a, "voice", "120000")
	w.until(t, w.clock().Add(35*24*time.Hour))
	all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Total != usd(2700) {
		t.Fatalf("%+v, %v", all.Data, err)
	}
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, all.Data[0].ID)
	if err != nil || len(paid) != 1 {
		t.Fatalf("%d payments, %v", len(paid), err)
	}
	return a, all.Data[0].ID, paid[0]
}

// unpaid is the account's only invoice that is open.
func (w *world) unpaid(t *testing.T, a account.ID) invoice.Invoice {
	t.Helper()
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 {
		t.Fatalf("unpaid are %+v, %v; want one invoice", open, err)
	}
	return open[0]
}

// owing is an account whose card, that of a token, has been asked for an invoice of 27.00 USD and has not paid it.
func (w *world) owing(t *testing.T, token string) (account.ID, invoice.Invoice) {
	t.Helper()
	a := w.open(t).ID
	w.upgrade(t, a, token)
	w.use(t, a, "voice", "120000")
	w.until(t, w.clock().Add(35*24*time.Hour))
	return a, w.unpaid(t, a)
}

// disputed has the bank take a payment back, and tells us.
func (w *world) disputed(t *testing.T, p payment.Payment) (dispute string) {
	t.Helper()
	dispute, err := w.control.Dispute(t.Context(), p.ProviderRef)
	if err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
	return dispute
}

// won has the bank give a disputed payment to us again, and tells us.
func (w *world) won(t *testing.T, dispute string) {
	t.Helper()
	if err := w.control.CloseDispute(t.Context(), dispute, true); err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
}

// tell delivers all webhooks about an object.
func (w *world) tell(t *testing.T, ref string) {
	t.Helper()
	for _, e := range w.eventsOf(t, ref) {
		w.deliver(t, e)
	}
}

func (w *world) wantInvoice(t *testing.T, a account.ID, i invoice.ID, s invoice.Status, due int64) {
	t.Helper()
	inv, err := w.DB.Invoices().Get(t.Context(), a, i)
	if err != nil || inv.Status != s || inv.AmountDue() != usd(due) {
		t.Errorf("the invoice is %s with %s due, %v; want %s with %s", inv.Status, inv.AmountDue(), err, s, usd(due))
	}
}

// action is what the Billing page says of something that its customer may want to do.
func (w *world) action(t *testing.T, a account.ID, n billing.ActionName) billing.Action {
	t.Helper()
	o, err := billing.Reader{Core: w.Core}.Overview(t.Context(), a)
	at := slices.IndexFunc(o.Actions, func(act billing.Action) bool { return act.Name == n })
	if err != nil || at < 0 {
		t.Fatalf("%+v, %v", o.Actions, err)
	}
	return o.Actions[at]
}

func (w *world) wantBalance(t *testing.T, a account.ID, funds, due int64) {
	t.Helper()
	if b := w.balance(t, a); b.Funds != usd(funds) || b.Due != usd(due) {
		t.Errorf("funds %s and %s due, want %s and %s", b.Funds, b.Due, usd(funds), usd(due))
	}
}

func (w *world) refund(t *testing.T, a account.ID, p payment.ID, minor int64) payment.Refund {
	t.Helper()
	got, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, newKey()),
		billing.RefundInput{Payment: p, Amount: usd(minor), Reason: "test", Origin: payment.ByOperator}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record
}

// defaultCard returns the account's active card.
func (w *world) defaultCard(t *testing.T, a account.ID) payment.Method {
	t.Helper()
	m, err := w.DB.Payments().DefaultMethod(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// often is how many times a test of chance is repeated: few in every run, full with ACCRUE_TEST_FULL.
func often(few, full int) int {
	if os.Getenv("ACCRUE_TEST_FULL") != "" {
		return full
	}
	return few
}

// seedOf is where a property's random choices begin: the short run makes the same ones each time, the full run others.
func seedOf() uint64 { return uint64(often(7, int(time.Now().UnixNano()))) }

// together calls fn n times at the same moment and returns when all have returned.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	wg.Wait()
}

// charges returns what the provider has taken, by our name of the payment.
func (w *world) charges(t *testing.T) map[account.ID][]payment.ChargeResult {
	t.Helper()
	out := map[account.ID][]payment.ChargeResult{}
	for c, err := range w.Gateway.ListCharges(t.Context(), start.Add(-time.Hour), w.clock().Add(time.Hour)) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Outcome == payment.OutcomeSucceeded {
			a := mustID(t, c.AccountRef)
			out[a] = append(out[a], c)
		}
	}
	return out
}

const callers = 50

// oneOf does both at the same moment and fails the test unless exactly one has its way.
func oneOf(t *testing.T, do func(i int) (bool, error)) {
	t.Helper()
	var done atomic.Int64
	together(2, func(i int) {
		ok, err := do(i)
		if err != nil {
			t.Error(err)
		}
		if ok {
			done.Add(1)
		}
	})
	if n := done.Load(); n != 1 {
		t.Errorf("%d of two had their way, want 1", n)
	}
}

// replica is the core of another process on a pool of its own.
func (w *world) replica(t *testing.T) *billing.Core {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Config{URL: w.dsn, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	core := w.another(w.Gateway)
	core.DB = db
	return core
}

// ingester takes usage in on a replica.
func (w *world) ingester(t *testing.T, replica *billing.Core) *metering.Ingester {
	t.Helper()
	in := metering.NewIngester(postgres.Journal(replica.DB.(*postgres.DB).ByKey()), billing.Meters(plan.Shipped().Meters), w.clock, w.Log,
		metering.Options{Pricer: billing.Pricer{Core: replica}})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = in.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return in
}

// told counts the account's events of a type.
func (w *world) told(t *testing.T, a account.ID, what outbox.Type) (n int) {
	t.Helper()
	events, err := w.DB.Outbox().After(t.Context(), a, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == what {
			n++
		}
	}
	return n
}

func (w *world) limitSpend(t *testing.T, a account.ID, cents int64, mode entitlement.Mode) {
	t.Helper()
	limiter, amount := billing.Limiter{Core: w.Core}, usd(cents)
	held, err := limiter.Get(t.Context(), a)
	if err == nil {
		_, err = limiter.Set(t.Context(), asked(a, ""), billing.SpendLimit{Amount: &amount, Mode: mode, Version: held.Version})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// check is what follows every change of usage, here on many replicas at once.
func (w *world) check(t *testing.T, a account.ID) {
	t.Helper()
	together(4, func(int) {
		if err := (billing.Watcher{Core: w.Core}).Check(t.Context(), a); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) grant(t *testing.T, a account.ID, cents int64, priority int, days int) wallet.GrantID {
	t.Helper()
	in := billing.GrantInput{Amount: usd(cents), Priority: priority, Reason: "test"}
	if days > 0 {
		in.ExpiresAt = w.clock().Add(time.Duration(days) * 24 * time.Hour)
	}
	got, err := billing.Granter{Core: w.Core}.Grant(t.Context(), asked(a, newKey()), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record.ID
}

func (w *world) left(t *testing.T, a account.ID, g wallet.GrantID) int64 {
	t.Helper()
	got, err := w.DB.Wallet().Grant(t.Context(), a, g)
	if err != nil {
		t.Fatal(err)
	}
	return got.Remaining.Minor
}

func newKey() string { return uuid.NewString() }

// withFees adds two plans with a monthly fee above the others.
func withFees(c plan.Catalogue) plan.Catalogue {
	perMinute := func(minor int64) []plan.Charge {
		charge := perMinute("").Charges[0]
		charge.Prices = []plan.Price{{Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.DecimalFromUnits(minor, 2)}}
		return []plan.Charge{charge}
	}
	for i, v := range []plan.Version{
		{
			Plan: "growth", Currencies: []money.Currency{money.USD}, Fee: &plan.Fee{Name: "Growth", Prices: plan.Sums{usd(2200)}},
			Credit: plan.Sums{usd(1000)}, Charges: perMinute(3),
		},
		{Plan: "scale", Currencies: []money.Currency{money.USD}, Fee: &plan.Fee{Name: "Scale", Prices: plan.Sums{usd(33000)}}, Charges: perMinute(1)},
	} {
		c.Offers = append(c.Offers, plan.Offer{
			Plan:    plan.Plan{Code: v.Plan, Name: string(v.Plan), Position: 10 + i, RequiresCard: true},
			Version: v,
		})
	}
	return c
}

func (w *world) publish(t *testing.T, c plan.Catalogue) {
	t.Helper()
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func (w *world) moveTo(t *testing.T, a account.ID, code plan.Code) {
	t.Helper()
	got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: code}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		t.Fatalf("upgrade to %s: %+v, %v", code, got.Record, err)
	}
}

// onProAmongFees opens an account on Pro beside the plans of withFees.
func (w *world) onProAmongFees(t *testing.T) account.ID {
	t.Helper()
	w.publish(t, withFees(plan.Shipped()))
	return w.onPro(t)
}

func mustID(t *testing.T, s string) account.ID {
	t.Helper()
	a, err := id.Parse[account.Account](s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// eventsOf returns the provider's webhooks about the given objects, in the order in which things happened.
func (w *world) eventsOf(t *testing.T, refs ...string) []sandbox.Event {
	t.Helper()
	all, err := w.control.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e sandbox.Event) bool { return !slices.Contains(refs, e.Ref) })
}

func (w *world) deliver(t *testing.T, e sandbox.Event) {
	t.Helper()
	if status, err := w.control.Deliver(t.Context(), e.ID); err != nil || status != http.StatusOK {
		t.Errorf("%s: %d, %v", e.Type, status, err)
		w.webhookErrors.Range(func(k, _ any) bool { t.Log(k); return true })
	}
}

// day is an instant of 2026, as the first period begins on 10 March.
func day(m time.Month, d int) time.Time { return time.Date(2026, m, d, 0, 0, 0, 0, time.UTC) }

// until lets time pass and does what is due: twice, since what closes then becomes final a day later.
func (w *world) until(t *testing.T, at time.Time) {
	t.Helper()
	w.advance(at.Sub(w.clock()))
	w.sweep(t)
}

// content is what the account's final invoice of the period that begins at start says, every line verified.
func (w *world) content(t *testing.T, a account.ID, start time.Time) []invoice.Line {
	t.Helper()
	of := w.invoiceOf(t, a, start)
	content, err := w.DB.Invoices().Content(t.Context(), a, of)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range content.Lines {
		if v, err := (billing.Reader{Core: w.Core}).Verify(t.Context(), a, of, l.Number); err != nil || !v.Verified {
			t.Errorf("line %d of %s is not verified: %+v, %v", l.Number, start.Format(time.DateOnly), v, err)
		}
	}
	return content.Lines
}

// lines are the kinds and amounts of content.
func (w *world) lines(t *testing.T, a account.ID, start time.Time) string {
	t.Helper()
	var out []string
	for _, l := range w.content(t, a, start) {
		out = append(out, fmt.Sprintf("%s %d", l.Kind, l.Amount.Minor))
	}
	return strings.Join(out, ", ")
}

func (w *world) addCard(t *testing.T, a account.ID, token string) payment.Method {
	t.Helper()
	got, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a, newKey()), billing.NewCard{CardSource: billing.CardSource{Token: token}, Profile: profile}, nil)
	if err != nil || got.Record.Status != payment.MethodActive {
		t.Fatalf("card: %+v, %v", got.Record, err)
	}
	return got.Record
}

func (w *world) card(t *testing.T, a account.ID, mid payment.MethodID) payment.Method {
	t.Helper()
	m, err := w.DB.Payments().Method(t.Context(), a, mid)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
