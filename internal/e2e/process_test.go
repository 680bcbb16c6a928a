// Package e2e_test looks at the service from outside: the real program, over real listeners, killed,
// restarted, cut off and raced; and the story of a customer from the first look to the paid invoice.
package e2e_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// full reports whether the long variants of the tests are asked for (make test-full).
func full() bool { return os.Getenv("ACCRUE_TEST_FULL") != "" }

// binaries holds the program by the tags that it was built with, each built once a run.
var binaries struct {
	sync.Mutex
	built map[string]func() (string, error)
}

// binary builds the program. Only the first caller of a set of tags waits for the compiler. Tests take it
// without its profile (cmd/accrue/default.pgo), by which everything would have to be compiled once more.
func binary(tb testing.TB, tags string) string {
	tb.Helper()
	binaries.Lock()
	if binaries.built == nil {
		binaries.built = map[string]func() (string, error){}
	}
	build, ok := binaries.built[tags]
	if !ok {
		build = sync.OnceValues(func() (string, error) {
			path := filepath.Join(programs, "accrue-"+strings.ReplaceAll(tags, ",", "-"))
			profile := "off"
			if _, ok := tb.(*testing.B); ok {
				profile = "auto"
			}
			out, err := exec.Command("go", "build", "-pgo", profile, "-ldflags", "-s -w", "-tags", tags, "-o", path, "github.com/accrue-billing/accrue/cmd/accrue").CombinedOutput()
			if err != nil {
				return "", fmt.Errorf("build with tags %q: %w\n%s", tags, err, out)
			}
			return path, nil
		})
		binaries.built[tags] = build
	}
	binaries.Unlock()
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// programs is the folder of the programs that this run has built.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if description := os.Getenv(floorVariable); description != "" {
		return serveFloor(description)
	}
	// The programs that the tests start must not find what a developer has set for the service.
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		ofTests := strings.HasPrefix(name, "ACCRUE_TEST_") || name == "ACCRUE_PG_BIN"
		if name == "DATABASE_URL" || strings.HasPrefix(name, "ACCRUE_") && !ofTests {
			_ = os.Unsetenv(name) // fails for no name that the environment has
		}
	}
	var err error
	if programs, err = os.MkdirTemp("", "accrue-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(programs) }()
	return m.Run()
}

// buffer is written by a process and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// deployment is one installation of the service: its data and what outlives its process.
type deployment struct {
	env     []string // of the process, beyond what every test gives it
	program string
	dir     string   // data folder: keys, and the provider's journal
	args    []string // of serve, beside addresses and folder
	points  string   // the failpoints' control file
	signer  *auth.Signer
}

// pepper is the deployment's secret, from which the test derives the sandbox's as the service does.
const pepper = "a pepper for tests, of 32 bytes or more"

func newDeployment(tb testing.TB, program string, args ...string) *deployment {
	tb.Helper()
	d := &deployment{program: program, dir: filepath.Join(tb.TempDir(), "data"), args: args}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	d.points = filepath.Join(d.dir, "failpoints")
	var err error
	if d.signer, err = auth.NewDevelopmentSigner(d.dir, "accrue", auth.Test, clock.System); err != nil {
		tb.Fatal(err)
	}
	return d
}

// token returns a token of a user of the account, or of an operator if there is none.
func (d *deployment) token(tb testing.TB, account string) string {
	tb.Helper()
	if account == "" {
		return d.operator(tb, "user-1")
	}
	return d.sign(tb, auth.Grant{Subject: "user-1", Account: account, Scopes: []auth.Scope{
		auth.BillingRead, auth.BillingWrite, auth.PaymentsWrite, auth.UsageRead, auth.UsageWrite, auth.KeysManage, auth.WebhooksManage,
	}})
}

// operator signs a token for someone who may act for every account.
func (d *deployment) operator(tb testing.TB, subject string) string {
	tb.Helper()
	return d.sign(tb, auth.Grant{Subject: subject, Scopes: []auth.Scope{auth.Operator}})
}

func (d *deployment) sign(tb testing.TB, g auth.Grant) string {
	tb.Helper()
	token, err := d.signer.Sign(g, auth.DevelopmentLifetime)
	if err != nil {
		tb.Fatal(err)
	}
	return token.Reveal()
}

// derived makes a secret as the service does.
func derived(use string) payment.Secret {
	mac := hmac.New(sha256.New, []byte(pepper))
	mac.Write([]byte(use))
	return payment.Secret(hex.EncodeToString(mac.Sum(nil)))
}

// arm says what happens at which failpoint; the empty line is nothing.
func (d *deployment) arm(line string) error {
	draft := d.points + ".new"
	if err := os.WriteFile(draft, []byte(line+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, d.points)
}

// process is the running service.
type process struct {
	api, sandbox string // base URLs
	cmd          *exec.Cmd
	log          *buffer
	gone         chan struct{}
	err          error // once gone is closed
}

// startWithin bounds how long the service may take until it listens; a busy machine is slow.
const startWithin = time.Minute

// begin runs the service, and does not wait for it.
func (d *deployment) begin() (*process, error) {
	return d.launch(append([]string{"GOMAXPROCS=2", "GOGC=400"}, d.env...), append([]string{"--addr=127.0.0.1:0", "--sandbox-addr=127.0.0.1:0"}, d.args...)...)
}

// start runs the service and returns when it listens.
func (d *deployment) start(ctx context.Context) (*process, error) {
	p, err := d.begin()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		p.api, p.sandbox = p.address("api"), p.address("sandbox")
		if p.api != "" && p.sandbox != "" {
			return p, nil
		}
		select {
		case <-p.gone:
			return nil, fmt.Errorf("the service ended at its start: %w\n%s", p.err, p.log)
		case <-ctx.Done():
			p.kill()
			return nil, fmt.Errorf("the service does not listen\n%s", p.log)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// launch runs the service with the deployment's folder, more of an environment and these options of serve,
// and does not wait for it.
func (d *deployment) launch(env []string, args ...string) (*process, error) {
	args = append([]string{"serve", "--data-dir=" + d.dir, "--rate-limit=1000000"}, args...)
	p := &process{cmd: exec.Command(d.program, args...), log: &buffer{}, gone: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), failpoint.Variable+"="+d.points, "ACCRUE_API_KEY_PEPPER="+pepper), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.err = p.cmd.Wait(); close(p.gone) }()
	return p, nil
}

// freeAddress returns an address that nobody listens on now.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (p *process) address(server string) string {
	_, after, ok := strings.Cut(p.log.String(), "msg=listening server="+server+" address=")
	addr, _, line := strings.Cut(after, "\n")
	if !ok || !line {
		return ""
	}
	return "http://" + addr
}

// kill ends the process as a power cut does, and returns when it is gone. A second kill does nothing, nor one of what
// has not begun.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// awaitReady returns when the process takes requests at p.api.
func (p *process) awaitReady(tb testing.TB) {
	tb.Helper()
	for {
		select {
		case <-p.gone:
			tb.Fatalf("the service ended: %v\n%s", p.err, p.log)
		case <-time.After(time.Millisecond):
		}
		if resp, err := http.Get(p.api + "/readyz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
}

// gateway returns a client of the provider, as the service has one.
func (p *process) gateway() (*sandbox.Client, error) {
	return sandbox.NewClient(sandbox.ClientConfig{
		Mode: payment.ModeTest, BaseURL: p.sandbox, SecretKey: derived("sandbox key"),
		WebhookSecrets: []payment.Secret{derived("sandbox webhooks")}, Timeout: 8 * time.Second,
	})
}
