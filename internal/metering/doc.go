// Package metering takes in usage and answers how much was used.
//
// It owns: events and their identity, the ingester that stores them, the roll-ups that follow from
// them (period totals, series by dimension, 15-minute buckets), corrections and reconciliation.
// It does not own: limits and periods (package entitlement, whose row is the lock under which usage
// changes), prices, or invoices.
//
// Always true: an event counts once for ever, by its identity (account, source, id); it is
// acknowledged only after the commit that stored it and added it to the roll-ups; a roll-up equals a
// naive recount of the stored events and their corrections, in whatever order they came; an event is
// never changed, and a correction is a record that names it.
package metering
