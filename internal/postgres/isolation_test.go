package postgres_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// furnished is an account with one of everything.
type furnished struct {
	account      account.ID
	subscription subscription.Subscription
	contract     subscription.ContractID
	invoice      invoice.Invoice
	card         payment.Method
	setup        payment.SavedSetup
	removal      payment.Removal
	payment      payment.Payment
	topUp        payment.TopUp
	refund       payment.Refund
	dispute      payment.Dispute
	upgrade      upgrade.Upgrade
	grant        wallet.Grant
	rule         wallet.AutoTopUp
	alert        alert.Alert
	inquiry      inquiry.Inquiry
}

func mustFurnish(tb testing.TB, db *postgres.DB) furnished {
	tb.Helper()
	ctx := tb.Context()
	f := furnished{account: mustAccount(tb, db).ID}
	f.invoice = mustDraft(tb, db, f.account)
	mustIssue(tb, db, &f.invoice)
	var err error
	if f.subscription, err = db.Subscriptions().Active(ctx, f.account); err != nil {
		tb.Fatal(err)
	}
	f.card = card(f.account)
	f.card.Default = true
	f.contract = id.New[subscription.Contract]()
	f.setup = payment.SavedSetup{ID: id.New[payment.SavedSetup](), Account: f.account, Provider: "sandbox", Ref: "seti_x", CreatedAt: noon, ExpiresAt: noon}
	f.removal = payment.Removal{ID: id.New[payment.Removal](), Account: f.account, Method: f.card.ID, Kind: payment.BySupport, Status: payment.RemovalOpen, CreatedAt: noon}
	f.payment = charge(f.card)
	f.payment.Status = payment.Succeeded
	f.topUp = payment.TopUp{ID: f.payment.TopUp, Account: f.account, Origin: payment.Manual, Amount: usd(5000), Status: payment.Processing, Payment: f.payment.ID, CreatedAt: noon, UpdatedAt: noon, Version: 1}
	f.refund = payment.Refund{ID: id.New[payment.Refund](), Account: f.account, Payment: f.payment.ID, Amount: usd(1), Status: payment.Succeeded, Origin: payment.ByOperator, ProviderRef: "re_x", CreatedAt: noon, UpdatedAt: noon}
	f.dispute = payment.Dispute{ID: id.New[payment.Dispute](), Account: f.account, Payment: f.payment.ID, ProviderRef: "dp_x", Amount: usd(1), Status: payment.DisputeOpen, CreatedAt: noon, UpdatedAt: noon}
	f.upgrade = newUpgrade(f.account)
	f.upgrade.Method = f.card.ID
	f.grant = wallet.Grant{ID: id.New[wallet.Grant](), Account: f.account, Amount: usd(5), Remaining: usd(5), Reason: "r", Actor: "a", GrantedAt: noon}
	f.rule = wallet.AutoTopUp{Account: f.account, Threshold: usd(1), Target: usd(2), UpdatedAt: noon}
	f.alert = alert.Alert{ID: id.New[alert.Alert](), Account: f.account, Kind: alert.Spend, Threshold: money.DecimalFromInt(5), CreatedAt: noon}
	f.inquiry = inquiry.Inquiry{ID: id.New[inquiry.Inquiry](), Account: f.account, Status: inquiry.Received, CreatedAt: noon, UpdatedAt: noon, Version: 1}
	for i, err := range []error{
		db.Subscriptions().CreateContract(ctx, subscription.Contract{ID: f.contract, Account: f.account, Definition: plan.Contract{Plan: "pro", Version: 1, Start: noon}, CreatedAt: noon}),
		db.Payments().CreateMethod(ctx, f.card), db.Payments().CreateSetup(ctx, f.setup), db.Payments().CreateRemoval(ctx, f.removal),
		db.Payments().CreatePayment(ctx, f.payment), db.Payments().CreateTopUp(ctx, f.topUp), db.Payments().CreateRefund(ctx, f.refund),
		db.Payments().SaveDispute(ctx, f.dispute), db.Payments().SaveCustomer(ctx, f.account, "sandbox", "cus_x"),
		db.Upgrades().Create(ctx, f.upgrade), db.Wallet().CreateGrant(ctx, f.grant), db.Wallet().SaveAutoTopUp(ctx, &f.rule),
		db.Invoices().Draw(ctx, f.account, f.invoice.ID, []wallet.Draw{{Grant: f.grant.ID, Amount: usd(5)}}),
		db.Alerts().Create(ctx, f.alert), db.Inquiries().Create(ctx, f.inquiry),
		db.Outbox().Publish(ctx, f.account, outbox.InvoicePaid, struct{}{}, noon),
		db.Invoices().AddCreditNote(ctx, invoice.CreditNote{ID: id.New[invoice.CreditNote](), Account: f.account, Invoice: f.invoice.ID, By: f.invoice.ID, Number: "CN", Amount: usd(1), ToDue: usd(1), ToFunds: usd(0), IssuedAt: noon}),
	} {
		if err != nil {
			tb.Fatalf("furnishing, step %d: %v", i, err)
		}
	}
	return f
}

// Another account's record is not there, whatever way is tried to get at it.
func TestAccountsAreIsolated(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	f := mustFurnish(t, db)
	other := mustAccount(t, db).ID
	ctx := t.Context()
	subs, invoices, payments, upgrades := db.Subscriptions(), db.Invoices(), db.Payments(), db.Upgrades()
	all := page.Request{Limit: 100}

	// Each case reads or changes f's record in the name of the account that it is given. With f's own
	// it must succeed, or else the case shows nothing.
	type fetch func(a account.ID) error
	missing := map[string]struct {
		fetch fetch
		want  error
	}{
		"Active":           {func(a account.ID) error { _, err := subs.Active(ctx, a); return err }, subscription.ErrNotFound},
		"LockSubscription": {func(a account.ID) error { _, err := subs.Lock(ctx, a); return err }, subscription.ErrNotFound},
		"SaveSubscription": {func(a account.ID) error { s := f.subscription; s.Account = a; return subs.Save(ctx, &s) }, account.ErrStale},
		"Period":           {func(a account.ID) error { _, err := subs.Period(ctx, a, f.subscription.Period.Start); return err }, subscription.ErrNotFound},
		"Contract":         {func(a account.ID) error { _, err := subs.Contract(ctx, a, f.contract); return err }, subscription.ErrContractNotFound},
		"EndContract":      {func(a account.ID) error { return subs.EndContract(ctx, a, f.contract, noon) }, subscription.ErrContractNotFound},
		"Invoice":          {func(a account.ID) error { _, err := invoices.Get(ctx, a, f.invoice.ID); return err }, invoice.ErrNotFound},
		"LockInvoice":      {func(a account.ID) error { _, err := invoices.Lock(ctx, a, f.invoice.ID); return err }, invoice.ErrNotFound},
		"SaveInvoice":      {func(a account.ID) error { i := f.invoice; i.Account = a; return invoices.Save(ctx, &i) }, account.ErrStale},
		"OfPeriod": {func(a account.ID) error {
			_, err := invoices.OfPeriod(ctx, a, f.subscription.ID, f.subscription.Period.Start)
			return err
		}, invoice.ErrNotFound},
		"Content": {func(a account.ID) error { _, err := invoices.Content(ctx, a, f.invoice.ID); return err }, invoice.ErrNotFound},
		"AddCreditNote": {func(a account.ID) error {
			return invoices.AddCreditNote(ctx, invoice.CreditNote{ID: id.New[invoice.CreditNote](), Account: a, Invoice: f.invoice.ID, Number: "CN2", Amount: usd(1), ToDue: usd(1), ToFunds: usd(0), IssuedAt: noon})
		}, invoice.ErrNotFound},
		"DrawOnCredit": {func(a account.ID) error {
			return invoices.Draw(ctx, a, f.invoice.ID, []wallet.Draw{{Grant: f.grant.ID, Amount: usd(1)}})
		}, invoice.ErrNotFound},
		"ReturnCredit": {func(a account.ID) error {
			return invoices.Return(ctx, a, f.invoice.ID, wallet.Draw{Grant: f.grant.ID, Amount: usd(1)})
		}, invoice.ErrNotFound},
		"Setup":         {func(a account.ID) error { _, err := payments.Setup(ctx, a, f.setup.ID.String()); return err }, payment.ErrSetupNotFound},
		"SetupByRef":    {func(a account.ID) error { _, err := payments.Setup(ctx, a, f.setup.Ref); return err }, payment.ErrSetupNotFound},
		"UseSetup":      {func(a account.ID) error { return payments.UseSetup(ctx, a, f.setup.ID, f.card.ID) }, payment.ErrSetupNotFound},
		"Method":        {func(a account.ID) error { _, err := payments.Method(ctx, a, f.card.ID); return err }, payment.ErrMethodNotFound},
		"DefaultMethod": {func(a account.ID) error { _, err := payments.DefaultMethod(ctx, a); return err }, payment.ErrNoMethod},
		"MakeDefault":   {func(a account.ID) error { return payments.MakeDefault(ctx, a, f.card.ID, noon) }, payment.ErrMethodNotFound},
		"SaveMethod": {func(a account.ID) error {
			m, err := payments.Method(ctx, f.account, f.card.ID)
			if err != nil {
				return err
			}
			m.Account = a
			return payments.SaveMethod(ctx, &m)
		}, account.ErrStale},
		"Removal":      {func(a account.ID) error { _, err := payments.Removal(ctx, a, f.removal.ID); return err }, payment.ErrRemovalNotFound},
		"SaveRemoval":  {func(a account.ID) error { r := f.removal; r.Account = a; return payments.SaveRemoval(ctx, r) }, payment.ErrRemovalNotFound},
		"Payment":      {func(a account.ID) error { _, err := payments.Payment(ctx, a, f.payment.ID); return err }, payment.ErrNotFound},
		"LockPayment":  {func(a account.ID) error { _, err := payments.LockPayment(ctx, a, f.payment.ID); return err }, payment.ErrNotFound},
		"SavePayment":  {func(a account.ID) error { p := f.payment; p.Account = a; return payments.SavePayment(ctx, &p) }, account.ErrStale},
		"TopUp":        {func(a account.ID) error { _, err := payments.TopUp(ctx, a, f.topUp.ID); return err }, payment.ErrTopUpNotFound},
		"PendingTopUp": {func(a account.ID) error { _, err := payments.PendingTopUp(ctx, a); return err }, payment.ErrTopUpNotFound},
		"SaveTopUp":    {func(a account.ID) error { v := f.topUp; v.Account = a; return payments.SaveTopUp(ctx, &v) }, account.ErrStale},
		"Refund":       {func(a account.ID) error { _, err := payments.Refund(ctx, a, f.refund.ID); return err }, payment.ErrRefundNotFound},
		"SaveRefund":   {func(a account.ID) error { r := f.refund; r.Account = a; return payments.SaveRefund(ctx, r) }, payment.ErrRefundNotFound},
		"CreateRefund": {func(a account.ID) error {
			r := f.refund
			r.ID, r.Account = id.New[payment.Refund](), a
			return payments.CreateRefund(ctx, r)
		}, payment.ErrNotFound},
		"DisputeByRef":   {func(a account.ID) error { _, err := payments.DisputeByRef(ctx, a, f.dispute.ProviderRef); return err }, payment.ErrNotFound},
		"SaveDispute":    {func(a account.ID) error { d := f.dispute; d.Account = a; return payments.SaveDispute(ctx, d) }, payment.ErrNotFound},
		"Upgrade":        {func(a account.ID) error { _, err := upgrades.Get(ctx, a, f.upgrade.ID); return err }, upgrade.ErrNotFound},
		"PendingUpgrade": {func(a account.ID) error { _, err := upgrades.Pending(ctx, a); return err }, upgrade.ErrNotFound},
		"OfMethod":       {func(a account.ID) error { _, err := upgrades.OfMethod(ctx, a, f.card.ID); return err }, upgrade.ErrNotFound},
		"SaveUpgrade":    {func(a account.ID) error { u := f.upgrade; u.Account = a; return upgrades.Save(ctx, &u) }, account.ErrStale},
		"SaveGrant":      {func(a account.ID) error { g := f.grant; g.Account = a; return db.Wallet().SaveGrant(ctx, g) }, wallet.ErrGrantNotFound},
		"AutoTopUp":      {func(a account.ID) error { _, err := db.Wallet().AutoTopUp(ctx, a); return err }, wallet.ErrNoAutoTopUp},
		"SaveAutoTopUp":  {func(a account.ID) error { r := f.rule; r.Account = a; return db.Wallet().SaveAutoTopUp(ctx, &r) }, account.ErrStale},
		"Fire": {func(a account.ID) error {
			_, err := db.Alerts().Fire(ctx, a, alert.Firing{Alert: f.alert.ID, PeriodStart: noon, Threshold: f.alert.Threshold, Value: f.alert.Threshold, FiredAt: noon})
			return err
		}, alert.ErrNotFound},
		"RemoveAlert": {func(a account.ID) error { return db.Alerts().Remove(ctx, a, f.alert.ID, noon) }, alert.ErrNotFound},
		"Inquiry":     {func(a account.ID) error { _, err := db.Inquiries().Get(ctx, a, f.inquiry.ID); return err }, inquiry.ErrNotFound},
		"SaveInquiry": {func(a account.ID) error { i := f.inquiry; i.Account = a; return db.Inquiries().Save(ctx, &i) }, account.ErrStale},
	}
	for name, c := range missing {
		if err := c.fetch(other); !errors.Is(err, c.want) {
			t.Errorf("%s of another account: %v, want %v", name, err, c.want)
		}
	}

	lists := map[string]func(a account.ID) (int, error){
		"Periods":   func(a account.ID) (int, error) { l, err := subs.Periods(ctx, a, 10); return len(l), err },
		"Contracts": func(a account.ID) (int, error) { l, err := subs.Contracts(ctx, a); return len(l), err },
		"Invoices":  func(a account.ID) (int, error) { l, err := invoices.List(ctx, a, "", all); return len(l.Data), err },
		"Unpaid":    func(a account.ID) (int, error) { l, err := invoices.Unpaid(ctx, a); return len(l), err },
		"Contents": func(a account.ID) (int, error) {
			l, err := invoices.Contents(ctx, a, []invoice.ID{f.invoice.ID})
			return len(l), err
		},
		"Draws":                func(a account.ID) (int, error) { l, err := invoices.Draws(ctx, a, f.invoice.ID); return len(l), err },
		"CreditNotes":          func(a account.ID) (int, error) { l, err := invoices.CreditNotes(ctx, a, all); return len(l.Data), err },
		"CreditNotesBroughtBy": func(a account.ID) (int, error) { l, err := invoices.CreditNotesBroughtBy(ctx, a); return len(l), err },
		"Methods":              func(a account.ID) (int, error) { l, err := payments.Methods(ctx, a); return len(l), err },
		"Customer":             func(a account.ID) (int, error) { l, err := payments.Customer(ctx, a, "sandbox"); return len(l), err },
		"OpenRemovals":         func(a account.ID) (int, error) { l, err := payments.OpenRemovals(ctx, a); return len(l), err },
		"Payments":             func(a account.ID) (int, error) { l, err := payments.Payments(ctx, a, all); return len(l.Data), err },
		"RefundablePayments":   func(a account.ID) (int, error) { l, err := payments.RefundablePayments(ctx, a); return len(l), err },
		"Refunds": func(a account.ID) (int, error) {
			l, err := payments.Refunds(ctx, a, all)
			return len(l.Data), err
		},
		"RefundsOf": func(a account.ID) (int, error) {
			l, err := payments.RefundsOf(ctx, a, f.payment.ID)
			return len(l), err
		},
		"ToppedUp": func(a account.ID) (int, error) {
			m, err := payments.ToppedUp(ctx, a, payment.Manual, time.Time{}, money.USD)
			return int(m.Minor), err
		},
		"Grants":    func(a account.ID) (int, error) { p, err := db.Wallet().Grants(ctx, a, all); return len(p.Data), err },
		"Alerts":    func(a account.ID) (int, error) { l, err := db.Alerts().List(ctx, a); return len(l), err },
		"Fired":     func(a account.ID) (int, error) { l, err := db.Alerts().Fired(ctx, a, noon); return len(l), err },
		"Inquiries": func(a account.ID) (int, error) { l, err := db.Inquiries().List(ctx, a, all); return len(l.Data), err },
		"Events":    func(a account.ID) (int, error) { l, err := db.Outbox().After(ctx, a, 0, 10); return len(l), err },
	}
	// The cases themselves: with the right account everything is found. One after the other, since
	// some raise a version that the next would miss.
	for name, c := range missing {
		if err := c.fetch(f.account); err != nil && !errors.Is(err, account.ErrStale) {
			t.Errorf("%s of the account itself: %v", name, err)
		}
	}
	if err := db.Alerts().Create(ctx, alert.Alert{ID: id.New[alert.Alert](), Account: f.account, Kind: alert.Spend, Threshold: money.DecimalFromInt(6), CreatedAt: noon}); err != nil {
		t.Fatal(err)
	}
	for name, list := range lists {
		if n, err := list(f.account); err != nil || n == 0 {
			t.Errorf("%s of the account itself: %d, %v", name, n, err)
		}
		if n, err := list(other); err != nil || n != 0 {
			t.Errorf("%s of another account: %d, %v; want none", name, n, err)
		}
	}
}

// The zero account is a fault of ours: no query may be widened by it.
func TestZeroAccountIsRefused(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	var zero account.ID
	for name, query := range map[string]func() error{
		"Unpaid":  func() error { _, err := db.Invoices().Unpaid(t.Context(), zero); return err },
		"Methods": func() error { _, err := db.Payments().Methods(t.Context(), zero); return err },
		"Events":  func() error { _, err := db.Outbox().After(t.Context(), zero, 0, 1); return err },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of no account was run", name)
				}
			}()
			t.Error(fmt.Sprint(name, query()))
		}()
	}
}

// A key that belongs to no account (a platform's request) is its own, and no account's.
func TestKeysOfNoAccountAreNoAccounts(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	r := idempotency.Request{Key: "k", Scope: "platform"}
	for _, a := range []account.ID{{}, mustAccount(t, db).ID} {
		got, err := db.Idempotency().Claim(t.Context(), a, r, uuid.Nil)
		if err != nil || got.Outcome != idempotency.Fresh {
			t.Errorf("claim for %q: %+v, %v; want a fresh one for each", a, got, err)
		}
	}
}
