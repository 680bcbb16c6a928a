package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/billing"
)

// Questions that an index has to answer.
var (
	ExpiringCards = expiringCards
	OwnedBy       = ownedBy
)

// Waiting is how many operations wait for a transaction to share.
func (d *DB) Waiting() int {
	d.company.mu.Lock()
	defer d.company.mu.Unlock()
	return len(d.company.waiting)
}

// Inside is of how many accounts operations have begun, or wait for what others hold.
func (d *DB) Inside() int {
	d.company.mu.Lock()
	defer d.company.mu.Unlock()
	return len(d.company.present)
}

// BePatient keeps operations waiting for the one under way, however long it takes.
func (d *DB) BePatient() { d.company.patience = time.Hour }

// Shard gives each account transactions of its own, as Config.OneAccount does.
func (d *DB) Shard() { d.company.oneAccount = true }

// Shared is the pool of transactions that operations share.
func (d *DB) Shared() *pgxpool.Pool { return d.shared }

// TransactionID is what the database calls the transaction that tx runs in.
func TransactionID(ctx context.Context, tx billing.Tx) (id int64) {
	_ = tx.(stores).db.WithContext(ctx).Raw("SELECT pg_current_xact_id()::text::bigint").Scan(&id)
	return id
}

// RowsRead is how many rows of tables the connection of a transaction has lately read, whatever it made of them.
func RowsRead(ctx context.Context, tx billing.Tx) (n int64, err error) {
	err = tx.(stores).db.WithContext(ctx).Raw("SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables WHERE schemaname = 'public'").Scan(&n).Error
	return n, err
}

// Break makes the database refuse whatever the transaction asks from now on.
func Break(ctx context.Context, tx billing.Tx) {
	_ = tx.(stores).db.WithContext(ctx).Exec("SELECT 1 / 0")
}

// Ask sends a text through GORM.
func Ask(ctx context.Context, tx billing.Tx, text string) error {
	return translate(tx.(stores).db.WithContext(ctx).Exec(text).Error)
}

// MaxMixes bounds the statements of joined writes.
const MaxMixes = maxMixes

// KeptMixes is how many of them the process keeps.
func KeptMixes() int { return mixes.Len() }

// SendJoined sends the texts over a connection as one statement.
func SendJoined(ctx context.Context, conn *pgx.Conn, texts ...string) error {
	p := pipeline{conn: conn}
	for _, text := range texts {
		p.join(named(text))
	}
	if err := p.queueJoined(ctx); err != nil {
		return err
	}
	return p.send(ctx)
}
