// Package clock tells the time. It is the only package that reads the machine's clock: everything
// else is given a Clock, or a time, by its caller.
package clock

import "time"

// A Clock returns the present time. Implementations are safe for concurrent use.
type Clock func() time.Time

// System returns the machine's time in UTC at the resolution that PostgreSQL keeps, so that a time
// read back from the database equals the time that was written.
func System() time.Time {
	return time.Now().UTC().Truncate(time.Microsecond) //nolint:forbidigo // the one door through which time comes in
}

// Fixed returns a clock that always says t.
func Fixed(t time.Time) Clock {
	return func() time.Time { return t }
}
