package payment_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestSecretShowsNowhere(t *testing.T) {
	t.Parallel()

	const secret = payment.Secret("canary")
	type holder struct{ Secret payment.Secret }
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", secret, "holder", holder{secret})
	asJSON, err := json.Marshal(holder{secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{
		fmt.Sprint(secret), fmt.Sprintf("%s %v %+v %#v %q %x %d", secret, secret, secret, secret, secret, secret, secret),
		fmt.Sprintf("%v %+v %#v", holder{secret}, holder{secret}, holder{secret}), string(asJSON), log.String(),
		fmt.Errorf("failed with %s", secret).Error(),
	} {
		if strings.Contains(shown, "canary") || strings.Contains(shown, "63616e617279") {
			t.Errorf("the secret shows in %s", shown)
		}
	}
	if secret.Reveal() != "canary" {
		t.Error("the secret is lost")
	}
}

func TestCardExpiresWithItsMonth(t *testing.T) {
	t.Parallel()

	card := payment.Card{ExpMonth: 12, ExpYear: 2026}
	last := time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.UTC)
	if card.Expired(last) {
		t.Error("expired in its last month")
	}
	if !card.Expired(last.Add(1)) {
		t.Error("good after its last month")
	}
}

func TestChargeIsKeptUntilAllOfItWasGivenBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		outcome  payment.Outcome
		refunded int64
		want     bool
	}{
		{payment.OutcomeSucceeded, 0, true},
		{payment.OutcomeSucceeded, 999, true},
		{payment.OutcomeSucceeded, 1000, false},
		{payment.OutcomeDeclined, 0, false},
		{payment.OutcomeProcessing, 0, false},
		{"", 0, false},
	} {
		r := payment.ChargeResult{Outcome: c.outcome, Amount: money.New(1000, money.USD), Refunded: money.New(c.refunded, money.USD)}
		if r.Kept() != c.want {
			t.Errorf("%s with %d given back: kept %v", c.outcome, c.refunded, r.Kept())
		}
	}
}

func TestChargeMustAgreeWithWhatWasAsked(t *testing.T) {
	t.Parallel()

	asked := payment.ChargeRequest{Amount: money.New(500, "USD"), CustomerRef: "cus_1", PaymentRef: "pay_1"}
	same := payment.ChargeResult{Amount: asked.Amount, CustomerRef: "cus_1", PaymentRef: "pay_1"}
	if err := same.Agrees(asked); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*payment.ChargeResult){
		"amount":   func(c *payment.ChargeResult) { c.Amount.Minor++ },
		"currency": func(c *payment.ChargeResult) { c.Amount.Currency = "EUR" },
		"customer": func(c *payment.ChargeResult) { c.CustomerRef = "cus_2" },
		"payment":  func(c *payment.ChargeResult) { c.PaymentRef = "pay_2" },
	} {
		other := same
		change(&other)
		if err := other.Agrees(asked); !errors.Is(err, payment.ErrMismatch) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestEveryDeclineHasAClassAndWords(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		code   string
		class  payment.DeclineClass
		advice payment.RetryAdvice
	}{
		{"insufficient_funds", payment.DeclineSoft, payment.RetryLater},
		{"processing_error", payment.DeclineSoft, payment.RetryLater},
		{"a_code_of_tomorrow", payment.DeclineSoft, payment.RetryLater},
		{"", payment.DeclineSoft, payment.RetryLater},
		{"card_not_supported", payment.DeclineHard, payment.RetryNewMethod},
		{"stop_payment_order", payment.DeclineBarred, payment.RetryNewMethod},
		{"invalid_account", payment.DeclineBarred, payment.RetryNewMethod},
		{"fraudulent", payment.DeclineFraud, payment.RetryNewMethod},
		{"stolen_card", payment.DeclineLost, payment.RetryNewMethod},
		{"expired_card", payment.DeclineExpired, payment.RetryNewMethod},
		{"incorrect_cvc", payment.DeclineData, payment.RetryNewMethod},
		{"authentication_required", payment.DeclineAuthentication, payment.RetryOnSession},
	} {
		d := payment.DeclineFor(c.code)
		if d.Class != c.class || d.Advice != c.advice || d.Code == "" || d.Message == "" {
			t.Errorf("%q: %+v", c.code, d)
		}
	}
	// Whoever holds a stolen card learns no more than whoever holds one that is merely closed.
	if a, b := payment.DeclineFor("stolen_card").Message, payment.DeclineFor("invalid_account").Message; a != b {
		t.Errorf("%q tells a thief more than %q", a, b)
	}
}

func TestSignatureIsCheckedOverTheRawBytes(t *testing.T) {
	t.Parallel()

	at := time.Unix(1_700_000_000, 0)
	body := []byte(`{"id":"evt_1"}`)
	good := payment.Sign("secret", body, at)
	// openssl dgst -sha256 -hmac secret says the same.
	if want := "t=1700000000,v1=af784f27423c462e20039559cd4264140f7b7ed4c9090e26fd663faa5eeb8dda"; good != want {
		t.Fatalf("signature %s", good)
	}
	_, sig, _ := strings.Cut(good, ",")
	many := strings.Repeat("v1=00,", 7)
	for name, c := range map[string]struct {
		header  string
		secrets []payment.Secret
		ok      bool
	}{
		"good":                         {good, []payment.Secret{"secret"}, true},
		"second secret":                {good, []payment.Secret{"new", "secret"}, true},
		"first secret":                 {good, []payment.Secret{"secret", "old"}, true},
		"first signature":              {good + ",v1=00", []payment.Secret{"secret"}, true},
		"second signature":             {"t=1700000000,v1=00," + sig, []payment.Secret{"secret"}, true},
		"spaces":                       {"t=1700000000, " + sig, []payment.Secret{"secret"}, true},
		"other schemes beside":         {"t=1700000000,v0=zz,v2=11," + sig, []payment.Secret{"secret"}, true},
		"signature before the time":    {sig + ",t=1700000000", []payment.Secret{"secret"}, true},
		"eighth signature":             {"t=1700000000," + many + sig, []payment.Secret{"secret"}, true},
		"ninth signature":              {"t=1700000000,v1=00," + many + sig, []payment.Secret{"secret"}, false},
		"no header":                    {"", []payment.Secret{"secret"}, false},
		"no time":                      {sig, []payment.Secret{"secret"}, false},
		"two times":                    {"t=1700000000," + good, []payment.Secret{"secret"}, false},
		"time written otherwise":       {"t=+1700000000," + sig, []payment.Secret{"secret"}, false},
		"no signature":                 {"t=1700000000", []payment.Secret{"secret"}, false},
		"empty signature":              {"t=1700000000,v1=", []payment.Secret{"secret"}, false},
		"other scheme alone":           {"t=1700000000,v0=" + strings.TrimPrefix(sig, "v1="), []payment.Secret{"secret"}, false},
		"no secret":                    {good, nil, false},
		"empty secret":                 {payment.Sign("", body, at), []payment.Secret{""}, false},
		"wrong secret":                 {good, []payment.Secret{"other"}, false},
		"signature of half the length": {good[:len(good)-32], []payment.Secret{"secret"}, false},
		"as old as it may be":          {payment.Sign("secret", body, at.Add(-payment.SignatureTolerance)), []payment.Secret{"secret"}, true},
		"too old":                      {payment.Sign("secret", body, at.Add(-payment.SignatureTolerance-time.Second)), []payment.Secret{"secret"}, false},
		"from too far ahead":           {payment.Sign("secret", body, at.Add(payment.SignatureTolerance+time.Second)), []payment.Secret{"secret"}, false},
		"not hexadecimal":              {"t=1700000000,v1=zz", []payment.Secret{"secret"}, false},
		"time that is no number":       {"t=now," + sig, []payment.Secret{"secret"}, false},
		"time beyond all numbers":      {"t=99999999999999999999," + sig, []payment.Secret{"secret"}, false},
	} {
		if err := payment.VerifySignature(c.header, body, c.secrets, at); (err == nil) != c.ok || (err != nil && !errors.Is(err, payment.ErrSignature)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSignatureHeaderIsNeverBelieved(f *testing.F) {
	at := time.Unix(1_700_000_000, 0)
	f.Add("t=1700000000,v1=00", []byte("{}"))
	f.Add(payment.Sign("other", []byte("{}"), at), []byte("{}"))
	f.Add("t=,v1=,t=", []byte(nil))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		if err := payment.VerifySignature(header, body, []payment.Secret{"secret"}, at); !errors.Is(err, payment.ErrSignature) {
			t.Fatalf("%q is believed for %q", header, body)
		}
	})
}

func TestClientBoundsWhatAProviderCanDo(t *testing.T) {
	t.Parallel()

	var reached atomic.Bool
	m := http.NewServeMux()
	m.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/target", http.StatusFound) })
	m.HandleFunc("/target", func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	m.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range 2 * payment.MaxAnswer >> 20 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	m.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	c := payment.NewHTTPClient(200 * time.Millisecond)
	t.Cleanup(c.CloseIdleConnections)
	get := func(path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Do(r)
	}

	res, err := get("/redirect")
	if err != nil || res.StatusCode != http.StatusFound || reached.Load() {
		t.Errorf("redirect: %v, %v, followed %t", res, err, reached.Load())
	} else {
		_ = res.Body.Close()
	}
	if err := payment.StatusError(http.StatusFound, nil, errors.New("x")); !errors.Is(err, payment.ErrRejected) {
		t.Errorf("redirect: %v", err)
	}
	res, err = get("/huge")
	if err != nil {
		t.Fatal(err)
	}
	huge := res.Body
	defer func() { _ = huge.Close() }()
	if n, err := io.Copy(io.Discard, huge); err == nil || n > payment.MaxAnswer {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if res, err = get("/slow"); err == nil {
		_ = res.Body.Close()
		t.Error("a slow answer is waited for")
	} else if !errors.Is(payment.TransportError(err), payment.ErrUnknown) {
		t.Errorf("slow: %v", err)
	}
}

func TestNoConnectionMeansThatNothingWasDone(t *testing.T) {
	t.Parallel()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := payment.NewHTTPClient(time.Second).Do(r)
	if err == nil {
		_ = res.Body.Close()
		t.Fatal("someone answers")
	}
	if !errors.Is(payment.TransportError(err), payment.ErrRetry) {
		t.Errorf("got %v", payment.TransportError(err))
	}
}

// TestBrokenConnectionIsNotRepeatedUnseen breaks a kept connection: net/http would send the request
// again by itself, because it has a body that can be had again and an Idempotency-Key.
func TestBrokenConnectionIsNotRepeatedUnseen(t *testing.T) {
	t.Parallel()

	var calls atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if calls.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(s.Close)
	c := payment.NewHTTPClient(time.Second)
	t.Cleanup(c.CloseIdleConnections)
	post := func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Idempotency-Key", "k")
		res, err := c.Do(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		return err
	}
	if err := post(); err != nil {
		t.Fatal(err)
	}
	if err := post(); !errors.Is(payment.TransportError(err), payment.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls were made", n)
	}
}

func TestRefundable_IsWhatNobodyHasTakenBack(t *testing.T) {
	t.Parallel()
	usd := func(minor int64) money.Amount { return money.New(minor, money.USD) }
	p := payment.Payment{Amount: usd(1000), Refunded: usd(200), Disputed: usd(300), Status: payment.Succeeded}
	if got := p.Refundable(); got != usd(500) {
		t.Errorf("%s, want 5.00 USD", got)
	}
	p.Status = payment.Processing
	if got := p.Refundable(); got != usd(0) {
		t.Errorf("%s of what was not taken", got)
	}
}

func TestLimits_BoundACharge(t *testing.T) {
	t.Parallel()
	l := payment.Limits{Minimum: money.New(500, "KWD"), Maximum: money.New(9000, "KWD"), Step: 10}
	for minor, want := range map[int64]bool{499: false, 500: true, 505: false, 510: true, 9000: true, 9010: false} {
		if err := l.Check(money.New(minor, "KWD")); (err == nil) != want || (err != nil && !errors.Is(err, payment.ErrAmount)) {
			t.Errorf("%d: %v", minor, err)
		}
	}
	if err := l.Check(money.New(500, money.USD)); !errors.Is(err, payment.ErrAmount) {
		t.Errorf("another currency: %v", err)
	}
}
