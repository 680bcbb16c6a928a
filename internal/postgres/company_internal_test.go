package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
)

// Operations of an account follow each other, and nobody else waits for them.
func TestCompany(t *testing.T) {
	t.Parallel()
	const takes = 10*time.Millisecond + time.Microsecond // a transaction: nobody comes just when one ends
	a, b, c := id.New[account.Account](), id.New[account.Account](), id.New[account.Account]()
	for _, tc := range []struct {
		name     string
		patience time.Duration
		comes    []account.ID // one a millisecond
		ended    []int        // so many ms after the first began
	}{
		{"TwoAccountsAtATime", time.Hour, []account.ID{a, b, c}, []int{10, 11, 20}},
		{"WhoIsOfAnAccountInsideWaitsForIt", time.Hour, []account.ID{a, a, b}, []int{10, 20, 12}},
		{"AndGoesWithAllThatWaitForIt", time.Hour, []account.ID{a, a, a}, []int{10, 20, 20}},
		{
			"AndForNobodyBesides", time.Hour, slices.Repeat([]account.ID{a}, 16),
			slices.Concat([]int{10}, slices.Repeat([]int{20}, 10), slices.Repeat([]int{30}, 5)),
		},
		{"NoStrangerWaitsForOneThatTakesLong", 5 * time.Millisecond, []account.ID{a, a, b, c}, []int{10, 20, 12, 15}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				together := newCompany(func(guests []*guest, _ bool) {
					time.Sleep(takes)
					for _, g := range guests {
						close(g.turn)
					}
				}, nil, false)
				together.patience = tc.patience
				begun, ended := time.Now(), make([]int, len(tc.comes))
				var all sync.WaitGroup
				for i, of := range tc.comes {
					all.Go(func() {
						time.Sleep(time.Duration(i) * time.Millisecond)
						g := &guest{account: of, turn: make(chan struct{})}
						together.invite(g)
						<-g.turn
						ended[i] = int(time.Since(begun).Milliseconds())
					})
				}
				all.Wait()
				if !slices.Equal(ended, tc.ended) {
					t.Errorf("ended after %v ms, want %v", ended, tc.ended)
				}
				time.Sleep(takes)
				together.mu.Lock()
				defer together.mu.Unlock()
				if len(together.present) != 0 {
					t.Errorf("%d accounts are still said to be inside", len(together.present))
				}
			})
		})
	}
}

// Those who were kept waiting begin together, in as many transactions as they need and there may be.
func TestCompany_BeginsTwoAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var begun []int
		var finish []chan struct{} // each
		together := newCompany(func(guests []*guest, _ bool) {
			end := make(chan struct{})
			mu.Lock()
			begun, finish = append(begun, len(guests)), append(finish, end)
			mu.Unlock()
			<-end
		}, nil, false)
		together.patience = time.Hour
		come := func(accounts ...account.ID) {
			for _, a := range accounts {
				together.invite(&guest{account: a})
			}
			synctest.Wait()
		}
		end := func(i int) {
			mu.Lock()
			close(finish[i])
			mu.Unlock()
			synctest.Wait()
		}
		a, b := id.New[account.Account](), id.New[account.Account]()
		come(id.New[account.Account](), id.New[account.Account]()) // two are under way
		come(a, b)
		end(0) // now a and b are, together
		end(1)
		come(slices.Repeat([]account.ID{a}, mostGuests)...)
		come(slices.Repeat([]account.ID{b}, mostGuests)...)
		end(2)
		if want := []int{1, 1, 2, mostGuests, mostGuests}; !slices.Equal(begun, want) {
			t.Errorf("%v began, want %v", begun, want)
		}
		end(3)
		end(4)
	})
}

// Who is of an account that somebody else holds waits for those who wait for it, and not for longer than its caller does.
func TestCompany_WaitsOnceForAnAccountThatIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held, free := id.New[account.Account](), id.New[account.Account]()
		release := make(chan struct{})
		alone := 0
		c := newCompany(func(guests []*guest, _ bool) {
			strangers := slices.ContainsFunc(guests, func(g *guest) bool { return g.account != held })
			if !strangers {
				alone++
				<-release
			}
			for _, g := range guests {
				if g.unseated = strangers && g.account == held; !g.unseated {
					close(g.turn)
				}
			}
		}, nil, false)
		waits := func(of account.ID) *guest { return &guest{ctx: t.Context(), account: of, turn: make(chan struct{})} }
		first, beside, second, gone := waits(held), waits(free), waits(held), waits(held)
		c.mu.Lock()
		c.waiting = append(c.waiting, first, beside)
		c.free = 2
		c.begin()
		c.mu.Unlock()
		<-beside.turn
		c.invite(second)
		c.invite(gone)
		synctest.Wait()
		if alone != 1 || !c.dismiss(gone) || c.dismiss(first) {
			t.Errorf("%d wait for the account, want one, and those behind it to be free to go", alone)
		}
		close(release)
		<-first.turn
		<-second.turn
		synctest.Wait()
		if len(c.present) != 0 || len(c.waiting) != 0 {
			t.Errorf("%d accounts are still said to be inside, and %d to wait", len(c.present), len(c.waiting))
		}
	})
}

// Where as many as there may be wait for accounts that are held, those who come to wait for another may leave.
func TestCompany_MayBeLeftWhileOthersWaitForAccounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := newCompany(func(guests []*guest, waits bool) {
			if waits {
				<-release
			}
			for _, g := range guests {
				if g.unseated = !waits; waits {
					close(g.turn)
				}
			}
		}, nil, false)
		d := &DB{company: c}
		comes := func(ctx context.Context) error {
			return d.InTxOf(ctx, billing.Start{Account: id.New[account.Account]()}, nil)
		}
		for range mostApart {
			go func() { _ = comes(t.Context()) }()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := comes(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("left after %s with %v, want after a second", time.Since(begun), err)
		}
		if err := comes(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("whose time is over already stays until %v", err)
		}
		close(release)
		synctest.Wait()
		if len(c.present) != 0 || len(c.waiting) != 0 {
			t.Errorf("%d accounts are still said to be inside, and %d to wait", len(c.present), len(c.waiting))
		}
	})
}
