package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
)

// World is what the story is told in: a running service whose clock can be moved.
type World struct {
	API   string                               // base address
	Clock *Clock                               // the service's
	Token func(account string) (string, error) // a user's token, as the identity provider would sign it
	Sweep func(ctx context.Context) error      // does what has become due
	// Act lets the customer approve a card at the provider's 3-D Secure page.
	Act   func(ctx context.Context, account, method string) error
	Check func(ctx context.Context, w io.Writer) error // proves the books
	Out   io.Writer
	// Account is the new customer's name in the operator's own system.
	Account string
}

// teller writes the story while it happens.
type teller struct {
	World
	client http.Client
	step   int
	calls  int
}

// Tell lives a customer's whole life over the API: free usage, the limit, Upgrade Now with a card that
// is declined and one that asks for 3-D Secure, paid usage, funds, the end of the month, the bill.
func Tell(ctx context.Context, w World) (err error) {
	defer errs.Wrap(&err, "tell the story")
	t := &teller{World: w, client: http.Client{Timeout: 30 * time.Second}}
	for _, part := range []func(context.Context) error{
		t.arrives, t.usesForFree, t.meetsTheLimit, t.isDeclined, t.upgrades, t.usesAndPays, t.monthEnds, t.looksAtTheBill, t.wantsTheCardGone,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	t.title("The books prove themselves")
	return w.Check(ctx, w.Out)
}

func (t *teller) title(text string) {
	t.step++
	_, _ = fmt.Fprintf(t.Out, "\n%s\n%d. %s   [%s]\n%s\n", strings.Repeat("─", 100), t.step, text,
		t.Clock.Now().Format("Mon 2 Jan 2006 15:04"), strings.Repeat("─", 100))
}

func (t *teller) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.Out, "\n"+format+"\n", args...)
}

// call sends a request as the customer and shows it and its answer. Any status may be wanted; another
// one ends the story.
func (t *teller) call(ctx context.Context, method, path, body string, want int) (answer, error) {
	token, err := t.Token(t.Account)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, t.API+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	_, _ = fmt.Fprintf(t.Out, "\n→ %s %s\n", method, path)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(t.Out, "  %s\n", body)
	}
	if method != http.MethodGet {
		t.calls++
		key := fmt.Sprintf("%q", fmt.Sprintf("story-%d", t.calls))
		req.Header.Set("Idempotency-Key", key)
		_, _ = fmt.Fprintf(t.Out, "  Idempotency-Key: %s\n", key)
	}
	if method == http.MethodDelete {
		req.Header.Set("If-Match", "*")
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(t.Out, "← %s\n", resp.Status)
	t.show(text)
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s answered %s, want %d: %s", method, path, resp.Status, want, text)
	}
	var a answer
	if len(text) > 0 {
		if err := json.Unmarshal(text, &a); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	return a, nil
}

// longest is how many lines of an answer are shown.
const longest = 46

func (t *teller) show(text []byte) {
	var b bytes.Buffer
	if json.Indent(&b, text, "  ", "  ") != nil {
		_, _ = fmt.Fprintf(t.Out, "  %s\n", text)
		return
	}
	lines := strings.Split(b.String(), "\n")
	for i, l := range lines {
		if i == longest {
			_, _ = fmt.Fprintf(t.Out, "  … %d lines more\n", len(lines)-i)
			return
		}
		if i == 0 {
			l = "  " + l
		}
		_, _ = fmt.Fprintln(t.Out, l)
	}
}

// answer is a decoded JSON object.
type answer map[string]any

// at returns the value at a path of member names.
func (a answer) at(path ...string) any {
	var v any = map[string]any(a)
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (a answer) text(path ...string) string {
	s, _ := a.at(path...).(string)
	return s
}

func (a answer) list(path ...string) []answer {
	items, _ := a.at(path...).([]any)
	out := make([]answer, 0, len(items))
	for _, i := range items {
		if m, ok := i.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// sum writes an amount {"amount": …, "currency": …} for people.
func (a answer) sum(path ...string) string {
	m := answer{"v": a.at(path...)}
	minor, _ := m.at("v", "amount").(float64) // shown, never counted with
	return fmt.Sprintf("%.2f %s", minor/100, m.text("v", "currency"))
}

const card = `{"plan":"pro","payment_method":{"token":%q},"billing_profile":{"name":"Ada Lovelace","email":"ada@example.com",` +
	`"address":{"line1":"12 St James Square","city":"London","postal_code":"SW1Y 4JH","country":"GB"}}}`

func (t *teller) arrives(ctx context.Context) error {
	t.title("A customer logs in and opens Billing for the first time")
	t.say("Nobody has created an account: the first valid token does, on the Developer plan, with no card.")
	_, err := t.call(ctx, http.MethodGet, "/v1/overview", "", http.StatusOK)
	return err
}

func (t *teller) report(ctx context.Context, id, meter, quantity string) (answer, error) {
	body := fmt.Sprintf(`{"events":[{"id":%q,"meter":%q,"quantity":%q,"timestamp":%q}]}`, id, meter, quantity, t.Clock.Now().Format(time.RFC3339))
	return t.call(ctx, http.MethodPost, "/v1/usage/events", body, http.StatusOK)
}

func (t *teller) usesForFree(ctx context.Context) error {
	t.Clock.Set(t.Clock.Now().Add(26 * time.Hour))
	t.title("Free usage")
	t.say("A media server reports a call. The answer comes after the commit, and the event counts once: sent again it is a duplicate.")
	if _, err := t.report(ctx, "call-1", "voice", "185.5"); err != nil {
		return err
	}
	if _, err := t.report(ctx, "call-1", "voice", "185.5"); err != nil {
		return err
	}
	if _, err := t.report(ctx, "msg-1", "text", "14"); err != nil {
		return err
	}
	_, err := t.call(ctx, http.MethodGet, "/v1/usage", "", http.StatusOK)
	return err
}

func (t *teller) meetsTheLimit(ctx context.Context) error {
	t.Clock.Set(t.Clock.Now().Add(5 * 24 * time.Hour))
	t.title("The Developer limit really stops")
	if _, err := t.report(ctx, "calls-of-the-week", "voice", "59800"); err != nil {
		return err
	}
	t.say("1,000 minutes are free, 14.5 seconds of them are left. A call of a minute does not fit and is refused whole:")
	if _, err := t.report(ctx, "call-too-much", "voice", "60"); err != nil {
		return err
	}
	_, err := t.call(ctx, http.MethodGet, "/v1/entitlements/voice", "", http.StatusOK)
	return err
}

func (t *teller) isDeclined(ctx context.Context) error {
	t.title("Upgrade Now, with a card that is declined")
	_, err := t.call(ctx, http.MethodPost, "/v1/upgrades", fmt.Sprintf(card, "pm_sandbox_declined"), http.StatusPaymentRequired)
	return err
}

func (t *teller) upgrades(ctx context.Context) error {
	t.title("Upgrade Now, with a card that asks for 3-D Secure")
	up, err := t.call(ctx, http.MethodPost, "/v1/upgrades", fmt.Sprintf(card, "pm_sandbox_3ds_setup"), http.StatusAccepted)
	if err != nil {
		return err
	}
	t.say("The customer approves at the bank's page, comes back, and the page asks how it went:")
	if err := t.Act(ctx, t.Account, up.text("payment_method")); err != nil {
		return err
	}
	if up, err = t.call(ctx, http.MethodPost, "/v1/upgrades/"+up.text("id")+"/confirm", "", http.StatusOK); err != nil {
		return err
	}
	if up.text("status") != "succeeded" {
		return fmt.Errorf("the upgrade is %q", up.text("status"))
	}
	t.say("Success is told only now that it is true. The call that did not fit is sent again, with the same id:")
	_, err = t.report(ctx, "call-too-much", "voice", "60")
	return err
}

func (t *teller) usesAndPays(ctx context.Context) error {
	t.Clock.Set(t.Clock.Now().Add(10 * 24 * time.Hour))
	t.title("Paid usage, and funds")
	if _, err := t.report(ctx, "calls-of-march", "voice", "2639954.5"); err != nil {
		return err
	}
	t.say("45,000 minutes in all: 1,000 free, 29,000 at 0.027 and 15,000 at 0.017. The balance knows it already:")
	if _, err := t.call(ctx, http.MethodGet, "/v1/balance", "", http.StatusOK); err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodPost, "/v1/top-ups", `{"amount":{"amount":50000,"currency":"USD"}}`, http.StatusCreated); err != nil {
		return err
	}
	_, err := t.call(ctx, http.MethodGet, "/v1/balance", "", http.StatusOK)
	return err
}

func (t *teller) monthEnds(ctx context.Context) error {
	t.Clock.Set(t.Clock.Now().Add(20 * 24 * time.Hour))
	t.title("The month ends")
	t.say("The period closes, its invoice becomes final after a grace for late events, funds pay what they can, the card pays the rest.")
	if err := t.Sweep(ctx); err != nil {
		return err
	}
	_, err := t.call(ctx, http.MethodGet, "/v1/payments", "", http.StatusOK)
	return err
}

func (t *teller) looksAtTheBill(ctx context.Context) error {
	t.title("The bill")
	list, err := t.call(ctx, http.MethodGet, "/v1/invoices", "", http.StatusOK)
	if err != nil {
		return err
	}
	all := list.list("data")
	if len(all) == 0 {
		return errors.New("there is no invoice")
	}
	inv, err := t.call(ctx, http.MethodGet, "/v1/invoices/"+all[0].text("id"), "", http.StatusOK)
	if err != nil {
		return err
	}
	t.say("    Invoice %s, %s", inv.text("number"), inv.text("status"))
	for _, l := range inv.list("content", "lines") {
		_, _ = fmt.Fprintf(t.Out, "    %-56s %14s %16s\n", l.text("description"), l.text("quantity"), l.sum("amount"))
	}
	_, _ = fmt.Fprintf(t.Out, "    %-56s %14s %16s\n", "Total", "", inv.sum("total"))
	t.say("And how the first line came about, recomputable:")
	_, err = t.call(ctx, http.MethodGet, "/v1/invoices/"+all[0].text("id")+"/lines/1/explanation", "", http.StatusOK)
	return err
}

func (t *teller) wantsTheCardGone(ctx context.Context) error {
	t.title("The customer wants the card removed")
	t.say("The active card is not removed by its owner; the answer says why, and the ways out.")
	cards, err := t.call(ctx, http.MethodGet, "/v1/payment-methods", "", http.StatusOK)
	if err != nil {
		return err
	}
	for _, c := range cards.list("data") {
		if d, _ := c.at("default").(bool); d {
			_, err = t.call(ctx, http.MethodDelete, "/v1/payment-methods/"+c.text("id"), "", http.StatusConflict)
			return err
		}
	}
	return errors.New("there is no default card")
}
