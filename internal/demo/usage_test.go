package demo

import (
	"reflect"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
)

func TestDays(t *testing.T) {
	t.Parallel()

	p := Profile{Calls: 100, Messages: 200, Projects: []string{"helpdesk"}, Zone: time.UTC}
	a := id.New[account.Account]()
	monday := time.Date(2026, 9, 7, 0, 0, 0, 0, time.UTC)

	t.Run("AgreeForTheSameSeed", func(t *testing.T) {
		t.Parallel()
		if !reflect.DeepEqual(p.Day(a, monday, 1), p.Day(a, monday, 1)) {
			t.Error("two runs differ")
		}
		if reflect.DeepEqual(p.Day(a, monday, 1), p.Day(a, monday, 2)) {
			t.Error("two seeds agree")
		}
	})

	t.Run("HaveUniqueEventsWithinTheDay", func(t *testing.T) {
		t.Parallel()
		seen := map[string]bool{}
		for _, e := range p.Day(a, monday, 1) {
			if seen[e.ID] {
				t.Fatalf("%s twice", e.ID)
			}
			seen[e.ID] = true
			if e.OccurredAt.Before(monday) || !e.OccurredAt.Before(monday.AddDate(0, 0, 1)) {
				t.Fatalf("%s at %s", e.ID, e.OccurredAt)
			}
			if e.Quantity.Sign() <= 0 {
				t.Fatalf("%s has quantity %s", e.ID, e.Quantity)
			}
		}
	})

	t.Run("AreQuietAtWeekendsAndNights", func(t *testing.T) {
		t.Parallel()
		work, free, night := 0, 0, 0
		for week := range 8 {
			for d := range 7 {
				day := monday.AddDate(0, 0, 7*week+d)
				es := p.Day(a, day, 1)
				if d < 5 {
					work += len(es)
				} else {
					free += len(es)
				}
				night += count(es, func(e metering.Event) bool { return e.OccurredAt.Hour() < 6 })
			}
		}
		if perWork, perFree := work/40, free/16; perWork < 3*perFree {
			t.Errorf("%d events a working day, %d a free one", perWork, perFree)
		}
		if night*20 > work {
			t.Errorf("%d of %d events at night", night, work)
		}
	})
}

func count(es []metering.Event, is func(metering.Event) bool) (n int) {
	for _, e := range es {
		if is(e) {
			n++
		}
	}
	return n
}
