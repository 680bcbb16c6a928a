package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A floor is this program as a server with the least that can be there: Echo's own handlers without any
// middleware, in a process of its own, since within the load's an answer would cost no switch from one to
// the other.
type floor struct {
	Address  string
	Answer   shown                 // to GET
	Database string                // empty: it stores nothing
	Provider string                // folder of a sandbox provider's journal; empty: none is played
	Accounts map[string]account.ID // by Authorization
}

// shown is an answer that the service gave.
type shown struct {
	Header     http.Header
	Type, Body string
}

// hello is the answer of calibrator B.
var hello = floor{Answer: shown{Type: echo.MIMETextPlainCharsetUTF8, Body: "hello"}}

// floorVariable makes this program the floor that its value describes.
const floorVariable = "ACCRUE_BENCH_FLOOR"

// serveFloor serves the described floor until the process is killed.
func serveFloor(description string) int {
	var f floor
	err := json.Unmarshal([]byte(description), &f)
	if err == nil {
		err = f.serve(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func (f floor) serve(ctx context.Context) error {
	e := echo.New()
	e.GET("/*", func(c echo.Context) error {
		maps.Copy(c.Response().Header(), f.Answer.Header)
		return c.Blob(http.StatusOK, f.Answer.Type, []byte(f.Answer.Body))
	})
	if f.Database != "" {
		db, err := postgres.Open(ctx, postgres.Config{URL: f.Database})
		if err != nil {
			return err
		}
		in := metering.NewIngester(postgres.Journal(db.ByKey()), billing.Meters(plan.Shipped().Meters), clock.System, slog.Default(), metering.Options{})
		go func() { _ = in.Run(ctx) }()
		e.POST("/v1/usage/events", f.store(in))
		e.POST("/v1/usage/reservations", f.reserve(in))
		e.POST("/v1/usage/reservations/:id/commit", f.reserve(in))
		e.POST("/v1/admin/credits", func(c echo.Context) error {
			of, err := id.Parse[account.Account](c.Request().Header.Get("Accrue-Account"))
			if err != nil {
				return err
			}
			return transfer(c, db, of)
		})
		if err := f.charge(ctx, e, db); err != nil {
			return err
		}
	}
	server := &http.Server{Addr: f.Address, Handler: e, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// owner is the account that the request is for.
func (f floor) owner(c echo.Context) account.ID {
	return f.Accounts[c.Request().Header.Get(echo.HeaderAuthorization)]
}

// store takes in events and checks nothing that their storage does not ask for.
func (f floor) store(in *metering.Ingester) echo.HandlerFunc {
	return func(c echo.Context) error {
		var body struct {
			Events []struct {
				ID, Source, Meter string
				Quantity          money.Decimal
				Timestamp         time.Time
				Dimensions        map[string]string
			}
		}
		if err := json.NewDecoder(c.Request().Body).Decode(&body); err != nil {
			return err
		}
		events := make([]metering.Event, len(body.Events))
		for i, e := range body.Events {
			events[i] = metering.Event{
				Account: f.owner(c), Source: e.Source, ID: e.ID, Meter: e.Meter, Quantity: e.Quantity, OccurredAt: e.Timestamp,
				Dimensions: metering.DimensionsOf(e.Dimensions),
			}
		}
		results, err := in.Add(c.Request().Context(), events)
		if err != nil || results[0].Problem != nil {
			return fmt.Errorf("%v, %w", results, err)
		}
		return c.JSON(http.StatusOK, len(results))
	}
}

// reserve makes a reservation, or commits the one in the address. It keeps no answers under keys.
func (f floor) reserve(in *metering.Ingester) echo.HandlerFunc {
	return func(c echo.Context) error {
		var body struct {
			Meter    string
			Quantity money.Decimal
		}
		if err := json.NewDecoder(c.Request().Body).Decode(&body); err != nil {
			return err
		}
		r := metering.Reserving{Action: metering.Reserve, Account: f.owner(c), ID: id.New[entitlement.Reservation](), Meter: body.Meter, Quantity: body.Quantity, TTL: time.Minute}
		if made := c.Param("id"); made != "" {
			r.Action = metering.Commit
			var err error
			if r.ID, err = id.Parse[entitlement.Reservation](made); err != nil {
				return err
			}
		}
		out, err := in.Reserve(c.Request().Context(), r)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]string{"id": out.Reservation.ID.String()})
	}
}

// transfer writes one ledger transaction of the sum in the body.
func transfer(c echo.Context, db *postgres.DB, of account.ID) error {
	ctx, now := c.Request().Context(), clock.System()
	var body struct{ Amount money.Amount }
	if err := json.NewDecoder(c.Request().Body).Decode(&body); err != nil {
		return err
	}
	t := books.PromoGranted(books.Fact{Account: of, Reference: uuid.NewString(), At: now, RecordedAt: now}, body.Amount)
	err := db.InTxOf(ctx, billing.Start{Account: of, Books: true}, func(tx billing.Tx) error { return tx.Ledger().Append(ctx, t) })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, t.ID)
}

// charge plays the sandbox provider: a top-up is a charge, a ledger transaction, and an event that nobody reads.
func (f floor) charge(ctx context.Context, e *echo.Echo, db *postgres.DB) error {
	if f.Provider == "" {
		return nil
	}
	const key, path = "key", "/v1/gateway-events/sandbox"
	provider, err := sandbox.New(sandbox.Config{
		Mode: payment.ModeTest, Dir: f.Provider, SecretKey: key, WebhookURL: "http://" + f.Address + path, WebhookSecret: key, Clock: clock.System,
	})
	if err != nil {
		return err
	}
	go func() { _ = provider.Run(ctx) }()
	gateway, err := sandbox.NewClient(sandbox.ClientConfig{Mode: payment.ModeTest, BaseURL: "http://" + f.Address, SecretKey: key, Provider: provider})
	if err != nil {
		return err
	}
	card, err := gateway.Attach(ctx, payment.AttachRequest{Key: uuid.NewString(), AccountRef: "floor", Token: sandbox.TokenVisa})
	if err != nil {
		return err
	}
	e.POST(path, func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	e.POST("/v1/top-ups", func(c echo.Context) error {
		ref := uuid.NewString()
		_, err := gateway.Charge(c.Request().Context(), payment.ChargeRequest{
			Key: ref, Amount: money.New(1000, money.USD), CustomerRef: card.CustomerRef, MethodRef: card.Method.Ref, AccountRef: "floor", PaymentRef: ref,
		})
		if err != nil {
			return err
		}
		return transfer(c, db, f.owner(c))
	})
	return nil
}

// startFloor starts a floor at a free address, and returns this and what ends it.
func startFloor(b *testing.B, f floor) (address string, end func()) {
	b.Helper()
	f.Address = freeAddress(b)
	description, err := json.Marshal(f)
	if err != nil {
		b.Fatal(err)
	}
	server := exec.CommandContext(b.Context(), os.Args[0])
	server.Env, server.Stderr = append(os.Environ(), floorVariable+"="+string(description)), os.Stderr
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	end = func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	for {
		c, err := net.Dial("tcp", f.Address)
		if err == nil {
			_ = c.Close()
			return f.Address, end
		}
		time.Sleep(time.Millisecond)
	}
}

// BenchmarkFloor measures what is left of works that miss their target when everything is taken away that
// they could do without: identity, limits of rate, checks, headers that say nothing of the answer, records,
// answers kept under keys. The requests are the same, and so are the rows that are stored. What a floor
// misses, no change above it can reach.
func BenchmarkFloor(b *testing.B) {
	s := newBenchService(b)
	f := floor{Answer: s.answer(b, "/v1/entitlements/voice"), Database: s.pool.Config().ConnString(), Accounts: map[string]account.ID{}}
	accounts := s.accounts(b)
	for i, a := range accounts {
		f.Accounts["Bearer "+s.tokens[i]] = a
	}
	on := func(f floor, run func(time.Duration) rate) func(time.Duration) rate {
		return func(span time.Duration) rate {
			address, end := startFloor(b, f)
			defer end()
			defer func(service string) { s.address = service }(s.address)
			s.address = address
			return run(span)
		}
	}
	entitlement := func(span time.Duration) rate { return s.reads(64, "/v1/entitlements/voice", span) }
	for _, w := range []work{
		{name: "floor of single events, 64 connections", unit: "events", base: "A", run: on(f, func(span time.Duration) rate { return s.ingest(64, 1, span) })},
		{name: "floor of reserve and commit, 64 connections", unit: "pairs", base: "A", run: on(f, func(span time.Duration) rate { return s.reservations(64, 64, span) })},
		{name: "floor of credits: the ledger transaction alone", unit: "credits", base: "A", run: on(f, func(span time.Duration) rate { return s.credits(64, accounts, span) })},
		{name: "floor of top-ups: provider and ledger alone", unit: "top-ups", base: "A", run: func(span time.Duration) rate {
			f.Provider = b.TempDir() // each provider has a journal of its own
			return on(f, func(span time.Duration) rate { return s.topUps(16, 16, span) })(span)
		}},
		{name: "floor of entitlement: the same answer", unit: "checks", base: "B", run: on(f, entitlement)},
		{name: "floor of entitlement: the same request", unit: "checks", base: "B", run: on(hello, entitlement)},
	} {
		s.measure(b, w)
	}
}

// answer asks the service for one.
func (s *benchService) answer(b *testing.B, path string) shown {
	b.Helper()
	req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+s.address+path, nil)
	req.Header.Set("Authorization", "Bearer "+s.tokens[0])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %d %s, %v", path, resp.StatusCode, body, err)
	}
	for _, of := range []string{"Content-Length", "Date"} { // net/http's own
		resp.Header.Del(of)
	}
	return shown{resp.Header, resp.Header.Get(echo.HeaderContentType), string(body)}
}
