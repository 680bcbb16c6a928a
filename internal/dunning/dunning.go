// Package dunning decides what follows a failed payment. It is pure: it has no clock and no store.
package dunning

import (
	"slices"
	"time"
)

// Policy is how an operator collects.
type Policy struct {
	// Retries are the waits between attempts: the first attempt is at once, the second Retries[0]
	// after it, and so on.
	Retries []time.Duration
	// Uncollectible is how long after the due date a debt is written off. Zero: never by itself.
	Uncollectible time.Duration
	// CardAttempts, at least 1, and CardWindow bound what one card is asked within the window, whoever asks:
	// the card networks fine those who go on (Visa: 15 in 30 days).
	CardAttempts int
	CardWindow   time.Duration
}

// Default is a schedule of three weeks, well within the networks' limits.
func Default() Policy {
	const day = 24 * time.Hour
	return Policy{
		Retries:       []time.Duration{1 * day, 3 * day, 5 * day, 7 * day},
		Uncollectible: 90 * day,
		CardAttempts:  12,
		CardWindow:    30 * day,
	}
}

// Failure is the attempt that failed.
type Failure struct {
	Attempts int  // made so far for this debt, this one included
	Final    bool // the card will never pass: expired, stolen, closed, or it needs its holder
}

// Step is what follows.
type Step struct {
	RetryAt time.Time // zero: no further attempt with this card
	Suspend bool      // stop paid use now
}

// Next decides what follows a failure at now. A card that may pass later is tried again by the
// schedule; after the last retry, or at once where the card will never pass, paid use is suspended
// and only another card, or the customer, takes it up again.
func (p Policy) Next(f Failure, now time.Time) Step {
	if f.Final || f.Attempts > len(p.Retries) {
		return Step{Suspend: true}
	}
	return Step{RetryAt: now.Add(p.Retries[max(f.Attempts, 1)-1])}
}

// Attempt is one try at a card.
type Attempt struct {
	At       time.Time
	Declined bool
	Final    bool // no further try within the window
	Lost     bool // no further try ever: the networks forbid it
}

// MayTry reports whether a card may be asked at now, and if not, when it may again. Where it was lost, or a decline of the
// window is final, that is the zero time: what helps is another card, not to wait.
func (p Policy) MayTry(attempts []Attempt, now time.Time) (bool, time.Time) {
	var declined []time.Time
	for _, a := range attempts {
		if a.Lost {
			return false, time.Time{}
		}
		if !a.Declined || !a.At.After(now.Add(-p.CardWindow)) {
			continue
		}
		if a.Final {
			return false, time.Time{}
		}
		declined = append(declined, a.At)
	}
	if len(declined) < p.CardAttempts {
		return true, time.Time{}
	}
	slices.SortFunc(declined, time.Time.Compare)
	return false, declined[len(declined)-p.CardAttempts].Add(p.CardWindow)
}

// WriteOff reports whether a debt that was due at due is to be written off at now.
func (p Policy) WriteOff(due, now time.Time) bool {
	return p.Uncollectible > 0 && !due.IsZero() && !now.Before(due.Add(p.Uncollectible))
}
