package stripe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// TestEveryFailureHasOneMeaning is the table of failures.md 12: what is repeated with the same key,
// what is looked up, what is final and what is a fault of ours.
func TestEveryFailureHasOneMeaning(t *testing.T) {
	t.Parallel()

	api := func(status int, kind stripe.ErrorType, code stripe.ErrorCode) error {
		return &stripe.Error{HTTPStatusCode: status, Type: kind, Code: code}
	}
	const invalid, idempotency, apiError = stripe.ErrorTypeInvalidRequest, stripe.ErrorTypeIdempotency, stripe.ErrorTypeAPI
	below := func(err error) error { return &url.Error{Op: "Post", URL: "https://api.example.com", Err: err} }
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"nothing", nil, nil},
		{"rate limit", api(429, invalid, stripe.ErrorCodeRateLimit), payment.ErrRetry},
		{"rate limit without a code", api(429, invalid, ""), payment.ErrRetry},
		{"lock", api(429, invalid, stripe.ErrorCodeLockTimeout), payment.ErrRetry},
		{"key in use", api(409, idempotency, stripe.ErrorCodeIdempotencyKeyInUse), payment.ErrRetry},
		{"conflict", api(409, invalid, ""), payment.ErrRetry},
		{"key reused", api(400, idempotency, ""), payment.ErrUnknown},
		{"500", api(500, apiError, ""), payment.ErrUnknown},
		{"502", api(502, apiError, ""), payment.ErrUnknown},
		{"503", api(503, apiError, ""), payment.ErrUnknown},
		{"408", api(408, apiError, ""), payment.ErrUnknown},
		{"no status", api(0, apiError, ""), payment.ErrUnknown},
		{"success that is an error", api(200, apiError, ""), payment.ErrUnknown},
		{"redirect", api(302, invalid, ""), payment.ErrRejected},
		{"bad request", api(400, invalid, ""), payment.ErrRejected},
		{"bad key", api(401, invalid, ""), payment.ErrRejected},
		{"no right", api(403, invalid, ""), payment.ErrRejected},
		{"no such thing", api(404, invalid, stripe.ErrorCodeResourceMissing), payment.ErrMissing},
		{"no such thing in a parameter", api(400, invalid, stripe.ErrorCodeResourceMissing), payment.ErrMissing},
		{"too small", api(400, invalid, stripe.ErrorCodeAmountTooSmall), payment.ErrAmount},
		{"too large", api(400, invalid, stripe.ErrorCodeAmountTooLarge), payment.ErrAmount},
		{"refunded", api(400, invalid, stripe.ErrorCodeChargeAlreadyRefunded), payment.ErrRefundTooLarge},
		{"disputed", api(400, invalid, stripe.ErrorCodeChargeDisputed), payment.ErrRefundTooLarge},
		{"no connection", below(&net.OpError{Op: "dial", Err: errors.New("refused")}), payment.ErrRetry},
		{"no name", below(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}), payment.ErrRetry},
		{"reset", below(&net.OpError{Op: "read", Err: errors.New("reset")}), payment.ErrUnknown},
		{"time-out", below(context.DeadlineExceeded), payment.ErrUnknown},
		{"unreadable", errors.New("Couldn't deserialize JSON"), payment.ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			got := classify(c.err)
			if !errors.Is(got, c.want) || (c.want == nil) != (got == nil) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRetryAfterIsHeeded(t *testing.T) {
	t.Parallel()

	for given, want := range map[string]time.Duration{
		"7": 7 * time.Second, "": time.Second, "soon": time.Second, "-1": time.Second, "86400": 5 * time.Minute, "9300000000": 5 * time.Minute,
	} {
		e := &stripe.Error{HTTPStatusCode: 429, Type: stripe.ErrorTypeInvalidRequest}
		e.LastResponse = &stripe.APIResponse{Header: http.Header{"Retry-After": {given}}}
		got, ok := errors.AsType[*errs.Error](classify(e))
		if !ok || got.RetryAfter != want {
			t.Errorf("Retry-After %q: %v", given, got)
		}
	}
}

func TestAmountsCrossInStripesMinorUnits(t *testing.T) {
	t.Parallel()

	g := &Gateway{}
	for _, c := range []struct {
		minor    int64
		currency string
		theirs   int64
	}{
		{1234, "USD", 1234},
		{500, "JPY", 500},
		{500, "KRW", 500},
		{5, "ISK", 500},       // zero decimals, but Stripe writes two
		{5000, "UGX", 500000}, // likewise
		{45000, "HUF", 45000}, // special for payouts alone
		{80000, "TWD", 80000}, // likewise
		{500000, "MGA", 5000}, // two decimals, but Stripe writes none
		{5120, "KWD", 5120},   // three decimals, of which the last is 0
		{1230, "BHD", 1230},
		{100, "XOF", 100},
		{100, "CLP", 100},
		{100, "VND", 100},
	} {
		a := amountOf(t, c.minor, c.currency)
		n, err := toStripe(a)
		if err != nil || n != c.theirs {
			t.Errorf("%s: got %d, %v, want %d", a, n, err, c.theirs)
		}
		back, err := fromStripe(n, stripe.Currency(strings.ToLower(c.currency)))
		if err != nil || back != a {
			t.Errorf("%s came back as %s, %v", a, back, err)
		}
		l, err := g.Limits(a.Currency)
		if err != nil || l.Check(a) != nil {
			t.Errorf("%s is outside of the limits %+v, %v", a, l, err)
		}
		if n, err := toStripe(l.Maximum); err != nil || n > maxAmount {
			t.Errorf("the maximum %s is %d at Stripe, %v", l.Maximum, n, err)
		}
	}
	for _, bad := range []struct {
		minor    int64
		currency string
	}{{50, "MGA"}, {150, "MGA"}, {5124, "KWD"}, {29, "GBP"}, {49, "USD"}, {17499, "HUF"}, {1_000_000, "ISK"}} {
		a := amountOf(t, bad.minor, bad.currency)
		l, err := g.Limits(a.Currency)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Check(a); !errors.Is(err, payment.ErrAmount) {
			t.Errorf("%s is within %+v", a, l)
		}
	}
	for _, nonsense := range []struct {
		n int64
		c stripe.Currency
	}{{-1, "usd"}, {100, "xqq"}, {150, "isk"}, {1 << 62, "usd"}} {
		if a, err := fromStripe(nonsense.n, nonsense.c); !errors.Is(err, payment.ErrUnknown) {
			t.Errorf("%d %s is read as %s, %v", nonsense.n, nonsense.c, a, err)
		}
	}
}

func TestDisputeTellsWhoHasTheMoney(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		status    string
		movements []int64
		want      payment.DisputeStatus
		withdrawn bool
	}{
		{"warning_needs_response", nil, payment.DisputeOpen, false},
		{"warning_under_review", nil, payment.DisputeOpen, false},
		{"warning_closed", nil, payment.DisputeOpen, false},
		{"warning_closed", []int64{-1000, 1000}, payment.DisputeWon, false},
		{"needs_response", []int64{-1000}, payment.DisputeOpen, true},
		{"under_review", []int64{-1000}, payment.DisputeOpen, true},
		{"won", []int64{-1000, 1000}, payment.DisputeWon, false},
		{"lost", []int64{-1000}, payment.DisputeLost, true},
		{"prevented", nil, payment.DisputeOpen, false},
		{"prevented", []int64{-1000, 1000}, payment.DisputeWon, false},
	} {
		got, err := readDispute(disputeOf(c.status, c.movements))
		if err != nil || got.Status != c.want || got.Withdrawn != c.withdrawn {
			t.Errorf("%s %v: got %s, withdrawn %t, %v", c.status, c.movements, got.Status, got.Withdrawn, err)
		}
	}
}

func amountOf(t *testing.T, minor int64, code string) money.Amount {
	t.Helper()
	c, err := money.ParseCurrency(code)
	if err != nil {
		t.Fatal(err)
	}
	return money.New(minor, c)
}

func disputeOf(status string, movements []int64) *stripe.Dispute {
	d := &stripe.Dispute{ID: "dp_1", Amount: 1000, Currency: "usd", Status: stripe.DisputeStatus(status)}
	for _, n := range movements {
		d.BalanceTransactions = append(d.BalanceTransactions, &stripe.BalanceTransaction{Amount: n})
	}
	return d
}

func TestOnlyOurIdentifiersAreSearchedFor(t *testing.T) {
	t.Parallel()

	for ref, want := range map[string]bool{"pay_01k4": true, "a-B_9": true, "": false, "x' OR 'a": false, "a b": false, "é": false} {
		if plain(ref) != want {
			t.Errorf("%q: %t", ref, !want)
		}
	}
}
