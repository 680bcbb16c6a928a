package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/payment"
)

// pgxTx is the transaction type of River's client over pgx.
type pgxTx = pgx.Tx

type nudgeWorker struct {
	river.WorkerDefaults[nudge]
	w *Worker
}

// Work implements river.Worker.
func (n *nudgeWorker) Work(ctx context.Context, j *river.Job[nudge]) error {
	err := n.work(ctx, j)
	if final, ok := errors.AsType[*river.JobCancelError](err); ok { // which River tells nobody
		n.w.log.ErrorContext(ctx, "job given up", "job", j.ID, "kind", string(j.Args.Job), "error", final)
	}
	return err
}

func (n *nudgeWorker) work(ctx context.Context, j *river.Job[nudge]) error {
	a, err := id.Parse[account.Account](j.Args.Account)
	if err != nil {
		return river.JobCancel(fmt.Errorf("job %s: %w", j.Args.Job, err))
	}
	err = n.w.do(ctx, a, j.Args)
	if gone(err) {
		return river.JobCancel(err)
	}
	return err
}

// gone reports whether the record that a job names is not there any more: no repetition will help.
func gone(err error) bool {
	return errs.KindOf(err) == errs.NotFound && (errors.Is(err, account.ErrNotFound) || errors.Is(err, invoice.ErrNotFound) || errors.Is(err, payment.ErrNotFound))
}

// do is the table from jobs to operations.
func (w *Worker) do(ctx context.Context, a account.ID, n nudge) error {
	core := w.cfg.Core
	var args struct {
		Invoice invoice.ID       `json:"invoice"`
		Payment payment.ID       `json:"payment"`
		Refund  payment.RefundID `json:"refund"`
		Method  payment.MethodID `json:"payment_method"`
		Event   string           `json:"event"`
	}
	if err := json.Unmarshal(n.Args, &args); err != nil {
		return river.JobCancel(fmt.Errorf("arguments of %s: %w", n.Job, err))
	}
	switch n.Job {
	case job.CloseCycle:
		_, err := billing.Closer{Core: core}.Close(ctx, a)
		return err
	case job.FinalizeInvoice:
		return billing.Closer{Core: core}.Finalize(ctx, a, args.Invoice)
	case job.CollectInvoice:
		_, err := billing.Collector{Core: core}.Collect(ctx, a, args.Invoice)
		return err
	case job.ResolvePayment:
		return billing.Resolver{Core: core}.Resolve(ctx, pending(a, args.Payment, args.Refund, args.Method))
	case job.CheckFunds:
		return billing.Watcher{Core: core}.Check(ctx, a)
	case job.ProcessEvent:
		return billing.Listener{Core: core}.Process(ctx, core.Gateway.Name(), args.Event)
	}
	return river.JobCancel(fmt.Errorf("unknown job %q", n.Job))
}

func pending(a account.ID, p payment.ID, r payment.RefundID, m payment.MethodID) payment.Pending {
	out := payment.Pending{Located: payment.Located{Account: a, Kind: payment.RecordPayment, Payment: p, Refund: r, Method: m}}
	switch {
	case !r.IsZero():
		out.Kind = payment.RecordRefund
	case !m.IsZero():
		out.Kind = payment.RecordMethod
	}
	return out
}
