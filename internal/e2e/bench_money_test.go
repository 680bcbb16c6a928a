package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
)

// BenchmarkMoney measures money operations of the whole service against its sandbox provider, as
// BenchmarkIngest measures usage: every one of them is an intent, a call to the provider and a
// settlement with its postings, and shares the machine with the provider and the load.
func BenchmarkMoney(b *testing.B) {
	s := newBenchService(b)
	const clients = 16
	for _, token := range s.tokens[:clients] {
		s.upgrade(b, token)
	}
	// An operator's credit is a ledger transfer with nothing but its grant, its audit entry and its event.
	accounts := s.accounts(b)
	s.measure(b, work{"credits, 64 connections", "transfers", "A", 0.5, 0.75, 20 * time.Millisecond, func(d time.Duration) rate {
		r := s.credits(64, accounts, d)
		s.spread.Store(r.perSecond)
		return r
	}})
	s.measure(b, work{"credits to one account, 64 connections", "transfers", "spread", 0.9, 1, 0, func(d time.Duration) rate {
		return s.credits(64, accounts[:1], d)
	}})
	// Last, since what follows top-ups (the provider's webhooks among it) goes on for a while behind them. Those of
	// one account queue, so that there is no rate of one account to compare with.
	s.measure(b, work{"top-ups, 16 clients", "top-ups", "A", 0.18, 0.28, 0, func(d time.Duration) rate { return s.topUps(clients, clients, d) }})
	fmt.Printf("%-46s %s (<= 96 MiB)\n", "resident memory of the service at its peak", s.memory())
}

// upgrade puts an account on Pro with a card that pays.
func (s *benchService) upgrade(b *testing.B, token string) {
	b.Helper()
	body := `{"plan":"pro","payment_method":{"token":"pm_sandbox_visa"},"billing_profile":{"name":"Ada Lovelace","email":"ada@example.com",` +
		`"address":{"line1":"12 St James's Square","city":"London","postal_code":"SW1Y 4JH","country":"GB"}}}`
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+s.address+"/v1/upgrades", bytes.NewBufferString(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Idempotency-Key", uuid.NewString())
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
		b.Fatalf("upgrade: %d %s", resp.StatusCode, answer)
	}
}

// accounts returns the accounts' identifiers.
func (s *benchService) accounts(b *testing.B) (list []account.ID) {
	b.Helper()
	rows, err := s.pool.Query(b.Context(), "SELECT id FROM accounts ORDER BY id")
	if err != nil {
		b.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		b.Fatal(err)
	}
	for _, u := range ids {
		list = append(list, id.FromUUID[account.Account](u))
	}
	return list
}

// credits gives promotional credit to the accounts in turn.
func (s *benchService) credits(connections int, accounts []account.ID, span time.Duration) rate {
	return s.keyed(connections, span, func(conn int, key string) template {
		return s.post("/v1/admin/credits", s.staff[conn], "Accrue-Account: "+accounts[conn%len(accounts)].String()+"\r\n"+key,
			`{"amount":{"amount":100,"currency":"USD"},"reason":"benchmark"}`)
	})
}

// topUps adds funds by card, each connection in turn for one of so many accounts.
func (s *benchService) topUps(connections, accounts int, span time.Duration) rate {
	return s.keyed(connections, span, func(conn int, key string) template {
		return s.post("/v1/top-ups", s.tokens[conn%accounts], key, `{"amount":{"amount":1000,"currency":"USD"}}`)
	})
}

// keyed sends the same request on each connection again and again, each time with another idempotency key.
func (s *benchService) keyed(connections int, span time.Duration, request func(conn int, key string) template) rate {
	requests := make([]template, connections)
	for conn := range requests {
		requests[conn] = request(conn, "Idempotency-Key: "+number+uuid.NewString()+"\r\n")
	}
	return load(s.address, connections, span, func(conn, _ int) ([]byte, int) {
		return requests[conn].with(rand.Uint64()), 1
	})
}
