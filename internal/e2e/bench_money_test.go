package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
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
	// One account has one top-up under way at a time and refuses others meanwhile (409), so that there is no
	// rate of one account to compare with.
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

// topUps adds funds by card, each connection in turn for one of so many accounts.
func (s *benchService) topUps(connections, accounts int, span time.Duration) rate {
	const body = `{"amount":{"amount":1000,"currency":"USD"}}`
	return load(s.address, connections, span, func(conn, _ int) ([]byte, int) {
		return fmt.Appendf(nil, "POST /v1/top-ups HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nIdempotency-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			s.tokens[conn%accounts], uuid.NewString(), len(body), body), 1
	})
}
