package app

import (
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// measure shows to whoever reads the metrics what waits, what is overdue and what does not hold. docs/operator.md says
// what of it should wake somebody.
func (a *App) measure(alarm *billing.Alarm, prover *invariant.Prover) {
	for name, of := range map[string]func(payment.Overdue) int{
		"accrue_overdue_payments":        func(o payment.Overdue) int { return o.Payments },
		"accrue_overdue_refunds":         func(o payment.Overdue) int { return o.Refunds },
		"accrue_overdue_cards":           func(o payment.Overdue) int { return o.Cards },
		"accrue_overdue_provider_events": func(o payment.Overdue) int { return o.Events },
	} {
		a.gauge(name, "What has waited for the payment provider's word for longer than alarm-after.", func() int { return of(alarm.Last()) })
	}
	a.gauge("accrue_parked_payments", "Payments and refunds that wait for a person.", func() int { return alarm.Last().Parked })
	a.metrics.Gauge("accrue_overdue_oldest_seconds", "How long the oldest of what is overdue has waited.", nil, func() float64 {
		if since := alarm.Last().Oldest; !since.IsZero() {
			return a.clock().Sub(since).Seconds()
		}
		return 0
	})
	a.gauge("accrue_broken_invariants", "Checks of the books that did not hold when yesterday was proved.", prover.Broken)
	a.gauge("accrue_usage_waiting", "Usage events that wait to be stored.", a.svc.ingester.Waiting)
	a.gauge("accrue_streams_open", "Callers that follow the live stream.", a.svc.hub.Open)
	a.measureDatabase()
}

func (a *App) gauge(name, help string, value func() int) {
	a.metrics.Gauge(name, help, nil, func() float64 { return float64(value()) })
}

// measureDatabase shows the pools of connections, and how long requests waited for one.
func (a *App) measureDatabase() {
	for name, pool := range a.db.Pools() {
		connections := func(state string, value func() int32) {
			a.metrics.Gauge("accrue_database_connections", "Connections of each pool: in use, idle, and how many it may have.",
				telemetry.Labels{"pool": name, "state": state}, func() float64 { return float64(value()) })
		}
		connections("in_use", func() int32 { return pool.Stat().AcquiredConns() })
		connections("idle", func() int32 { return pool.Stat().IdleConns() })
		connections("max", func() int32 { return pool.Stat().MaxConns() })
		a.metrics.Total("accrue_database_waits_total", "How often somebody waited for a connection of the pool.",
			telemetry.Labels{"pool": name}, func() float64 { return float64(pool.Stat().EmptyAcquireCount()) })
		a.metrics.Total("accrue_database_wait_seconds_total", "For how long, in all.",
			telemetry.Labels{"pool": name}, func() float64 { return pool.Stat().EmptyAcquireWaitTime().Seconds() })
	}
}

// countUsage returns what counts the events of an answer.
func (a *App) countUsage() func(metering.Summary) {
	add := a.metrics.Counter("accrue_usage_events_total", "Usage events by what became of them.", "result",
		metering.Accepted.String(), metering.Duplicate.String(), metering.Conflict.String(), metering.Rejected.String())
	return func(s metering.Summary) {
		for status, n := range s {
			if n > 0 {
				add(metering.Status(status).String(), n)
			}
		}
	}
}

// countSweeps returns what counts the sweeps.
func (a *App) countSweeps() func(all bool) {
	add := a.metrics.Counter("accrue_sweeps_total", "Sweeps over all that is due, by whether all of it could be done.", "result", "done", "incomplete")
	return func(all bool) {
		if all {
			add("done", 1)
		} else {
			add("incomplete", 1)
		}
	}
}
