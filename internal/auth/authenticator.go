package auth

import (
	"context"

	"github.com/accrue-billing/accrue/internal/account"
)

// An AccountResolver turns what a credential or an operator calls an account into its id. A name is
// an id of ours ("acct_…") or the operator's own external id.
type AccountResolver interface {
	// Resolve returns the account that a verified token names. Where the deployment is configured to
	// open accounts by themselves, an unknown external id opens one ("start for free"); else it
	// returns account.ErrNotFound.
	Resolve(ctx context.Context, ref string) (account.ID, error)
	// Lookup returns the account that an operator names, or account.ErrNotFound. It opens none.
	Lookup(ctx context.Context, ref string) (account.ID, error)
}

// Authenticator tells who a bearer credential belongs to. It is safe for concurrent use.
type Authenticator struct {
	Tokens *Verifier
	Keys   *Keys
}

// Authenticate returns the principal of a bearer credential. See Verifier.Verify and
// Keys.Authenticate for the errors.
func (a *Authenticator) Authenticate(ctx context.Context, credential string) (Principal, error) {
	if LooksLikeKey(credential) {
		return a.Keys.Authenticate(ctx, credential)
	}
	return a.Tokens.Verify(ctx, credential)
}
