package postgres_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// mustDraft writes the draft for the account's current period, and its subscription first.
func mustDraft(tb testing.TB, db *postgres.DB, a account.ID) invoice.Invoice {
	tb.Helper()
	i := invoice.NewCycle(mustSubscription(tb, db, a).Opened(), money.USD, noon.Add(time.Hour), noon)
	mustInTx(tb, db, func(tx billing.Tx) error { return tx.Invoices().Create(tb.Context(), i) })
	return i
}

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

// mustIssue makes the draft final, with one line of a total of 27.00 and tax of 3.00.
func mustIssue(tb testing.TB, db *postgres.DB, i *invoice.Invoice) invoice.Content {
	tb.Helper()
	c := invoice.Content{
		Invoice: i.ID, Account: i.Account, IssuedAt: noon.Add(time.Hour), Absorbed: usd(5),
		BillTo: account.Profile{Name: "Ada", Email: "ada@example.com", TaxID: "DE1", Address: account.Address{Line1: "1 Main St", City: "Bonn", Country: "DE"}},
		Lines: []invoice.Line{
			{Number: 1, Kind: "usage", Meter: "voice", Description: "Voice", Period: i.Period, Quantity: money.MustDecimal("61.25"), Amount: usd(2500), Derivation: []byte(`{"rate": 1.50, "steps": [1e2, "x"]}`)},
			{Number: 2, Kind: "fee", Description: "Fee", Period: i.Period, Amount: usd(200), Derivation: []byte(`{}`)},
		},
	}
	mustInTx(tb, db, func(tx billing.Tx) (err error) {
		if c.Number, err = tx.Invoices().NextNumber(tb.Context(), i.Account); err != nil {
			return err
		}
		if err = c.Sum(usd(300)); err != nil {
			return err
		}
		if c.Hash, err = c.Fingerprint(); err != nil {
			return err
		}
		saved := *i
		if err = saved.Become(invoice.Open, noon.Add(time.Hour)); err != nil {
			return err
		}
		saved.Total, saved.FinalizedAt, saved.DueAt, saved.NextAttempt = c.Total, c.IssuedAt, c.IssuedAt, c.IssuedAt
		if err = tx.Invoices().Save(tb.Context(), &saved); err != nil {
			return err
		}
		*i = saved
		return tx.Invoices().Issue(tb.Context(), c)
	})
	return c
}

func TestInvoices(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)

	t.Run("ReadsBackWhatWasWritten", func(t *testing.T) {
		t.Parallel()
		i := mustDraft(t, db, mustAccount(t, db).ID)
		got, err := db.Invoices().Get(t.Context(), i.Account, i.ID)
		if err != nil || !reflect.DeepEqual(got, i) {
			t.Fatalf("read %+v, %v; want %+v", got, err, i)
		}
		mustIssue(t, db, &i)
		i.AmountPaid, i.Credited, i.Attempts, i.Dunning = usd(1000), usd(500), 2, invoice.Retrying
		mustInTx(t, db, func(tx billing.Tx) error {
			if _, err := tx.Invoices().Lock(t.Context(), i.Account, i.ID); err != nil {
				return err
			}
			return tx.Invoices().Save(t.Context(), &i)
		})
		got, err = db.Invoices().OfPeriod(t.Context(), i.Account, i.Subscription, i.Period.Start)
		if err != nil || !reflect.DeepEqual(got, i) || got.Version != 3 {
			t.Fatalf("after a save: %+v, %v; want %+v", got, err, i)
		}
		stale := i
		stale.Version--
		if err := db.Invoices().Save(t.Context(), &stale); !errors.Is(err, account.ErrStale) {
			t.Errorf("save of an old version: %v, want ErrStale", err)
		}
	})

	t.Run("OneCycleInvoicePerPeriod", func(t *testing.T) {
		t.Parallel()
		i := mustDraft(t, db, mustAccount(t, db).ID)
		again := i
		again.ID = id.New[invoice.Invoice]()
		if err := db.Invoices().Create(t.Context(), again); !errors.Is(err, subscription.ErrPeriodClosed) {
			t.Errorf("second draft: %v, want ErrPeriodClosed", err)
		}
		again.Kind = invoice.Threshold
		if err := db.Invoices().Create(t.Context(), again); err != nil {
			t.Errorf("a progress bill beside the cycle's invoice: %v", err)
		}
	})

	t.Run("KeepsTheContentWithItsHash", func(t *testing.T) {
		t.Parallel()
		i := mustDraft(t, db, mustAccount(t, db).ID)
		if _, err := db.Invoices().Content(t.Context(), i.Account, i.ID); !errors.Is(err, invoice.ErrNotFound) {
			t.Errorf("content of a draft: %v, want ErrNotFound", err)
		}
		want := mustIssue(t, db, &i)
		got, err := db.Invoices().Content(t.Context(), i.Account, i.ID)
		if err != nil || len(got.Lines) != 2 || got.Lines[0].Quantity.String() != "61.25" || got.Lines[1].Meter != "" ||
			got.Total != usd(3000) || got.Absorbed != usd(5) || got.BillTo.Address.City != "Bonn" {
			t.Fatalf("content %+v, %v", got, err)
		}
		hash, err := got.Fingerprint()
		if err != nil || hash != want.Hash || got.Hash != want.Hash {
			t.Errorf("hash of what was read %x, %v; want %x", hash, err, want.Hash)
		}
		if err := db.Invoices().Issue(t.Context(), want); !errors.Is(err, invoice.ErrTransition) {
			t.Errorf("issued twice: %v, want ErrTransition", err)
		}
		several, err := db.Invoices().Contents(t.Context(), i.Account, []invoice.ID{i.ID, id.New[invoice.Invoice]()})
		if err != nil || len(several) != 1 || several[i.ID].Number != want.Number || several[i.ID].Lines != nil {
			t.Errorf("contents %+v, %v; want the one, without lines", several, err)
		}
		if none, err := db.Invoices().Contents(t.Context(), i.Account, nil); err != nil || len(none) != 0 {
			t.Errorf("contents of nothing: %v, %v", none, err)
		}
	})

	t.Run("TheServiceCannotChangeWhatItIssued", func(t *testing.T) {
		t.Parallel()
		i := mustDraft(t, db, mustAccount(t, db).ID)
		mustIssue(t, db, &i)
		for _, q := range []string{
			"UPDATE invoice_contents SET total = 1", "DELETE FROM invoice_contents", "UPDATE invoice_lines SET amount = 1",
			"DELETE FROM invoice_lines", "UPDATE credit_notes SET amount = 1", "DELETE FROM invoices",
		} {
			if _, err := db.Pool().Exec(t.Context(), q); err == nil {
				t.Errorf("%s succeeded as the service's role", q)
			}
		}
	})

	t.Run("NumbersWithoutAGap", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		take := func(undo error) (n string) {
			err := db.InTx(t.Context(), func(tx billing.Tx) (err error) {
				if n, err = tx.Invoices().NextNumber(t.Context(), a); err != nil {
					return err
				}
				return undo
			})
			if !errors.Is(err, undo) {
				t.Fatal(err)
			}
			return n
		}
		first := take(nil)
		if undone, next := take(errUndone), take(nil); next != undone || !strings.HasSuffix(first, "-000001") || !strings.HasSuffix(next, "-000002") {
			t.Errorf("numbers %s, (%s), %s; want 1, (2), 2", first, undone, next)
		}
		if _, err := db.Invoices().NextNumber(t.Context(), id.New[account.Account]()); !errors.Is(err, account.ErrNotFound) {
			t.Errorf("number of an unknown account: %v", err)
		}
	})

	t.Run("Lists", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		draft := mustDraft(t, db, a)
		open := make([]invoice.Invoice, 3)
		for n := range open {
			i := draft
			i.ID, i.Kind, i.Status = id.New[invoice.Invoice](), invoice.Threshold, invoice.Open
			i.FinalizedAt = noon.Add(-time.Duration(n) * time.Hour) // the last made is the oldest
			if err := db.Invoices().Create(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			open[n] = i
		}
		first, err := db.Invoices().List(t.Context(), a, "", page.Request{Limit: 3})
		if err != nil || len(first.Data) != 3 || first.Data[0].ID != open[2].ID || first.Next == "" {
			t.Fatalf("first page %+v, %v", first, err)
		}
		second, err := db.Invoices().List(t.Context(), a, "", page.Request{Limit: 3, After: first.Next})
		if err != nil || len(second.Data) != 1 || second.Data[0].ID != draft.ID || second.Next != "" {
			t.Errorf("second page %+v, %v", second, err)
		}
		drafts, err := db.Invoices().List(t.Context(), a, invoice.Draft, page.Request{Limit: 3})
		if err != nil || len(drafts.Data) != 1 {
			t.Errorf("drafts %+v, %v", drafts, err)
		}
		unpaid, err := db.Invoices().Unpaid(t.Context(), a)
		if err != nil || len(unpaid) != 3 || unpaid[0].ID != open[2].ID || unpaid[2].ID != open[0].ID {
			t.Errorf("unpaid %+v, %v; want the oldest first", unpaid, err)
		}
	})

	t.Run("KeepsCreditNotes", func(t *testing.T) {
		t.Parallel()
		i := mustDraft(t, db, mustAccount(t, db).ID)
		want := make([]invoice.CreditNote, 2)
		for n := range want {
			want[n] = invoice.CreditNote{
				ID: id.New[invoice.CreditNote](), Account: i.Account, Invoice: i.ID, Number: string(rune('A' + n)), Amount: usd(300), ToDue: usd(100),
				ToFunds: usd(150), ToCredit: usd(50), Reason: "late", Actor: "operator:1", IssuedAt: noon,
			}
			if err := db.Invoices().AddCreditNote(t.Context(), want[n]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := db.Invoices().CreditNotes(t.Context(), i.Account, page.Request{Limit: 1})
		if err != nil || len(got.Data) != 1 || got.Data[0] != want[1] || got.Next != want[1].ID.String() {
			t.Errorf("credit notes %+v, %v; want the newest of two", got, err)
		}
		lost := want[0]
		lost.ID, lost.Invoice, lost.Number = id.New[invoice.CreditNote](), id.New[invoice.Invoice](), "C"
		if err := db.Invoices().AddCreditNote(t.Context(), lost); !errors.Is(err, invoice.ErrNotFound) {
			t.Errorf("credit note on no invoice: %v, want ErrNotFound", err)
		}
	})
}

// What credit has paid of an invoice adds up grant by grant, and is told with the grant first that is spent last.
func TestInvoices_KeepWhatCreditHasPaid(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	i := mustDraft(t, db, mustAccount(t, db).ID)
	var grants []wallet.Grant
	for n, expires := range []time.Time{noon.Add(time.Hour), {}, noon.Add(2 * time.Hour), {}} {
		g := wallet.Grant{ID: id.New[wallet.Grant](), Account: i.Account, Amount: usd(500), Remaining: usd(500), GrantedAt: noon, ExpiresAt: expires}
		if n == 3 {
			g.Priority = 1
		}
		if err := db.Wallet().CreateGrant(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		grants = append(grants, g)
	}
	draw := func(n int, minor int64) wallet.Draw { return wallet.Draw{Grant: grants[n].ID, Amount: usd(minor)} }
	for _, err := range []error{
		db.Invoices().Draw(t.Context(), i.Account, i.ID, []wallet.Draw{draw(0, 100), draw(1, 200), draw(2, 300), draw(3, 400)}),
		db.Invoices().Draw(t.Context(), i.Account, i.ID, []wallet.Draw{draw(0, 50)}),
		db.Invoices().Return(t.Context(), i.Account, i.ID, draw(0, 120)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []invoice.Draw{
		{Grant: grants[3].ID, Amount: usd(400), Returned: usd(0)},
		{Grant: grants[1].ID, Amount: usd(200), Returned: usd(0)},
		{Grant: grants[2].ID, Amount: usd(300), Returned: usd(0)},
		{Grant: grants[0].ID, Amount: usd(150), Returned: usd(120)},
	}
	if got, err := db.Invoices().Draws(t.Context(), i.Account, i.ID); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if err := db.Invoices().Return(t.Context(), i.Account, i.ID, draw(0, 31)); err == nil {
		t.Error("more was returned than was drawn")
	}
}

func TestInvoicesDue(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	due := noon.Add(time.Hour) // of every draft and, once issued, of every first attempt
	drafts := map[string]invoice.Invoice{}
	for _, name := range []string{"real", "early", "late"} {
		drafts[name] = mustDraft(t, db, mustAccount(t, db).ID)
	}
	mustMoveClock(t, db, drafts["early"].Account, due.Add(-time.Second))
	mustMoveClock(t, db, drafts["late"].Account, due)

	check := func(name string, list func(now time.Time, after invoice.Ref, limit int) ([]invoice.Ref, error)) {
		for _, c := range []struct {
			now  time.Time
			want []account.ID
		}{
			{due.Add(-time.Second), []account.ID{drafts["late"].Account}},
			{due, []account.ID{drafts["late"].Account, drafts["real"].Account}},
		} {
			refs, err := list(c.now, invoice.Ref{}, 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []account.ID
			for _, r := range refs {
				got = append(got, r.Account)
			}
			if !sameIDs(got, c.want) {
				t.Errorf("%s at %s: %v, want %v", name, c.now, got, c.want)
			}
			wantPages(t, len(c.want), func(after invoice.Ref, limit int) ([]invoice.Ref, error) { return list(c.now, after, limit) })
		}
	}
	check("to finalise", func(now time.Time, after invoice.Ref, limit int) ([]invoice.Ref, error) {
		return db.Invoices().ToFinalize(t.Context(), now, after, limit)
	})
	for _, i := range drafts {
		mustIssue(t, db, &i)
	}
	check("to collect", func(now time.Time, after invoice.Ref, limit int) ([]invoice.Ref, error) {
		return db.Invoices().ToCollect(t.Context(), now, after, limit)
	})
	if left, err := db.Invoices().ToFinalize(t.Context(), due.AddDate(1, 0, 0), invoice.Ref{}, 10); err != nil || len(left) != 0 {
		t.Errorf("still to finalise: %v, %v", left, err)
	}
}
