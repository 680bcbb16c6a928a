package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// patron is an account that lives through many kills: what was asked for it adds up, and all of it must
// be there after each.
type patron struct {
	account account.Account
	token   string
	level   plan.Code
	charges []int64 // cents that the provider must have taken, each once
	refunds int64   // cents that it must have given back, in all
	funds   int64   // cents
	cards   int     // on file
	paid    []paid  // top-ups that have something left to refund
}

type paid struct {
	payment string
	left    int64
}

// intent is one thing that one customer wants done once, and what must be true afterwards.
type intent struct {
	*patron
	op     failpoint.Op
	by     string // another token than the patron's: an operator's
	path   string
	key    string // empty: a request that is harmless to repeat and takes no key
	body   []byte
	want   int                                            // the status of its answer
	may    []int                                          // what it may be as well
	delay  time.Duration                                  // before it is sent
	did    func(got answer)                               // notes what of the answer later intents need
	verify func(ctx context.Context, h *harness) []string // what this operation leaves, beside the patron's totals

	got *answer
}

// check holds everything that the patron has asked for to what the service has.
func (in *intent) check(ctx context.Context, h *harness) []string {
	faults := h.onPlan(ctx, in, in.level)
	faults = append(faults, h.hasFunds(ctx, in, in.funds)...)
	faults = append(faults, h.count(ctx, in, in.cards, "SELECT count(*) FROM payment_methods WHERE account_id = $1 AND status = 'active'")...)
	if in.verify != nil {
		faults = append(faults, in.verify(ctx, h)...)
	}
	return faults
}

// send sends an intent's request, always the same, and returns errCut if no answer came.
func send(ctx context.Context, web *http.Client, api string, in *intent) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, api+in.path, bytes.NewReader(in.body))
	if err != nil {
		return answer{}, err
	}
	if in.by == "" {
		r.Header.Set("Authorization", "Bearer "+in.token)
	} else {
		r.Header.Set("Authorization", "Bearer "+in.by)
		r.Header.Set("Accrue-Account", in.account.ID.String())
	}
	r.Header.Set("Content-Type", "application/json")
	if in.key != "" {
		r.Header.Set("Idempotency-Key", `"`+in.key+`"`)
	}
	// A client that repeats a request by itself would hide what the harness looks for.
	r.GetBody = nil
	res, err := web.Do(r)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errCut, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errCut, err)
	}
	return answer{res.StatusCode, res.Header.Get("Idempotent-Replayed") == "true", string(body)}, nil
}

var profile = account.Profile{
	Name: "Ada Lovelace", Email: "ada@example.com",
	Address: account.Address{Line1: "12 St James's Square", City: "London", PostalCode: "SW1Y 4JH", Country: "GB"},
}

func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only values of this test are encoded
	}
	return b
}

type object = map[string]any

func profileBody() object {
	return object{"name": profile.Name, "email": profile.Email, "address": profile.Address}
}

// newIntent has a patron want something: one who is known already where the operation can be done again
// and again, or a new one, whom the operations themselves prepare.
func (h *harness) newIntent(op failpoint.Op, rng *rand.Rand) *intent {
	in := &intent{op: op, key: uuid.NewString(), want: http.StatusCreated}
	switch op {
	case failpoint.Upgrade:
		h.intendUpgrade(in)
	case failpoint.CancelUpgrade:
		h.intendCancel(in)
	case failpoint.AddCard:
		h.intendCard(in)
	case failpoint.TopUp:
		h.intendTopUp(in, rng)
	case failpoint.Refund:
		h.intendRefund(in, rng)
	case failpoint.PayInvoice:
		h.intendPay(in)
	default:
		h.t.Fatalf("%s is not asked for by anybody", op)
	}
	return in
}

func (h *harness) newPatron(a account.Account, level plan.Code, cards int) *patron {
	return &patron{account: a, token: h.deployment.token(h.t, a.ID.String()), level: level, cards: cards}
}

// take returns a patron who waits and is fit, or nil. Done with, an intent gives its patron back.
func (h *harness) take(fit func(*patron) bool) *patron {
	i := slices.IndexFunc(h.waiting, fit)
	if i < 0 {
		return nil
	}
	p := h.waiting[i]
	h.waiting = slices.Delete(h.waiting, i, i+1)
	return p
}

func (h *harness) developer() *patron {
	if p := h.take(func(p *patron) bool { return p.level == plan.Developer }); p != nil {
		return p
	}
	return h.newPatron(h.open(time.Time{}), plan.Developer, 0)
}

func (h *harness) customer() *patron {
	if p := h.take(func(p *patron) bool { return p.level == plan.Pro }); p != nil {
		return p
	}
	return h.newPatron(h.pro(time.Time{}), plan.Pro, 1)
}

func (h *harness) intendUpgrade(in *intent) {
	in.patron = h.developer()
	in.path = "/v1/upgrades"
	in.body = encoded(object{"plan": "pro", "payment_method": object{"token": sandbox.TokenVisa}, "billing_profile": profileBody()})
	in.level, in.cards = plan.Pro, in.cards+1
}

// A cancel has no provider in it and no key: it is as harmless to repeat as it looks.
func (h *harness) intendCancel(in *intent) {
	in.patron, in.key, in.want = h.developer(), "", http.StatusOK
	up, err := billing.Upgrader{Core: h.core}.Upgrade(context.Background(), h.asked(in.account), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
	}, nil)
	h.must(err)
	in.path = "/v1/upgrades/" + up.Record.ID.String() + "/cancel"
	in.verify = func(ctx context.Context, h *harness) []string {
		return h.count(ctx, in, 1, "SELECT count(*) FROM upgrades WHERE account_id = $1 AND status = 'canceled' AND id = '"+up.Record.ID.UUID().String()+"'")
	}
}

func (h *harness) intendCard(in *intent) {
	in.patron = h.customer()
	in.path = "/v1/payment-methods"
	in.body = encoded(object{"token": sandbox.TokenMastercard, "billing_profile": profileBody()})
	in.cards++
}

func (h *harness) intendTopUp(in *intent, rng *rand.Rand) {
	in.patron = h.customer()
	cents := 500 + rng.Int64N(10_000)
	in.path, in.body = "/v1/top-ups", encoded(object{"amount": object{"amount": cents, "currency": "USD"}})
	in.charges = append(in.charges, cents)
	in.funds += cents
	in.did = func(got answer) {
		var top struct{ Payment string }
		_ = json.Unmarshal([]byte(got.body), &top) // what is no top-up has failed by its status
		in.paid = append(in.paid, paid{top.Payment, cents})
	}
}

func (h *harness) intendRefund(in *intent, rng *rand.Rand) {
	in.patron = h.take(func(p *patron) bool { return len(p.paid) > 0 })
	if in.patron == nil {
		in.patron = h.customer()
		cents := 500 + rng.Int64N(10_000)
		top, err := billing.Funder{Core: h.core}.TopUp(context.Background(), h.asked(in.account), billing.TopUpInput{Amount: usd(cents)}, nil)
		h.must(err)
		in.charges, in.funds = append(in.charges, cents), in.funds+cents
		in.paid = append(in.paid, paid{top.Record.Charge.ID.String(), cents})
	}
	of := &in.paid[0]
	cents := 1 + rng.Int64N(of.left)
	in.by = h.operator
	in.path = "/v1/admin/refunds"
	in.body = encoded(object{"payment": of.payment, "amount": object{"amount": cents, "currency": "USD"}, "reason": "test"})
	if of.left -= cents; of.left == 0 {
		in.paid = in.paid[1:]
	}
	in.refunds, in.funds = in.refunds+cents, in.funds-cents
}

// The invoice was paid and the payment refunded, so it is open and nobody collects it but the customer.
func (h *harness) intendPay(in *intent) {
	ctx := context.Background()
	in.want = http.StatusOK
	in.patron = h.withUsage()
	h.turnClock(ctx, in.account.ID)
	_, err := billing.Closer{Core: h.core}.Close(ctx, in.account.ID)
	h.must(err)
	inv := h.invoice(ctx, in.account.ID)
	h.must(billing.Closer{Core: h.core}.Finalize(ctx, in.account.ID, inv.ID))
	if _, err := (billing.Collector{Core: h.core}).Collect(ctx, in.account.ID, inv.ID); err != nil {
		h.must(err)
	}
	// The service may have been quicker with the closing and the collecting; one of us has done it.
	var paid []payment.Payment
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		paid, err = h.db.Payments().PaymentsOf(ctx, in.account.ID, inv.ID)
		h.must(err)
		if len(paid) == 1 && paid[0].Status == payment.Succeeded {
			break
		}
	}
	if len(paid) != 1 || paid[0].Status != payment.Succeeded {
		h.t.Fatalf("the invoice of %s is not paid: %+v", in.account.ID, paid)
	}
	_, err = billing.Refunder{Core: h.core}.Refund(ctx, h.asked(in.account), billing.RefundInput{Payment: paid[0].ID, Reason: "test", Origin: payment.ByOperator}, nil)
	h.must(err)
	cents := paid[0].Amount.Minor
	in.charges, in.refunds = []int64{cents, cents}, cents
	in.path, in.body = "/v1/invoices/"+inv.ID.String()+"/pay", []byte("{}")
	in.verify = func(ctx context.Context, h *harness) []string {
		return h.count(ctx, in, 1, "SELECT count(*) FROM invoices WHERE account_id = $1 AND status = 'paid'")
	}
}

func (h *harness) asked(a account.Account) billing.Asked {
	return billing.Asked{Account: a.ID, Actor: "user:test"}
}

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

// pro opens an account and takes it to Pro with a card.
func (h *harness) pro(clockAt time.Time) account.Account {
	a := h.open(clockAt)
	got, err := billing.Upgrader{Core: h.core}.Upgrade(context.Background(), h.asked(a), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
	}, nil)
	h.must(err)
	if got.Record.Status != payment.Succeeded {
		h.t.Fatalf("upgrade of %s: %+v", a.ID, got.Record)
	}
	return a
}

// used is what withUsage uses, and usedCost what it costs on Pro: 500 minutes beyond the allowance.
const (
	used     = "90000"
	usedCost = 1350 // cents
)

// withUsage opens a Pro account on a test clock that has used something to pay for.
func (h *harness) withUsage() *patron {
	p := h.newPatron(h.pro(time.Now()), plan.Pro, 1)
	got, err := send(context.Background(), h.web, h.proc.api, &intent{
		patron: p, path: "/v1/usage/events",
		body: encoded(object{"events": []object{{"id": "call-1", "meter": "voice", "quantity": used, "timestamp": time.Now().UTC().Format(time.RFC3339Nano)}}}),
	})
	h.must(err)
	if got.status != http.StatusOK || !bytes.Contains([]byte(got.body), []byte(`"accepted":1`)) {
		h.t.Fatalf("usage of %s: %+v", p.account.ID, got)
	}
	return p
}

// turnClock takes the account past the end of its period.
func (h *harness) turnClock(ctx context.Context, a account.ID) {
	h.must(h.db.InTx(ctx, func(tx billing.Tx) error {
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		acct.ClockAt = acct.ClockAt.Add(33 * 24 * time.Hour)
		return tx.Accounts().Save(ctx, &acct)
	}))
}

// invoice returns the account's only invoice.
func (h *harness) invoice(ctx context.Context, a account.ID) invoice.Invoice {
	all, err := h.db.Invoices().List(ctx, a, "", page.Request{Limit: 10})
	h.must(err)
	if len(all.Data) != 1 {
		h.t.Fatalf("%s has %d invoices, want 1", a, len(all.Data))
	}
	return all.Data[0]
}

func (h *harness) onPlan(ctx context.Context, in *intent, want plan.Code) []string {
	sub, err := h.db.Subscriptions().Active(ctx, in.account.ID)
	if err != nil || sub.Plan != want {
		return []string{fmt.Sprintf("on plan %q, want %q (%v)", sub.Plan, want, err)}
	}
	return nil
}

func (h *harness) hasFunds(ctx context.Context, in *intent, cents int64) []string {
	b, err := billing.Reader{Core: h.core}.Balance(ctx, in.account.ID)
	if err != nil || b.Funds != usd(cents) {
		return []string{fmt.Sprintf("funds %s, want %s (%v)", b.Funds, usd(cents), err)}
	}
	return nil
}

// count holds the number of an account's rows to what it must be.
func (h *harness) count(ctx context.Context, in *intent, want int, sql string) []string {
	var n int
	if err := h.owner.QueryRow(ctx, sql, in.account.ID).Scan(&n); err != nil || n != want {
		return []string{fmt.Sprintf("%d, want %d (%v): %s", n, want, err, sql)}
	}
	return nil
}
