package billing_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
)

// askedAccounts counts how often accounts are looked for.
type askedAccounts struct {
	account.Store
	times *int
}

func (s askedAccounts) Get(ctx context.Context, a account.ID) (account.Account, error) {
	*s.times++
	return s.Store.Get(ctx, a)
}

func (s askedAccounts) ByExternalID(ctx context.Context, name string) (account.Account, error) {
	*s.times++
	return s.Store.ByExternalID(ctx, name)
}

func (s askedAccounts) Known(ctx context.Context, names []string, ids []account.ID) (map[string]account.ID, error) {
	*s.times++
	return s.Store.Known(ctx, names, ids)
}

type askedDB struct {
	billing.Database
	times *int
}

func (d askedDB) Accounts() account.Store { return askedAccounts{d.Database.Accounts(), d.times} }

// All that a batch names is looked for at once, a thousand at a time, by name and by identifier. Who is found is
// remembered; who is not may come to be.
func TestDirectory_LooksForManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	opener := billing.Opener{Core: w.Core}
	named, err := opener.Open(t.Context(), billing.NewAccount{ExternalID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	unnamed := w.open(t)
	times := 0
	w.DB = askedDB{w.DB, &times}
	d := &billing.Directory{Core: w.Core}
	want := map[string]account.ID{"acme": named.ID, named.ID.String(): named.ID, unnamed.ID.String(): unnamed.ID}
	refs := []string{"", "a\x00b", id.New[account.Account]().String()}
	for ref := range want {
		refs = append(refs, ref)
	}
	for i := range 2500 {
		refs = append(refs, fmt.Sprint("nobody ", i))
	}
	for range 2 {
		got, err := d.LookupAll(t.Context(), refs)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("found %v, %v; want %v", got, err, want)
		}
		if times != 3 {
			t.Errorf("asked %d times for %d names, want 3", times, len(refs))
		}
		times = 0
	}
	if got, err := d.LookupAll(t.Context(), []string{"acme", unnamed.ID.String()}); err != nil || len(got) != 2 || times != 0 {
		t.Errorf("%v, %v, asked %d times; want them remembered", got, err, times)
	}
}

// A token that means to name an account by this service's own identifier, and has it wrong, is not a new customer.
func TestDirectory_OpensNoAccountForAMistypedIdentifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := &billing.Directory{Core: w.Core, Open: true}
	own := w.open(t).ID.String()
	for _, ref := range []string{own[:len(own)-1], own + "0", strings.ToUpper(own), "acct_", "acct_lumen"} {
		if a, err := d.Resolve(t.Context(), ref); !errors.Is(err, account.ErrNotFound) {
			t.Errorf("%s opened %s, %v", ref, a, err)
		}
	}
	if _, err := d.Resolve(t.Context(), "accountancy"); err != nil {
		t.Errorf("a name of the operator's own: %v", err)
	}
}
