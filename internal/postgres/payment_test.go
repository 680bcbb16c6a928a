package postgres_test

import (
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

// card returns an active card that is not yet stored.
func card(a account.ID) payment.Method {
	return payment.Method{
		ID: id.New[payment.Method](), Account: a, Status: payment.MethodActive, Provider: "sandbox", ProviderRef: "pm_1", Source: "tok", SetupRef: "seti",
		Card:    payment.Card{Brand: "visa", Last4: "4242", ExpMonth: 12, ExpYear: 2030, Country: "DE", Fingerprint: "fp", Funding: "credit"},
		Billing: payment.Billing{Name: "Ada", Email: "ada@example.com", Address: payment.Address{Line1: "1 Main St", City: "Bonn", PostalCode: "53111", Country: "DE"}},
		CheckAt: noon, CreatedAt: noon, UpdatedAt: noon, Version: 1,
	}
}

func mustCard(tb testing.TB, db *postgres.DB, a account.ID) payment.Method {
	tb.Helper()
	m := card(a)
	if err := db.Payments().CreateMethod(tb.Context(), m); err != nil {
		tb.Fatal(err)
	}
	return m
}

// charge returns the intent to charge a new top-up, not yet stored.
func charge(m payment.Method) payment.Payment {
	return payment.Payment{
		ID: id.New[payment.Payment](), Account: m.Account, Purpose: payment.ForTopUp, TopUp: id.New[payment.TopUp](), Method: m.ID,
		Amount: usd(5000), Status: payment.Processing, OffSession: true, Provider: "sandbox", Refunded: usd(0), Disputed: usd(0),
		CheckAt: noon.Add(time.Minute), CreatedAt: noon, UpdatedAt: noon, Version: 1,
	}
}

func mustPayment(tb testing.TB, db *postgres.DB, p payment.Payment) payment.Payment {
	tb.Helper()
	if err := db.Payments().CreatePayment(tb.Context(), p); err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestPayments(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Payments()

	t.Run("ReadsBackWhatWasWrittenButTheSecret", func(t *testing.T) {
		t.Parallel()
		p := charge(mustCard(t, db, mustAccount(t, db).ID))
		p.NextAction = &payment.NextAction{Type: payment.ActionRedirect, URL: "https://bank.example", ClientSecret: "s3cret"}
		mustPayment(t, db, p)
		p.NextAction = &payment.NextAction{Type: payment.ActionRedirect, URL: "https://bank.example"}
		if got, err := store.Payment(t.Context(), p.Account, p.ID); err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("read %+v, %v; want %+v", got, err, p)
		}
		mustInTx(t, db, func(tx billing.Tx) error {
			if _, err := tx.Payments().LockPayment(t.Context(), p.Account, p.ID); err != nil {
				return err
			}
			if err := p.Become(payment.Succeeded, noon.Add(time.Minute)); err != nil {
				return err
			}
			p.ProviderRef, p.Refunded, p.Disputed, p.Checks = "ch_1", usd(100), usd(200), 3
			return tx.Payments().SavePayment(t.Context(), &p)
		})
		if got, err := store.Payment(t.Context(), p.Account, p.ID); err != nil || !reflect.DeepEqual(got, p) || got.Version != 2 {
			t.Fatalf("after a save: %+v, %v; want %+v", got, err, p)
		}
		p.Version--
		if err := store.SavePayment(t.Context(), &p); !errors.Is(err, account.ErrStale) {
			t.Errorf("save of an old version: %v, want ErrStale", err)
		}
	})

	t.Run("OneActivePaymentPerInvoice", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		p := charge(mustCard(t, db, a))
		p.Purpose, p.TopUp, p.Invoice = payment.ForInvoice, payment.TopUpID{}, mustDraft(t, db, a).ID
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				mine := p
				mine.ID = id.New[payment.Payment]()
				switch err := db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Payments().CreatePayment(t.Context(), mine) }); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, payment.ErrPaymentPending):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		list, err := store.PaymentsOf(t.Context(), a, p.Invoice)
		if won.Load() != 1 || err != nil || len(list) != 1 {
			t.Fatalf("%d won, %d stored, %v; want one", won.Load(), len(list), err)
		}
		first := list[0]
		for _, s := range []struct {
			to   payment.Status
			want error
		}{{payment.Parked, payment.ErrPaymentPending}, {payment.Failed, nil}} {
			if err := first.Become(s.to, noon); err != nil {
				t.Fatal(err)
			}
			if err := store.SavePayment(t.Context(), &first); err != nil {
				t.Fatal(err)
			}
			if err := store.CreatePayment(t.Context(), p); !errors.Is(err, s.want) {
				t.Errorf("another payment while the first is %s: %v, want %v", s.to, err, s.want)
			}
		}
		if list, err := store.PaymentsOf(t.Context(), a, p.Invoice); err != nil || len(list) != 2 || list[0].ID != p.ID {
			t.Errorf("payments of the invoice %+v, %v; want the two, oldest first", list, err)
		}
	})

	t.Run("ListsAndFindsWhatCanBeGivenBack", func(t *testing.T) {
		t.Parallel()
		m := mustCard(t, db, mustAccount(t, db).ID)
		var all []payment.Payment
		for _, given := range []int64{0, 2000, 5000} {
			p := charge(m)
			p.Status, p.Refunded = payment.Succeeded, usd(given)
			all = append(all, mustPayment(t, db, p))
		}
		all = append(all, mustPayment(t, db, charge(m)))
		got, err := store.RefundablePayments(t.Context(), m.Account)
		if err != nil || len(got) != 2 || got[0].ID != all[1].ID || got[1].ID != all[0].ID {
			t.Errorf("refundable %+v, %v; want the second, then the first", got, err)
		}
		first, err := store.Payments(t.Context(), m.Account, page.Request{Limit: 3})
		if err != nil || len(first.Data) != 3 || first.Data[0].ID != all[3].ID {
			t.Fatalf("first page %+v, %v", first, err)
		}
		last, err := store.Payments(t.Context(), m.Account, page.Request{Limit: 3, After: first.Next})
		if err != nil || len(last.Data) != 1 || last.Data[0].ID != all[0].ID || last.Next != "" {
			t.Errorf("last page %+v, %v", last, err)
		}
	})

	t.Run("OnePendingTopUp", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				v := payment.TopUp{
					ID: id.New[payment.TopUp](), Account: a, Origin: payment.Manual, Amount: usd(5000), Status: payment.Processing,
					Payment: id.New[payment.Payment](), CreatedAt: noon, UpdatedAt: noon, Version: 1,
				}
				switch err := db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Payments().CreateTopUp(t.Context(), v) }); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, payment.ErrTopUpPending):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d top-ups were written, want 1", won.Load())
		}
		v, err := store.PendingTopUp(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		v.Status, v.Failure = payment.Failed, &payment.Failure{Code: "expired_card", Message: "Expired."}
		if err := store.SaveTopUp(t.Context(), &v); err != nil {
			t.Fatal(err)
		}
		if got, err := store.TopUp(t.Context(), a, v.ID); err != nil || !reflect.DeepEqual(got, v) || got.Version != 2 {
			t.Errorf("read %+v, %v; want %+v", got, err, v)
		}
		if _, err := store.PendingTopUp(t.Context(), a); !errors.Is(err, payment.ErrTopUpNotFound) {
			t.Errorf("pending after it failed: %v, want ErrTopUpNotFound", err)
		}
		v.Version--
		if err := store.SaveTopUp(t.Context(), &v); !errors.Is(err, account.ErrStale) {
			t.Errorf("save of an old version: %v, want ErrStale", err)
		}
	})

	t.Run("SumsTheTopUpsOfAMonth", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		for _, v := range []struct {
			origin payment.Origin
			status payment.Status
			at     time.Time
			amount int64
		}{
			{payment.Auto, payment.Succeeded, noon.Add(-time.Nanosecond * 1000), 1},
			{payment.Auto, payment.Succeeded, noon, 10},
			{payment.Auto, payment.Processing, noon, 100},
			{payment.Auto, payment.Failed, noon, 1000},
			{payment.Manual, payment.Succeeded, noon, 10000},
		} {
			if err := store.CreateTopUp(t.Context(), payment.TopUp{
				ID: id.New[payment.TopUp](), Account: a, Origin: v.origin, Amount: usd(v.amount), Status: v.status, Payment: id.New[payment.Payment](),
				CreatedAt: v.at, UpdatedAt: v.at, Version: 1,
			}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := store.ToppedUp(t.Context(), a, payment.Auto, noon, money.USD); err != nil || got != usd(110) {
			t.Errorf("topped up %s, %v; want 1.10", got, err)
		}
		if p, err := store.TopUps(t.Context(), a, page.Request{Limit: 2}); err != nil || len(p.Data) != 2 || p.Data[0].Amount != usd(10000) || p.Next == "" {
			t.Errorf("the newest top-ups: %+v, %v", p, err)
		}
		if got, err := store.ToppedUp(t.Context(), a, payment.Auto, noon, "EUR"); err != nil || got != money.Zero("EUR") {
			t.Errorf("topped up %s, %v; want nothing", got, err)
		}
	})

	t.Run("KeepsRefundsAndDisputes", func(t *testing.T) {
		t.Parallel()
		p := mustPayment(t, db, charge(mustCard(t, db, mustAccount(t, db).ID)))
		r := payment.Refund{
			ID: id.New[payment.Refund](), Account: p.Account, Payment: p.ID, Amount: usd(100), Status: payment.Processing, Origin: payment.ByOperator,
			Reason: "goodwill", Actor: "operator:1", CheckAt: noon, CreatedAt: noon, UpdatedAt: noon,
		}
		if err := store.CreateRefund(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		r.Status, r.ProviderRef, r.CheckAt = payment.Succeeded, "re_1", time.Time{}
		if err := store.SaveRefund(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		got, err := store.Refund(t.Context(), p.Account, r.ID)
		of, err2 := store.RefundsOf(t.Context(), p.Account, p.ID)
		if err := errors.Join(err, err2); err != nil || got != r || len(of) != 1 || of[0] != r {
			t.Errorf("refund %+v, %+v, %v; want %+v", got, of, err, r)
		}
		lost := r
		lost.ID, lost.Payment = id.New[payment.Refund](), id.New[payment.Payment]()
		if err := store.CreateRefund(t.Context(), lost); !errors.Is(err, payment.ErrNotFound) {
			t.Errorf("refund of no payment: %v, want ErrNotFound", err)
		}
		if err := store.SaveRefund(t.Context(), lost); !errors.Is(err, payment.ErrRefundNotFound) {
			t.Errorf("save of no refund: %v, want ErrRefundNotFound", err)
		}

		d := payment.Dispute{
			ID: id.New[payment.Dispute](), Account: p.Account, Payment: p.ID, ProviderRef: "dp_1", Amount: usd(400), Status: payment.DisputeOpen,
			Reason: "fraudulent", CreatedAt: noon, UpdatedAt: noon,
		}
		for _, s := range []payment.DisputeStatus{payment.DisputeOpen, payment.DisputeWon} {
			d.Status, d.UpdatedAt = s, d.UpdatedAt.Add(time.Hour)
			if err := store.SaveDispute(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if got, err := store.DisputeByRef(t.Context(), p.Account, "dp_1"); err != nil || got != d {
				t.Errorf("dispute %+v, %v; want %+v", got, err, d)
			}
		}
		d.ID = id.New[payment.Dispute]()
		if err := store.SaveDispute(t.Context(), d); !errors.Is(err, account.ErrStale) {
			t.Errorf("the same dispute under another name: %v, want ErrStale", err)
		}
		d.Payment, d.ProviderRef = lost.Payment, "dp_2"
		if err := store.SaveDispute(t.Context(), d); !errors.Is(err, payment.ErrNotFound) {
			t.Errorf("dispute of no payment: %v, want ErrNotFound", err)
		}
	})

	t.Run("CountsAttemptsPerCardWhoeverAsks", func(t *testing.T) {
		t.Parallel()
		want := []payment.Attempt{{At: noon, Declined: true, Class: payment.DeclineHard}, {At: noon.Add(time.Second)}}
		for _, a := range append([]payment.Attempt{{At: noon.Add(-time.Second)}}, want...) {
			if err := store.AddAttempt(t.Context(), "fp-attempts", a); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := store.Attempts(t.Context(), "fp-attempts", noon); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("attempts %+v, %v; want %+v", got, err, want)
		}
		if got, err := store.Attempts(t.Context(), "another", noon); err != nil || len(got) != 0 {
			t.Errorf("attempts at another card: %+v, %v", got, err)
		}
	})
}

func TestPaymentsLocate(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	a := mustAccount(t, db).ID
	for ref, l := range map[string]payment.Located{
		"p": {Account: a, Kind: payment.RecordPayment, Payment: id.New[payment.Payment]()},
		"r": {Account: a, Kind: payment.RecordRefund, Refund: id.New[payment.Refund]()},
		"m": {Account: a, Kind: payment.RecordMethod, Method: id.New[payment.Method]()},
		"c": {Account: a, Kind: payment.RecordCustomer},
	} {
		for range 2 {
			if err := db.Payments().Remember(t.Context(), "sandbox", ref, l); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := db.Payments().Locate(t.Context(), "sandbox", ref); err != nil || got != l {
			t.Errorf("located %+v, %v; want %+v", got, err, l)
		}
		l.Account = mustAccount(t, db).ID
		if err := db.Payments().Remember(t.Context(), "sandbox", ref, l); err == nil {
			t.Errorf("%s was tied to another account's record", ref)
		}
	}
	if err := db.Payments().Remember(t.Context(), "sandbox", "x", payment.Located{Account: a, Kind: payment.RecordPayment}); err == nil {
		t.Error("a reference was tied to nothing")
	}
	if _, err := db.Payments().Locate(t.Context(), "stripe", "p"); !errors.Is(err, payment.ErrNotFound) {
		t.Errorf("another provider's reference: %v, want ErrNotFound", err)
	}
}

func TestPaymentsToCheck(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	m := card(mustAccount(t, db).ID)
	m.Status = payment.MethodProcessing // checked at noon
	if err := db.Payments().CreateMethod(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	p := mustPayment(t, db, charge(m)) // checked a minute later
	r := payment.Refund{
		ID: id.New[payment.Refund](), Account: m.Account, Payment: p.ID, Amount: usd(1), Status: payment.Processing, Origin: payment.ByProvider,
		CheckAt: noon.Add(2 * time.Minute), CreatedAt: noon, UpdatedAt: noon,
	}
	if err := db.Payments().CreateRefund(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := []payment.Pending{
		{Located: payment.Located{Account: m.Account, Kind: payment.RecordMethod, Method: m.ID}, Due: noon},
		{Located: payment.Located{Account: m.Account, Kind: payment.RecordPayment, Payment: p.ID}, Due: noon.Add(time.Minute)},
		{Located: payment.Located{Account: m.Account, Kind: payment.RecordRefund, Refund: r.ID}, Due: noon.Add(2 * time.Minute)},
	}
	for n := range 4 {
		got, err := db.Payments().ToCheck(t.Context(), noon.Add(time.Duration(n-1)*time.Minute), payment.Pending{}, 10)
		if err != nil || len(got) != n || !reflect.DeepEqual(got, append([]payment.Pending{}, want[:n]...)) {
			t.Errorf("to check in minute %d: %+v, %v; want %+v", n-1, got, err, want[:n])
		}
	}
	wantPages(t, 3, func(after payment.Pending, limit int) ([]payment.Pending, error) {
		return db.Payments().ToCheck(t.Context(), noon.Add(time.Hour), after, limit)
	})
	if err := p.Become(payment.Failed, noon); err != nil {
		t.Fatal(err)
	}
	if err := db.Payments().SavePayment(t.Context(), &p); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Payments().ToCheck(t.Context(), noon.Add(time.Hour), payment.Pending{}, 10); err != nil || len(got) != 2 {
		t.Errorf("after the payment failed: %+v, %v; want two", got, err)
	}
}

func TestProviderEvents(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Payments()
	e := payment.ProviderEvent{
		Provider: "sandbox", EventID: "evt_1", Type: "charge.succeeded", Object: payment.ObjectCharge, ObjectRef: "ch_1", Payload: []byte(`{"b":  1}`),
		ReceivedAt: noon,
	}
	var fresh atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			isNew, err := store.SaveEvent(t.Context(), e)
			if err != nil {
				t.Error(err)
			}
			if isNew {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	if fresh.Load() != 1 {
		t.Errorf("%d deliveries were new, want 1", fresh.Load())
	}
	mustInTx(t, db, func(tx billing.Tx) error {
		got, err := tx.Payments().LockEvent(t.Context(), "sandbox", "evt_1")
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("read %+v, want %+v", got, e)
		}
		e.Attempts, e.NextTryAt, e.Outcome = 1, noon.Add(time.Hour), "busy"
		return tx.Payments().UpdateEvent(t.Context(), e)
	})
	for at, want := range map[time.Time]int{noon: 0, noon.Add(time.Hour): 1} {
		if got, err := store.PendingEvents(t.Context(), at, payment.ProviderEvent{}, 10); err != nil || len(got) != want {
			t.Errorf("pending at %s: %d, %v; want %d", at, len(got), err, want)
		}
	}
	e.ProcessedAt = noon.Add(time.Hour)
	if err := store.UpdateEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got, err := store.PendingEvents(t.Context(), noon.AddDate(1, 0, 0), payment.ProviderEvent{}, 10); err != nil || len(got) != 0 {
		t.Errorf("pending after it was processed: %+v, %v", got, err)
	}
	e.EventID = "evt_2"
	if err := store.UpdateEvent(t.Context(), e); !errors.Is(err, payment.ErrNotFound) {
		t.Errorf("update of no event: %v, want ErrNotFound", err)
	}
	if _, err := store.LockEvent(t.Context(), "sandbox", "evt_2"); !errors.Is(err, payment.ErrNotFound) {
		t.Errorf("lock of no event: %v, want ErrNotFound", err)
	}
	for _, name := range []string{"evt_4", "evt_3"} {
		e.EventID, e.ProcessedAt = name, time.Time{}
		if _, err := store.SaveEvent(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	wantPages(t, 2, func(after payment.ProviderEvent, limit int) ([]payment.ProviderEvent, error) {
		return store.PendingEvents(t.Context(), noon.AddDate(1, 0, 0), after, limit)
	})
}
