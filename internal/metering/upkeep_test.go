package metering_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/metering"
)

// away is a store of reservations that cannot be reached until a moment.
type away struct {
	entitlement.Reservations
	until time.Time
	asked int
}

func (a *away) Holders(context.Context, int) ([]account.ID, error) {
	a.asked++
	if time.Now().Before(a.until) {
		return nil, errors.New("connection refused")
	}
	return nil, nil
}

// A database that is away is told once, and once more when it is back: the expirer asks every second.
func TestExpirer_TellsOfAnOutageOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		store := &away{until: time.Now().Add(time.Minute)}
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
		defer stop()
		if err := (metering.Expirer{Reservations: store, Log: slog.New(slog.NewTextHandler(&log, nil))}).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if store.asked < 100 {
			t.Errorf("asked %d times in two minutes", store.asked)
		}
		for _, line := range []string{"not let go", "let go again"} {
			if n := strings.Count(log.String(), line); n != 1 {
				t.Errorf("%q is told %d times:\n%s", line, n, log.String())
			}
		}
	})
}
