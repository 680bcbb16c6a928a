package billing_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/dunning"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// An account that lives through months and years (its periods begin on the 29th, 30th or 31st of its zone, past leap days and
// changes of the clocks), under plans, versions and contracts of every price and commitment there is, with spend limits that come
// and go, is billed for each valid event once, at the terms and in the period that docs/pricing.md and docs/metering.md say,
// whenever it was told, told again, amended or void, and whichever invoices were void. Each invoice is held to a naive recount of
// all that was told, line by line, and so is the live balance on the way.
func TestInvoices_PropertyALifeIsBilledAsARecountSays(t *testing.T) {
	t.Parallel()
	seed := seedOf()
	for round := range often(4, 60) {
		t.Run(fmt.Sprintf("seed %d round %d", seed, round), func(t *testing.T) {
			t.Parallel()
			newLife(t, rand.New(rand.NewPCG(seed, uint64(round)))).live(t, 6)
		})
	}
}

const lifeMeters = `
meters:
  - {code: calls, unit: second, units: {minute: 60}, rounding: {first: 60, step: 6}, dimensions: [to, model]}
  - {code: words, unit: word, units: {thousand: 1000}, dimensions: [model]}
  - {code: requests, unit: request, aggregation: count}
  - {code: peak, unit: seat, aggregation: max, dimensions: [to]}
  - {code: stored, unit: gigabyte, aggregation: last}
  - {code: users, unit: user, aggregation: unique}
plans:
`

var lifePlans = []string{"life0", "life1", "life2"}

// life is an account, and the oracle of it.
type life struct {
	*world
	oracle
	r        *rand.Rand
	a        account.ID
	currency money.Currency
	meters   metering.Meters
	usage    *metering.Ingester
	past     []string // what happened
	paid     int64    // granted
}

func newLife(t *testing.T, r *rand.Rand) *life {
	t.Helper()
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	l := &life{world: newWorld(t), r: r}
	zone := pick("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago", "Pacific/Apia", "America/Havana")
	l.currency = money.Currency(pick("USD", "EUR", "JPY"))
	l.digits = l.currency.Exponent()
	var err error
	if l.zone, err = time.LoadLocation(zone); err != nil {
		t.Fatal(err)
	}
	months := []time.Month{time.January, time.August, time.October, time.December}
	born := time.Date(2027, months[r.IntN(len(months))], 29+r.IntN(3), r.IntN(24), r.IntN(60), r.IntN(60), 1000*r.IntN(1_000_000), l.zone)
	l.advance(born.Sub(l.clock()))
	l.Policy.Dunning = dunning.Policy{Retries: []time.Duration{10_000 * 24 * time.Hour}, CardAttempts: 100} // what is declined stays open
	l.anchor = time.Date(born.Year(), born.Month(), born.Day(), 12, 0, 0, 0, l.zone)
	l.sold = map[string]*lifeTerms{"developer": {plan: "developer", version: 1}}
	l.publish(t, lifePlans...)
	acct, err := billing.Opener{Core: l.Core}.Open(t.Context(), billing.NewAccount{Currency: l.currency, TimeZone: zone})
	if err != nil {
		t.Fatal(err)
	}
	l.a = acct.ID
	l.begin(l.sold["developer"], nil)
	card := l.addCard(t, l.a, sandbox.TokenVisa)
	good := billing.CardChange{Version: card.Version, ExpMonth: 12, ExpYear: 2099}
	if _, err := (billing.Cards{Core: l.Core}).Change(t.Context(), asked(l.a, newKey()), card.ID, good); err != nil {
		t.Fatal(err)
	}
	l.did("born in %s at %s in %s", zone, born.Format(time.RFC3339Nano), l.currency)
	return l
}

func (l *life) did(format string, args ...any) {
	l.past = append(l.past, l.clock().UTC().Format("2006-01-02 15:04:05.000000 ")+fmt.Sprintf(format, args...))
}

func (l *life) fatalf(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Fatalf("%s\n%s\nWRONG %s", strings.Join(l.past, "\n"), l.prices(), fmt.Sprintf(format, args...))
}

func (l *life) prices() string {
	var b strings.Builder
	for _, t := range l.all {
		fmt.Fprintf(&b, "# version %d\n%s", t.version, l.yaml(t, string(l.currency)))
	}
	return b.String()
}

func (l *life) parse(t *testing.T, terms ...*lifeTerms) plan.Catalogue {
	t.Helper()
	doc := fmt.Sprintf("currencies: [%s]\n%s", l.currency, lifeMeters)
	for _, x := range terms {
		doc += l.yaml(x, string(l.currency))
	}
	c, err := plan.ParseCatalogue([]byte(doc))
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	return c
}

// publish puts new terms of plans on sale.
func (l *life) publish(t *testing.T, codes ...string) {
	t.Helper()
	var drawn []*lifeTerms
	for _, code := range codes {
		version := 1
		if old := l.sold[code]; old != nil {
			version = old.version + 1
		}
		l.sold[code] = l.draw(l.r, code, version, false)
		l.all = append(l.all, l.sold[code])
		drawn = append(drawn, l.sold[code])
	}
	own, c := l.parse(t, drawn...), plan.Shipped()
	for i := range own.Offers {
		own.Offers[i].Plan.Position = 10 + slices.Index(lifePlans, codes[i])
	}
	c.Meters, c.Offers = append(c.Meters, own.Meters...), append(c.Offers, own.Offers...)
	if _, err := (billing.Publisher{Core: l.Core}).Publish(t.Context(), c); err != nil {
		t.Fatalf("%v\n%s", err, l.prices())
	}
	l.did("published %v", codes)
	if l.usage != nil {
		return
	}
	l.meters = billing.Meters(c.Meters)
	l.usage = metering.NewIngester(postgres.Journal(l.db.ByKey()), l.meters, l.clock, l.Log, metering.Options{Pricer: billing.Pricer{Core: l.Core}})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = l.usage.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

// live lets so many periods pass, with all that may happen in them, and then the time in which all is billed.
func (l *life) live(t *testing.T, periods int) {
	t.Helper()
	for range periods {
		if l.r.IntN(8) == 0 { // nothing runs for more than a month
			l.pass(l.running().end.AddDate(0, 0, 3+l.r.IntN(40)))
			l.tell(t, l.clock(), l.running().end)
			l.to(t, l.clock())
		}
		p := l.running()
		for range 4 + l.r.IntN(6) {
			if at := l.clock().Add(time.Duration(l.r.Int64N(int64(p.end.Sub(l.clock()))/4/1000)) * time.Microsecond); at.Before(p.end.Add(-time.Minute)) {
				l.to(t, at)
			}
			l.act(t)
		}
		// Usage just before the period ends, when it has ended and is not closed yet, in its grace, and when that is over.
		moments := []time.Duration{-time.Microsecond, 0, time.Duration(l.r.IntN(3600)) * time.Second}
		for _, after := range moments {
			l.pass(p.end.Add(after))
			l.tell(t, p.end, p.end.Add(-time.Microsecond))
		}
		l.to(t, l.clock())
		for _, after := range []time.Duration{time.Hour + time.Second, l.Policy.Grace - time.Microsecond, l.Policy.Grace} {
			l.pass(p.end.Add(after))
			l.tell(t, p.end, p.end.Add(-time.Microsecond))
			if l.r.IntN(2) == 0 {
				l.correct(t)
			}
		}
		card := []string{sandbox.TokenVisa, sandbox.TokenChargeDeclined}[l.r.IntN(2)]
		l.behave(t, l.a, card)
		l.to(t, l.clock())
		l.behave(t, l.a, sandbox.TokenVisa)
	}
	for range 3 {
		end := l.running().end
		l.to(t, end)
		l.to(t, end.Add(l.Policy.Grace))
	}
	l.settled(t)
}

func (l *life) pass(at time.Time) {
	if at.After(l.clock()) {
		l.advance(at.Sub(l.clock()))
	}
}

// to lets time pass and does what is due, and holds what is final then to the oracle.
func (l *life) to(t *testing.T, at time.Time) {
	t.Helper()
	l.pass(at)
	l.sweep(t)
	l.sweep(t)
	l.did("swept")
	before := len(l.periods)
	l.turn(l.clock())
	for _, p := range l.periods[before:] {
		l.did("period %s to %s under %s %d", p.start.UTC().Format(time.RFC3339), p.end.UTC().Format(time.RFC3339), p.held[0].terms.plan, p.held[0].terms.version)
	}
	sub, err := l.DB.Subscriptions().Active(t.Context(), l.a)
	if err != nil {
		t.Fatal(err)
	}
	p, terms := l.running(), l.present()
	if !sub.Period.Start.Equal(p.start) || !sub.Period.End.Equal(p.end) {
		l.fatalf(t, "the period is %s, want %s to %s", sub.Period, p.start.UTC(), p.end.UTC())
	}
	if p.contract == nil && (string(sub.Plan) != terms.plan || sub.Version != terms.version) || sub.Contract.IsZero() != (p.contract == nil) {
		l.fatalf(t, "held is %+v, want %s %d (contract %v)", sub.Terms, terms.plan, terms.version, p.contract != nil)
	}
	drafts := false
	for _, p := range l.periods[:len(l.periods)-1] {
		if p.final {
			continue
		}
		stored, err := l.DB.Subscriptions().Period(t.Context(), l.a, p.start)
		if err != nil {
			l.fatalf(t, "the period of %s: %v", p.start.UTC(), err)
		}
		inv, err := l.DB.Invoices().OfPeriod(t.Context(), l.a, stored.Subscription, p.start)
		over := !l.clock().Before(p.end.Add(l.Policy.Grace))
		switch {
		case err != nil: // nothing in it can cost money
			if lines, _ := l.bill(p); len(lines) > 0 {
				l.fatalf(t, "no invoice (%v), want %v", err, lines)
			}
			p.final = over
		case over == (inv.Status == invoice.Draft):
			l.fatalf(t, "the invoice of %s is %s at %s", p.start.UTC(), inv.Status, l.clock())
		case over:
			l.compare(t, p, inv)
		default:
			drafts = true
		}
	}
	if !drafts {
		l.compareBalance(t)
	}
}

// compare holds a final invoice to the oracle: its own lines one by one, and what it bills of earlier periods.
func (l *life) compare(t *testing.T, p *lifePeriod, inv invoice.Invoice) {
	t.Helper()
	want := l.finalize(p)
	l.did("the invoice of %s: want %v, late %v", p.start.UTC().Format(time.DateOnly), want.lines, want.late)
	var got []lifeLine
	sum, gave := int64(0), int64(0)
	left := want.late // less what is billed of it
	for _, x := range l.content(t, l.a, p.start) {
		switch sum += x.Amount.Minor; {
		case x.Kind == "credit_to_balance":
			gave = x.Amount.Minor
		case !x.Period.Start.Equal(p.start):
			left[x.Period.Start.UnixMicro()] -= x.Amount.Minor
		case x.Amount.Minor != 0:
			got = append(got, lifeLine{x.Kind, x.Amount.Minor})
		}
	}
	sorted := func(lines []lifeLine) []string {
		var out []string
		for _, x := range lines {
			out = append(out, x.String())
		}
		slices.Sort(out)
		return out
	}
	if g, w := sorted(got), sorted(want.lines); !slices.Equal(g, w) {
		l.fatalf(t, "the period of %s is billed %v,\nwant %v", p.start.UTC(), g, w)
	}
	for start, sum := range left {
		if sum != 0 {
			l.fatalf(t, "of %s %d are not billed in %s as they should be", time.UnixMicro(start).UTC(), sum, p.start.UTC())
		}
	}
	if sum != inv.Total.Minor || sum != max(0, want.sum) || gave != max(0, -want.sum) {
		l.fatalf(t, "the invoice of %s is %s, its lines come to %d with %d to the balance, want %d", p.start.UTC(), inv.Total, sum, gave, want.sum)
	}
}

// compareBalance holds what has accrued to the oracle.
func (l *life) compareBalance(t *testing.T) {
	t.Helper()
	want := l.invoice(l.running()).sum
	if b := l.balance(t, l.a); b.Accrued.Minor != want {
		l.fatalf(t, "accrued is %s, want %d", b.Accrued, want)
	}
}

// settled checks that all that was used is billed, and where the money is.
func (l *life) settled(t *testing.T) {
	t.Helper()
	all, billed, absorbed := l.ahead(), l.ahead(), int64(0)
	for _, p := range l.periods[:len(l.periods)-1] {
		_, sum := l.bill(p)
		all += sum - p.gone()
		absorbed += p.absorbed
		if !p.void {
			billed += p.sum
			all -= p.absorbed
		}
	}
	b, err := l.DB.Ledger().Balances(t.Context(), l.a)
	if err != nil {
		t.Fatal(err)
	}
	earned := -b[books.Revenue] - b[books.Waived] - b[books.Absorbed] // what a correction gives back is waived
	if all != billed || earned != all || b[books.Absorbed] != absorbed {
		l.fatalf(t, "used for %d, billed %d, earned %d; absorbed %d, want %d", all, billed, earned, b[books.Absorbed], absorbed)
	}
	grants, err := l.DB.Wallet().Unspent(t.Context(), l.a)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	for _, g := range grants {
		left += g.Remaining.Minor
	}
	cards := int64(0)
	for _, c := range l.charges(t)[l.a] {
		cards += c.Amount.Minor
	}
	s := books.StandingOf(b, l.currency)
	if got, want := cards+l.paid-left, all+s.Funds.Minor-s.Due.Minor; got != want {
		l.fatalf(t, "cards have paid %d and credit %d, want %d together: used for %d, funds %s, due %s", cards, l.paid-left, want, all, s.Funds, s.Due)
	}
}

// act does one thing that may happen in a period. The clock is within it, and all that was due is done.
func (l *life) act(t *testing.T) {
	t.Helper()
	ctx, now := t.Context(), l.clock()
	p, held := l.running(), l.present()
	above := lifePlans[slices.Index(lifePlans, held.plan)+1:]
	var waits *lifeContract
	for _, k := range l.contracts {
		if k.start.After(p.start) && k != p.contract {
			waits = k
		}
	}
	switch l.r.IntN(18) {
	default:
		l.tell(t, now, p.start, p.start.Add(-time.Microsecond))
	case 4, 5:
		l.correct(t)
	case 6, 7, 8:
		if p.contract != nil || len(above) == 0 {
			return
		}
		in := billing.UpgradeInput{Plan: plan.Code(above[l.r.IntN(len(above))])}
		got, err := billing.Upgrader{Core: l.Core}.Upgrade(ctx, asked(l.a, newKey()), in, nil)
		if l.sold[string(in.Plan)].year != l.year && errors.Is(err, billing.ErrInterval) {
			return
		}
		if err != nil || got.Record.Status != payment.Succeeded {
			l.fatalf(t, "upgrade to %s: %+v, %v", in.Plan, got.Record, err)
		}
		l.change(l.sold[string(in.Plan)], now)
		l.did("upgraded to %s", in.Plan)
	case 9:
		at := slices.Index(lifePlans, held.plan)
		if p.contract != nil || at < 0 || l.nextPlan != "" {
			return
		}
		to := append([]string{"developer"}, lifePlans[:at]...)[l.r.IntN(at+1)]
		if _, err := (billing.Downgrader{Core: l.Core}).Plan(ctx, asked(l.a, newKey()), plan.Code(to), nil); err != nil {
			l.fatalf(t, "downgrade to %s: %v", to, err)
		}
		l.nextPlan = to
		l.did("planned %s", to)
	case 10:
		l.migrate(t, lifePlans[l.r.IntN(len(lifePlans))])
	case 11:
		if p.contract == nil && waits == nil {
			l.agree(t)
		}
	case 12:
		sum := 1 + l.r.Int64N(4000)
		in := billing.GrantInput{Amount: money.New(sum, l.currency), Reason: "test"}
		if _, err := (billing.Granter{Core: l.Core}).Grant(ctx, asked(l.a, newKey()), in, nil); err != nil {
			l.fatalf(t, "grant: %v", err)
		}
		l.paid += sum
		l.did("granted %d", sum)
	case 13:
		if held.plan == "developer" {
			return
		}
		sum := money.New(1000+l.r.Int64N(4000), l.currency)
		if _, err := (billing.Funder{Core: l.Core}).TopUp(ctx, asked(l.a, newKey()), billing.TopUpInput{Amount: sum}, nil); err != nil {
			l.fatalf(t, "top up: %v", err)
		}
		l.did("topped up %s", sum)
	case 14, 15:
		l.takeBack(t)
	case 16, 17:
		l.limitSome(t)
	}
}

// limitSome sets a hard spend limit near what the running period comes to, or takes it off.
func (l *life) limitSome(t *testing.T) {
	t.Helper()
	l.limit = 0
	if l.r.IntN(3) > 0 {
		_, now := l.bill(l.running())
		l.limit = 1 + l.r.Int64N(2*max(now, 2000))
	}
	want := billing.SpendLimit{Mode: entitlement.Hard}
	if l.limit > 0 {
		want.Amount = new(money.New(l.limit, l.currency))
	}
	limiter := billing.Limiter{Core: l.Core}
	held, err := limiter.Get(t.Context(), l.a)
	if err != nil {
		t.Fatal(err)
	}
	want.Version = held.Version
	if _, err := limiter.Set(t.Context(), asked(l.a, ""), want); err != nil {
		l.fatalf(t, "spend limit of %d: %v", l.limit, err)
	}
	l.did("spend limit %d", l.limit)
}

// takeBack voids an invoice that nobody has paid anything of, where that can be.
func (l *life) takeBack(t *testing.T) {
	t.Helper()
	unpaid, err := l.DB.Invoices().Unpaid(t.Context(), l.a)
	if err != nil {
		t.Fatal(err)
	}
	for _, inv := range unpaid {
		if inv.Status != invoice.Open || !inv.AmountPaid.IsZero() {
			continue
		}
		_, err := billing.Adjuster{Core: l.Core}.Void(t.Context(), asked(l.a, newKey()), inv.ID, "should not have been", nil)
		if errors.Is(err, billing.ErrPaidAhead) && inv.Kind == invoice.Prepayment {
			continue
		}
		p := l.periods[slices.IndexFunc(l.periods, func(p *lifePeriod) bool { return p.start.Equal(inv.Period.Start) })]
		if p.corrected != errors.Is(err, billing.ErrCorrected) || !p.corrected && err != nil {
			l.fatalf(t, "void the invoice of %s, which has been or does correct (%v): %v", p.start.UTC(), p.corrected, err)
		}
		p.void = !p.corrected
		l.did("void the invoice of %s: %v", p.start.UTC().Format(time.DateOnly), p.void)
		return
	}
}

// migrate publishes other terms of a plan, and moves those to it who are on earlier ones.
func (l *life) migrate(t *testing.T, code string) {
	t.Helper()
	l.publish(t, code)
	if l.r.IntN(3) == 0 {
		return
	}
	in := billing.MigrationInput{Plan: plan.Code(code), To: l.sold[code].version, When: subscription.AtPeriodEnd}
	if l.r.IntN(2) == 0 {
		in.When = subscription.AtOnce
	}
	if _, err := (billing.Migrator{Core: l.Core}).Begin(t.Context(), asked(account.ID{}, newKey()), in, asJSON[subscription.Migration](201)); err != nil {
		l.fatalf(t, "migrate: %v", err)
	}
	l.did("migration of %s to %d %s", code, in.To, in.When)
	p, held := l.running(), l.present()
	if held.plan == code && p.contract == nil {
		if in.When == subscription.AtOnce && l.sold[code].year == l.year {
			for i := range p.held {
				if p.held[i].terms == held {
					p.held[i].terms = l.sold[code]
				}
			}
			l.nextVersion = nil
		} else {
			l.nextVersion = l.sold[code]
		}
	}
	l.to(t, l.clock())
}

// agree puts the account on a contract, from the running period or a later one.
func (l *life) agree(t *testing.T) {
	t.Helper()
	now, p := l.clock(), l.running()
	k := &lifeContract{terms: l.draw(l.r, "agreed", 1, true), start: p.start, then: append([]string{"developer"}, lifePlans...)[l.r.IntN(4)]}
	l.all = append(l.all, k.terms)
	if l.r.IntN(2) == 0 {
		k.start = now.Add(time.Duration(1+l.r.IntN(50*24)) * time.Hour)
	}
	k.end = k.start.Add(time.Duration(40+l.r.IntN(80)) * 24 * time.Hour)
	v := l.parse(t, k.terms).Offers[0].Version
	def := plan.Contract{
		Reference: fmt.Sprint("C-", len(l.contracts)), Plan: plan.Enterprise, Start: k.start, End: k.end, Then: plan.Code(k.then),
		Charges: v.Charges, Minimum: v.Minimum,
	}
	if l.r.IntN(3) > 0 {
		k.of = []string{"period", "term", "prepaid"}[l.r.IntN(3)]
		def.Commitment = &plan.Commitment{Term: k.of == "term", Prepaid: k.of == "prepaid"}
		steps := 1 + l.r.IntN(3)
		for i := range steps {
			s := lifeStep{k.start.Add(k.end.Sub(k.start) * time.Duration(i) / time.Duration(steps)), 1 + l.r.Int64N(20000)}
			k.steps = append(k.steps, s)
			def.Commitment.Steps = append(def.Commitment.Steps, plan.Step{From: s.from, Sums: plan.Sums{money.New(s.sum, l.currency)}})
		}
		if k.of == "period" && l.r.IntN(2) == 0 {
			k.overage = decimal(l.r, 200, 1)
			def.Commitment.OverageRate = money.MustDecimal(text(k.overage))
		}
	}
	got, err := billing.Contractor{Core: l.Core}.Agree(t.Context(), asked(l.a, newKey()), def, asJSON[billing.Agreement](201))
	if !now.Before(k.end) && errors.Is(err, billing.ErrContractOver) || l.year && k.inForce(p.start) && errors.Is(err, billing.ErrInterval) {
		return
	}
	if err != nil {
		l.fatalf(t, "agree: %v", err)
	}
	l.did("agreed from %s to %s, %s %v, overage %v, then %s: %s", k.start.UTC(), k.end.UTC(), k.of, k.steps, k.overage, k.then, got.Record.Status)
	l.contracts = append(l.contracts, k)
	if k.inForce(p.start) {
		p.contract, p.held = k, []lifeHolding{{k.terms, p.start, p.end}}
		l.nextPlan, l.nextVersion = "", nil
	}
}

// tell reports usage: of each of some moments, of a random one that may be too long ago, and what was told before again.
func (l *life) tell(t *testing.T, at ...time.Time) {
	t.Helper()
	now := l.clock()
	at = append(at, now.Add(-time.Duration(l.r.Int64N(int64(40*24*time.Hour)/1000))*time.Microsecond))
	for _, at := range at {
		e := &lifeEvent{id: newKey(), meter: []string{"calls", "calls", "words", "requests", "peak", "stored", "users"}[l.r.IntN(7)], at: at, dimensions: map[string]string{}}
		if slices.ContainsFunc(l.events, func(o *lifeEvent) bool { return o.meter == "stored" && o.at.Equal(at) }) && e.meter == "stored" {
			e.meter = "calls" // which of two is the last is not said by their times
		}
		e.quantity = l.quantity(e.meter)
		switch e.meter {
		case "calls", "peak":
			e.dimensions["to"] = []string{"+4930", "+491512", "+1212"}[l.r.IntN(3)]
		case "users":
			e.value = fmt.Sprint("user ", l.r.IntN(12))
		}
		if e.meter == "calls" || e.meter == "words" {
			e.dimensions["model"] = []string{"nova-1", "nova-2", "base"}[l.r.IntN(3)]
		}
		got, refused := l.send(t, e), ""
		if got.Problem != nil {
			refused = got.Problem.Code
		}
		switch want := l.fate(e, now); {
		case refused != want || (got.Status == metering.Accepted) != (want == ""):
			l.fatalf(t, "%s of %s at %s, told at %s, is %s for %q, want %q", text(e.quantity), e.meter, e.at.UTC(), now.UTC(), got.Status, refused, want)
		case want == "":
			l.events = append(l.events, e)
			l.did("told %s: %s of %s %v %s at %s", e.id[:4], text(e.quantity), e.meter, e.dimensions, e.value, e.at.UTC().Format(time.RFC3339Nano))
		}
	}
	if len(l.events) > 0 && l.r.IntN(2) == 0 {
		again := l.events[l.r.IntN(len(l.events))]
		if got := l.send(t, again).Status; got != metering.Duplicate && got != metering.Conflict { // with what it was amended to
			l.fatalf(t, "%s again: %s", again.id, got)
		}
	}
}

// fate is why an event is refused; empty: it is not.
func (l *life) fate(e *lifeEvent, now time.Time) string {
	switch {
	case e.at.Before(now.Add(-35 * 24 * time.Hour)):
		return "too_old"
	case e.at.After(now.Add(5 * time.Minute)):
		return "in_future"
	case e.at.Before(l.periods[0].start), !e.at.Before(l.running().end.Add(27 * 24 * time.Hour)): // while nothing runs, the next period takes usage for so long
		return "period_not_open"
	case l.passes(e):
		return "spend_limit_reached"
	}
	return ""
}

func (l *life) quantity(meter string) *big.Rat {
	switch meter {
	case "calls":
		return new(big.Rat).Sub(decimal(l.r, 4000, 1), over(1, 10))
	case "words":
		return over(l.r.Int64N(40_000), 1)
	}
	return decimal(l.r, 30, 2)
}

func (l *life) event(e *lifeEvent) metering.Event {
	out := metering.Event{
		Account: l.a, Source: "test", ID: e.id, Meter: e.meter, Quantity: money.MustDecimal(text(e.quantity)), Value: e.value, OccurredAt: e.at,
	}
	if len(e.dimensions) > 0 {
		out.Dimensions = metering.DimensionsOf(e.dimensions)
	}
	return out
}

func (l *life) send(t *testing.T, e *lifeEvent) metering.Result {
	t.Helper()
	res, err := l.usage.Add(t.Context(), []metering.Event{l.event(e)})
	if err != nil || len(res) != 1 {
		t.Fatalf("ingest: %v, %v", res, err)
	}
	return res[0]
}

// correct makes an event void, or another quantity of it.
func (l *life) correct(t *testing.T) {
	t.Helper()
	var of []*lifeEvent
	for _, e := range l.events {
		if !e.void {
			of = append(of, e)
		}
	}
	if len(of) == 0 {
		return
	}
	e := of[l.r.IntN(len(of))]
	x := metering.Correction{Source: "test", EventID: e.id, Kind: metering.Void, Reason: "it was otherwise"}
	if l.r.IntN(2) == 0 && e.meter != "users" && e.meter != "requests" {
		x.Kind, e.quantity = metering.Amend, l.quantity(e.meter)
		x.Quantity = money.MustDecimal(text(e.quantity))
	}
	if _, err := (billing.Corrections{Core: l.Core, Catalogue: l.meters}).Correct(t.Context(), asked(l.a, newKey()), x, nil); err != nil {
		l.fatalf(t, "%s %s: %v", x.Kind, e.id, err)
	}
	e.void = x.Kind == metering.Void
	l.did("%s %s to %s", x.Kind, e.id[:4], text(e.quantity))
}
