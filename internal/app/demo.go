package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/demo"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/postgres"
)

// demoSeed makes every demo the same.
const demoSeed = 20260824

// withDemo has the demo's customers there before the service is ready, and then says how to look at them.
func (a *App) withDemo(stdout, stderr io.Writer) {
	a.prepare = append(a.prepare, func(ctx context.Context) error {
		customers, err := a.seedDemo(ctx, stderr)
		if err != nil {
			return err
		}
		return a.welcome(ctx, stdout, customers)
	})
}

func (a *App) seedDemo(ctx context.Context, stderr io.Writer) ([]demo.Customer, error) {
	var bar *progressbar.ProgressBar
	seeder := demo.Seeder{
		Core: a.svc.core, Journal: postgres.Journal(a.db.ByKey()), Meters: a.svc.meters, Seed: demoSeed,
		Progress: progress(stderr, "living the demo's weeks", &bar),
	}
	customers, err := seeder.Run(ctx, a.clock())
	if errors.Is(err, demo.ErrSeeded) {
		err = nil
	}
	return customers, err
}

// progress draws a bar for people, and says nothing to a file.
func progress(w io.Writer, what string, bar **progressbar.ProgressBar) func(done, total int) {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		told := false
		return func(_, total int) {
			if !told {
				told = true
				_, _ = fmt.Fprintf(w, "%s (%d days)…\n", what, total)
			}
		}
	}
	return func(done, total int) {
		if *bar == nil {
			*bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
				progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
		}
		_ = (*bar).Set(done)
	}
}

// customerScopes are what a user of a Billing page may do.
func customerScopes() []auth.Scope {
	return []auth.Scope{
		auth.BillingRead, auth.BillingWrite, auth.PaymentsWrite, auth.UsageRead, auth.UsageWrite, auth.KeysManage, auth.WebhooksManage,
	}
}

// token makes a development token for an account, or for an operator where it is empty.
func (a *App) token(ref string) (string, error) {
	g := auth.Grant{Subject: "demo", Account: ref, Scopes: customerScopes()}
	if ref == "" {
		g.Subject, g.Scopes = "operator", []auth.Scope{auth.Operator}
	}
	t, err := a.svc.signer.Sign(g, auth.DevelopmentLifetime)
	return t.Reveal(), err
}

// welcome writes the credentials into files, so that the commands that it prints are short and can be
// copied one by one.
func (a *App) welcome(ctx context.Context, w io.Writer, customers []demo.Customer) error {
	dir := filepath.Join(a.cfg.DataDir, "demo")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	type shown struct {
		demo.Customer
		Token, File string
	}
	var v struct {
		API, Sandbox, Database string
		Customers              []shown
		Operator, Key          shown
		SandboxKey             string
		EventID, Now           string
	}
	v.API, v.Sandbox = "http://"+reachable(a.Addr("api")), "http://"+reachable(a.Addr("sandbox"))
	v.Database = a.cfg.databasePlace()
	keep := func(name, text string) (string, error) {
		path := filepath.Join(dir, name)
		return path, os.WriteFile(path, []byte(text), 0o600)
	}
	for _, c := range customers {
		t, err := a.token(c.ExternalID)
		if err != nil {
			return err
		}
		file, err := keep(c.ExternalID+".token", t)
		if err != nil {
			return err
		}
		v.Customers = append(v.Customers, shown{c, t, file})
	}
	operator, err := a.token("")
	if err != nil {
		return err
	}
	if v.Operator.File, err = keep("operator.token", operator); err != nil {
		return err
	}
	pro := customers[1].Account
	_, key, err := a.svc.keys.Create(ctx, auth.Principal{Kind: auth.User, Account: pro, Scopes: customerScopes()}, auth.NewKey{
		Account: pro, Name: "demo of " + a.clock().Format(time.DateTime), Scopes: []auth.Scope{auth.UsageWrite, auth.UsageRead, auth.BillingRead},
		ExpiresAt: a.clock().Add(auth.DevelopmentLifetime), // each start makes one, and there may be so many
	})
	if err != nil {
		return err
	}
	v.Key.Token = key.Reveal()
	if v.Key.File, err = keep("demo-pro.key", v.Key.Token); err != nil {
		return err
	}
	if v.SandboxKey, err = keep("sandbox.key", a.secrets.derived("sandbox key").Reveal()); err != nil {
		return err
	}
	v.EventID, v.Now = "call-"+id.New[demoEvent]().String()[6:], a.clock().Add(-time.Minute).Format(time.RFC3339)
	return welcomeText.Execute(w, v)
}

type demoEvent struct{}

// IDPrefix is never shown.
func (demoEvent) IDPrefix() string { return "event" }

var welcomeText = template.Must(template.New("welcome").Parse(`
Accrue is running, with the sandbox payment provider and demo data.

  API                {{.API}}
  API documentation  {{.API}}/swagger/
  OpenAPI document   {{.API}}/openapi.json
  Sandbox provider   {{.Sandbox}}   (key in {{.SandboxKey}})
  Database           {{.Database}}
{{range .Customers}}
  {{printf "%-11s" .Level}} {{.Name}} ({{.ExternalID}}, {{.Account}})
    token, also in {{.File}}
    {{.Token}}
{{end}}
  API key of Northwind Support, also in {{.Key.File}}
    {{.Key.Token}}
  Operator's token in {{.Operator.File}}. Tokens and the key are good for a day.

Five commands to copy:

# 1. Lumen Labs opens Billing: until it upgrades, Developer, near its limit, "No payment history so far."
curl -s {{.API}}/v1/overview -H "Authorization: Bearer $(cat {{(index .Customers 0).File}})"

# 2. May it use voice now? What a media server asks before a call: allowed, with what remains.
curl -s {{.API}}/v1/entitlements/voice -H "Authorization: Bearer $(cat {{(index .Customers 0).File}})"

# 3. Northwind Support's integration reports a call: accepted once, a duplicate if you send it again.
curl -s {{.API}}/v1/usage/events -H "Authorization: Bearer $(cat {{.Key.File}})" -H "Content-Type: application/json" \
  -d '{"events":[{"id":"{{.EventID}}","meter":"voice","quantity":"63.5","timestamp":"{{.Now}}","dimensions":{"project":"helpdesk"}}]}'

# 4. Lumen Labs presses Upgrade Now with a test card: succeeded, and the plan is Pro.
curl -s {{.API}}/v1/upgrades -H "Authorization: Bearer $(cat {{(index .Customers 0).File}})" -H "Content-Type: application/json" \
  -H 'Idempotency-Key: "upgrade-1"' \
  -d '{"plan":"pro","payment_method":{"token":"pm_sandbox_visa"},"billing_profile":{"name":"Ada Lovelace","email":"ada@example.com","address":{"line1":"12 St James Square","city":"London","postal_code":"SW1Y 4JH","country":"GB"}}}'

# 5. Northwind Support looks at its bills: two closed months, paid from funds and by card.
curl -s {{.API}}/v1/invoices -H "Authorization: Bearer $(cat {{(index .Customers 1).File}})"

Press Ctrl-C to stop; the data stays in the data folder.
`))
