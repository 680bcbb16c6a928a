package postgres_test

import (
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/embedded"
)

// A standby that has fallen behind answers every question, and wrongly. An address that names it before the primary
// leads to the primary all the same, and one that names it alone leads nowhere.
func TestOpen_NeverAsksAStandby(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	start := func(folder string) (*embedded.Server, string) {
		t.Helper()
		s, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(root, folder), Settings: map[string]string{"fsync": "off"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Stop(t.Context()) })
		u, err := url.Parse(s.DSN("accrue"))
		if err != nil {
			t.Fatal(err)
		}
		return s, u.Query().Get("host")
	}
	to := func(hosts string) postgres.Config {
		return postgres.Config{URL: "postgres://" + embedded.Superuser + "@/accrue?host=" + url.QueryEscape(hosts), MaxConns: 2}
	}

	// The standby is the primary as it was at its last stop, and hears nothing of what comes after.
	s, primary := start("primary")
	if err := s.EnsureDatabase(t.Context(), "accrue"); err != nil {
		t.Fatal(err)
	}
	m, err := postgres.NewMigrator(t.Context(), to(primary).URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "-a", filepath.Join(root, "primary"), filepath.Join(root, "standby"))
	run(t, "touch", filepath.Join(root, "standby", "standby.signal"))
	_, primary = start("primary")
	_, standby := start("standby")

	if m, err = postgres.NewMigrator(t.Context(), to(standby+","+primary).URL); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Down(t.Context()); err != nil {
		t.Errorf("the migrator has not come to the primary: %v", err)
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Error(err)
	}
	m.Close()
	db, err := postgres.Open(t.Context(), to(standby+","+primary))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	a := mustAccount(t, db)
	if got, err := db.Accounts().Get(t.Context(), a.ID); err != nil || got.Status != account.Active {
		t.Errorf("what was just written is %+v, %v", got, err)
	}
	if alone, err := postgres.Open(t.Context(), to(standby)); err == nil {
		_, err := alone.Accounts().Get(t.Context(), a.ID)
		t.Errorf("a standby alone is as good as the primary; of an account that it has not heard of it says %v", errs.KindOf(err))
		alone.Close()
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
