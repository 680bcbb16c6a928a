package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/embedded"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// unlimited opens an account that no limit stops, and returns a token for it.
func (d *deployment) unlimited(tb testing.TB, p *process, pool *pgxpool.Pool, name string) string {
	tb.Helper()
	token := d.token(tb, name)
	if _, err := p.get(tb.Context(), "/v1/usage", token); err != nil {
		tb.Fatal(err)
	}
	if _, err := pool.Exec(tb.Context(), "UPDATE entitlements SET limits = '{}', version = version + 1"); err != nil {
		tb.Fatal(err)
	}
	return token
}

// peak is the largest resident memory that the process has had, as the kernel writes it.
func (p *process) peak() string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return "unknown"
	}
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return "unknown"
}

// end ends the process as an operator does, so that a private database of its own ends with it.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.gone
}

// A load balancer goes on sending requests until its own check has failed: for the delay they are served, while the check
// fails. A second signal ends the wait, and the process with it.
func TestShutdown_ServesUntilLoadBalancersLookAway(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, binary(t, ""), "--database-url="+postgrestest.DSN(t), "--shutdown-delay=1h")
	p, err := d.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	token := d.token(t, "served-to-the-end")
	await := func(ready bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
			_, err := p.get(t.Context(), "/readyz", "")
			if ready == (err == nil) && (ready || strings.Contains(err.Error(), " 503 ")) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("ready: %v, want %v\n%s", err, ready, p.log)
			}
		}
	}
	await(true)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(false)
	for _, path := range []string{"/healthz", "/v1/usage"} {
		if _, err := p.get(t.Context(), path, token); err != nil {
			t.Errorf("while load balancers look away: %v", err)
		}
	}
	p.end()
}

// privateDSN is how to reach the private database that the deployment's process runs.
func (d *deployment) privateDSN(tb testing.TB) string {
	tb.Helper()
	dsn, err := embedded.Attach(filepath.Join(d.dir, "postgres"), "accrue")
	if err != nil {
		tb.Fatal(err)
	}
	return dsn
}

// get asks the service and returns the body of a 200.
func (p *process) get(ctx context.Context, path, token string) ([]byte, error) {
	return p.ask(ctx, http.MethodGet, path, token, nil)
}

func (p *process) ask(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.api+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return answer, err
}
