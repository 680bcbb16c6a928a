package v1_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

const clientSecret = "seti_x_secret_do_not_keep"

// scripted is a provider that has the customer act by its own script, for which it gives a secret.
type scripted struct{ payment.Gateway }

func script(a *payment.NextAction) *payment.NextAction {
	if a == nil {
		return nil
	}
	return &payment.NextAction{Type: payment.ActionProviderScript, ClientSecret: clientSecret}
}

func (g scripted) Attach(ctx context.Context, r payment.AttachRequest) (payment.AttachResult, error) {
	res, err := g.Gateway.Attach(ctx, r)
	res.NextAction = script(res.NextAction)
	return res, err
}

func (g scripted) ConfirmSetup(ctx context.Context, r payment.ConfirmSetupRequest) (payment.AttachResult, error) {
	res, err := g.Gateway.ConfirmSetup(ctx, r)
	res.NextAction = script(res.NextAction)
	return res, err
}

func (g scripted) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	res, err := g.Gateway.Charge(ctx, r)
	res.NextAction = script(res.NextAction)
	return res, err
}

func (g scripted) ConfirmCharge(ctx context.Context, r payment.ConfirmRequest) (payment.ChargeResult, error) {
	res, err := g.Gateway.ConfirmCharge(ctx, r)
	res.NextAction = script(res.NextAction)
	return res, err
}

// A client secret is in the first answer and in that of a confirmation, and nowhere else: not in the
// replay, not in a later read, not in the database.
func TestClientSecretIsSentOnceAndKeptNowhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, body string }{
		"Upgrade":       {"/v1/upgrades", upgradeBody(sandbox.Token3DSRequired)},
		"PaymentMethod": {"/v1/payment-methods", cardBody(sandbox.Token3DSRequired)},
		"TopUp":         {"/v1/top-ups", funds(5000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t)
			ada := w.user(t, a.ID)
			if name == "TopUp" {
				up := ada.post(t, "/v1/upgrades", upgradeBody(sandbox.Token3DSRequired)).want(t, http.StatusAccepted)
				w.act(t, a.ID, up.str(t, "payment_method"), true)
				ada.post(t, "/v1/upgrades/"+up.str(t, "id")+"/confirm", "").want(t, http.StatusOK)
			}
			w.Gateway = scripted{w.Gateway}

			first := ada.key("k").post(t, c.path, c.body).want(t, http.StatusAccepted)
			if got := first.str(t, "next_action", "client_secret"); got != clientSecret {
				t.Fatalf("client secret %q: %s", got, first.Body)
			}
			again := ada.key("k").post(t, c.path, c.body).want(t, http.StatusAccepted)
			if again.Header.Get("Idempotent-Replayed") != "true" || again.at(t, "next_action", "client_secret_omitted") != true {
				t.Errorf("the replay: %s", again.Body)
			}
			path := c.path + "/" + first.str(t, "id")
			for what, res := range map[string]response{"replay": again, "read": ada.get(t, path), "page": ada.get(t, "/v1/overview")} {
				if strings.Contains(string(res.want(t, res.Status).Body), clientSecret) {
					t.Errorf("the %s holds the secret: %s", what, res.Body)
				}
			}
			if got := ada.post(t, path+"/confirm", "").want(t, http.StatusOK).str(t, "next_action", "client_secret"); got != clientSecret {
				t.Errorf("a confirmation gives %q: the customer cannot carry on", got)
			}
			holdsNoSecret(t, w.dsn)
		})
	}
}

// holdsNoSecret searches every text of the database.
func holdsNoSecret(t *testing.T, dsn string) {
	t.Helper()
	pool := postgrestest.Connect(t, dsn)
	rows, err := pool.Query(t.Context(), `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if rows.Err() != nil || len(tables) < 20 {
		t.Fatalf("%d tables, %v: the search looks at nothing", len(tables), rows.Err())
	}
	for _, name := range tables {
		var n int
		// bytea shows as hex, so what is stored as bytes is searched for as hex.
		err := pool.QueryRow(t.Context(), `SELECT count(*) FROM "`+name+`" r WHERE r::text LIKE $1 OR r::text LIKE '%' || encode($2, 'hex') || '%'`,
			"%"+clientSecret+"%", []byte(clientSecret)).Scan(&n)
		if err != nil || n > 0 {
			t.Errorf("%s: %d rows hold the secret, %v", name, n, err)
		}
	}
}

// Support does for a customer what the customer could do.
func TestOperatorActsForAnAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.operator(t, a.ID).get(t, "/v1/overview").want(t, http.StatusOK)
	w.operator(t, a.ID).post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
	if level := w.user(t, a.ID).get(t, "/v1/account").str(t, "level"); level != "pro" {
		t.Errorf("level %s", level)
	}
	ada := w.user(t, a.ID)
	ada.with("Accrue-Account", w.open(t).ID.String()).get(t, "/v1/overview").problem(t, http.StatusForbidden, "account_not_allowed")
}
