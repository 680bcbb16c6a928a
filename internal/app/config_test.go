package app

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func environmentOf(pairs ...string) Environment {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func load(t *testing.T, args []string, env Environment) (Config, error) {
	t.Helper()
	var tree commands
	_, err := parse(&tree, append(args, "version"), env, io.Discard, io.Discard)
	return tree.Options, err
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfig_FlagsOutrankTheEnvironmentAndThatTheFile(t *testing.T) {
	t.Parallel()
	file := write(t, "addr: file:1\nadmin-addr: file:2\npublic-url: http://file\ncors-origin: [https://a.example, https://b.example]\nprovider-timeout: 7s\nauto-create-accounts: false\n")
	cfg, err := load(t, []string{"--config", file, "--addr", "flag:1"}, environmentOf("ACCRUE_ADDR", "env:1", "ACCRUE_ADMIN_ADDR", "env:2"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Addr != "flag:1" || cfg.AdminAddr != "env:2" || cfg.PublicURL != "http://file" {
		t.Errorf("addr %s, admin-addr %s, public-url %s", cfg.Addr, cfg.AdminAddr, cfg.PublicURL)
	}
	if len(cfg.CORSOrigin) != 2 || cfg.ProviderTimeout != 7*time.Second || cfg.AutoCreateAccounts || cfg.DatabaseConns != 16 {
		t.Errorf("read %+v", cfg)
	}
}

func TestConfig_SecretsMayComeFromFiles(t *testing.T) {
	t.Parallel()
	cfg, err := load(t, nil, environmentOf("ACCRUE_API_KEY_PEPPER_FILE", write(t, "0123456789abcdef0123456789abcdef\n")))
	if err != nil || cfg.APIKeyPepper.Reveal() != "0123456789abcdef0123456789abcdef" {
		t.Fatalf("%q, %v", cfg.APIKeyPepper.Reveal(), err)
	}
}

func TestConfig_DatabaseURLIsAlsoReadFromItsUsualVariable(t *testing.T) {
	t.Parallel()
	const ours, usual = "postgres://ours", "postgres://usual"
	file := write(t, ours)
	for name, c := range map[string]struct {
		env  Environment
		want string
	}{
		"Alone":              {environmentOf("DATABASE_URL", usual), usual},
		"OursOutranksIt":     {environmentOf("DATABASE_URL", usual, "ACCRUE_DATABASE_URL", ours), ours},
		"OurFileOutranksIt":  {environmentOf("DATABASE_URL", usual, "ACCRUE_DATABASE_URL_FILE", file), ours},
		"EmptyOursIsPrivate": {environmentOf("DATABASE_URL", usual, "ACCRUE_DATABASE_URL", ""), ""},
		"Neither":            {environmentOf(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, nil, c.env)
			if err != nil || cfg.DatabaseURL.Reveal() != c.want {
				t.Errorf("%q, %v, want %q", cfg.DatabaseURL.Reveal(), err, c.want)
			}
		})
	}
}

// The customer's browser must not end at the API, where there is nothing for it to see.
func TestConfig_WhereABrowserComesBackTo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"TheProvidersOwnPage":     {nil, ""},
		"WhereStripeWantsAnyPage": {[]string{"--provider=stripe", "--public-url=https://billing.example"}, "https://billing.example"},
		"AsConfigured":            {[]string{"--public-url=https://api.example", "--return-url=https://app.example/billing?tab=cards"}, "https://app.example/billing?tab=cards"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, c.args, environmentOf())
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.withDefaults(environmentOf("HOME", "/home/x")).policy().ReturnURL; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestConfig_Issuers(t *testing.T) {
	t.Parallel()
	const one = "issuer=https://a.example/,audience=billing,jwks=https://a.example/keys"
	cfg, err := load(t, nil, environmentOf("ACCRUE_JWT_ISSUER", one+";issuer=b,audience=c,keys=/f,type=at+jwt,scopes=billing:read billing:write"))
	if err != nil || len(cfg.JWTIssuer) != 2 {
		t.Fatalf("%+v, %v", cfg.JWTIssuer, err)
	}
	if cfg.JWTIssuer[0].String() != one || cfg.JWTIssuer[1].Type != "at+jwt" || len(cfg.JWTIssuer[1].Scopes) != 2 {
		t.Errorf("read %+v", cfg.JWTIssuer)
	}
}

func TestConfig_WhatCannotBeReadNamesTheOption(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		env  []string
		want string
	}{
		"UnknownFlag":      {[]string{"--adr=x"}, nil, "--adr"},
		"UnknownLine":      {[]string{"--config", write(t, "adr: x\n")}, nil, "adr: no such option"},
		"NotYAML":          {[]string{"--config", write(t, "a: [\nstripe-secret-key: canary\n")}, nil, "config:"},
		"NoFile":           {[]string{"--config", "/nowhere"}, nil, "config:"},
		"BadEnum":          {[]string{"--mode=real"}, nil, "--mode"},
		"BadDuration":      {nil, []string{"ACCRUE_DRAIN_TIMEOUT", "soon"}, "drain-timeout"},
		"BadNumber":        {[]string{"--database-conns=many"}, nil, "database-conns"},
		"BadIssuer":        {[]string{"--jwt-issuer=issuer=a"}, nil, "jwt-issuer"},
		"BadScope":         {[]string{"--jwt-issuer=issuer=a,audience=b,keys=/f,scopes=billing:read biling:write"}, nil, `unknown scope "biling:write"`},
		"SecretNotShown":   {[]string{"--stripe-secret-key", "canary", "--mode=canary"}, nil, "--mode"},
		"UnreadableSecret": {nil, []string{"ACCRUE_STRIPE_SECRET_KEY_FILE", "/nowhere"}, "stripe-secret-key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, c.args, environmentOf(c.env...))
			if _, ok := errors.AsType[*UsageError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q in: %v", c.want, err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Fatalf("a secret is shown: %v", err)
			}
		})
	}
}

// live is a configuration of a live deployment that nothing is wrong with.
func live() []string {
	return []string{
		"--mode=live", "--env=production", "--provider=stripe", "--stripe-secret-key=sk_live_1", "--stripe-publishable-key=pk_live_1",
		"--stripe-webhook-secret=whsec_1", "--api-key-pepper=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c",
		"--jwt-issuer=issuer=https://a.example/,audience=billing,jwks=https://a.example/keys", "--public-url=https://billing.acme.example",
		"--database-url=postgres://accrue@db.example/accrue",
	}
}

// without is live() but for an option.
func without(option string) []string {
	return slices.DeleteFunc(live(), func(o string) bool { return strings.HasPrefix(o, option+"=") })
}

func TestCheck(t *testing.T) {
	t.Parallel()
	test := []string{}
	for name, c := range map[string]struct {
		base []string
		more []string
		want string // "" where nothing is wrong
	}{
		"TheDefaults":                  {test, nil, ""},
		"ALiveDeployment":              {live(), nil, ""},
		"SandboxInLive":                {live(), []string{"--provider=sandbox"}, "provider: sandbox is refused"},
		"TestModeInProduction":         {test, []string{"--env=production"}, "mode:"},
		"TestKeyInLive":                {live(), []string{"--stripe-secret-key=sk_test_1"}, "stripe-secret-key: is not a key of live mode"},
		"LiveKeyInTest":                {test, []string{"--provider=stripe", "--stripe-secret-key=sk_live_1"}, "stripe-secret-key: is not a key of test mode"},
		"RestrictedKey":                {live(), []string{"--stripe-secret-key=rk_live_1"}, ""},
		"StripeWithoutKeys":            {test, []string{"--provider=stripe"}, "stripe-webhook-secret: is required"},
		"KeysWithoutStripe":            {test, []string{"--stripe-secret-key=sk_test_1"}, "stripe-secret-key: is given, but provider is sandbox"},
		"OtherStripeInLive":            {live(), []string{"--stripe-api-url=http://127.0.0.1:9"}, "stripe-api-url"},
		"WildcardCORS":                 {test, []string{"--cors-origin=*"}, "cors-origin: \"*\": a wildcard"},
		"WildcardSubdomain":            {test, []string{"--cors-origin=https://*.example"}, "cors-origin"},
		"CORSWithPath":                 {test, []string{"--cors-origin=https://a.example/x"}, "cors-origin"},
		"PlainCORSInLive":              {live(), []string{"--cors-origin=http://a.example"}, "cors-origin"},
		"PepperFromTheDocumentation":   {live(), []string{"--api-key-pepper=change-me-change-me-change-me-change-me"}, "api-key-pepper: looks like a default"},
		"PepperOfOneLetter":            {live(), []string{"--api-key-pepper=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "api-key-pepper: looks like a default"},
		"ShortLeaseKey":                {test, []string{"--lease-key=short"}, "lease-key: one is shorter"},
		"LeaseKeyOfOneLetter":          {live(), []string{"--lease-key=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "lease-key: one looks like a default"},
		"ShortPepper":                  {test, []string{"--api-key-pepper=short"}, "api-key-pepper: is shorter"},
		"PrivateDatabaseInLive":        {without("--database-url"), nil, "database-url: is required"},
		"NoPepperInLive":               {live(), []string{"--api-key-pepper="}, "api-key-pepper: is required"},
		"NoIssuerInLive":               {without("--jwt-issuer"), nil, "jwt-issuer: is required"},
		"PlainKeySetInLive":            {live(), []string{"--jwt-issuer=issuer=b,audience=c,jwks=http://b.example"}, "jwt-issuer: the key set of b"},
		"NoPublicURLInLive":            {without("--public-url"), nil, "public-url: is required"},
		"PlainPublicURLInLive":         {live(), []string{"--public-url=http://x.example"}, "public-url: must be https"},
		"ReturnURLWithoutHost":         {test, []string{"--return-url=/billing"}, "return-url"},
		"PlainReturnURLInLive":         {live(), []string{"--return-url=http://x.example"}, "return-url: must be https"},
		"PublicURLWithSlash":           {test, []string{"--public-url=http://x.example/"}, "public-url"},
		"EveryNetworkTrusted":          {test, []string{"--trusted-proxy=0.0.0.0/0"}, "trusted-proxy"},
		"DebugInProduction":            {live(), []string{"--log-level=debug"}, "log-level"},
		"AddressTakenTwice":            {test, []string{"--admin-addr=127.0.0.1:8080"}, "admin-addr: is the same as addr"},
		"AddressWithoutPort":           {test, []string{"--addr=localhost"}, "addr: \"localhost\" is not host:port"},
		"TwoFreePorts":                 {test, []string{"--addr=127.0.0.1:0", "--sandbox-addr=127.0.0.1:0"}, ""},
		"DatabaseURLOfAnotherKind":     {test, []string{"--database-url=mysql://canary@x/y"}, "database-url"},
		"ProgramsForAnothersDatabase":  {test, []string{"--database-url=postgres://x/y", "--pg-bin=/usr"}, "pg-bin"},
		"NoStreams":                    {test, []string{"--stream-limit=0"}, "stream-limit: 0 is not between 1 and"},
		"TooManyCommitters":            {test, []string{"--ingest-committers=65"}, "ingest-committers"},
		"QueueSmallerThanABatch":       {test, []string{"--ingest-queue=10"}, "ingest-queue"},
		"RetentionShorterThanLateness": {test, []string{"--usage-retention=1h"}, "usage-retention"},
		"WebhooksThatMayComeAgain":     {test, []string{"--webhook-retention=719h"}, "webhook-retention"},
		"ShutdownBeforeItsTime":        {test, []string{"--shutdown-delay=-1s"}, "shutdown-delay"},
		"ProviderThatIsNotWaitedFor":   {test, []string{"--provider-timeout=21s"}, "provider-timeout: 21s is longer than 20s"},
		"NoTimeToDrain":                {test, []string{"--drain-timeout=0s"}, "drain-timeout"},
		"NoCatalogue":                  {test, []string{"--catalogue=/nowhere"}, "catalogue"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, append(append([]string{}, c.base...), c.more...), environmentOf("HOME", "/home/x"))
			if err != nil {
				t.Fatal(err)
			}
			err = cfg.withDefaults(environmentOf("HOME", "/home/x")).Check()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if _, ok := errors.AsType[*UsageError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q in: %v", c.want, err)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Fatalf("a value is shown that may be secret: %v", err)
			}
		})
	}
}

func TestSecrets_AreMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	cfg, err := load(t, []string{"--data-dir", t.TempDir()}, environmentOf())
	if err != nil {
		t.Fatal(err)
	}
	first, err := cfg.secrets()
	if err != nil {
		t.Fatal(err)
	}
	again, err := cfg.secrets()
	if err != nil || again != first || len(first.Pepper) < minSecret || first.CursorKey == first.Pepper {
		t.Fatalf("first %d bytes, the same again: %v, %v", len(first.Pepper), again == first, err)
	}
	path := filepath.Join(cfg.DataDir, "api-key-pepper")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", fi.Mode(), err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.secrets(); err == nil {
		t.Fatal("an empty pepper was taken")
	}
	cfg.Mode = "live"
	if _, err := cfg.secrets(); err == nil {
		t.Fatal("a pepper was made up in live mode")
	}
}

// An option that nothing reads is a promise that is not kept: whoever sets it relies on it.
func TestConfig_EveryOptionHasAnEffect(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, f := range files {
		if f == "validate.go" || strings.HasSuffix(f, "_test.go") { // to check an option is no use of it
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Name == "Env" { // what it does is to refuse others
			continue
		}
		if !regexp.MustCompile(`\.` + f.Name + `\b`).MatchString(code.String()) {
			t.Errorf("%s has no effect", f.Name)
		}
	}
}

func TestEnvironment_NamesWhatHasNoEffect(t *testing.T) {
	t.Parallel()
	got := WithoutEffect([]string{
		"PATH=/bin", "ACCRUE_ADDR=:8080", "ACCRUE_CONFIG=x", "ACCRUE_DATABSE_URL=postgres://x", "ACCRUE_API_KEY_PEPPER_FILE=/x", "ACCRUE_ADDR_FILE=/x",
		"ACCRUE_TRUSTED_PROXIES=10.0.0.0/8", "ACCRUE_TEST_FULL=1", "ACCRUE_STRIPE_MOCK=/x",
		// of Services named accrue and accrue-admin
		"ACCRUE_SERVICE_HOST=10.0.0.1", "ACCRUE_SERVICE_PORT=8080", "ACCRUE_SERVICE_PORT_HTTP=8080", "ACCRUE_PORT=tcp://10.0.0.1:8080",
		"ACCRUE_PORT_8080_TCP=tcp://10.0.0.1:8080", "ACCRUE_PORT_8080_TCP_ADDR=10.0.0.1", "ACCRUE_ADMIN_SERVICE_HOST=10.0.0.2", "ACCRUE_ADMIN_PORT=tcp://10.0.0.2:8082",
	})
	if want := []string{"ACCRUE_ADDR_FILE", "ACCRUE_DATABSE_URL", "ACCRUE_TRUSTED_PROXIES"}; !slices.Equal(got, want) {
		t.Errorf("without effect: %q, want %q", got, want)
	}
}
