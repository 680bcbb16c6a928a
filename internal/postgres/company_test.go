package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/wallet"
)

var errRefused = errors.New("refused by a rule")

// gathering lets operations wait for each other, so that they share a transaction: two are under way, and the others come
// together in the one after them.
func gathering(t *testing.T, db *postgres.DB, ops map[string]func() error) map[string]error {
	t.Helper()
	db.BePatient()
	finish := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		before, running := mustAccount(t, db), make(chan struct{})
		wg.Go(func() {
			_ = db.InTxOf(t.Context(), billing.Start{Account: before.ID}, func(billing.Tx) error {
				close(running)
				<-finish
				return nil
			})
		})
		<-running
	}
	var mu sync.Mutex
	got := map[string]error{}
	for name, op := range ops {
		wg.Go(func() {
			err := op()
			mu.Lock()
			defer mu.Unlock()
			got[name] = err
		})
	}
	for db.Waiting() < len(ops) && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	close(finish)
	wg.Wait()
	return got
}

// fund books a top-up in company, and then does more.
func fund(ctx context.Context, db *postgres.DB, a account.ID, more func(tx billing.Tx) error) error {
	return db.InTxOf(ctx, billing.Start{Account: a, Books: true}, func(tx billing.Tx) error {
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.TopUpSucceeded, map[string]string{}, noon); err != nil {
			return err
		}
		if err := tx.Ledger().Append(ctx, books.TopUp(fact(acct.ID, id.New[ledger.Transaction]().String()), usd(1000))); err != nil {
			return err
		}
		if more == nil {
			return nil
		}
		return more(tx)
	})
}

func mustHaveFunds(t *testing.T, db *postgres.DB, a account.ID, times int64) {
	t.Helper()
	balance, err := db.Ledger().Balances(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if got := -balance[books.Funds]; got != 1000*times {
		t.Errorf("funds of %d, want %d", got, 1000*times)
	}
	events, err := db.Outbox().After(t.Context(), a, 0, 1000)
	if err != nil || int64(len(events)) != times {
		t.Errorf("%d events, %v, want %d", len(events), err, times)
	}
	for i, e := range events {
		if e.Sequence != int64(i+1) {
			t.Errorf("event %d has number %d", i+1, e.Sequence)
		}
	}
}

// holding holds accounts, as a machine that died within a transaction does, until it is released.
func holding(t *testing.T, db *postgres.DB, all ...account.ID) (release func()) {
	t.Helper()
	tx, err := db.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if _, err := tx.Exec(t.Context(), "SELECT FROM accounts WHERE id = $1 FOR UPDATE", a.UUID()); err != nil {
			t.Fatal(err)
		}
	}
	return sync.OnceFunc(func() { _ = tx.Rollback(t.Context()) })
}

// lockWaits is how many sessions wait for a lock.
func lockWaits(t *testing.T, db *postgres.DB) (n int) {
	t.Helper()
	err := db.Pool().QueryRow(t.Context(),
		"SELECT count(*) FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE NOT l.granted AND s.datname = current_database()").Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustBeOne(t *testing.T, transactions *sync.Map) {
	t.Helper()
	mustBe(t, transactions, 1)
}

func mustBe(t *testing.T, transactions *sync.Map, want int) {
	t.Helper()
	n := 0
	transactions.Range(func(any, any) bool { n++; return true })
	if n != want {
		t.Errorf("the operations ran in %d transactions, want %d", n, want)
	}
}

func TestInTxOf(t *testing.T) {
	t.Parallel()
	ctx := t.Context()

	t.Run("CommitsWhatComesTogetherAtOnce", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		ops := map[string]func() error{}
		transactions := sync.Map{}
		var all []account.ID
		for i := range 20 {
			a := mustAccount(t, db).ID
			all = append(all, a)
			for k := range 3 { // of one account, each sees what the one before has booked
				ops[fmt.Sprint(i, "/", k)] = func() error {
					return fund(ctx, db, a, func(tx billing.Tx) error {
						transactions.Store(postgres.TransactionID(ctx, tx), true)
						balance, err := tx.Ledger().Balances(ctx, a)
						if err == nil && -balance[books.Funds]%1000 != 0 {
							t.Errorf("balance %v", balance)
						}
						return err
					})
				}
			}
		}
		for name, err := range gathering(t, db, ops) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, a := range all {
			mustHaveFunds(t, db, a, 3)
		}
		mustBeOne(t, &transactions)
	})

	t.Run("ShowsEachWhatTheOneBeforeHasDone", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		m := mustCard(t, db, mustAccount(t, db).ID)
		p := mustPayment(t, db, charge(m))
		ops := map[string]func() error{}
		transactions := sync.Map{}
		for i := range 6 {
			ops[fmt.Sprint(i)] = func() error {
				return db.InTxOf(ctx, billing.Start{Account: m.Account}, func(tx billing.Tx) error {
					got, err := tx.Payments().LockPayment(ctx, m.Account, p.ID)
					if err != nil {
						return err
					}
					transactions.Store(postgres.TransactionID(ctx, tx), true)
					if got.Checks++; got.Checks == 3 {
						return errRefused // and leaves what was there before
					}
					return tx.Payments().SavePayment(ctx, &got)
				})
			}
		}
		refused := 0
		for _, err := range gathering(t, db, ops) {
			if errors.Is(err, errRefused) {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}
		got, err := db.Payments().Payment(ctx, m.Account, p.ID)
		if err != nil || got.Checks != 2 || refused != 4 {
			t.Errorf("%d checks and %d refusals, %v; want 2 and 4", got.Checks, refused, err)
		}
		mustBeOne(t, &transactions)
	})

	t.Run("LosesNoChangeOfAPaymentThatItHasNotLockedByItself", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		m := mustCard(t, db, mustAccount(t, db).ID)
		p := mustPayment(t, db, charge(m))
		read, goOn := make(chan struct{}), make(chan struct{})
		check := func(tx billing.Tx, between func()) error {
			got, err := tx.Payments().LockPayment(ctx, p.Account, p.ID)
			if err != nil {
				return err
			}
			between()
			got.Checks++
			return tx.Payments().SavePayment(ctx, &got)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			err := db.InTxOf(ctx, billing.Start{Account: p.Account, Payment: p.ID}, func(tx billing.Tx) error {
				return check(tx, func() { close(read); <-goOn })
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-read
		wg.Go(func() { // in its own transaction, by the rule: the account first
			err := db.InTx(ctx, func(tx billing.Tx) error {
				if _, err := tx.Accounts().Lock(ctx, p.Account); err != nil {
					return err
				}
				return check(tx, func() {})
			})
			if err != nil {
				t.Error(err)
			}
		})
		stranger := db.InTx(ctx, func(tx billing.Tx) error { // against the rule
			got, err := tx.Payments().Payment(ctx, p.Account, p.ID)
			if err != nil {
				return err
			}
			close(goOn)
			wg.Wait()
			return tx.Payments().SavePayment(ctx, &got)
		})
		if !errors.Is(stranger, account.ErrStale) {
			t.Errorf("who has not locked the account: %v, want ErrStale", stranger)
		}
		if got, err := db.Payments().Payment(ctx, p.Account, p.ID); err != nil || got.Checks != 2 {
			t.Errorf("%d checks, %v, want 2", got.Checks, err)
		}
	})

	t.Run("LetsNobodyFailWithAnother", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		good, early, late, taken, panics := mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID
		booked := books.TopUp(fact(taken, "pay_1"), usd(500))
		if err := db.InTx(ctx, func(tx billing.Tx) error { return tx.Ledger().Append(ctx, booked) }); err != nil {
			t.Fatal(err)
		}
		got := gathering(t, db, map[string]func() error{
			"good": func() error { return fund(ctx, db, good, nil) },
			"early": func() error { // has written nothing that was sent
				return fund(ctx, db, early, func(billing.Tx) error { return errRefused })
			},
			"late": func() error {
				return fund(ctx, db, late, func(tx billing.Tx) error {
					if _, err := tx.Ledger().Balances(ctx, late); err != nil {
						return err
					}
					return errRefused
				})
			},
			"taken": func() error {
				return fund(ctx, db, taken, func(tx billing.Tx) error {
					return tx.Ledger().Append(ctx, books.TopUp(fact(taken, "pay_1"), usd(500)))
				})
			},
			"unknown": func() error { return fund(ctx, db, id.New[account.Account](), nil) },
			"panics": func() (err error) {
				defer func() { err = fmt.Errorf("%v", recover()) }()
				return fund(ctx, db, panics, func(billing.Tx) error { panic("a fault") })
			},
		})
		for name, want := range map[string]error{"good": nil, "early": errRefused, "late": errRefused, "taken": ledger.ErrAlreadyBooked, "unknown": account.ErrNotFound} {
			if !errors.Is(got[name], want) {
				t.Errorf("%s: %v, want %v", name, got[name], want)
			}
		}
		if err := got["panics"]; err == nil || err.Error() != "a fault" {
			t.Errorf("a panic came out as %v", err)
		}
		mustHaveFunds(t, db, good, 1)
		for _, a := range []account.ID{early, late, panics} {
			mustHaveFunds(t, db, a, 0)
		}
	})

	t.Run("BlamesNobodyForWhatTheDatabaseHasRefusedAnother", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a := mustAccount(t, db).ID
		ops := map[string]func() error{"refused": func() error {
			return db.InTxOf(ctx, billing.Start{Account: a}, func(tx billing.Tx) error { return postgres.Ask(ctx, tx, "SELECT 1 / 0") })
		}}
		for i := range 10 { // most come before it or after it
			of := mustAccount(t, db).ID
			ops[fmt.Sprint(i)] = func() error {
				return db.InTxOf(ctx, billing.Start{Account: of}, func(tx billing.Tx) error {
					return tx.Idempotency().Release(ctx, of, idempotency.Request{Scope: "s", Key: "k"})
				})
			}
		}
		for name, err := range gathering(t, db, ops) {
			if (err != nil) != (name == "refused") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	t.Run("WaitsByItselfForALockThatIsNotFreeInCompany", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		busy, free, other := mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID
		release := holding(t, db, other)
		defer release()
		runs := 0
		got := gathering(t, db, map[string]func() error{
			"free": func() error { return fund(ctx, db, free, nil) },
			"busy": func() error {
				return fund(ctx, db, busy, func(tx billing.Tx) error {
					if runs++; runs == 2 {
						release()
					}
					return postgres.Ask(ctx, tx, "UPDATE accounts SET version = version WHERE id = '"+other.UUID().String()+"'")
				})
			},
		})
		for name, err := range got {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		mustHaveFunds(t, db, free, 1)
		mustHaveFunds(t, db, busy, 1)
	})

	t.Run("LetsNobodyBearThatAnotherLeavesInTheMiddle", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		leaving, stays := mustAccount(t, db).ID, mustAccount(t, db).ID
		gone, leave := context.WithCancel(ctx)
		defer leave()
		got := gathering(t, db, map[string]func() error{
			"stays": func() error { return fund(ctx, db, stays, nil) },
			"leaves": func() error {
				return db.InTxOf(gone, billing.Start{Account: leaving}, func(tx billing.Tx) error {
					time.AfterFunc(50*time.Millisecond, leave)
					return postgres.Ask(gone, tx, "SELECT pg_sleep(60)")
				})
			},
		})
		if err := got["stays"]; err != nil {
			t.Errorf("who stays: %v", err)
		}
		if err := got["leaves"]; err == nil {
			t.Error("who leaves has ended well")
		}
		mustHaveFunds(t, db, stays, 1)
	})

	t.Run("GivesEachAccountItsOwnWhereTheyAreSharded", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		db.Shard()
		ops := map[string]func() error{}
		transactions := sync.Map{}
		for range 3 {
			a := mustAccount(t, db).ID
			for k := range 4 {
				ops[fmt.Sprint(a, k)] = func() error {
					return fund(ctx, db, a, func(tx billing.Tx) error {
						transactions.Store(postgres.TransactionID(ctx, tx), true)
						return nil
					})
				}
			}
		}
		for name, err := range gathering(t, db, ops) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		mustBe(t, &transactions, 3)
	})

	t.Run("TellsEachWhetherItsEventIsNew", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		ops := map[string]func() error{}
		transactions, fresh := sync.Map{}, atomic.Int64{}
		for i := range 20 {
			ops[fmt.Sprint(i)] = func() error {
				return db.InTxOf(ctx, billing.Start{}, func(tx billing.Tx) error {
					isNew, err := tx.Payments().SaveEvent(ctx, payment.ProviderEvent{Provider: "sandbox", EventID: fmt.Sprint("evt_", i/2), Payload: []byte("{}"), ReceivedAt: noon})
					if isNew {
						fresh.Add(1)
					}
					transactions.Store(postgres.TransactionID(ctx, tx), true)
					return err
				})
			}
		}
		for name, err := range gathering(t, db, ops) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if fresh.Load() != 10 {
			t.Errorf("%d of 10 events, each delivered twice, were new", fresh.Load())
		}
		mustBeOne(t, &transactions)
	})

	t.Run("WaitsForNoStrangersLock", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		busy, free := mustAccount(t, db).ID, mustAccount(t, db).ID
		locked, release := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			err := db.InTx(ctx, func(tx billing.Tx) error {
				_, err := tx.Accounts().Lock(ctx, busy)
				close(locked)
				<-release
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-locked
		got := gathering(t, db, map[string]func() error{
			"free": func() error {
				defer close(release)
				return fund(ctx, db, free, nil)
			},
			"busy":  func() error { return fund(ctx, db, busy, nil) },
			"again": func() error { return fund(ctx, db, busy, nil) },
		})
		wg.Wait()
		for name, err := range got {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		mustHaveFunds(t, db, free, 1)
		mustHaveFunds(t, db, busy, 2)
	})

	t.Run("WaitsForNoStrangersLockHoweverManyWaitForIt", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		busy, free := mustAccount(t, db).ID, mustAccount(t, db).ID
		var all sync.WaitGroup
		defer all.Wait()
		release := holding(t, db, busy)
		defer release()
		soon, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		const many = 12 // more than there are connections for such transactions
		for i := range many {
			all.Go(func() {
				if err := fund(ctx, db, busy, nil); err != nil {
					t.Error(err)
				}
			})
			for db.Waiting()+lockWaits(t, db) <= i && soon.Err() == nil { // each comes after the one before
				time.Sleep(time.Millisecond)
			}
		}
		if err := fund(soon, db, free, nil); err != nil {
			t.Errorf("a stranger: %v", err)
		}
		release()
		all.Wait()
		mustHaveFunds(t, db, busy, many)
	})

	t.Run("WaitsForNoStrangersLockHoweverManyAreHeld", func(t *testing.T) {
		t.Parallel()
		for _, sharded := range []bool{false, true} {
			db := postgrestest.New(t)
			if sharded {
				db.Shard()
			}
			const many = 12 // more than there are connections for such transactions
			var busy []account.ID
			for range many {
				busy = append(busy, mustAccount(t, db).ID)
			}
			free := mustAccount(t, db).ID
			release := holding(t, db, busy...)
			soon, cancel := context.WithTimeout(ctx, 5*time.Second)
			var all sync.WaitGroup
			for i, a := range busy {
				all.Go(func() {
					if err := fund(ctx, db, a, nil); err != nil {
						t.Error(err)
					}
				})
				for (db.Inside() <= i || lockWaits(t, db) <= min(i, 5)) && soon.Err() == nil { // each comes after the one before
					time.Sleep(time.Millisecond)
				}
			}
			if err := fund(soon, db, free, nil); err != nil {
				t.Errorf("a stranger: %v", err)
			}
			release()
			all.Wait()
			cancel()
			for _, a := range busy {
				mustHaveFunds(t, db, a, 1)
			}
		}
	})

	t.Run("EndsWithTheCallersContext", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a, b := mustAccount(t, db).ID, mustAccount(t, db).ID
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := fund(gone, db, b, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone before it begins: %v", err)
		}
		release := holding(t, db, a)
		var there sync.WaitGroup
		there.Go(func() {
			if err := fund(ctx, db, a, nil); err != nil {
				t.Error(err)
			}
		})
		for lockWaits(t, db) == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if err := fund(gone, db, a, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone while another waits for the account: %v", err)
		}
		release()
		there.Wait()
		mustHaveFunds(t, db, a, 1)
		mustHaveFunds(t, db, b, 0)
	})
}

// What a charge of the default card goes by is read with the account's lock: it asks for nothing more of the database.
func TestInTxOf_KnowsBeforehandWhatAChargeGoesBy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := postgrestest.New(t)
	declined := payment.Attempt{At: noon, Declined: true, Class: payment.DeclineHard}
	ops := map[string]func() error{}
	for name, want := range map[string][]payment.Attempt{"declined": {declined}, "never asked": nil} {
		a := mustAccount(t, db).ID
		mustSubscription(t, db, a)
		m := card(a)
		m.Default, m.Card.Fingerprint = true, name
		if err := db.Payments().CreateMethod(ctx, m); err != nil {
			t.Fatal(err)
		}
		for _, was := range want {
			if err := db.Payments().AddAttempt(ctx, name, was); err != nil {
				t.Fatal(err)
			}
		}
		ops[name] = func() error {
			again := false
			return db.InTxOf(ctx, billing.Start{Account: a, Charges: true}, func(tx billing.Tx) error {
				if again {
					return errRefused // it is run again by itself, where nothing is read beforehand
				}
				again = true
				postgres.Break(ctx, tx)
				sub, err := tx.Subscriptions().Active(ctx, a)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if v, err := tx.Plans().Version(ctx, sub.Plan, sub.Terms.Version); err != nil || v.Plan != sub.Plan || v.Number != sub.Terms.Version {
					t.Errorf("%s: version %s/%d, %v; want what the account has", name, v.Plan, v.Number, err)
				}
				if _, err := tx.Payments().PendingTopUp(ctx, a); !errors.Is(err, payment.ErrTopUpNotFound) {
					t.Errorf("%s: pending top-up: %v, want none", name, err)
				}
				if known, err := tx.Payments().DefaultMethod(ctx, a); err != nil || known.ID != m.ID {
					t.Errorf("%s: default card %s, %v; want %s", name, known.ID, err, m.ID)
				}
				if got, err := tx.Payments().Attempts(ctx, name, noon); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: attempts %v, %v; want %v", name, got, err, want)
				}
				if _, err := tx.Payments().Attempts(ctx, name, noon); err == nil {
					t.Errorf("%s: the database answers once more, so this test shows nothing", name)
				}
				return nil
			})
		}
	}
	for name, err := range gathering(t, db, ops) {
		if !errors.Is(err, errRefused) {
			t.Errorf("%s: %v; want to be run again, for the transaction is broken", name, err)
		}
	}
}

// Whatever the tables hold when a statement is first planned, and however they grow after: what operations on money
// read and write together goes by index, with plans that are made once.
func TestStatementsOfMoneyGoByKey(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := postgrestest.New(t)
	var intents []payment.Payment
	for range 3 {
		m := card(mustAccount(t, db).ID)
		m.Default = true
		if err := db.Payments().CreateMethod(ctx, m); err != nil {
			t.Fatal(err)
		}
		intents = append(intents, charge(m))
	}
	if _, err := db.Pool().Exec(ctx, "ANALYZE"); err != nil { // small, and known to be
		t.Fatal(err)
	}
	ofEach := func(do func(p payment.Payment) error) {
		t.Helper()
		ops := map[string]func() error{}
		for _, p := range intents {
			ops[p.ID.String()] = func() error { return do(p) }
		}
		for name, err := range gathering(t, db, ops) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	ofEach(func(p payment.Payment) error {
		key := idempotency.Request{Scope: "user:ada POST /v1/top-ups", Key: p.ID.String()}
		return db.InTxOf(ctx, billing.Start{Account: p.Account, Key: key, Charges: true}, func(tx billing.Tx) error {
			_, claimed := tx.Idempotency().Claim(ctx, p.Account, key, uuid.UUID{})
			_, known := tx.Payments().DefaultMethod(ctx, p.Account)
			_, unread := tx.Payments().Attempts(ctx, "fp", noon)
			_, none := tx.Payments().PendingTopUp(ctx, p.Account)
			if !errors.Is(none, payment.ErrTopUpNotFound) {
				return none
			}
			return errors.Join(claimed, known, unread, tx.Payments().CreatePayment(ctx, p), tx.Payments().CreateTopUp(ctx, payment.TopUp{
				ID: p.TopUp, Account: p.Account, Origin: payment.Manual, Amount: p.Amount, Status: p.Status, Payment: p.ID, CreatedAt: noon, UpdatedAt: noon, Version: 1,
			}))
		})
	})
	ofEach(func(p payment.Payment) error {
		key := idempotency.Request{Scope: "user:ada POST /v1/top-ups", Key: p.ID.String()}
		return db.InTxOf(ctx, billing.Start{Account: p.Account, Key: key, Books: true, Payment: p.ID, TopUp: p.TopUp}, func(tx billing.Tx) error {
			p, unknown := tx.Payments().LockPayment(ctx, p.Account, p.ID)
			top, missing := tx.Payments().TopUp(ctx, p.Account, p.TopUp)
			_, unread := tx.Invoices().Unpaid(ctx, p.Account)
			if err := errors.Join(unknown, missing, unread); err != nil {
				return err
			}
			return errors.Join(
				tx.Payments().SavePayment(ctx, &p), tx.Payments().SaveTopUp(ctx, &top),
				tx.Payments().Remember(ctx, "sandbox", p.ID.String(), payment.Located{Account: p.Account, Kind: payment.RecordPayment, Payment: p.ID}),
				tx.Ledger().Append(ctx, books.TopUp(fact(p.Account, p.ID.String()), p.Amount)),
				tx.Wallet().CreateGrant(ctx, wallet.Grant{ID: id.New[wallet.Grant](), Account: p.Account, Amount: p.Amount, Remaining: p.Amount, GrantedAt: noon}),
				tx.Accounts().Audit(ctx, p.Account, account.Entry{Actor: "user:ada", Action: "top_up", At: noon}),
				tx.Outbox().Publish(ctx, p.Account, outbox.TopUpSucceeded, map[string]string{}, noon),
				tx.Idempotency().Complete(ctx, p.Account, key, idempotency.Answer{Status: 201, Body: []byte("{}")}),
			)
		})
	})
	ofEach(func(p payment.Payment) error {
		return db.InTxOf(ctx, billing.Start{}, func(tx billing.Tx) error {
			_, unsaved := tx.Payments().SaveEvent(ctx, payment.ProviderEvent{Provider: "sandbox", EventID: p.ID.String(), Payload: []byte("{}"), ReceivedAt: noon})
			_, lost := tx.Payments().Locate(ctx, "sandbox", p.ID.String())
			return errors.Join(unsaved, lost)
		})
	})
	conns := db.Shared().AcquireAllIdle(ctx)
	used := 0
	for _, conn := range conns {
		used += mustGoByKey(t, conn)
		conn.Release()
	}
	if used < 12 {
		t.Errorf("only %d statements were used", used)
	}
}
