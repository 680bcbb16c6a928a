package sandbox_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/pkg/money"
)

// childDir names the environment variable that makes this test program a provider to be killed.
const childDir = "SANDBOX_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serveUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// serveUntilKilled runs a provider on its journal, tells its URL and waits for the end.
func serveUntilKilled(dir string) {
	server, err := sandbox.New(sandbox.Config{Mode: payment.ModeTest, Dir: dir, SecretKey: secretKey, Clock: clock.Fixed(now)})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(httptest.NewServer(server).URL)
	select {}
}

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

// card saves a card and returns the charge request for it that charge n uses.
func card(t *testing.T, g payment.Gateway, token, account string) func(n int) payment.ChargeRequest {
	t.Helper()
	a, err := g.Attach(t.Context(), payment.AttachRequest{Key: "attach-" + account, AccountRef: account, Token: token})
	must(t, err)
	if a.Outcome != payment.OutcomeSucceeded {
		t.Fatalf("attach: %+v", a)
	}
	return func(n int) payment.ChargeRequest {
		return payment.ChargeRequest{
			Key: fmt.Sprintf("charge-%s-%d", account, n), Amount: usd(int64(100 + n)), CustomerRef: a.CustomerRef, MethodRef: a.Method.Ref,
			AccountRef: account, PaymentRef: fmt.Sprintf("pay-%s-%d", account, n),
		}
	}
}

// TestNoChargeIsLostWhenTheProviderIsKilled kills a provider with SIGKILL while eight callers charge,
// and finds every charge that was answered in the journal, once.
func TestNoChargeIsLostWhenTheProviderIsKilled(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	g, err := sandbox.NewClient(sandbox.ClientConfig{Mode: payment.ModeTest, BaseURL: strings.TrimSpace(url), SecretKey: secretKey})
	must(t, err)
	t.Cleanup(g.Close)
	request := card(t, g, sandbox.TokenVisa, "acct_1")

	var mu sync.Mutex
	answered, asked := map[string]string{}, map[string]bool{}
	var wg sync.WaitGroup
	const enough = 200
	for caller := range 8 {
		wg.Go(func() {
			for n := caller; ; n += 8 {
				r := request(n)
				mu.Lock()
				asked[r.PaymentRef] = true
				mu.Unlock()
				c, err := g.Charge(t.Context(), r)
				mu.Lock()
				if err == nil {
					answered[r.PaymentRef] = c.Ref
				}
				if len(answered) == enough {
					_ = child.Process.Kill()
				}
				mu.Unlock()
				if err != nil {
					if !errors.Is(err, payment.ErrUnknown) && !errors.Is(err, payment.ErrRetry) {
						t.Errorf("a killed provider gives %v", err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	_ = child.Wait()
	if len(answered) < enough {
		t.Fatalf("%d charges were answered", len(answered))
	}

	p := start(t, func(c *sandbox.Config) { c.Dir = dir })
	seen := map[string]int{}
	for c, err := range p.gateway.ListCharges(t.Context(), now.Add(-time.Hour), now.Add(time.Hour)) {
		must(t, err)
		seen[c.PaymentRef]++
		if ref := answered[c.PaymentRef]; ref != "" && ref != c.Ref {
			t.Errorf("%s was answered as %s and is kept as %s", c.PaymentRef, ref, c.Ref)
		}
		if !asked[c.PaymentRef] {
			t.Errorf("%s was never asked for", c.PaymentRef)
		}
	}
	for ref := range answered {
		if seen[ref] != 1 {
			t.Errorf("%s was answered and is kept %d times", ref, seen[ref])
		}
	}
	// What was under way is resolved by asking again with the same key: once in all.
	for n := range enough / 2 {
		r := request(n)
		_, err := p.gateway.Charge(t.Context(), r)
		must(t, err)
		found, err := p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{PaymentRef: r.PaymentRef})
		must(t, err)
		if ref := answered[r.PaymentRef]; ref != "" && found.Ref != ref {
			t.Errorf("%s was charged again", r.PaymentRef)
		}
	}
}

func TestJournalSurvivesAnyCut(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	p := start(t, func(c *sandbox.Config) { c.Dir = dir })
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	for n := range 3 {
		_, err := p.gateway.Charge(t.Context(), request(n))
		must(t, err)
	}
	must(t, p.server.Close())
	whole, err := os.ReadFile(filepath.Join(dir, "sandbox.jsonl"))
	must(t, err)
	for cut := 0; cut <= len(whole); cut += 97 {
		part := t.TempDir()
		must(t, os.WriteFile(filepath.Join(part, "sandbox.jsonl"), whole[:cut], 0o600))
		server, err := sandbox.New(sandbox.Config{Mode: payment.ModeTest, Dir: part, SecretKey: secretKey, Clock: clock.Fixed(now)})
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, len(whole), err)
		}
		must(t, server.Close())
		// What it writes anew is a journal of whole lines.
		kept, err := os.ReadFile(filepath.Join(part, "sandbox.jsonl"))
		must(t, err)
		for i, line := range strings.Split(strings.TrimSuffix(string(kept), "\n"), "\n") {
			if len(kept) > 0 && !json.Valid([]byte(line)) {
				t.Fatalf("cut at %d: line %d is %q", cut, i, line)
			}
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "sandbox.jsonl"), append([]byte("{torn\n"), whole...), 0o600))
	if s, err := sandbox.New(sandbox.Config{Mode: payment.ModeTest, Dir: dir, SecretKey: secretKey, Clock: clock.Fixed(now)}); err == nil {
		_ = s.Close()
		t.Error("a journal that is broken in its middle is taken for whole")
	}
}

// Two processes on one folder would write two journals, of which one is lost.
func TestOneProcessPlaysTheProvider(t *testing.T) {
	t.Parallel()

	in := sandbox.Config{Mode: payment.ModeTest, Dir: t.TempDir(), SecretKey: secretKey, Clock: clock.Fixed(now)}
	first, err := sandbox.New(in)
	must(t, err)
	if second, err := sandbox.New(in); !errors.Is(err, sandbox.ErrInUse) {
		t.Errorf("a second one on the folder: %v, %v", second, err)
	}
	must(t, first.Close())
	second, err := sandbox.New(in)
	must(t, err)
	must(t, second.Close())
}

func TestEverythingIsThereAfterARestart(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	in := func(c *sandbox.Config) { c.Dir = dir }
	p := start(t, in)
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	first, err := p.gateway.Charge(t.Context(), request(1))
	must(t, err)
	refund := payment.RefundRequest{Key: "refund", ChargeRef: first.Ref, Amount: usd(40), RefundID: "rfnd_1"}
	refunded, err := p.gateway.Refund(t.Context(), refund)
	must(t, err)
	second, err := p.gateway.Charge(t.Context(), request(2))
	must(t, err)
	dispute, err := p.control.Dispute(t.Context(), second.Ref)
	must(t, err)
	must(t, p.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultDecline, Code: "do_not_honor"}))
	must(t, p.control.HoldWebhooks(t.Context(), true))
	before, err := p.control.Events(t.Context())
	must(t, err)
	must(t, p.server.Close())

	for range 2 { // the second time from a journal written anew
		p = start(t, in)
		again, err := p.gateway.Charge(t.Context(), request(2))
		if err != nil || again.Ref != second.Ref { // the key is known; the fault is spent on the repetition
			t.Fatalf("repeated: %+v, %v", again, err)
		}
		same, err := p.gateway.Refund(t.Context(), refund)
		if err != nil || same.Ref != refunded.Ref {
			t.Fatalf("repeated refund: %+v, %v", same, err)
		}
		c, err := p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: first.Ref})
		if err != nil || c.Refunded != usd(40) {
			t.Fatalf("charge: %+v, %v", c, err)
		}
		o, err := p.gateway.Fetch(t.Context(), payment.ObjectDispute, dispute)
		if err != nil || o.Dispute.ChargeRef != second.Ref {
			t.Fatalf("dispute: %+v, %v", o.Dispute, err)
		}
		after, err := p.control.Events(t.Context())
		must(t, err)
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("events were %v and are %v", before, after)
		}
		must(t, p.server.Close())
	}
}

func TestKeysAreForgottenAfterADayAndChargesNever(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	p := start(t, func(c *sandbox.Config) { c.Dir = dir })
	r := card(t, p.gateway, sandbox.TokenVisa, "acct_1")(1)
	first, err := p.gateway.Charge(t.Context(), r)
	must(t, err)
	must(t, p.server.Close())

	p = start(t, func(c *sandbox.Config) { c.Dir, c.Clock = dir, clock.Fixed(now.Add(payment.KeyRetention)) })
	again, err := p.gateway.Charge(t.Context(), r)
	if err != nil || again.Ref != first.Ref {
		t.Fatalf("within the retention: %s, %v", again.Ref, err)
	}
	must(t, p.server.Close())

	p = start(t, func(c *sandbox.Config) { c.Dir, c.Clock = dir, clock.Fixed(now.Add(25*time.Hour)) })
	found, err := p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{PaymentRef: r.PaymentRef})
	if err != nil || found.Ref != first.Ref {
		t.Fatalf("the charge is forgotten: %v", err)
	}
	second, err := p.gateway.Charge(t.Context(), r)
	if err != nil || second.Ref == first.Ref {
		t.Fatalf("the key is remembered: %s, %v", second.Ref, err)
	}
}

func TestLiveModeIsRefused(t *testing.T) {
	t.Parallel()

	for _, mode := range []payment.Mode{payment.ModeLive, ""} {
		if _, err := sandbox.New(sandbox.Config{Mode: mode, SecretKey: secretKey, Clock: clock.Fixed(now)}); !errors.Is(err, sandbox.ErrLiveMode) {
			t.Errorf("the provider in mode %q: %v", mode, err)
		}
		if _, err := sandbox.NewClient(sandbox.ClientConfig{Mode: mode, BaseURL: "http://127.0.0.1:1", SecretKey: secretKey}); !errors.Is(err, sandbox.ErrLiveMode) {
			t.Errorf("the gateway in mode %q: %v", mode, err)
		}
	}
}
