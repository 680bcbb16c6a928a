package telemetry

import (
	"context"
	"log/slog"
)

// Outage tells of what is tried again and again: that it has begun to fail, and that it goes again. What
// is tried several times a second would otherwise bury all else for as long as a database is away. It is
// for one goroutine.
type Outage struct {
	Log          *slog.Logger
	Began, Ended string // what is written, at WARN and at INFO

	failing bool
}

// Tried notes how a try went.
func (o *Outage) Tried(ctx context.Context, err error) {
	switch {
	case err != nil && !o.failing:
		o.Log.WarnContext(ctx, o.Began, "error", err)
	case err == nil && o.failing:
		o.Log.InfoContext(ctx, o.Ended)
	}
	o.failing = err != nil
}
