package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/id"
)

// usageChannel is where changed usage is announced, as "origin:account uuid,account uuid,…". The origin
// is the announcing process, which leaves its own out; a transaction that announces has none.
const usageChannel = "accrue_usage"

// changeWire hears and announces over LISTEN and NOTIFY.
type changeWire struct {
	pool   *pgxpool.Pool
	origin string
}

var (
	_ changes.Source    = changeWire{}
	_ changes.Announcer = changeWire{}
)

// Changes returns what a changes.Hub hears and announces with. It listens on one connection of its own,
// beside the pool: a connection that waits would be lost to everyone else.
func Changes(pool *pgxpool.Pool) interface {
	changes.Source
	changes.Announcer
} {
	return changeWire{pool, uuid.NewString()}
}

// A connection on which nothing comes is tried now and then: one that is half open says nothing either.
const (
	quiet     = 10 * time.Second
	pingLimit = 5 * time.Second
)

// Listen implements changes.Source.
func (c changeWire) Listen(ctx context.Context, listening func(), heard func(changes.Change)) (err error) {
	config := c.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "accrue listener"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer func() { //nolint:contextcheck // ctx may be what ended
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	for _, channel := range []string{EventsChannel, usageChannel, entitlementChannel} {
		if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	listening()
	for {
		waiting, cancel := context.WithTimeout(ctx, quiet)
		n, err := conn.WaitForNotification(waiting)
		cancel()
		switch {
		case err == nil:
			c.tell(n.Channel, n.Payload, heard)
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded) || conn.IsClosed():
			return fmt.Errorf("listen: %w", err)
		}
		ping, cancel := context.WithTimeout(ctx, pingLimit)
		err = conn.Ping(ping)
		cancel()
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
}

// tell reads a payload. What cannot be read was not meant for us.
func (c changeWire) tell(channel, payload string, heard func(changes.Change)) {
	what, accounts := changes.Limits, payload
	switch channel {
	case EventsChannel:
		what = changes.Events
		accounts, _, _ = strings.Cut(payload, ":")
	case usageChannel:
		what = changes.Usage
		var origin string
		if origin, accounts, _ = strings.Cut(payload, ":"); origin == c.origin {
			return
		}
	}
	for text := range strings.SplitSeq(accounts, ",") {
		if u, err := uuid.Parse(text); err == nil {
			heard(changes.Change{Account: id.FromUUID[account.Account](u), What: what})
		}
	}
}

// announced is how many accounts one notification names: a payload has less than 8,000 bytes.
const announced = 200

// Announce implements changes.Announcer.
func (c changeWire) Announce(ctx context.Context, accounts []account.ID) error {
	var payloads []string
	for len(accounts) > 0 {
		n := min(len(accounts), announced)
		names := make([]string, n)
		for i, a := range accounts[:n] {
			names[i] = a.UUID().String()
		}
		payloads = append(payloads, c.origin+":"+strings.Join(names, ","))
		accounts = accounts[n:]
	}
	if _, err := c.pool.Exec(ctx, "SELECT pg_notify($1, p) FROM unnest($2::text[]) p", usageChannel, payloads); err != nil {
		return fmt.Errorf("announce usage: %w", err)
	}
	return nil
}
