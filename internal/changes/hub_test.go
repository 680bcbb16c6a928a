package changes_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errFault is what a connection panics with.
var errFault = errors.New("a fault of ours")

// wire plays the database: it connects when the test lets it, and notes what is announced.
type wire struct {
	connect chan error // nil connects; an error is a connection that fails
	lose    chan error // ends the connection
	heard   func(changes.Change)

	mu        sync.Mutex
	refuse    error
	announced [][]account.ID
}

func (w *wire) Listen(ctx context.Context, listening func(), heard func(changes.Change)) error {
	select {
	case err := <-w.connect:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	w.heard = heard
	listening()
	select {
	case err := <-w.lose:
		if errors.Is(err, errFault) {
			panic(err)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *wire) Announce(_ context.Context, accounts []account.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.announced = append(w.announced, accounts)
	return nil
}

func (w *wire) told() [][]account.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.announced)
}

func setup(t *testing.T, opt changes.Options) (*changes.Hub, *wire) {
	t.Helper()
	return setupLogged(t, opt, io.Discard)
}

func setupLogged(t *testing.T, opt changes.Options, log io.Writer) (*changes.Hub, *wire) {
	t.Helper()
	w := &wire{connect: make(chan error), lose: make(chan error)}
	h := changes.NewHub(w, w, slog.New(slog.NewTextHandler(log, nil)), opt)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return h, w
}

func subscribe(t *testing.T, h *changes.Hub, a account.ID) *changes.Subscription {
	t.Helper()
	s, err := h.Subscribe(a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// took returns what the subscription was nudged for, 0 if it was not.
func took(s *changes.Subscription) changes.What {
	select {
	case <-s.Ready():
		return s.Take()
	default:
		return 0
	}
}

func TestChangesReachTheirAccountsSubscribersOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []account.ID
		h, w := setup(t, changes.Options{Changed: func(a ...account.ID) { told = append(told, a...) }})
		mine, other := id.New[account.Account](), id.New[account.Account]()
		one, two, foreign := subscribe(t, h, mine), subscribe(t, h, mine), subscribe(t, h, other)
		w.connect <- nil
		synctest.Wait()
		for _, s := range []*changes.Subscription{one, two, foreign} {
			if got := took(s); got != changes.Events|changes.Usage|changes.Limits {
				t.Errorf("after connecting: %b", got)
			}
		}
		w.heard(changes.Change{Account: mine, What: changes.Events})
		w.heard(changes.Change{Account: mine, What: changes.Usage})
		w.heard(changes.Change{Account: mine, What: changes.Usage})
		for _, s := range []*changes.Subscription{one, two} {
			if got := took(s); got != changes.Events|changes.Usage {
				t.Errorf("several changes came as %b", got)
			}
			if got := took(s); got != 0 {
				t.Errorf("and again as %b", got)
			}
		}
		if got := took(foreign); got != 0 {
			t.Errorf("another account's subscriber was told %b", got)
		}
		if !slices.Equal(told, []account.ID{mine, mine}) {
			t.Errorf("told of changes elsewhere: %v", told)
		}
	})
}

func TestALostConnectionIsMadeAgainAndEveryoneLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, w := setup(t, changes.Options{})
		s := subscribe(t, h, id.New[account.Account]())
		w.connect <- nil
		synctest.Wait()
		took(s)
		w.lose <- errors.New("server closed the connection")
		for range 8 {
			w.connect <- errors.New("connection refused")
		}
		begin := time.Now()
		w.connect <- nil
		synctest.Wait()
		if got := took(s); got&changes.Events == 0 || got&changes.Usage == 0 {
			t.Errorf("after connecting again: %b", got)
		}
		if wait := time.Since(begin); wait > 2*time.Second {
			t.Errorf("waited %s before connecting again", wait)
		}
	})
}

func TestWhatPanicsIsALostConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h, w := setupLogged(t, changes.Options{}, &log)
		s := subscribe(t, h, id.New[account.Account]())
		w.connect <- nil
		synctest.Wait()
		took(s)
		w.lose <- errFault
		w.connect <- nil
		synctest.Wait()
		if got := took(s); got&changes.Events == 0 {
			t.Errorf("after connecting again: %b", got)
		}
		if !strings.Contains(log.String(), errFault.Error()) || !strings.Contains(log.String(), "hub_test.go") {
			t.Errorf("what panicked, and where, is not told:\n%s", log.String())
		}
	})
}

// A database that is away is told once for what is heard and once for what is announced, and so is its coming back.
func TestAnOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h, w := setupLogged(t, changes.Options{}, &log)
		w.connect <- nil
		w.mu.Lock()
		w.refuse = errors.New("connection refused")
		w.mu.Unlock()
		w.lose <- errors.New("server closed the connection")
		h.UsageChanged([]account.ID{id.New[account.Account]()})
		for range 8 {
			w.connect <- errors.New("connection refused")
		}
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		w.connect <- nil
		time.Sleep(time.Second)
		synctest.Wait()
		for _, line := range []string{"not heard", "heard again", "not announced", "announced again"} {
			if n := strings.Count(log.String(), line); n != 1 {
				t.Errorf("%q is told %d times:\n%s", line, n, log.String())
			}
		}
	})
}

func TestUsageIsAnnouncedAtOnceAndThenTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, w := setup(t, changes.Options{AnnounceEvery: 100 * time.Millisecond})
		a, b := id.New[account.Account](), id.New[account.Account]()
		s := subscribe(t, h, a)
		begin := time.Now()
		h.UsageChanged([]account.ID{a})
		if got := took(s); got != changes.Usage {
			t.Errorf("this process's own subscriber was told %b", got)
		}
		synctest.Wait()
		if len(w.told()) != 1 || time.Since(begin) != 0 {
			t.Fatalf("the first change: %v after %s", w.told(), time.Since(begin))
		}
		for range 1000 {
			h.UsageChanged([]account.ID{a, b})
		}
		time.Sleep(99 * time.Millisecond)
		synctest.Wait()
		if len(w.told()) != 1 {
			t.Errorf("announced again before its time: %v", w.told())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if len(w.told()) != 2 || len(w.told()[1]) != 2 {
			t.Errorf("a thousand changes of two accounts were announced as %v", w.told())
		}
		w.mu.Lock()
		w.refuse = errors.New("the database is gone")
		w.mu.Unlock()
		time.Sleep(time.Second)
		h.UsageChanged([]account.ID{b})
		time.Sleep(time.Second)
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(w.told()) != 3 || !slices.Equal(w.told()[2], []account.ID{b}) {
			t.Errorf("what could not be announced was announced as %v", w.told())
		}
	})
}

func TestSubscriptionsAreBounded(t *testing.T) {
	t.Parallel()
	h := changes.NewHub(nil, nil, slog.New(slog.DiscardHandler), changes.Options{PerAccount: 2, Most: 3})
	a, b := id.New[account.Account](), id.New[account.Account]()
	first := subscribe(t, h, a)
	second := subscribe(t, h, a)
	if _, err := h.Subscribe(a); !errors.Is(err, changes.ErrTooMany) {
		t.Errorf("a third of one account: %v", err)
	}
	subscribe(t, h, b)
	if _, err := h.Subscribe(b); !errors.Is(err, changes.ErrFull) {
		t.Errorf("a fourth of all: %v", err)
	}
	first.Close()
	first.Close()
	if h.Open() != 2 {
		t.Errorf("%d open", h.Open())
	}
	subscribe(t, h, a)
	h.Drain()
	h.Drain()
	select {
	case <-second.Ended():
	default:
		t.Error("a subscription outlives the hub")
	}
	if _, err := h.Subscribe(b); !errors.Is(err, changes.ErrStopping) {
		t.Errorf("after draining: %v", err)
	}
}
