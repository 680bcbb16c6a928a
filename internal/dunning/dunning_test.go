package dunning_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/dunning"
)

var now = time.Date(2026, 5, 1, 9, 0, 0, 0, time.UTC)

func TestNext(t *testing.T) {
	t.Parallel()

	p := dunning.Default()
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		failure dunning.Failure
		want    dunning.Step
	}{
		"FirstDeclineIsTriedTheNextDay":  {dunning.Failure{Attempts: 1}, dunning.Step{RetryAt: now.Add(day)}},
		"SecondWaitsThreeDays":           {dunning.Failure{Attempts: 2}, dunning.Step{RetryAt: now.Add(3 * day)}},
		"ThirdWaitsFiveDays":             {dunning.Failure{Attempts: 3}, dunning.Step{RetryAt: now.Add(5 * day)}},
		"FourthWaitsAWeek":               {dunning.Failure{Attempts: 4}, dunning.Step{RetryAt: now.Add(7 * day)}},
		"FifthSuspends":                  {dunning.Failure{Attempts: 5}, dunning.Step{Suspend: true}},
		"ACardThatNeverPassesSuspends":   {dunning.Failure{Attempts: 1, Final: true}, dunning.Step{Suspend: true}},
		"AnAttemptThatWasNoneIsTheFirst": {dunning.Failure{}, dunning.Step{RetryAt: now.Add(day)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := p.Next(c.failure, now); got != c.want {
				t.Errorf("Next(%+v) = %+v, want %+v", c.failure, got, c.want)
			}
		})
	}
}

func TestACardIsNeverAskedBeyondTheBudget(t *testing.T) {
	t.Parallel()

	p := dunning.Default()
	rapid.Check(t, func(t *rapid.T) {
		at, attempts := now, []dunning.Attempt(nil)
		for range rapid.IntRange(1, 60).Draw(t, "tries") {
			at = at.Add(time.Duration(rapid.IntRange(0, 72).Draw(t, "hours")) * time.Hour)
			if ok, _ := p.MayTry(attempts, at); ok {
				attempts = append(attempts, dunning.Attempt{At: at, Declined: true})
			}
		}
		for i := range attempts {
			n := 0
			for _, a := range attempts[i:] {
				if a.At.Before(attempts[i].At.Add(p.CardWindow)) {
					n++
				}
			}
			if n > p.CardAttempts {
				t.Fatalf("%d attempts within %s", n, p.CardWindow)
			}
		}
	})
}

// A card that may not be asked may be at the moment that is told, and not before, however many declines there have been.
func TestMayTryAgain_Property(t *testing.T) {
	t.Parallel()

	p := dunning.Default()
	rapid.Check(t, func(t *rapid.T) {
		attempts := make([]dunning.Attempt, rapid.IntRange(0, 30).Draw(t, "declines"))
		for i := range attempts {
			attempts[i] = dunning.Attempt{At: now.Add(-time.Duration(rapid.IntRange(0, 40*24).Draw(t, "hours")) * time.Hour), Declined: true}
		}
		ok, again := p.MayTry(attempts, now)
		if ok {
			return
		}
		if at, _ := p.MayTry(attempts, again); !at || !again.After(now) {
			t.Fatalf("at %s, when it may again, it may not", again)
		}
		if before, _ := p.MayTry(attempts, again.Add(-1)); before {
			t.Fatalf("before %s, when it may again, it may already", again)
		}
	})
}

func TestAFinalDeclineStands(t *testing.T) {
	t.Parallel()

	ok, again := dunning.Default().MayTry([]dunning.Attempt{{At: now.Add(-time.Hour), Declined: true, Final: true}}, now)
	if ok || !again.IsZero() {
		t.Errorf("MayTry = %v, %s; want no, and no time to come back", ok, again)
	}
	window := dunning.Default().CardWindow
	if ok, _ := dunning.Default().MayTry([]dunning.Attempt{{At: now.Add(-window), Declined: true, Final: true}}, now); !ok {
		t.Errorf("it stands for longer than %s", window)
	}
	if ok, again := dunning.Default().MayTry([]dunning.Attempt{{At: now.Add(-100 * window), Declined: true, Lost: true}}, now); ok || !again.IsZero() {
		t.Errorf("MayTry = %v, %s of a card that was lost; want never", ok, again)
	}
}

// What a card has paid is not counted against it.
func TestMayTry_WhereItPaidItMayBeAskedAgain(t *testing.T) {
	t.Parallel()

	p := dunning.Default()
	paid := make([]dunning.Attempt, p.CardAttempts)
	for i := range paid {
		paid[i].At = now.Add(-time.Hour)
	}
	if ok, again := p.MayTry(paid, now); !ok {
		t.Errorf("after %d payments it may not be asked until %s", len(paid), again)
	}
}

func TestWriteOff(t *testing.T) {
	t.Parallel()

	p, after := dunning.Default(), dunning.Default().Uncollectible
	for name, c := range map[string]struct {
		policy dunning.Policy
		due    time.Time
		want   bool
	}{
		"before its time":        {p, now.Add(1 - after), false},
		"in time":                {p, now.Add(-after), true},
		"a debt that is not due": {p, time.Time{}, false},
		"never by itself":        {dunning.Policy{}, now.Add(-after), false},
	} {
		if got := c.policy.WriteOff(c.due, now); got != c.want {
			t.Errorf("%s: written off %v", name, got)
		}
	}
}
