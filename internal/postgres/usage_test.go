package postgres_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

// recount is the naive oracle: it reads the stored events and their latest corrections one by one and
// adds them up in Go, in maps, as a person would.
func recount(t *testing.T, db *postgres.DB) map[string]string {
	t.Helper()
	type best struct {
		q      money.Decimal
		at     time.Time
		key    uuid.UUID
		events int
		values map[string]bool
	}
	sums := map[string]*best{}
	rows, err := db.Pool().Query(t.Context(), `
SELECT e.account_id, e.key, e.meter, coalesce(e.counted, e.quantity)::text, coalesce(e.value, ''), e.occurred_at, e.period_start, e.series,
  (SELECT kind FROM usage_corrections c WHERE c.account_id = e.account_id AND c.key = e.key ORDER BY sequence DESC LIMIT 1),
  (SELECT quantity_after::text FROM usage_corrections c WHERE c.account_id = e.account_id AND c.key = e.key ORDER BY sequence DESC LIMIT 1)
FROM usage_events e`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var a, key, series uuid.UUID
		var meter, quantity, value string
		var at, start time.Time
		var kind, after *string
		if err := rows.Scan(&a, &key, &meter, &quantity, &value, &at, &start, &series, &kind, &after); err != nil {
			t.Fatal(err)
		}
		if kind != nil && *kind == "void" {
			continue
		}
		if after != nil {
			quantity = *after
		}
		var q money.Decimal
		if err := q.Scan(quantity); err != nil {
			t.Fatal(err)
		}
		m := testMeters.Meter(meter)
		scopes := []string{scopeKey("total", a, meter, start, nil), scopeKey("bucket", a, meter, at.Truncate(15*time.Minute), &series)}
		if len(m.Dimensions) > 0 {
			scopes = append(scopes, scopeKey("series", a, meter, start, &series))
		}
		for _, s := range scopes {
			b := sums[s]
			if b == nil {
				b = &best{values: map[string]bool{}}
				sums[s] = b
			}
			b.events++
			later := at.After(b.at) || (at.Equal(b.at) && strings.Compare(string(key[:]), string(b.key[:])) > 0)
			switch m.Aggregation {
			case metering.Max:
				if c := q.Cmp(b.q); b.events == 1 || c > 0 || (c == 0 && later) {
					b.q, b.at, b.key = q, at, key
				}
			case metering.Last:
				if b.events == 1 || later {
					b.q, b.at, b.key = q, at, key
				}
			case metering.Unique:
				b.values[fmt.Sprint(start.UnixMicro(), value)] = true // once in each period
				b.q = money.DecimalFromInt(int64(len(b.values)))
			default:
				b.q = b.q.Add(q)
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, b := range sums {
		out[k] = fmt.Sprint(b.q, "/", b.events)
		if b.key != (uuid.UUID{}) { // the one whose value stands
			out[k] += fmt.Sprint(" of ", b.key, " ", b.at.UnixMicro())
		}
	}
	return out
}

// scopeKey names a roll-up: which kind, whose, and from when.
func scopeKey(kind string, a uuid.UUID, meter string, at time.Time, series *uuid.UUID) string {
	return fmt.Sprintf("%s %s %s %s %v", kind, a, meter, at.UTC().Format(time.RFC3339), series)
}

// rolledUp reads what the service keeps.
func rolledUp(t *testing.T, db *postgres.DB) map[string]string {
	t.Helper()
	out := map[string]string{}
	rows, err := db.Pool().Query(t.Context(), `
SELECT 'total', account_id, meter, period_start, NULL::uuid, quantity::text, events, last_at, last_key FROM usage_totals
UNION ALL SELECT 'series', account_id, meter, period_start, series, quantity::text, events, last_at, last_key FROM usage_series_totals
UNION ALL SELECT 'bucket', account_id, meter, bucket, series, quantity::text, events, last_at, last_key FROM usage_buckets`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind, meter, quantity string
		var a uuid.UUID
		var series *uuid.UUID
		var at time.Time
		var events int
		var lastAt *time.Time
		var lastKey *uuid.UUID
		if err := rows.Scan(&kind, &a, &meter, &at, &series, &quantity, &events, &lastAt, &lastKey); err != nil {
			t.Fatal(err)
		}
		var q money.Decimal
		if err := q.Scan(quantity); err != nil {
			t.Fatal(err)
		}
		if events > 0 {
			k := scopeKey(kind, a, meter, at, series)
			if out[k] = fmt.Sprint(q, "/", events); lastKey != nil && lastAt != nil {
				out[k] += fmt.Sprint(" of ", *lastKey, " ", lastAt.UnixMicro())
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func wantRecount(t *testing.T, db *postgres.DB) {
	t.Helper()
	want, got := recount(t, db), rolledUp(t, db)
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: rolled up %q, recount %q", k, got[k], w)
		}
		delete(got, k)
	}
	for k, g := range got {
		t.Errorf("%s: rolled up %q, recount has none", k, g)
	}
}

// randomEvent draws from few identities, so that repetitions and conflicts are common.
func randomEvent(r *rand.Rand, b *meterBench) metering.Event {
	meter := testMeters[r.IntN(len(testMeters)-1)] // all but the reserved one
	e := b.event(fmt.Sprint("id", r.IntN(400)), meter.Code, fmt.Sprint(r.IntN(50)))
	e.OccurredAt = noon.Add(-time.Duration(r.IntN(20*24)) * time.Hour).Add(time.Duration(r.IntN(4)) * time.Minute)
	if r.IntN(8) == 0 { // near the period's start
		e.OccurredAt = noon.AddDate(0, 0, -10).Add(time.Duration(r.IntN(20)-10) * time.Minute)
	}
	if len(meter.Dimensions) > 0 && r.IntN(3) > 0 {
		e.Dimensions = metering.DimensionsOf(map[string]string{"project": fmt.Sprint("p", r.IntN(6))})
	}
	if meter.Aggregation == metering.Unique {
		e.Value = fmt.Sprint("v", r.IntN(9))
	}
	return e
}

// Any mix of duplicates, replays, reorderings and concurrent batches, with corrections in between,
// counts what a naive recount of the acknowledged events counts.
func TestRollupsEqualANaiveRecount(t *testing.T) {
	t.Parallel()

	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			b := newMeterBench(t, metering.Options{FlushSize: 37, OneAccount: round%2 == 1})
			mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) {
				limitOf("text", "250")(e)
				e.PeriodStarts[1] = e.PeriodStarts[1].Add(2 * time.Minute) // within a quarter of an hour
			})
			second := mustRun(t, b.db, metering.Options{})
			accepted := sync.Map{}
			var wg sync.WaitGroup
			for worker := range 8 {
				r := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
				in := b.in
				if worker%2 == 1 {
					in = second
				}
				wg.Go(func() {
					var sent []metering.Event
					for range 12 {
						batch := make([]metering.Event, 1+r.IntN(60))
						for i := range batch {
							if len(sent) > 0 && r.IntN(4) == 0 {
								batch[i] = sent[r.IntN(len(sent))]
							} else {
								batch[i] = randomEvent(r, b)
							}
						}
						sent = append(sent, batch...)
						results, err := in.Add(t.Context(), batch)
						if err != nil {
							t.Error(err)
							return
						}
						for i, res := range results {
							if res.Status != metering.Accepted {
								continue
							}
							if _, twice := accepted.LoadOrStore(batch[i].ID, true); twice {
								t.Errorf("%s was accepted twice", batch[i].ID)
							}
						}
						correctOne(t, b, r, batch[r.IntN(len(batch))].ID)
						reserveOne(t, b, in, r, &accepted)
					}
				})
			}
			wg.Wait()
			n := 0
			accepted.Range(func(any, any) bool { n++; return true })
			if got := mustText(t, b.db, "SELECT count(*)::text FROM usage_events"); got != fmt.Sprint(n) {
				t.Errorf("%s events stored, %d acknowledged", got, n)
			}
			if got := mustText(t, b.db, "SELECT count(*)::text FROM usage_corrections"); got == "0" {
				t.Error("nothing was corrected: the test shows less than it says")
			}
			if got := mustText(t, b.db, "SELECT count(*)::text FROM usage_rejects"); got == "0" {
				t.Error("nothing was refused: the test shows less than it says")
			}
			wantRecount(t, b.db)
			wantReadsAgree(t, b)
		})
	}
}

// reserveOne reserves, and mostly settles: an event with dimensions for another part of what was held, or none.
func reserveOne(t *testing.T, b *meterBench, in *metering.Ingester, r *rand.Rand, accepted *sync.Map) {
	t.Helper()
	m, held := testMeters[r.IntN(len(testMeters)-1)], 1+r.Int64N(30)
	reserving := metering.Reserving{
		Action: metering.Reserve, Account: b.account.ID, ID: id.New[entitlement.Reservation](), Meter: m.Code,
		Quantity: money.DecimalFromInt(held), TTL: time.Hour,
	}
	if _, err := in.Reserve(t.Context(), reserving); err != nil {
		if !errors.Is(err, entitlement.ErrLimitReached) {
			t.Error(err)
		}
		return
	}
	reserving.Action = []metering.Action{metering.Commit, metering.Commit, metering.Release, metering.Extend}[r.IntN(4)]
	reserving.Quantity = money.DecimalFromInt(r.Int64N(held + 1))
	if len(m.Dimensions) > 0 && r.IntN(2) == 0 {
		reserving.Dimensions = metering.DimensionsOf(map[string]string{"project": fmt.Sprint("p", r.IntN(6))})
	}
	_, err := in.Reserve(t.Context(), reserving)
	switch {
	case err == nil && reserving.Action == metering.Commit:
		accepted.Store(reserving.ID.String(), true)
	case err != nil && (reserving.Action != metering.Extend || !errors.Is(err, entitlement.ErrLimitReached)):
		t.Error(reserving.Action, err)
	}
}

// wantReadsAgree holds every way of reading usage to a recount of the exported events: totals, ranges, groups, charts,
// and what a partner who has counted by itself is told.
func wantReadsAgree(t *testing.T, b *meterBench) {
	t.Helper()
	usage := b.db.Usage()
	reader := metering.Reader{Store: usage, Entitlements: b.db.Entitlements(), Catalogue: testMeters}
	var all []metering.Record
	err := usage.Export(t.Context(), b.account.ID, metering.Filter{}, func(r *metering.Record) error { all = append(all, *r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if want := mustText(t, b.db, "SELECT count(*)::text FROM usage_event_keys"); fmt.Sprint(len(all)) != want {
		t.Errorf("%d events are exported, %s are known", len(all), want)
	}
	// count adds up what counts of a meter in a range, and in a group unless that is nil.
	count := func(m *metering.Meter, in period.Bounds, group *string) string {
		var sum, most, latest money.Decimal
		values, n := map[string]bool{}, 0
		for _, r := range all { // by time, then key
			if r.Meter != m.Code || r.Voided || r.OccurredAt.Before(in.Start) || !r.OccurredAt.Before(in.End) || (group != nil && r.Dimensions.Get("project") != *group) {
				continue
			}
			n++
			values[r.Value] = true
			if sum, latest = sum.Add(r.Counted), r.Counted; r.Counted.Cmp(most) > 0 {
				most = r.Counted
			}
		}
		switch m.Aggregation {
		case metering.Max:
			sum = most
		case metering.Last:
			sum = latest
		case metering.Unique:
			sum = money.DecimalFromInt(int64(len(values)))
		case metering.Sum, metering.Count:
		}
		return fmt.Sprint(sum, "/", n)
	}
	agree := func(what string, quantity money.Decimal, events int64, want string) {
		t.Helper()
		if got := fmt.Sprint(quantity, "/", events); got != want {
			t.Errorf("%s: read %s, recount %s", what, got, want)
		}
	}
	current := period.Bounds{Start: noon.AddDate(0, 0, -10), End: noon.AddDate(0, 0, 20)}
	ranges := []period.Bounds{current, {Start: noon.AddDate(0, -1, 0), End: current.Start}}
	for h := 1; h < 20*24; h += 19 { // that begin and end within a quarter of an hour
		from := noon.Add(-time.Duration(h) * time.Hour)
		ranges = append(ranges, period.Bounds{Start: from.Add(61 * time.Second), End: from.Add(time.Duration(h%5)*time.Hour + 150*time.Second)})
	}
	for _, m := range testMeters[:len(testMeters)-1] {
		grouped := ""
		if len(m.Dimensions) > 0 {
			grouped = "project"
		}
		for _, in := range ranges {
			what := fmt.Sprint(m.Code, " in ", in.Start.Format(time.DateTime), "…")
			report, err := reader.Usage(t.Context(), b.account.ID, metering.Question{Bounds: in, Meters: []string{m.Code}, GroupBy: grouped})
			if err != nil {
				t.Fatal(err)
			}
			u := report.Meters[0]
			agree(what, u.Quantity, u.Events, count(m, in, nil))
			var sum money.Decimal
			var n int64
			for _, g := range u.Groups {
				sum, n = sum.Add(g.Quantity), n+g.Events
				if m.SeriesCap == 0 { // otherwise some are in "other"
					agree(what+" of "+g.Value, g.Quantity, g.Events, count(m, in, &g.Value))
				}
			}
			if grouped != "" && (n != u.Events || ((m.Aggregation == metering.Sum || m.Aggregation == metering.Count) && sum.Cmp(u.Quantity) != 0)) {
				t.Errorf("%s: the groups come to %s/%d, the total to %s/%d", what, sum, n, u.Quantity, u.Events)
			}
		}
		for _, zone := range []string{"UTC", "Australia/Lord_Howe", "Asia/Kathmandu"} {
			where, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			whole := period.Bounds{Start: noon.AddDate(0, 0, -21), End: noon.Add(time.Hour)}
			for _, unit := range []period.Unit{period.ByHour, period.ByDay, period.ByMonth} {
				chart, err := reader.Chart(t.Context(), b.account.ID, m.Code, whole, unit, where, grouped)
				if err != nil {
					t.Fatal(err)
				}
				var n int64
				for _, g := range chart.Groups {
					for _, p := range g.Points {
						n += p.Events
						if m.SeriesCap == 0 && p.Events > 0 {
							agree(fmt.Sprint(m.Code, " of ", g.Value, " in the ", unit, " of ", zone, " from ", p.Start), p.Quantity, p.Events, count(m, p.Bounds, &g.Value))
						}
					}
				}
				if want := count(m, period.Bounds{Start: noon.AddDate(-1, 0, 0), End: noon.AddDate(1, 0, 0)}, nil); !strings.HasSuffix(want, fmt.Sprint("/", n)) {
					t.Errorf("%s by the %s of %s: %d events, recount %s", m.Code, unit, zone, n, want)
				}
			}
		}
		wantReconciled(t, b, m, all)
	}
}

// wantReconciled asks as a partner would that counted what it was acknowledged, and knows what is void.
func wantReconciled(t *testing.T, b *meterBench, m *metering.Meter, all []metering.Record) {
	t.Helper()
	mine, ids := map[time.Time][]string{}, []string{}
	for _, r := range all {
		if r.Meter != m.Code || r.Source != "test" {
			continue
		}
		if ids = append(ids, r.ID); !r.Voided {
			hour := r.OccurredAt.Truncate(time.Hour)
			mine[hour] = append(mine[hour], r.ID)
		}
	}
	hours, err := b.db.Usage().Hours(t.Context(), b.account.ID, m.Code, "test", period.Bounds{Start: noon.AddDate(0, 0, -21), End: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hours {
		slices.Sort(mine[h.Start])
		sum := sha256.Sum256([]byte(strings.Join(append(mine[h.Start], ""), "\n")))
		if h.Events != int64(len(mine[h.Start])) || h.Hash != sum || h.Dropped != 0 {
			t.Errorf("%s at %s: %+v, counted %v", m.Code, h.Start, h, mine[h.Start])
		}
		delete(mine, h.Start)
	}
	if len(mine) > 0 {
		t.Errorf("%s: nothing is said of %v", m.Code, mine)
	}
	fates, err := b.db.Usage().Fates(t.Context(), b.account.ID, "test", ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, eventID := range ids {
		if f := fates[eventID]; !f.Stored || f.Meter != m.Code || f.Rejected != "" {
			t.Errorf("%s is called %+v", eventID, f)
		}
	}
}

func correctOne(t *testing.T, b *meterBench, r *rand.Rand, eventID string) {
	t.Helper()
	page, err := b.db.Usage().Events(t.Context(), b.account.ID, metering.Filter{Source: "test", ID: eventID}, page.Request{Limit: 1})
	if err != nil {
		t.Error(err)
		return
	}
	if len(page.Data) == 0 {
		return
	}
	c := metering.Correction{
		ID: id.New[metering.Correction](), Account: b.account.ID, Source: "test", EventID: eventID, Kind: metering.Void,
		Reason: "a test", Actor: "test", At: noon,
	}
	if r.IntN(2) == 0 {
		c.Kind, c.Quantity = metering.Amend, money.DecimalFromInt(r.Int64N(60))
	}
	_, err = correct(t, b, c, page.Data[0].Meter)
	if err != nil && !errors.Is(err, metering.ErrVoided) && !errors.Is(err, metering.ErrNotAmendable) && !errors.Is(err, metering.ErrOverLimit) {
		t.Error(err)
	}
}

func correct(t *testing.T, b *meterBench, c metering.Correction, meter string) (done metering.Correction, err error) {
	err = b.db.InTx(t.Context(), func(tx billing.Tx) error {
		done, err = tx.Usage().Correct(t.Context(), c, testMeters.Meter(meter))
		return err
	})
	return done, err
}

// orderOf returns which of the corrections of an event are on record, in their order.
func orderOf(t *testing.T, b *meterBench, event string, done [2]metering.Correction) (order []int) {
	t.Helper()
	rows, err := b.db.Pool().Query(t.Context(), `SELECT id FROM usage_corrections WHERE account_id = $1 AND key = $2 ORDER BY sequence`,
		b.account.ID.UUID(), metering.KeyOf("test", event))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range ids {
		order = append(order, slices.IndexFunc(done[:], func(c metering.Correction) bool { return c.ID.UUID() == u }))
	}
	return order
}

// shown is what a reader is told of a meter: the total, and what is not nothing of it by project and by hour.
func (b *meterBench) shown(t *testing.T, meter string) (total, byProject, byHour string) {
	t.Helper()
	r := metering.Reader{Store: b.db.Usage(), Entitlements: b.db.Entitlements(), Catalogue: testMeters}
	q := metering.Question{Meters: []string{meter}}
	if len(testMeters.Meter(meter).Dimensions) > 0 {
		q.GroupBy = "project"
	}
	report, err := r.Usage(t.Context(), b.account.ID, q)
	if err != nil {
		t.Fatal(err)
	}
	var groups, hours []string
	for _, g := range report.Meters[0].Groups {
		if g.Events > 0 {
			groups = append(groups, fmt.Sprint(g.Value, "=", g.Quantity))
		}
	}
	chart, err := r.Chart(t.Context(), b.account.ID, meter, period.Bounds{Start: noon.Add(-2 * time.Hour), End: noon.Add(time.Hour)}, period.ByHour, time.UTC, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range chart.Groups {
		for _, p := range g.Points {
			if p.Events > 0 {
				hours = append(hours, p.Quantity.String())
			}
		}
	}
	return report.Meters[0].Quantity.String(), strings.Join(groups, " "), strings.Join(hours, " ")
}

func TestCorrections(t *testing.T) {
	t.Parallel()

	correction := func(b *meterBench, event string, kind metering.Kind, quantity string) metering.Correction {
		return metering.Correction{
			ID: id.New[metering.Correction](), Account: b.account.ID, Source: "test", EventID: event, Kind: kind,
			Quantity: money.MustDecimal(quantity), Reason: "a wrong report", Actor: "user:anna", At: noon,
		}
	}

	t.Run("SayWhatTheyChanged", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		b.mustAdd(t, b.event("1", "text", "10"), b.event("2", "text", "5"))
		c, err := correct(t, b, correction(b, "1", metering.Amend, "7.5"), "text")
		if err != nil {
			t.Fatal(err)
		}
		if c.Before.String() != "10" || c.After.String() != "7.5" || c.Meter != "text" {
			t.Errorf("correction %+v", c)
		}
		if _, err := correct(t, b, correction(b, "1", metering.Void, "0"), "text"); err != nil {
			t.Fatal(err)
		}
		if got := b.total(t, "text"); got != "5/1" {
			t.Errorf("total %s", got)
		}
		if _, err := correct(t, b, correction(b, "1", metering.Amend, "3"), "text"); !errors.Is(err, metering.ErrVoided) {
			t.Errorf("amended a void event: %v", err)
		}
		if _, err := correct(t, b, correction(b, "9", metering.Void, "0"), "text"); !errors.Is(err, metering.ErrEventNotFound) {
			t.Errorf("corrected nothing: %v", err)
		}
		// The identity stays used for ever.
		wantStatuses(t, b.mustAdd(t, b.event("1", "text", "10")), "duplicate")
	})

	t.Run("AreShownByAConflict", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		b.mustAdd(t, b.event("amended", "text", "10"), b.event("void", "text", "5"))
		for _, c := range []metering.Correction{correction(b, "amended", metering.Amend, "7.5"), correction(b, "void", metering.Void, "0")} {
			if _, err := correct(t, b, c, "text"); err != nil {
				t.Fatal(err)
			}
		}
		results := b.mustAdd(t, b.event("amended", "text", "7.5"), b.event("void", "text", "6"), b.event("new", "text", "1"), b.event("new", "text", "2"))
		wantStatuses(t, results, "conflict conflict accepted conflict")
		for i, want := range map[int]string{0: "10 counts 7.5, void false", 1: "5 counts 0, void true", 3: "1 counts 1, void false"} {
			s := results[i].Stored
			if got := fmt.Sprintf("%s counts %s, void %t", s.Quantity, s.Counted, s.Voided); got != want || !s.ReceivedAt.Equal(noon) || s.Period.IsZero() {
				t.Errorf("the conflict shows %s (%+v), want %s", got, s, want)
			}
		}
	})

	t.Run("KeepToTheLimit", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) {
			e.Limits = map[string]entitlement.Limit{"text": {Quantity: money.MustDecimal("20"), Mode: entitlement.Hard}}
		})
		b.mustAdd(t, b.event("1", "text", "10"), b.event("2", "text", "5"))
		if _, err := correct(t, b, correction(b, "1", metering.Amend, "15.5"), "text"); !errors.Is(err, metering.ErrOverLimit) {
			t.Errorf("err = %v", err)
		}
		if _, err := correct(t, b, correction(b, "1", metering.Amend, "15"), "text"); err != nil {
			t.Error(err)
		}
	})

	t.Run("KeepPeaksToTheLimitByWhatTheyBecome", func(t *testing.T) {
		t.Parallel()
		for _, meter := range []string{"peak", "seats"} {
			b := newMeterBench(t, metering.Options{})
			mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) {
				e.Limits = map[string]entitlement.Limit{meter: {Quantity: money.MustDecimal("10"), Mode: entitlement.Hard}}
			})
			early, late := b.event("early", meter, "2"), b.event("late", meter, "9")
			late.OccurredAt = late.OccurredAt.Add(time.Minute)
			b.mustAdd(t, early, late)
			for _, c := range []struct {
				event, quantity string
				want            error
				total           string
			}{
				{"early", "5", nil, "9/2"}, // 5, not 9 and 3
				{"late", "10", nil, "10/2"},
				{"late", "10.5", metering.ErrOverLimit, "10/2"},
				{"late", "9", nil, "9/2"},
			} {
				if _, err := correct(t, b, correction(b, c.event, metering.Amend, c.quantity), meter); !errors.Is(err, c.want) {
					t.Errorf("%s: the %s to %s: %v, want %v", meter, c.event, c.quantity, err, c.want)
				}
				if got := b.total(t, meter); got != c.total {
					t.Errorf("%s: total %s after the %s to %s, want %s", meter, got, c.event, c.quantity, c.total)
				}
			}
		}
	})

	t.Run("FallBackToTheNextOfWhatIsLeft", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		at := noon.Add(-2 * time.Hour)
		add := func(id, meter, quantity, value, project string, after time.Duration) {
			t.Helper()
			e := b.event(id, meter, quantity)
			e.Value, e.OccurredAt = value, at.Add(after)
			if project != "" {
				e.Dimensions = metering.DimensionsOf(map[string]string{"project": project})
			}
			wantStatuses(t, b.mustAdd(t, e), "accepted")
		}
		add("p1", "peak", "5", "", "a", 0)
		add("p2", "peak", "9", "", "b", time.Minute)
		add("p3", "peak", "7", "", "a", time.Hour)
		add("s1", "seats", "3", "", "", 0)
		add("s2", "seats", "8", "", "", time.Minute)
		add("s3", "seats", "4", "", "", time.Hour)
		add("c1", "callers", "1", "anna", "a", 0)
		add("c2", "callers", "1", "anna", "b", time.Minute)
		add("c3", "callers", "1", "ben", "a", time.Hour)
		for _, c := range []struct {
			event, meter, to string // nothing: void
			total            string
			byProject        string // quantities
			hours            string // of the series
		}{
			{"p2", "peak", "", "7", "a=7", "5 7"},
			{"p3", "peak", "4", "5", "a=5", "5 4"},
			{"p1", "peak", "", "4", "a=4", "4"},
			{"s3", "seats", "", "8", "", "8"},
			{"s1", "seats", "20", "8", "", "8"},
			{"s2", "seats", "", "20", "", "20"},
			{"c1", "callers", "", "2", "a=1 b=1", "1 1"},
			{"c2", "callers", "", "1", "a=1", "1"},
			{"c3", "callers", "", "0", "", ""},
		} {
			kind, quantity := metering.Amend, c.to
			if c.to == "" {
				kind, quantity = metering.Void, "0"
			}
			if _, err := correct(t, b, correction(b, c.event, kind, quantity), c.meter); err != nil {
				t.Fatalf("%s: %v", c.event, err)
			}
			wantRecount(t, b.db)
			total, byProject, hours := b.shown(t, c.meter)
			if total != c.total || byProject != c.byProject || hours != c.hours {
				t.Errorf("after %s to %q: %s is %s, by project %q, by hour %q; want %s, %q, %q",
					c.event, c.to, c.meter, total, byProject, hours, c.total, c.byProject, c.hours)
			}
		}
		add("p4", "peak", "1", "", "a", 2*time.Hour) // what comes later goes on from there
		add("s4", "seats", "2", "", "", 30*time.Second)
		add("c4", "callers", "1", "anna", "a", 2*time.Hour)
		wantRecount(t, b.db)
	})

	t.Run("FallBackWithinTheirPeriod", func(t *testing.T) {
		t.Parallel()
		for _, meter := range []string{"peak", "seats", "callers"} {
			b := newMeterBench(t, metering.Options{})
			start := noon.AddDate(0, 0, -10).Add(7 * time.Minute) // within a quarter of an hour
			mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.PeriodStarts[1] = start })
			events := []struct {
				id, quantity string
				after        time.Duration
			}{
				{"a", "4", -2 * time.Hour},
				{"b", "6", -time.Hour},
				{"c", "8", -7 * time.Minute},
				{"d", "9", -time.Minute},
				{"e", "3", 0},
				{"f", "7", 2 * time.Minute},
				{"g", "2", 9 * time.Minute},
				{"h", "5", time.Hour},
			}
			for i, x := range events {
				e := b.event(x.id, meter, x.quantity)
				e.OccurredAt = start.Add(x.after)
				if meter == "callers" {
					e.Quantity, e.Value = money.DecimalFromInt(1), fmt.Sprint("v", i%3)
				}
				wantStatuses(t, b.mustAdd(t, e), "accepted")
			}
			for _, event := range []string{"d", "f", "h", "c", "b", "e", "a", "g"} {
				if _, err := correct(t, b, correction(b, event, metering.Void, "0"), meter); err != nil {
					t.Fatalf("%s of %s: %v", event, meter, err)
				}
				wantRecount(t, b.db)
			}
		}
	})

	t.Run("KnowAValueFromBeforeTheMeterHadDimensions", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		plain := *testMeters.Meter("callers")
		plain.Dimensions = nil
		before, after := b.event("before", "callers", "1"), b.event("after", "callers", "1")
		before.Value, after.Value, after.Dimensions = "anna", "anna", metering.DimensionsOf(map[string]string{"project": "a"})
		if _, err := mustRunWith(t, b.db, metering.Meters{&plain}, metering.Options{}).Add(t.Context(), []metering.Event{before}); err != nil {
			t.Fatal(err)
		}
		b.mustAdd(t, after)
		for _, c := range []struct{ event, total string }{{"after", "1/1"}, {"before", "0/0"}} {
			if _, err := correct(t, b, correction(b, c.event, metering.Void, "0"), "callers"); err != nil {
				t.Fatalf("%s: %v", c.event, err)
			}
			if got := b.total(t, "callers"); got != c.total {
				t.Errorf("without the one %s: %s, want %s", c.event, got, c.total)
			}
		}
	})

	t.Run("OfOneEventComeOneAfterTheOther", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		meters := []string{"text", "peak", "seats", "calls", "callers"}
		for _, pair := range [][2]metering.Kind{{metering.Void, metering.Amend}, {metering.Amend, metering.Amend}, {metering.Void, metering.Void}} {
			for _, meter := range meters {
				event := fmt.Sprint(meter, pair)
				of, other := b.event(event, meter, "10"), b.event(event+" other", meter, "3")
				of.Value, other.Value = "anna", "ben"
				if meter != "callers" {
					of.Value, other.Value = "", ""
				}
				b.mustAdd(t, of, other)
				var all sync.WaitGroup
				var done [2]metering.Correction
				var errs [2]error
				for i, kind := range pair {
					all.Go(func() {
						quantity := "0"
						if kind == metering.Amend {
							quantity = fmt.Sprint(6 + i)
						}
						done[i], errs[i] = correct(t, b, correction(b, event, kind, quantity), meter)
					})
				}
				all.Wait()
				last, made := "10", 0
				if meter == "calls" {
					last = "1"
				}
				for _, i := range orderOf(t, b, event, done) {
					if made++; done[i].Before.String() != last {
						t.Errorf("%s: the correction from %s follows one to %s", event, done[i].Before, last)
					}
					last = done[i].After.String()
				}
				for i, err := range errs {
					switch {
					case err == nil:
						made--
					case errors.Is(err, metering.ErrVoided), pair[i] == metering.Amend && errors.Is(err, metering.ErrNotAmendable):
					default:
						t.Errorf("%s: %v", event, err)
					}
				}
				if made != 0 {
					t.Errorf("%s: as many are on record as were done, and %d besides", event, made)
				}
			}
		}
		wantRecount(t, b.db)
	})

	t.Run("KeepTotalsInTheirRange", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		b.mustAdd(t, b.event("1", "text", "1"), b.event("2", "text", "2"))
		const most = "999999999999999"
		if _, err := correct(t, b, correction(b, "1", metering.Amend, most), "text"); !errors.Is(err, metering.ErrTotalRange) {
			t.Errorf("a total of more digits than there are: %v", err)
		}
		if got := b.total(t, "text"); got != "3/2" {
			t.Errorf("total %s, want what it was", got)
		}
		for _, event := range []string{"1", "2"} {
			if _, err := correct(t, b, correction(b, event, metering.Void, "0"), "text"); err != nil {
				t.Error(err)
			}
		}
		if got := b.total(t, "text"); got != "0/0" {
			t.Errorf("total %s of nothing", got)
		}
	})

	t.Run("AreRefusedOnceTheEventsAreGone", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		anna, ben := b.event("4", "callers", "1"), b.event("5", "callers", "1")
		anna.Value, ben.Value = "anna", "ben"
		b.mustAdd(t, b.event("1", "peak", "10"), b.event("2", "peak", "5"), b.event("3", "text", "1"), anna, ben)
		owner := postgrestest.Connect(t, b.db.Pool().Config().ConnString())
		if _, err := owner.Exec(t.Context(), "DELETE FROM usage_events WHERE event_id IN ('2', '3', '5')"); err != nil {
			t.Fatal(err)
		}
		if _, err := correct(t, b, correction(b, "3", metering.Void, "0"), "text"); !errors.Is(err, metering.ErrEventGone) {
			t.Errorf("err = %v", err)
		}
		if _, err := correct(t, b, correction(b, "1", metering.Void, "0"), "peak"); !errors.Is(err, metering.ErrEventGone) {
			t.Errorf("a peak was recomputed from what is left: %v", err)
		}
		if _, err := correct(t, b, correction(b, "4", metering.Void, "0"), "callers"); !errors.Is(err, metering.ErrEventGone) {
			t.Errorf("who has called was told by what is left: %v", err)
		}
	})

	t.Run("AreRefusedOnceEventsAtThePeriodsStartAreGone", func(t *testing.T) { // those of its first quarter of an hour say what is left
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		start := noon.AddDate(0, 0, -10).Add(7 * time.Minute)
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.PeriodStarts[1] = start })
		first, peak := b.event("first", "peak", "5"), b.event("peak", "peak", "9")
		first.OccurredAt = start
		b.mustAdd(t, first, peak)
		owner := postgrestest.Connect(t, b.db.Pool().Config().ConnString())
		if _, err := owner.Exec(t.Context(), "DELETE FROM usage_events WHERE event_id = 'first'"); err != nil {
			t.Fatal(err)
		}
		if _, err := correct(t, b, correction(b, "peak", metering.Void, "0"), "peak"); !errors.Is(err, metering.ErrEventGone) {
			t.Errorf("err = %v", err)
		}
	})

	t.Run("AskNoOtherEventWhereNothingFalls", func(t *testing.T) { // of which an account may have millions
		t.Parallel()
		for _, c := range []struct{ meter, event, to, total string }{
			{"peak", "small", "", "10/2"},
			{"peak", "small", "9", "10/3"},
			{"peak", "small", "11", "11/3"},
			{"peak", "large", "12", "12/3"},
			{"seats", "small", "", "10/2"},
			{"seats", "small", "90", "10/3"},
			{"seats", "large", "9", "9/3"},
		} {
			b := newMeterBench(t, metering.Options{})
			for i, e := range []metering.Event{b.event("small", c.meter, "7"), b.event("gone", c.meter, "6"), b.event("large", c.meter, "10")} {
				e.OccurredAt = noon.Add(-time.Hour).Add(time.Duration(i) * time.Second)
				b.mustAdd(t, e)
			}
			owner := postgrestest.Connect(t, b.db.Pool().Config().ConnString())
			if _, err := owner.Exec(t.Context(), "DELETE FROM usage_events WHERE event_id = 'gone'"); err != nil {
				t.Fatal(err)
			}
			kind, quantity := metering.Amend, c.to
			if c.to == "" {
				kind, quantity = metering.Void, "0"
			}
			if _, err := correct(t, b, correction(b, c.event, kind, quantity), c.meter); err != nil {
				t.Errorf("%s of the %s to %q: %v", c.meter, c.event, c.to, err)
			}
			if got := b.total(t, c.meter); got != c.total {
				t.Errorf("%s of the %s to %q: total %s, want %s", c.meter, c.event, c.to, got, c.total)
			}
		}
	})
}

func TestUsageReads(t *testing.T) {
	t.Parallel()

	b := newMeterBench(t, metering.Options{})
	add := func(id, meter, q string, at time.Time, project, value string) {
		t.Helper()
		e := b.event(id, meter, q)
		e.OccurredAt, e.Value = at, value
		if project != "" {
			e.Dimensions = metering.DimensionsOf(map[string]string{"project": project})
		}
		wantStatuses(t, b.mustAdd(t, e), "accepted")
	}
	base := noon.AddDate(0, 0, -5)
	add("1", "voice", "10", base, "a", "")
	add("2", "voice", "20", base.Add(20*time.Minute), "a", "")
	add("3", "voice", "40", base.Add(70*time.Minute), "b", "")
	add("4", "voice", "80", base.Add(24*time.Hour), "", "")
	add("5", "peak", "7", base.Add(time.Minute), "", "")
	add("6", "peak", "3", base.Add(80*time.Minute), "", "")
	add("7", "callers", "1", base, "", "anna")
	add("8", "callers", "1", base.Add(time.Hour), "", "anna")
	usage := b.db.Usage()
	slices := func(q metering.Query, unique ...string) string {
		t.Helper()
		got, err := usage.Slices(t.Context(), b.account.ID, q, unique)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range got {
			out = append(out, fmt.Sprintf("%s[%s]%d=%s/%d", s.Meter, s.Group, s.Step, s.Quantity(testMeters.Meter(s.Meter).Aggregation), s.Events))
		}
		return strings.Join(out, " ")
	}
	day := period.Bounds{Start: base, End: base.Add(24 * time.Hour)}
	for name, c := range map[string]struct {
		q      metering.Query
		unique []string
		want   string
	}{
		"whole buckets":         {metering.Query{Bounds: day, Meters: []string{"voice", "peak"}}, nil, "peak[]0=7/2 voice[]0=70/3"},
		"half-open to the tick": {metering.Query{Bounds: period.Bounds{Start: base.Add(time.Microsecond), End: base.Add(70*time.Minute + time.Microsecond)}, Meters: []string{"voice"}}, nil, "voice[]0=60/2"},
		"within one bucket":     {metering.Query{Bounds: period.Bounds{Start: base.Add(time.Second), End: base.Add(2 * time.Minute)}, Meters: []string{"voice", "peak"}}, nil, "peak[]0=7/1"},
		"by dimension":          {metering.Query{Bounds: period.Bounds{Start: base, End: noon}, Meters: []string{"voice"}, GroupBy: "project"}, nil, "voice[]0=80/1 voice[a]0=30/2 voice[b]0=40/1"},
		"by hour":               {metering.Query{Bounds: day, Meters: []string{"voice"}, Steps: []time.Time{base, base.Add(time.Hour), base.Add(2 * time.Hour)}}, nil, "voice[]0=30/2 voice[]1=40/1"},
		"distinct over buckets": {metering.Query{Bounds: day, Meters: []string{"callers"}}, []string{"callers"}, "callers[]0=1/2"},
	} {
		if got := slices(c.q, c.unique...); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}

	t.Run("TotalsCarryTheirSeries", func(t *testing.T) {
		totals, err := usage.Totals(t.Context(), b.account.ID, noon.AddDate(0, 0, -10), true)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, tot := range totals {
			got += fmt.Sprint(tot.Meter, "=", tot.Quantity, " ", len(tot.Series), "; ")
		}
		if got != "callers=1 1; peak=7 1; voice=150 3; " {
			t.Errorf("totals %s", got)
		}
	})

	t.Run("LateIsWhatWasNotBilled", func(t *testing.T) {
		err := usage.MarkBilled(t.Context(), b.account.ID, noon.AddDate(0, 0, -10), []metering.Billed{
			{Meter: "voice", Quantity: money.MustDecimal("140"), Events: 3}, {Meter: "peak", Quantity: money.MustDecimal("7"), Events: 2},
		})
		if err != nil {
			t.Fatal(err)
		}
		totals, err := usage.Totals(t.Context(), b.account.ID, noon.AddDate(0, 0, -10), false)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, tot := range totals {
			if tot.Billed != nil {
				got += fmt.Sprint(tot.Meter, "=", tot.Quantity.Sub(*tot.Billed), " ", tot.BilledEvents, "; ")
			}
		}
		if got != "peak=0 2; voice=10 3; " {
			t.Errorf("late %s", got)
		}
	})

	t.Run("EventsPageInOrder", func(t *testing.T) {
		var ids []string
		r := page.Request{Limit: 3}
		for {
			p, err := usage.Events(t.Context(), b.account.ID, metering.Filter{}, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Data {
				ids = append(ids, e.ID)
			}
			if p.Next == "" {
				break
			}
			r.After = p.Next
		}
		exported := 0
		err := usage.Export(t.Context(), b.account.ID, metering.Filter{Meter: "voice"}, func(*metering.Record) error { exported++; return nil })
		if len(ids) != 8 || ids[7] != "4" || err != nil || exported != 4 {
			t.Errorf("ids %v, exported %d, %v", ids, exported, err)
		}
	})

	t.Run("TheDigestProvesTheEvents", func(t *testing.T) {
		bounds := period.Bounds{Start: noon.AddDate(0, 0, -10), End: noon.AddDate(0, 0, 20)}
		d, err := usage.Digest(t.Context(), b.account.ID, "voice", bounds, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, id := range []string{"1", "2", "3", "4"} {
			k := metering.KeyOf("test", id)
			h.Write(k[:])
		}
		if d.Events != 4 || !d.First.Equal(base) || !d.Last.Equal(base.Add(24*time.Hour)) || d.Hash != [32]byte(h.Sum(nil)) {
			t.Errorf("digest %+v", d)
		}
	})

	t.Run("HoursDoNotCountAsRefusedWhatIsStoredSince", func(t *testing.T) {
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, limitOf("text", "3"))
		first, second := b.event("first", "text", "4"), b.event("second", "text", "4")
		wantStatuses(t, b.mustAdd(t, first, second), "rejected:limit_reached rejected:limit_reached")
		first.Quantity = money.MustDecimal("3")
		wantStatuses(t, b.mustAdd(t, first), "accepted")
		at := first.OccurredAt.Truncate(time.Hour)
		hours, err := b.db.Usage().Hours(t.Context(), b.account.ID, "text", "test", period.Bounds{Start: at, End: at.Add(time.Hour)})
		if err != nil || len(hours) != 1 || hours[0].Events != 1 || hours[0].Rejected != 1 {
			t.Errorf("hours %+v, %v", hours, err)
		}
		// It may have happened in another hour, or be of another meter, than was said at first.
		second.Quantity, second.OccurredAt, second.Meter = money.MustDecimal("3"), at.Add(-3*time.Hour), "peak"
		wantStatuses(t, b.mustAdd(t, second), "accepted")
		hours, err = b.db.Usage().Hours(t.Context(), b.account.ID, "text", "test", period.Bounds{Start: at, End: at.Add(time.Hour)})
		if err != nil || len(hours) != 1 || hours[0].Rejected != 0 {
			t.Errorf("hours %+v, %v", hours, err)
		}
	})

	// What was refused is found among the identities by SQL, which must make them as we do.
	t.Run("HoursKnowTheIdentityOfWhateverWasRefused", func(t *testing.T) {
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, limitOf("text", "0"))
		var refused []metering.Event
		for _, n := range []int{1, 127, 128, 129, 255} {
			for _, m := range []int{1, 127, 128, 255} {
				e := b.event(strings.Repeat("i", n), "text", "1")
				e.Source = strings.Repeat("é", m/2) + strings.Repeat("s", m%2)
				refused = append(refused, e)
			}
		}
		b.mustAdd(t, refused...)
		rejected := func() (n int64) {
			at := noon.Add(-time.Hour).Truncate(time.Hour)
			hours, err := b.db.Usage().Hours(t.Context(), b.account.ID, "text", "", period.Bounds{Start: at, End: at.Add(time.Hour)})
			if err != nil || len(hours) != 1 {
				t.Fatalf("hours %+v, %v", hours, err)
			}
			return hours[0].Rejected
		}
		if n := rejected(); n != int64(len(refused)) {
			t.Fatalf("%d of %d refused", n, len(refused))
		}
		mustEntitle(t, b.db, b.account.ID, nil)
		b.mustAdd(t, refused...)
		if n := rejected(); n != 0 {
			t.Errorf("%d of the stored are still called refused", n)
		}
	})

	t.Run("HoursAndFatesTellAPartnerWhatIsHere", func(t *testing.T) {
		hours, err := usage.Hours(t.Context(), b.account.ID, "voice", "test", period.Bounds{Start: base.Truncate(time.Hour), End: base.Add(2 * time.Hour)})
		if err != nil || len(hours) != 2 || hours[0].Events != 2 || hours[0].Quantity.String() != "30" || hours[1].Events != 1 || hours[0].Late != 2 {
			t.Errorf("hours %+v, %v", hours, err)
		}
		fates, err := usage.Fates(t.Context(), b.account.ID, "test", []string{"1", "nowhere"})
		if err != nil || len(fates) != 1 || !fates["1"].Stored {
			t.Errorf("fates %+v, %v", fates, err)
		}
	})
}

func TestReader(t *testing.T) {
	t.Parallel()

	b := newMeterBench(t, metering.Options{})
	dimmed := func(id, meter, q, project, value string) metering.Event {
		e := b.event(id, meter, q)
		e.Value = value
		if project != "" {
			e.Dimensions = metering.DimensionsOf(map[string]string{"project": project})
		}
		return e
	}
	b.mustAdd(t, dimmed("1", "voice", "10", "a", ""), dimmed("2", "voice", "20", "b", ""), dimmed("3", "voice", "5", "", ""),
		dimmed("4", "callers", "1", "a", "anna"), dimmed("5", "callers", "1", "b", "anna"), b.event("6", "text", "7"))
	r := metering.Reader{Store: b.db.Usage(), Entitlements: b.db.Entitlements(), Catalogue: testMeters}

	show := func(q metering.Question) (s string) {
		t.Helper()
		report, err := r.Usage(t.Context(), b.account.ID, q)
		if err != nil {
			return err.Error()
		}
		for _, m := range report.Meters {
			if m.Events == 0 {
				continue
			}
			s += fmt.Sprintf("%s=%s/%d", m.Meter.Code, m.Quantity, m.Events)
			for _, g := range m.Groups {
				s += fmt.Sprintf(" %s:%s", g.Value, g.Quantity)
			}
			s += "; "
		}
		return s
	}
	last24 := period.Bounds{Start: noon.Add(-24 * time.Hour), End: noon}
	for name, c := range map[string]struct {
		q    metering.Question
		want string
	}{
		"to date":                  {metering.Question{}, "voice=35/3; text=7/1; callers=1/2; "},
		"to date by project":       {metering.Question{GroupBy: "project"}, "voice=35/3 :5 a:10 b:20; callers=1/2 a:1 b:1; "},
		"one meter by project":     {metering.Question{GroupBy: "project", Meters: []string{"voice"}}, "voice=35/3 :5 a:10 b:20; "},
		"a range":                  {metering.Question{Bounds: last24}, "voice=35/3; text=7/1; callers=1/2; "},
		"a range by project":       {metering.Question{Bounds: last24, GroupBy: "project"}, "voice=35/3 :5 a:10 b:20; callers=1/2 a:1 b:1; "},
		"an unknown dimension":     {metering.Question{GroupBy: "colour"}, metering.ErrUnknownDimension.Error()},
		"a range that is no range": {metering.Question{Bounds: period.Bounds{Start: noon, End: noon}}, metering.ErrRange.Error()},
	} {
		if got := show(c.q); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}

	t.Run("ChartsFollowTheZonesCalendar", func(t *testing.T) {
		t.Parallel()
		// The clocks of Berlin go forward on 29 March 2026: that day has 23 hours.
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		chart, err := r.Chart(t.Context(), b.account.ID, "voice", period.Bounds{
			Start: time.Date(2026, 3, 1, 0, 0, 0, 0, zone), End: time.Date(2026, 4, 1, 0, 0, 0, 0, zone),
		}, period.ByDay, zone, "")
		if err != nil {
			t.Fatal(err)
		}
		points := chart.Groups[0].Points
		if len(points) != 31 || points[28].Duration() != 23*time.Hour || points[0].Quantity.String() != "35" || points[1].Events != 0 {
			t.Errorf("%d points; %v; first %+v", len(points), points[28].Duration(), points[0])
		}
		_, err = r.Chart(t.Context(), b.account.ID, "voice", period.Bounds{Start: noon.AddDate(-1, 0, 0), End: noon}, period.ByHour, zone, "")
		if !errors.Is(err, metering.ErrTooManyPoints) {
			t.Errorf("a year of hours: %v", err)
		}
	})
}

// Once the events of an end of a range are dropped, its whole quarter of an hour is told, and that it is: never silently less.
func TestReader_RangesOfDroppedEvents(t *testing.T) {
	t.Parallel()
	b := newMeterBench(t, metering.Options{})
	hour := noon.Truncate(time.Hour).Add(-2 * time.Hour)
	at := func(name, quantity string, minute int) metering.Event {
		e := b.event(name, "voice", quantity)
		e.OccurredAt = hour.Add(time.Duration(minute) * time.Minute)
		return e
	}
	b.mustAdd(t, at("1", "1", 1), at("2", "20", 8), at("3", "300", 31), at("4", "4000", 44))
	r := metering.Reader{Store: b.db.Usage(), Entitlements: b.db.Entitlements(), Catalogue: testMeters}
	minutes := func(from, to int) period.Bounds {
		return period.Bounds{Start: hour.Add(time.Duration(from) * time.Minute), End: hour.Add(time.Duration(to) * time.Minute)}
	}
	check := func(asked, told period.Bounds, quantity string) {
		t.Helper()
		got, err := r.Usage(t.Context(), b.account.ID, metering.Question{Bounds: asked, Meters: []string{"voice"}})
		if err != nil || !got.Bounds.Equal(told) || got.Meters[0].Quantity.String() != quantity {
			t.Errorf("from %v: told %s from %v, %v; want %s from %v", asked, got.Meters[0].Quantity, got.Bounds, err, quantity, told)
		}
	}
	check(minutes(5, 40), minutes(5, 40), "320")
	if _, err := postgrestest.Connect(t, b.db.Pool().Config().ConnString()).Exec(t.Context(), "DELETE FROM usage_events"); err != nil {
		t.Fatal(err)
	}
	check(minutes(5, 40), minutes(0, 45), "4321")
	check(minutes(15, 40), minutes(15, 45), "4300")
	check(minutes(5, 25), minutes(0, 25), "21")
	check(minutes(0, 60), minutes(0, 60), "4321")
}
