package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

// Funds that come while a card is being asked for an invoice pay it when the card has said no.
func TestCollect_FundsThatCameMeanwhilePayFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenProcessing)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, w.clock().Add(35*24*time.Hour))
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	asked, err := w.DB.Payments().PaymentsOf(t.Context(), a, open[0].ID)
	if err != nil || len(asked) != 1 || asked[0].Status != payment.Processing {
		t.Fatalf("%+v, %v", asked, err)
	}
	w.addCard(t, a, sandbox.TokenVisa)
	w.topUp(t, a, 10000)
	if err := w.control.Settle(t.Context(), asked[0].ProviderRef, "generic_decline"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, asked[0].ProviderRef)
	w.advance(48 * time.Hour)
	w.sweep(t)
	w.wantInvoice(t, a, open[0].ID, invoice.Paid, 0)
	w.wantBalance(t, a, 7300, 0)
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges, want that of the top-up alone", n)
	}
}

// A card that waits for its holder when the account is closed never becomes one.
func TestClosedAccount_ItsLastCardComesTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	got, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a, newKey()), billing.NewCard{
		CardSource: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: profile,
	}, nil)
	if err != nil || got.Record.Status != payment.MethodRequiresAction {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.control.Act(t.Context(), got.Record.SetupRef, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.advance(time.Hour)
		w.sweep(t)
	}
	m, err := w.DB.Payments().Method(t.Context(), a, got.Record.ID)
	if err != nil || m.Status != payment.MethodRemoved || !m.CheckAt.IsZero() {
		t.Errorf("the card is %s and to be checked at %s, %v; want it removed and detached", m.Status, m.CheckAt, err)
	}
}

// An account is not closed with a debt: credit that has run out, and was not taken back yet, pays for nothing.
func TestEnd_CreditThatHasRunOutPaysForNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.grant(t, a, 10000, 0, 1)
	w.use(t, a, "voice", "120000") // 27.00
	w.advance(25 * time.Hour)
	_, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(a, newKey()), "test", nil)
	if !errors.Is(err, billing.ErrOwing) {
		t.Errorf("%v, want ErrOwing", err)
	}
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
}

// A contract that is agreed on while an upgrade waits for its card stays.
func TestUpgrade_OvertakenByAContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	up, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
	}, nil)
	if err != nil || up.Record.Status != payment.RequiresAction {
		t.Fatalf("%+v, %v", up.Record, err)
	}
	k := w.agree(t, a, perMinute("C-1"))
	m, err := w.DB.Payments().Method(t.Context(), a, up.Record.Method)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.Act(t.Context(), m.SetupRef, true); err != nil {
		t.Fatal(err)
	}
	got, err := billing.Upgrader{Core: w.Core}.Confirm(t.Context(), a, up.Record.ID)
	if err != nil || got.Status != payment.Canceled {
		t.Errorf("the upgrade is %s, %v; want it canceled", got.Status, err)
	}
	if l := w.level(t, a); l != plan.Enterprise {
		t.Errorf("the account is on %s", l)
	}
	if s := w.contract(t, a, k.ID); s != billing.ContractActive {
		t.Errorf("the contract is %s", s)
	}
	if card := w.defaultCard(t, asked(a, "")); card.ID != m.ID {
		t.Errorf("the card is not on file")
	}
}

// An account under a contract is not taken out of it by its own upgrade.
func TestUpgrade_NotUnderAContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.addCard(t, a, sandbox.TokenVisa)
	special := perMinute("C-2")
	special.Plan = plan.Developer
	w.agree(t, a, special)
	_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: plan.Pro}, nil)
	if !errors.Is(err, billing.ErrUnderContract) {
		t.Errorf("%v, want ErrUnderContract", err)
	}
}

// The rule of automatic top-ups outlives its plan: on one that takes no funds, and of an account that is closed, there is
// nothing to do, and nothing goes wrong.
func TestAutoTopUp_OnAPlanThatTakesNoFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), plan.Developer, nil); err != nil {
		t.Fatal(err)
	}
	w.until(t, w.clock().Add(35*24*time.Hour))
	if l := w.level(t, a); l != plan.Developer {
		t.Fatalf("the account is on %s", l)
	}
	w.check(t, a)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.check(t, a)
}

// What an account cannot hold is refused, and is no fault of the service.
func TestGrant_BeyondWhatABalanceHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.grant(t, a, 1_000_000_000_000_000, 0, 0)
	_, err := billing.Granter{Core: w.Core}.Grant(t.Context(), asked(a, newKey()), billing.GrantInput{Amount: usd(1), Reason: "test"}, nil)
	if !errors.Is(err, ledger.ErrBalance) {
		t.Errorf("%v, want ErrBalance", err)
	}
}

func TestAutoTopUp_ChargesWhatTheProviderTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, inSteps}
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	w.use(t, a, "voice", "60600") // 27 cents, so that 50.27 is missing
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d, want 5000", got)
	}
}

// One account's fault does not keep the credit of others from running out.
func TestSweep_OneAccountDoesNotHoldUpTheCreditOfOthers(t *testing.T) {
	t.Parallel()
	w := buildWorld(t) // its books are spoilt
	broken, sound := w.open(t).ID, w.open(t).ID
	first, second := w.grant(t, broken, 500, 0, 1), w.grant(t, sound, 500, 0, 2)
	err := w.DB.InTx(t.Context(), func(tx billing.Tx) error {
		return tx.Ledger().Append(t.Context(), books.PromoExpired(books.Fact{
			Account: broken, Reference: first.String(), At: w.clock(), RecordedAt: w.clock(),
		}, usd(1)))
	})
	if err != nil {
		t.Fatal(err)
	}
	w.advance(72 * time.Hour)
	if _, err := (billing.Sweeper{Core: w.Core}).Sweep(t.Context()); !errors.Is(err, ledger.ErrAlreadyBooked) {
		t.Errorf("%v, want the fault of the one", err)
	}
	if left := w.left(t, sound, second); left != 0 {
		t.Errorf("%d are left of the other's credit", left)
	}
}
