package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/pkg/money"
)

// ceilingWindow is the day of a key's daily ceiling: the last 24 hours.
const ceilingWindow = 24 * time.Hour

// withinCeiling returns ErrCeiling if the key that asks may not move the amount. The account is locked,
// so two requests of one key cannot pass the daily ceiling together. A ceiling in another currency than
// the account's allows nothing.
func (c *Core) withinCeiling(ctx context.Context, tx Tx, asked Asked, amount money.Amount) error {
	if most := asked.Ceiling.PerPayment; most != nil && (most.Currency != amount.Currency || amount.Minor > most.Minor) {
		return ErrCeiling.With("ceiling", "per_payment").With("limit", *most)
	}
	most := asked.Ceiling.PerDay
	if most == nil {
		return nil
	}
	moved, err := tx.Payments().Moved(ctx, asked.Account, asked.Actor, c.Clock().Add(-ceilingWindow), amount.Currency)
	if err != nil {
		return err
	}
	if most.Currency != amount.Currency || moved.Minor+amount.Minor > most.Minor {
		return ErrCeiling.With("ceiling", "per_day").With("limit", *most).With("moved", moved)
	}
	return nil
}
