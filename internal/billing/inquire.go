package billing

import (
	"context"
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Inquirer takes in "contact sales".
type Inquirer struct{ *Core }

// InquiryInput is what the form sends.
type InquiryInput struct {
	Name, Email, Company, Message string
}

// Inquire stores the inquiry with a frozen snapshot of what the salesperson needs: the level, the
// usage of the last periods and what it came to.
func (q Inquirer) Inquire(ctx context.Context, asked Asked, in InquiryInput, render Renderer[inquiry.Inquiry]) (_ Result[inquiry.Inquiry], err error) {
	defer errs.Wrap(&err, "inquiry of %s", asked.Account)
	return once(ctx, q.Core, asked, render, func(tx Tx) (inquiry.Inquiry, error) {
		acct, err := q.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return inquiry.Inquiry{}, err
		}
		now := acct.Now(q.Clock())
		periods, err := tx.Subscriptions().Periods(ctx, acct.ID, snapshotPeriods)
		if err != nil {
			return inquiry.Inquiry{}, err
		}
		type span struct {
			From time.Time `json:"from"`
			To   time.Time `json:"to"`
		}
		type month struct {
			Period span              `json:"period"`
			Plan   string            `json:"plan"`
			Usage  map[string]string `json:"usage"`
			Total  money.Amount      `json:"total"`
		}
		months := make([]month, 0, len(periods))
		for _, p := range periods {
			r, err := rate(ctx, tx, acct, p)
			if err != nil {
				return inquiry.Inquiry{}, err
			}
			usage := map[string]string{}
			for _, t := range r.totals {
				usage[t.Meter] = t.Quantity.String()
			}
			months = append(months, month{span{p.Bounds.Start, p.Bounds.End}, string(p.Plan), usage, r.bill.Total})
		}
		b, err := balance(ctx, tx, acct)
		if err != nil {
			return inquiry.Inquiry{}, err
		}
		snapshot, err := json.Marshal(map[string]any{"taken_at": now, "account": acct.ID, "periods": months, "available": b.Available})
		if err != nil {
			return inquiry.Inquiry{}, err
		}
		i := inquiry.Inquiry{
			ID: id.New[inquiry.Inquiry](), Account: acct.ID, Status: inquiry.Received, Name: in.Name, Email: in.Email,
			Company: in.Company, Message: in.Message, Snapshot: snapshot, CreatedAt: now, UpdatedAt: now, Version: 1,
		}
		if err := tx.Inquiries().Create(ctx, i); err != nil {
			return i, err
		}
		return i, tx.Outbox().Publish(ctx, acct.ID, outbox.InquiryReceived, map[string]any{"sales_inquiry": i.ID}, now)
	})
}

const snapshotPeriods = 6

// InquiryChange is what a salesperson writes down. Nil fields stay as they are.
type InquiryChange struct {
	Version int64
	Status  *inquiry.Status
	Note    *string
}

// Handle moves an inquiry on. It returns account.ErrStale if the version is another.
func (q Inquirer) Handle(ctx context.Context, asked Asked, iid inquiry.ID, in InquiryChange) (i inquiry.Inquiry, err error) {
	defer errs.Wrap(&err, "handle inquiry %s", iid)
	err = q.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return err
		}
		if i, err = tx.Inquiries().Get(ctx, acct.ID, iid); err != nil {
			return err
		}
		if i.Version != in.Version {
			return account.ErrStale
		}
		now, was := acct.Now(q.Clock()), i.Status
		if in.Status != nil {
			i.Status = *in.Status
		}
		if in.Note != nil {
			i.Note = *in.Note
		}
		i.UpdatedAt = now
		if err := tx.Inquiries().Save(ctx, &i); err != nil {
			return err
		}
		if i.Status != was {
			about := map[string]any{"sales_inquiry": i.ID, "status": i.Status}
			if err := tx.Outbox().Publish(ctx, acct.ID, outbox.InquiryChanged, about, now); err != nil {
				return err
			}
		}
		return tx.Accounts().Audit(ctx, acct.ID, account.Entry{
			Actor: asked.Actor, Action: "sales_inquiry.change", Detail: detail("sales_inquiry", iid), At: now,
		})
	})
	return i, err
}
