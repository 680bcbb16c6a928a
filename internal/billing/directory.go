package billing

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
)

// Directory finds the account that a credential names. It implements auth.AccountResolver. It is safe
// for concurrent use: construct it once, by pointer.
type Directory struct {
	*Core
	// Open lets the first valid token of an unknown account open it on the start plan.
	Open bool

	mu    sync.RWMutex
	known map[string]account.ID
}

// maxKnown bounds the names that are remembered; a name never changes its account, so none goes stale.
const maxKnown = 100_000

// Resolve returns the account that a verified token names, and opens it where that is configured. A
// name that is not known and not to be opened gives account.ErrNotFound.
func (d *Directory) Resolve(ctx context.Context, ref string) (account.ID, error) {
	a, err := d.Lookup(ctx, ref)
	if err == nil || !d.Open || !errors.Is(err, account.ErrNotFound) || !opensBy(ref) {
		return a, err
	}
	acct, err := Opener{d.Core}.Open(ctx, NewAccount{ExternalID: ref})
	if errors.Is(err, account.ErrExternalIDTaken) { // another request of the same new customer was quicker
		return d.Lookup(ctx, ref)
	}
	if err != nil {
		return account.ID{}, err
	}
	d.remember(ref, acct.ID)
	return acct.ID, nil
}

// Lookup returns the account that an operator names. It opens none.
func (d *Directory) Lookup(ctx context.Context, ref string) (account.ID, error) {
	if !nameable(ref) {
		return account.ID{}, account.ErrNotFound
	}
	d.mu.RLock()
	a, ok := d.known[ref]
	d.mu.RUnlock()
	if ok {
		return a, nil
	}
	var acct account.Account
	var err error
	if parsed, perr := id.Parse[account.Account](ref); perr == nil {
		acct, err = d.DB.Accounts().Get(ctx, parsed)
	} else {
		acct, err = d.DB.Accounts().ByExternalID(ctx, ref)
	}
	if err != nil {
		return account.ID{}, err
	}
	d.remember(ref, acct.ID)
	return acct.ID, nil
}

// lookupAtOnce bounds the names of one query.
const lookupAtOnce = 1000

// LookupAll returns the accounts that an operator names, by name; names of nobody are left out. It opens none.
func (d *Directory) LookupAll(ctx context.Context, refs []string) (map[string]account.ID, error) {
	out := make(map[string]account.ID, len(refs))
	var asked []string
	d.mu.RLock()
	for _, ref := range refs {
		if a, ok := d.known[ref]; ok {
			out[ref] = a
		} else if nameable(ref) {
			asked = append(asked, ref)
		}
	}
	d.mu.RUnlock()
	for some := range slices.Chunk(asked, lookupAtOnce) {
		var names []string
		var ids []account.ID
		for _, ref := range some {
			if a, err := id.Parse[account.Account](ref); err == nil {
				ids = append(ids, a)
			} else {
				names = append(names, ref)
			}
		}
		found, err := d.DB.Accounts().Known(ctx, names, ids)
		if err != nil {
			return nil, err
		}
		for ref, a := range found {
			out[ref] = a
			d.remember(ref, a)
		}
	}
	return out, nil
}

func (d *Directory) remember(ref string, a account.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = map[string]account.ID{}
	}
	if len(d.known) < maxKnown {
		d.known[ref] = a
	}
}

// opensBy reports whether a name may become an account's external id: what begins as our identifiers do names an
// account that must exist, and one that was mistyped opens none.
func opensBy(ref string) bool {
	prefix, _, found := strings.Cut(ref, "_")
	if found && strings.EqualFold(prefix, account.Account{}.IDPrefix()) {
		return false
	}
	return nameable(ref)
}

// nameable reports whether an account can be called so. What cannot be stored names nobody.
func nameable(ref string) bool {
	return len(ref) >= 1 && len(ref) <= 255 && utf8.ValidString(ref) && !strings.ContainsFunc(ref, unicode.IsControl)
}
