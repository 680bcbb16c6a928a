package postgres

import (
	"fmt"

	"github.com/accrue-billing/accrue/internal/invariant"
)

// violations holds the queries behind the invariants. Each yields an account and, in words, what is
// wrong; identifiers are written as "pay:" and a UUID. Joins carry the account on both sides.
//
// Parameters: now, overdue (now less the grace) and grace (seconds); chart and the names of single
// ledger accounts; limit.
var violations = map[invariant.ID][]string{
	invariant.Postings: {`
SELECT t.account_id, format('transaction txn:%s says %s postings and %s in %s; its postings are %s and %s in %s', t.id, t.postings, t.total,
  t.currency, coalesce(p.n, 0), coalesce(p.total, 0), p.currencies)
FROM ledger_transactions t
LEFT JOIN (SELECT account_id, transaction_id, count(*) AS n, sum(amount) AS total, max(number) AS last,
             string_agg(DISTINCT currency, '+') AS currencies
           FROM ledger_postings GROUP BY 1, 2) p ON p.account_id = t.account_id AND p.transaction_id = t.id
WHERE p.n IS DISTINCT FROM t.postings OR p.total IS DISTINCT FROM t.total OR p.last <> p.n OR p.currencies IS DISTINCT FROM t.currency`, `
SELECT t.account_id, format('transaction txn:%s is in %s, the account in %s', t.id, t.currency, a.currency)
FROM ledger_transactions t JOIN accounts a ON a.id = t.account_id WHERE a.currency <> t.currency`, `
SELECT account_id, format('transaction txn:%s books %s and %s: not both are in the chart', transaction_id, debit, credit)
FROM ledger_postings WHERE debit NOT IN @chart OR credit NOT IN @chart`},

	invariant.Chain: {`
SELECT account_id, format('balances come to %s %s and not to nothing', sum(balance), currency)
FROM ledger_balances GROUP BY account_id, currency HAVING sum(balance) <> 0`, `
SELECT account_id, format('posting %s of transaction txn:%s moves %s from %s to %s', number, transaction_id, amount, credit, debit)
FROM ledger_postings WHERE amount <= 0 OR debit = credit`},

	invariant.Balances: {`
WITH ` + moved + `
SELECT account_id, format('after transaction txn:%s %s is said to stand at %s, its postings come to %s', transaction_id, name, balance, expected)
FROM (SELECT account_id, transaction_id, name, balance,
        sum(change) OVER (PARTITION BY account_id, name, currency ORDER BY sequence, number) AS expected FROM moved) r
WHERE balance <> expected`, `
WITH ` + moved + `
SELECT coalesce(b.account_id, s.account_id), format('%s stands at %s, its postings come to %s', coalesce(b.name, s.name), coalesce(b.balance, 0), coalesce(s.total, 0))
FROM ledger_balances b
FULL JOIN (SELECT account_id, name, currency, sum(change) AS total FROM moved GROUP BY 1, 2, 3) s
  ON s.account_id = b.account_id AND s.name = b.name AND s.currency = b.currency
WHERE coalesce(b.balance, 0) <> coalesce(s.total, 0)`, `
SELECT coalesce(b.account_id, g.account_id), format('promotional credit stands at %s, the grants have %s left', coalesce(b.balance, 0), coalesce(g.remaining, 0))
FROM (SELECT account_id, currency, -balance AS balance FROM ledger_balances WHERE name = @promo) b
FULL JOIN (SELECT account_id, currency, sum(remaining) AS remaining FROM credit_grants GROUP BY 1, 2) g
  ON g.account_id = b.account_id AND g.currency = b.currency
WHERE coalesce(b.balance, 0) <> coalesce(g.remaining, 0)`, `
SELECT d.account_id, format('credit has paid %s of invoices, its grants say %s', coalesce(p.total, 0), d.total)
FROM (SELECT account_id, sum(amount) AS total FROM credit_draws GROUP BY 1) d
LEFT JOIN (SELECT account_id, sum(total) AS total FROM ledger_transactions WHERE kind = 'promo_applied' GROUP BY 1) p ON p.account_id = d.account_id
WHERE d.total > coalesce(p.total, 0)`},

	invariant.Invoices: {`
SELECT i.account_id, format('invoice inv:%s is %s and %s', i.id, i.status, CASE WHEN c.invoice_id IS NULL THEN 'says nothing' ELSE 'has a content' END)
FROM invoices i LEFT JOIN invoice_contents c ON c.account_id = i.account_id AND c.invoice_id = i.id
WHERE (i.status = 'draft') <> (c.invoice_id IS NULL)`, `
SELECT c.account_id, format('invoice inv:%s says %s, its %s lines come to %s with %s tax', c.invoice_id, c.total, coalesce(l.n, 0), coalesce(l.sum, 0), c.tax)
FROM invoice_contents c
LEFT JOIN (SELECT account_id, invoice_id, count(*) AS n, max(number) AS last, sum(amount) AS sum FROM invoice_lines GROUP BY 1, 2) l
  ON l.account_id = c.account_id AND l.invoice_id = c.invoice_id
WHERE coalesce(l.sum, 0) <> c.subtotal OR c.subtotal + c.tax <> c.total OR coalesce(l.n, 0) <> c.lines OR coalesce(l.last, 0) <> c.lines`, `
SELECT i.account_id, format('invoice inv:%s says %s and is kept as %s', i.id, c.total, i.total)
FROM invoices i JOIN invoice_contents c ON c.account_id = i.account_id AND c.invoice_id = i.id WHERE i.total <> c.total`, `
SELECT i.account_id, format('the invoices absorbed %s and are kept with %s', sum(c.absorbed), sum(i.absorbed))
FROM invoices i JOIN invoice_contents c ON c.account_id = i.account_id AND c.invoice_id = i.id
GROUP BY i.account_id HAVING sum(i.absorbed) <> sum(c.absorbed)`, `
SELECT account_id, format('invoice inv:%s over %s is %s with %s paid and %s credited', id, total, status, amount_paid, amount_credited)
FROM invoices
WHERE amount_paid + amount_credited > total OR amount_paid < 0 OR amount_credited < 0
  OR (status = 'paid' AND amount_paid + amount_credited <> total) OR (status = 'open' AND amount_paid + amount_credited = total)`, `
SELECT i.account_id, format('invoice inv:%s has %s credited, its credit notes say %s', i.id, i.amount_credited, coalesce(n.to_due, 0))
FROM invoices i
LEFT JOIN (SELECT account_id, invoice_id, sum(to_due) AS to_due FROM credit_notes GROUP BY 1, 2) n ON n.account_id = i.account_id AND n.invoice_id = i.id
WHERE i.amount_credited <> coalesce(n.to_due, 0)`, `
SELECT a.id, format('%s stands at %s in the books, the invoices come to %s', b.name, b.booked, b.said)
FROM accounts a
LEFT JOIN (SELECT account_id, sum(subtotal + absorbed) AS revenue, sum(tax) AS tax, sum(absorbed) AS absorbed
           FROM invoice_contents GROUP BY 1) c ON c.account_id = a.id
LEFT JOIN (SELECT account_id, sum(total - amount_paid - amount_credited) AS due
           FROM invoices WHERE status IN ('open', 'paid', 'void') GROUP BY 1) i ON i.account_id = a.id
LEFT JOIN (SELECT account_id, sum(balance) FILTER (WHERE name = @receivable) AS receivable, -sum(balance) FILTER (WHERE name = @revenue) AS revenue,
             -sum(balance) FILTER (WHERE name = @tax) AS tax, sum(balance) FILTER (WHERE name = @absorbed) AS absorbed
           FROM ledger_balances GROUP BY 1) l ON l.account_id = a.id
CROSS JOIN LATERAL (VALUES (@receivable, coalesce(l.receivable, 0), coalesce(i.due, 0)), (@revenue, coalesce(l.revenue, 0), coalesce(c.revenue, 0)),
  (@tax, coalesce(l.tax, 0), coalesce(c.tax, 0)), (@absorbed, coalesce(l.absorbed, 0), coalesce(c.absorbed, 0))) AS b (name, booked, said)
WHERE b.booked <> b.said`},

	invariant.Periods: {`
SELECT account_id, format('subscription sub:%s has %s invoices for the period from %s', subscription_id, count(*), period_start)
FROM invoices WHERE kind = 'cycle' GROUP BY account_id, subscription_id, period_start HAVING count(*) > 1`, `
SELECT i.account_id, format('invoice inv:%s is for a period from %s that was never opened', i.id, i.period_start)
FROM invoices i
LEFT JOIN billing_periods p ON p.account_id = i.account_id AND p.subscription_id = i.subscription_id AND p.period_start = i.period_start
WHERE i.kind = 'cycle' AND p.period_end IS DISTINCT FROM i.period_end`, `
SELECT p.account_id, format('the period from %s is closed and has no invoice', p.period_start)
FROM billing_periods p
JOIN plan_versions v ON v.plan_code = p.plan_code AND v.number = p.plan_version
WHERE p.closed_at IS NOT NULL AND jsonb_array_length(coalesce(v.definition -> 'currencies', '[]')) > 0
  AND NOT EXISTS (SELECT FROM invoices i WHERE i.account_id = p.account_id AND i.subscription_id = p.subscription_id
                  AND i.period_start = p.period_start AND i.kind = 'cycle')`, `
SELECT account_id, format('period %s of sub:%s begins at %s, the one before ended at %s', index, subscription_id, period_start, before_end)
FROM (SELECT *, lag(period_end) OVER w AS before_end, lag(index) OVER w AS before_index, lag(closed_at) OVER w AS before_closed
      FROM billing_periods WINDOW w AS (PARTITION BY account_id, subscription_id ORDER BY period_start)) p
WHERE before_index IS NOT NULL AND (period_start <> before_end OR index <> before_index + 1 OR before_closed IS NULL)`, `
SELECT s.account_id, format('subscription sub:%s is in period %s from %s, its last period is %s from %s', s.id, s.period_index, s.period_start, p.index, p.period_start)
FROM subscriptions s
LEFT JOIN (SELECT DISTINCT ON (account_id, subscription_id) * FROM billing_periods ORDER BY account_id, subscription_id, period_start DESC) p
  ON p.account_id = s.account_id AND p.subscription_id = s.id
WHERE (p.index, p.period_start, p.period_end) IS DISTINCT FROM (s.period_index, s.period_start, s.period_end)
  OR (s.status = 'active' AND p.closed_at IS NOT NULL)`, `
SELECT c.account_id, format('the counter has given %s numbers, invoices and credit notes have %s up to %s', c.invoices, coalesce(n.given, 0), coalesce(n.last, 0))
FROM account_counters c
LEFT JOIN (SELECT account_id, count(DISTINCT number) AS given, max(number) AS last FROM (
             SELECT account_id, substring(number FROM '-([0-9]+)$')::bigint AS number FROM invoice_contents
             UNION ALL SELECT account_id, substring(number FROM '-([0-9]+)$')::bigint FROM credit_notes) all_numbers
           GROUP BY 1) n ON n.account_id = c.account_id
WHERE coalesce(n.given, 0) <> c.invoices OR coalesce(n.last, 0) <> c.invoices`},

	invariant.Usage: append(recounts, `
SELECT t.account_id, format('%s: 15-minute buckets hold %s in %s events, periods %s in %s', t.meter, coalesce(b.quantity, 0), coalesce(b.events, 0), t.quantity, t.events)
FROM (SELECT account_id, meter, sum(quantity) AS quantity, sum(events) AS events FROM usage_totals GROUP BY 1, 2) t
LEFT JOIN (SELECT account_id, meter, sum(quantity) AS quantity, sum(events) AS events FROM usage_buckets GROUP BY 1, 2) b
  ON b.account_id = t.account_id AND b.meter = t.meter
JOIN meters m ON m.code = t.meter
WHERE coalesce(b.events, 0) <> t.events OR (m.definition ->> 'aggregation' IN ('sum', 'count') AND coalesce(b.quantity, 0) <> t.quantity)`, `
SELECT account_id, format('event %s of %s is stored %s times', key, occurred_at, count(*)) -- all of it stands in the key's index
FROM usage_events GROUP BY account_id, occurred_at, key HAVING count(*) > 1`, `
SELECT e.account_id, format('event %s of %s has no identity', e.key, e.meter)
FROM usage_events e -- an event of another moment than its identity's has none: so nothing can be stored twice at two
WHERE NOT EXISTS (SELECT FROM usage_event_keys k WHERE k.account_id = e.account_id AND k.key = e.key AND k.occurred_at = e.occurred_at)`, `
SELECT t.account_id, format('%s of the period from %s: %s is billed, lines say %s', t.meter, t.period_start, coalesce(t.billed, 0) - w.waived, l.quantity)
FROM usage_totals t
JOIN (SELECT account_id, meter, period_start, sum(quantity) AS quantity FROM invoice_lines
      WHERE meter IS NOT NULL AND kind IN ('usage', 'adjustment') GROUP BY 1, 2, 3) l
  ON l.account_id = t.account_id AND l.meter = t.meter AND l.period_start = t.period_start
JOIN billing_periods p ON p.account_id = t.account_id AND p.period_start = t.period_start
JOIN plan_versions v ON v.plan_code = p.plan_code AND v.number = p.plan_version
JOIN meters m ON m.code = t.meter
CROSS JOIN LATERAL (SELECT least(coalesce(t.billed, 0), greatest(0, coalesce((p.waived ->> t.meter)::numeric, 0))) AS waived) w
CROSS JOIN LATERAL (SELECT p.contract_id IS NOT NULL OR jsonb_path_exists(v.definition, CAST(@matched AS jsonpath), jsonb_build_object('m', t.meter)) AS apart) d
   -- A meter that is priced by dimensions may have series without a price, and those have no line. Of the largest and the
   -- latest quantity each charge has its own, which do not add up.
WHERE (l.quantity > coalesce(t.billed, 0) - w.waived AND NOT (d.apart AND m.definition ->> 'aggregation' IN ('max', 'last')))
   OR (l.quantity < coalesce(t.billed, 0) - w.waived AND NOT d.apart)`),

	invariant.Refunds: {`
SELECT p.account_id, format('payment pay:%s of %s is %s with %s refunded and %s disputed; its refunds are %s, its disputes %s', p.id, p.amount, p.status,
  p.refunded, p.disputed, coalesce(r.sum, 0), coalesce(d.sum, 0))
FROM payments p
LEFT JOIN (SELECT account_id, payment_id, sum(amount) AS sum FROM refunds WHERE status <> 'failed' GROUP BY 1, 2) r
  ON r.account_id = p.account_id AND r.payment_id = p.id
LEFT JOIN (SELECT account_id, payment_id, sum(amount) AS sum FROM disputes WHERE status <> 'won' GROUP BY 1, 2) d
  ON d.account_id = p.account_id AND d.payment_id = p.id
WHERE p.refunded <> coalesce(r.sum, 0) OR p.disputed <> coalesce(d.sum, 0) OR p.refunded + p.disputed > p.amount
  OR (p.status <> 'succeeded' AND p.refunded + p.disputed > 0)`, `
SELECT coalesce(b.account_id, p.account_id), format('cash stands at %s, payments less refunds and disputes come to %s', coalesce(b.balance, 0), coalesce(p.sum, 0))
FROM (SELECT account_id, currency, balance FROM ledger_balances WHERE name = @cash) b
FULL JOIN (SELECT account_id, currency, sum(amount - refunded - disputed) AS sum FROM payments WHERE status = 'succeeded' GROUP BY 1, 2) p
  ON p.account_id = b.account_id AND p.currency = b.currency
WHERE coalesce(b.balance, 0) <> coalesce(p.sum, 0)`, `
SELECT account_id, format('funds are %s more than cards have paid and are to pay', -sum(balance))
FROM ledger_balances WHERE name IN (@funds, @cash, @receivable) GROUP BY account_id, currency HAVING sum(balance) < 0`},

	// A job intent is a nudge and not looked at here: what it is about is. An account whose test clock
	// has just been moved shows until the sweep has been.
	invariant.Deadlines: {`
SELECT account_id, format('payment pay:%s is %s and nobody has asked for its outcome since %s', id, status, coalesce(check_at, updated_at))
FROM payments WHERE status IN ('processing', 'requires_action') AND (check_at IS NULL OR check_at < @overdue)`, `
SELECT account_id, format('refund ref:%s is processing and nobody has asked for its outcome since %s', id, coalesce(check_at, updated_at))
FROM refunds WHERE status = 'processing' AND (check_at IS NULL OR check_at < @overdue)`, `
SELECT account_id, format('card pm:%s is %s and nobody has asked for its outcome since %s', id, status, coalesce(check_at, updated_at))
FROM payment_methods WHERE status IN ('processing', 'requires_action') AND (check_at IS NULL OR check_at < @overdue)`, `
SELECT account_id, format('upgrade upg:%s is %s though its time was over at %s', id, status, expires_at)
FROM upgrades WHERE status IN ('processing', 'requires_action') AND expires_at < @overdue`, `
SELECT s.account_id, format('the period of sub:%s ended at %s and is not closed', s.id, s.period_end)
FROM subscriptions s JOIN accounts a ON a.id = s.account_id
WHERE s.status = 'active' AND s.period_end < coalesce(a.clock_at, @now) - make_interval(secs => @grace)`, `
SELECT i.account_id, format('invoice inv:%s is a draft though its grace ended at %s', i.id, i.finalize_at)
FROM invoices i JOIN accounts a ON a.id = i.account_id
WHERE i.status = 'draft' AND i.finalize_at < coalesce(a.clock_at, @now) - make_interval(secs => @grace)`, `
SELECT i.account_id, format('invoice inv:%s was to be collected at %s', i.id, i.next_attempt_at)
FROM invoices i JOIN accounts a ON a.id = i.account_id
WHERE i.status = 'open' AND i.next_attempt_at < coalesce(a.clock_at, @now) - make_interval(secs => @grace)`, `
SELECT g.account_id, format('grant grt:%s expired at %s with %s left', g.id, g.expires_at, g.remaining)
FROM credit_grants g JOIN accounts a ON a.id = g.account_id
WHERE g.remaining > 0 AND g.expires_at < coalesce(a.clock_at, @now) - make_interval(secs => @grace)`, `
SELECT NULL::uuid, format('event %s of %s has not been processed in %s attempts', event_id, provider, attempts)
FROM provider_events WHERE processed_at IS NULL AND coalesce(next_try_at, received_at) < @overdue`, `
SELECT account_id, format('reservation of %s %s is open though it expired at %s', quantity, meter, expires_at)
FROM reservations WHERE status = 'open' AND expires_at < @overdue`},

	invariant.Events: {`
SELECT c.account_id, format('the counter says %s events, there are %s up to number %s', c.events, coalesce(e.n, 0), coalesce(e.last, 0))
FROM account_counters c
LEFT JOIN (SELECT account_id, count(*) AS n, max(sequence) AS last FROM account_events GROUP BY 1) e ON e.account_id = c.account_id
WHERE coalesce(e.n, 0) <> c.events OR coalesce(e.last, 0) <> c.events`, `
WITH facts (account_id, type, n) AS (
  SELECT id, 'account.created', 1 FROM accounts
  UNION ALL SELECT id, 'account.closed', 1 FROM accounts WHERE status = 'closed'
  UNION ALL SELECT account_id, 'payment.succeeded', count(*) FROM payments WHERE status = 'succeeded' GROUP BY 1
  UNION ALL SELECT account_id, 'payment.failed', count(*) FROM payments WHERE status IN ('failed', 'canceled') GROUP BY 1
  UNION ALL SELECT account_id, 'payment.refunded', count(*) FROM refunds WHERE status = 'succeeded' GROUP BY 1
  UNION ALL SELECT account_id, 'payment.refund_failed', count(*) FROM refunds WHERE status = 'failed' GROUP BY 1
  UNION ALL SELECT account_id, 'payment.disputed', count(*) FROM disputes GROUP BY 1
  UNION ALL SELECT account_id, 'payment.dispute_won', count(*) FROM disputes WHERE status = 'won' GROUP BY 1
  UNION ALL SELECT account_id, 'top_up.succeeded', count(*) FROM top_ups WHERE status = 'succeeded' GROUP BY 1
  UNION ALL SELECT account_id, 'top_up.failed', count(*) FROM top_ups WHERE status IN ('failed', 'canceled') GROUP BY 1
  UNION ALL SELECT account_id, 'upgrade.' || status, count(*) FROM upgrades WHERE status IN ('succeeded', 'failed', 'canceled') GROUP BY 1, 2
  UNION ALL SELECT account_id, 'invoice.finalized', count(*) FROM invoice_contents GROUP BY 1
  UNION ALL SELECT account_id, 'invoice.voided', count(*) FROM invoices WHERE status = 'void' GROUP BY 1
  UNION ALL SELECT account_id, 'invoice.credited', count(*) FROM credit_notes GROUP BY 1
  UNION ALL SELECT account_id, 'credit.granted', count(*) FROM credit_grants GROUP BY 1
  UNION ALL SELECT account_id, 'credit.expired', count(*) FROM credit_grants WHERE expired_at IS NOT NULL GROUP BY 1
  UNION ALL SELECT account_id, 'alert.fired', count(*) FROM usage_alert_firings GROUP BY 1
  UNION ALL SELECT account_id, 'sales_inquiry.received', count(*) FROM sales_inquiries GROUP BY 1
  UNION ALL SELECT account_id, 'payment_method.removal_requested', count(*) FROM removal_requests GROUP BY 1
), outdated AS ( -- what was told and is so no more: one that failed has succeeded, a refund did not arrive
  SELECT account_id, 'payment.failed' AS type, payload ->> 'payment' AS record FROM account_events WHERE type = 'payment.succeeded'
  UNION ALL SELECT account_id, 'top_up.failed', payload ->> 'top_up' FROM account_events WHERE type = 'top_up.succeeded'
  UNION ALL SELECT account_id, 'payment.refunded', payload ->> 'refund' FROM account_events WHERE type = 'payment.refund_failed'
), told AS (
  SELECT account_id, type, count(*) AS n FROM account_events e WHERE type IN ('account.created', 'account.closed', 'payment.succeeded', 'payment.failed',
    'payment.refunded', 'payment.refund_failed', 'payment.disputed', 'payment.dispute_won', 'top_up.succeeded', 'top_up.failed', 'upgrade.succeeded', 'upgrade.failed',
    'upgrade.canceled', 'invoice.finalized', 'invoice.voided', 'invoice.credited', 'credit.granted', 'credit.expired', 'alert.fired', 'sales_inquiry.received',
    'payment_method.removal_requested')
    AND NOT EXISTS (SELECT FROM outdated o WHERE o.account_id = e.account_id AND o.type = e.type
      AND o.record = e.payload ->> CASE e.type WHEN 'top_up.failed' THEN 'top_up' WHEN 'payment.refunded' THEN 'refund' ELSE 'payment' END)
  GROUP BY 1, 2
)
SELECT coalesce(f.account_id, t.account_id), format('%s happened %s times and was told %s times', coalesce(f.type, t.type), coalesce(f.n, 0), coalesce(t.n, 0))
FROM facts f FULL JOIN told t ON t.account_id = f.account_id AND t.type = f.type
WHERE coalesce(f.n, 0) <> coalesce(t.n, 0)`},

	invariant.Plan: {`
SELECT s.account_id, format('sub:%s is on %s version %s, its open period on %s version %s', s.id, s.plan_code, s.plan_version, p.plan_code, p.plan_version)
FROM subscriptions s
JOIN billing_periods p ON p.account_id = s.account_id AND p.subscription_id = s.id AND p.period_start = s.period_start
WHERE s.status = 'active' AND (p.plan_code, p.plan_version, p.contract_id, p.waived) IS DISTINCT FROM (s.plan_code, s.plan_version, s.contract_id, s.waived)`, `
SELECT s.account_id, format('sub:%s is on %s version %s, its last event says %s version %s', s.id, s.plan_code, s.plan_version, e.payload ->> 'plan',
  coalesce(e.payload ->> 'plan_version', '(any)'))
FROM subscriptions s
JOIN (SELECT DISTINCT ON (account_id) account_id, payload FROM account_events WHERE type IN ('account.created', 'subscription.changed')
      ORDER BY account_id, sequence DESC) e ON e.account_id = s.account_id
WHERE s.status = 'active' AND (e.payload ->> 'plan' IS DISTINCT FROM s.plan_code
  OR coalesce((e.payload ->> 'plan_version')::int, s.plan_version) <> s.plan_version)`, `
SELECT a.id, format('%s account on %s to %s has limits of %s until %s, %s', a.status, s.plan_code, s.period_end, coalesce(e.level, 'nothing'), e.period_end,
  coalesce(e.status, 'none'))
FROM accounts a
LEFT JOIN subscriptions s ON s.account_id = a.id AND s.status = 'active'
LEFT JOIN entitlements e ON e.account_id = a.id
WHERE e.account_id IS NULL OR e.currency <> a.currency OR (a.status = 'closed') <> (e.status = 'closed') OR (a.status = 'closed') <> (s.id IS NULL)
  OR (s.id IS NOT NULL AND (e.level, e.period_end, e.period_starts[cardinality(e.period_starts)]) IS DISTINCT FROM (s.plan_code, s.period_end, s.period_start))`},

	// What foreign keys cannot say; those are checked as well (see foreignKeys).
	invariant.Parents: {`
SELECT t.account_id, format('top-up top:%s of %s %s is %s, its payment pay:%s of %s %s is %s', t.id, t.amount, t.currency, t.status, t.payment_id, p.amount,
  p.currency, coalesce(p.status, 'not there'))
FROM top_ups t LEFT JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id AND p.top_up_id = t.id
WHERE (p.amount, p.currency) IS DISTINCT FROM (t.amount, t.currency) OR p.status <> t.status`, `
SELECT p.account_id, format('payment pay:%s pays for no top-up', p.id)
FROM payments p LEFT JOIN top_ups t ON t.account_id = p.account_id AND t.id = p.top_up_id AND t.payment_id = p.id
WHERE p.purpose = 'top_up' AND t.id IS NULL`, `
SELECT p.account_id, format('payment pay:%s is in %s, its invoice in %s', p.id, p.currency, i.currency)
FROM payments p JOIN invoices i ON i.account_id = p.account_id AND i.id = p.invoice_id WHERE i.currency <> p.currency`, `
SELECT s.account_id, format('setup %s was used by card pm:%s, which is not the account''s', s.id, s.used_by)
FROM payment_setups s LEFT JOIN payment_methods m ON m.account_id = s.account_id AND m.id = s.used_by
WHERE s.used_by IS NOT NULL AND m.id IS NULL`, `
SELECT r.account_id, format('the reference of a %s leads to %s, which is not there', r.kind, r.record_id)
FROM provider_refs r
LEFT JOIN payments p ON r.kind = 'payment' AND p.account_id = r.account_id AND p.id = r.record_id
LEFT JOIN refunds f ON r.kind = 'refund' AND f.account_id = r.account_id AND f.id = r.record_id
LEFT JOIN payment_methods m ON r.kind = 'payment_method' AND m.account_id = r.account_id AND m.id = r.record_id
LEFT JOIN accounts a ON r.kind = 'customer' AND a.id = r.account_id AND a.id = r.record_id
WHERE p.id IS NULL AND f.id IS NULL AND m.id IS NULL AND a.id IS NULL`, `
SELECT a.id, format('the account is known as %L, which leads to %s', a.external_id, coalesce('acct:' || x.account_id, 'nothing'))
FROM accounts a LEFT JOIN account_external_ids x ON x.external_id = a.external_id WHERE x.account_id IS DISTINCT FROM a.id`, `
SELECT k.account_id, format('%s names an account that is not there', k.source)
FROM (SELECT account_id, 'an API key' AS source FROM api_keys WHERE account_id IS NOT NULL
      UNION SELECT account_id, 'an idempotency key' FROM idempotency_keys WHERE account_id <> '00000000-0000-0000-0000-000000000000' -- the operator's own
      UNION SELECT account_id, 'an event' FROM account_events
      UNION SELECT account_id, 'an audit entry' FROM audit_entries
      UNION SELECT account_id, 'a ledger transaction' FROM ledger_transactions
      UNION SELECT account_id, 'a usage total' FROM usage_totals
      UNION SELECT account_id, 'a usage bucket' FROM usage_buckets) k
LEFT JOIN accounts a ON a.id = k.account_id WHERE a.id IS NULL`},
}

// pricedByDimension selects the charges of a version that apply to some series of the meter $m only.
const pricedByDimension = `$.charges[*] ? (@.meter == $m && exists(@.match))`

// moved is what every posting changes, once for each ledger account that it touches.
const moved = `moved AS (
  SELECT p.account_id, p.transaction_id, t.sequence, p.number, p.debit AS name, p.currency, p.amount AS change, p.debit_balance AS balance
  FROM ledger_postings p JOIN ledger_transactions t ON t.account_id = p.account_id AND t.id = p.transaction_id
  UNION ALL
  SELECT p.account_id, p.transaction_id, t.sequence, p.number, p.credit, p.currency, -p.amount, p.credit_balance
  FROM ledger_postings p JOIN ledger_transactions t ON t.account_id = p.account_id AND t.id = p.transaction_id
)`

// recounts count the stored events once more, a query for each way of aggregating: what one way needs sorted the others
// need not sort.
var recounts = []string{
	recount(`u.meter <> ALL (ARRAY(SELECT code FROM meters WHERE definition ->> 'aggregation' IN ('max', 'last', 'unique')))`, `sum(s.quantity) %s`),
	recount(`u.meter = ANY (ARRAY(SELECT code FROM meters WHERE definition ->> 'aggregation' = 'max'))`, `max(s.quantity) %s`),
	recount(`u.meter = ANY (ARRAY(SELECT code FROM meters WHERE definition ->> 'aggregation' = 'last'))`,
		`(array_agg(s.quantity ORDER BY u.occurred_at DESC, u.key DESC) %s)[1]`),
	recount(`u.meter = ANY (ARRAY(SELECT code FROM meters WHERE definition ->> 'aggregation' = 'unique'))`, `count(DISTINCT u.value) %s`),
}

// recount aggregates the events of some meters by their latest corrections, and compares period by period. Void events are
// left out by a filter: the planner takes a condition on what is joined from outside for one that nearly nothing meets, and sorts
// all events to group them. Where months of raw events have been dropped, a period that began before the oldest month that is
// left may have fewer than it counted.
func recount(meters, aggregate string) string {
	const standing = `FILTER (WHERE c.kind IS DISTINCT FROM 'void')`
	return `
WITH latest AS (
  SELECT DISTINCT ON (account_id, key) account_id, key, kind, quantity_after FROM usage_corrections ORDER BY account_id, key, sequence DESC
), counted AS (
  SELECT u.account_id, u.meter, u.period_start, count(*) ` + standing + ` AS events, ` + fmt.Sprintf(aggregate, standing) + ` AS quantity
  FROM usage_events u
  LEFT JOIN latest c ON c.account_id = u.account_id AND c.key = u.key
  CROSS JOIN LATERAL (SELECT coalesce(c.quantity_after, u.counted, u.quantity) AS quantity) s
  WHERE ` + meters + `
  GROUP BY 1, 2, 3
), oldest AS (
  SELECT coalesce(min(to_date(right(relname, 6), 'YYYYMM')) + interval '1 day', '-infinity') AS kept
  FROM pg_class WHERE relname ~ '^usage_events_[0-9]{6}$'
)
SELECT r.account_id, format('%s of the period from %s stands at %s from %s events, a recount gives %s from %s', r.meter, r.period_start, r.quantity,
  r.events, r.expected, r.recounted)
FROM (SELECT coalesce(t.account_id, c.account_id) AS account_id, coalesce(t.meter, c.meter) AS meter, coalesce(t.period_start, c.period_start) AS period_start,
        coalesce(t.quantity, 0) AS quantity, coalesce(t.events, 0) AS events, coalesce(c.events, 0) AS recounted, coalesce(c.quantity, 0) AS expected
      FROM (SELECT * FROM usage_totals u WHERE ` + meters + `) t
      FULL JOIN counted c ON c.account_id = t.account_id AND c.meter = t.meter AND c.period_start = t.period_start) r
CROSS JOIN oldest o
WHERE (r.events <> r.recounted OR r.quantity <> r.expected) AND NOT (r.recounted < r.events AND r.period_start < o.kept)`
}
