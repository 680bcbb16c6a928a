package sandbox_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

const returnURL = "https://shop.example.com/billing?tab=cards"

// browser follows nothing by itself.
var browser = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func visit(t *testing.T, method, where, contentType, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, where, strings.NewReader(body))
	must(t, err)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	res, err := browser.Do(r)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	return res, string(text)
}

func newSetup(t *testing.T, p provider, key string) payment.Setup {
	t.Helper()
	su, err := p.gateway.CreateSetup(t.Context(), payment.SetupRequest{Key: key, AccountRef: "acct_1", ReturnURL: returnURL})
	must(t, err)
	return su
}

// enter sends what the card page's script sends for a token.
func enter(t *testing.T, page, token string) map[string]string {
	t.Helper()
	res, body := visit(t, http.MethodPost, page, "application/json", `{"token":"`+token+`"}`)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s", token, res.StatusCode, body)
	}
	var out map[string]string
	must(t, json.Unmarshal([]byte(body), &out))
	return out
}

func TestCardPageTurnsANumberIntoAToken(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	su := newSetup(t, p, "k")
	res, html := visit(t, http.MethodGet, su.URL, "", "")
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	for number, token := range map[string]string{
		"4242424242424242": sandbox.TokenVisa, "5555555555554444": sandbox.TokenMastercard, "378282246310005": sandbox.TokenAmex,
		"4000000000000002": sandbox.TokenDeclined, "4000000000009995": sandbox.TokenInsufficientFunds,
		"4000002500003155": sandbox.Token3DSSetup, "4000002760003184": sandbox.Token3DSRequired, "4000000000000069": sandbox.TokenExpired,
	} {
		if !strings.Contains(html, `["`+number+`", "`+token+`"]`) {
			t.Errorf("the page does not know %s", number)
		}
	}
	if sent := regexp.MustCompile(`<input[^>]* name=|<form[^>]* (action|method)=`).FindString(html); sent != "" {
		t.Errorf("the form could send what was typed into it: %s", sent)
	}
	if strings.Contains(html, su.ClientSecret.Reveal()) || strings.Contains(su.URL, su.ClientSecret.Reveal()) {
		t.Error("the client secret is on the page or in its address")
	}
	policy := res.Header.Get("Content-Security-Policy")
	nonce := regexp.MustCompile(`'nonce-([A-Za-z0-9]{20,})'`).FindStringSubmatch(policy)
	if nonce == nil || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Fatalf("policy %s", policy)
	}
	for _, tag := range regexp.MustCompile(`<(script|style)[^>]*>`).FindAllString(html, -1) {
		if !strings.Contains(tag, `nonce="`+nonce[1]+`"`) {
			t.Errorf("%s would not run under %s", tag, policy)
		}
	}
	if again, _ := visit(t, http.MethodGet, su.URL, "", ""); again.Header.Get("Content-Security-Policy") == policy {
		t.Error("the nonce is used twice")
	}
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestCardPageRefusesANumber(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	su := newSetup(t, p, "k")
	for _, c := range []struct{ contentType, body string }{
		{"application/json", `{"token":"4242424242424242"}`},
		{"application/json", `{"number":"4242424242424242"}`},
		{"application/json", `{"token":"pm_sandbox_visa","cvc":"123"}`},
		{"application/json", `4242424242424242`},
		{"application/x-www-form-urlencoded", `number=4242424242424242`},
		{"text/plain", `{"token":"pm_sandbox_visa"}`}, // what another site's form could send
	} {
		res, body := visit(t, http.MethodPost, su.URL, c.contentType, c.body)
		if res.StatusCode != http.StatusUnprocessableEntity || strings.Contains(body, "4242") {
			t.Errorf("%s: %d %s", c.body, res.StatusCode, body)
		}
	}
	if seen, err := p.gateway.LookupSetup(t.Context(), su.Ref); err != nil || seen.Outcome != payment.OutcomeProcessing {
		t.Errorf("the setup is %+v, %v", seen, err)
	}
}

func TestCustomerSavesACardInTheBrowser(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	su := newSetup(t, p, "k")
	if got := enter(t, su.URL, sandbox.TokenDeclined); got["decline"] != "generic_decline" || got["url"] != "" {
		t.Fatalf("declined: %v", got)
	}
	got := enter(t, su.URL, sandbox.Token3DSSetup) // another card, which the bank asks about
	res, html := visit(t, http.MethodGet, got["url"], "", "")
	if res.StatusCode != http.StatusOK || !strings.Contains(html, "Approve") {
		t.Fatalf("3-D Secure: %d %s", res.StatusCode, html)
	}
	if !strings.Contains(res.Header.Get("Content-Security-Policy"), "form-action 'self' https://shop.example.com;") {
		t.Errorf("a browser would stop the way back: %s", res.Header.Get("Content-Security-Policy"))
	}
	res, _ = visit(t, http.MethodPost, got["url"], "application/x-www-form-urlencoded", "decision=approve")
	back, err := url.Parse(res.Header.Get("Location"))
	must(t, err)
	if res.StatusCode != http.StatusSeeOther || back.Host != "shop.example.com" || back.Query().Get("tab") != "cards" ||
		back.Query().Get("setup") != su.Ref || back.Query().Get("outcome") != "succeeded" {
		t.Fatalf("back to %s", back)
	}
	a, err := p.gateway.Attach(t.Context(), payment.AttachRequest{Key: "a", AccountRef: "acct_1", CustomerRef: su.CustomerRef, Setup: su.Ref})
	if err != nil || a.Outcome != payment.OutcomeSucceeded || a.Method.Card.Last4 != "3155" {
		t.Fatalf("attach: %+v, %v", a, err)
	}
	for _, used := range []string{su.URL, got["url"]} {
		if res, html := visit(t, http.MethodGet, used, "", ""); res.StatusCode != http.StatusNotFound || !strings.Contains(html, "no longer open") {
			t.Errorf("%s is open still: %d", used, res.StatusCode)
		}
	}
	if res, _ := visit(t, http.MethodPost, got["url"], "application/x-www-form-urlencoded", "decision=reject"); res.StatusCode != http.StatusNotFound {
		t.Errorf("decided twice: %d", res.StatusCode)
	}
}

func TestCustomerConfirmsAPaymentInTheBrowser(t *testing.T) {
	t.Parallel()

	for decision, want := range map[string]payment.Outcome{"approve": payment.OutcomeSucceeded, "reject": payment.OutcomeDeclined} {
		p := start(t, nil)
		request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
		must(t, p.control.Behave(t.Context(), request(0).MethodRef, sandbox.Token3DSRequired))
		r := request(1)
		r.ReturnURL = returnURL
		c, err := p.gateway.Charge(t.Context(), r)
		must(t, err)
		_, html := visit(t, http.MethodGet, c.NextAction.URL, "", "")
		if !strings.Contains(html, "1.01 USD") {
			t.Errorf("the page does not name the amount: %s", html)
		}
		for _, bad := range []string{"", "decision=", "decision=maybe", "decision=%zz"} {
			if res, _ := visit(t, http.MethodPost, c.NextAction.URL, "application/x-www-form-urlencoded", bad); res.StatusCode != http.StatusBadRequest {
				t.Errorf("%q: %d", bad, res.StatusCode)
			}
		}
		res, _ := visit(t, http.MethodPost, c.NextAction.URL, "application/x-www-form-urlencoded", "decision="+decision)
		if res.StatusCode != http.StatusSeeOther || !strings.Contains(res.Header.Get("Location"), "charge="+c.Ref) {
			t.Errorf("back to %s", res.Header.Get("Location"))
		}
		c, err = p.gateway.ConfirmCharge(t.Context(), payment.ConfirmRequest{Key: "c", Ref: c.Ref})
		if err != nil || c.Outcome != want {
			t.Errorf("%s: %+v, %v", decision, c, err)
		}
	}
}

// Who integrates is told the page's address and no id of the provider's.
func TestWhatWaitsIsNamedByItsPage(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	must(t, p.control.Behave(t.Context(), request(0).MethodRef, sandbox.Token3DSRequired))
	c, err := p.gateway.Charge(t.Context(), request(1))
	must(t, err)
	ticket := path.Base(c.NextAction.URL)
	must(t, p.control.Act(t.Context(), ticket, true))
	if c, err = p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref}); err != nil || c.Outcome != payment.OutcomeSucceeded {
		t.Errorf("%+v, %v", c, err)
	}
	if err := p.control.Act(t.Context(), ticket, false); err == nil {
		t.Error("decided twice")
	}
}

func TestCanceledChargeCannotBeConfirmed(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	must(t, p.control.Behave(t.Context(), request(0).MethodRef, sandbox.Token3DSRequired))
	c, err := p.gateway.Charge(t.Context(), request(1))
	must(t, err)
	page := c.NextAction.URL
	_, err = p.gateway.CancelCharge(t.Context(), payment.CancelRequest{Key: "x", Ref: c.Ref})
	must(t, err)
	if res, _ := visit(t, http.MethodPost, page, "application/x-www-form-urlencoded", "decision=approve"); res.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", res.StatusCode)
	}
	if c, err = p.gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref}); err != nil || c.Outcome != payment.OutcomeCanceled {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestPagesOpenToTheirTicketsOnly(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	su := newSetup(t, p, "k")
	card := strings.TrimPrefix(su.URL, p.url)
	for _, path := range []string{"/card/" + su.Ref, "/card/x", "/card/", "/3ds/" + su.Ref, "/3ds/x", strings.Replace(card, "/card/", "/3ds/", 1)} {
		if res, _ := visit(t, http.MethodGet, p.url+path, "", ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}
