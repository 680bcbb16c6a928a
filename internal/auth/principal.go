// Package auth establishes who is calling and what they may do.
//
// It owns: principals and scopes, the verification of signed tokens (JWT) against the keys of their
// issuer, API keys from birth to revocation, and the development tokens of a test deployment.
// It does not own: users, who are subjects of tokens and never stored; accounts (account); or how a
// credential travels and how a refusal looks (api/middleware, api/problem).
//
// Always true: a credential of one mode is refused in the other; an account comes from the
// credential, or is named by a caller who may act for any; a key never mints a key that can do more
// than itself; only keyed hashes of API keys are stored.
package auth

import (
	"slices"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
)

// Mode is the deployment's: a credential made for one is refused in the other.
type Mode string

// The modes.
const (
	Test Mode = "test"
	Live Mode = "live"
)

// Scope is one right. Scopes are case-sensitive and compared whole, never by prefix.
type Scope string

// The scopes of the API.
const (
	BillingRead    Scope = "billing:read"
	BillingWrite   Scope = "billing:write"
	PaymentsWrite  Scope = "payments:write"
	UsageRead      Scope = "usage:read"
	UsageWrite     Scope = "usage:write"
	KeysManage     Scope = "keys:manage"
	WebhooksManage Scope = "webhooks:manage"
	Operator       Scope = "operator"
)

// All returns every scope, in the order of the documentation.
func All() []Scope {
	return []Scope{BillingRead, BillingWrite, PaymentsWrite, UsageRead, UsageWrite, KeysManage, WebhooksManage, Operator}
}

// ParseScopes reads a space-delimited list as in RFC 6749. Unknown words are dropped: an identity
// provider puts scopes of other services in the same claim, and what we do not know gives no right.
func ParseScopes(s string) []Scope {
	var scopes []Scope
	for word := range strings.SplitSeq(s, " ") {
		if sc := Scope(word); slices.Contains(All(), sc) && !slices.Contains(scopes, sc) {
			scopes = append(scopes, sc)
		}
	}
	return scopes
}

// Kind says what sort of caller a principal is.
type Kind string

// The kinds of principal.
const (
	User         Kind = "user"     // a person on a Billing page, by a signed token
	Key          Kind = "key"      // a partner's integration, by an API key of its account
	Platform     Kind = "platform" // the operator's own services, by an API key that no account owns
	OperatorUser Kind = "operator" // the operator's staff, by a signed token with the operator scope
)

// Principal is an authenticated caller.
type Principal struct {
	Kind    Kind
	Subject string // the token's sub with its issuer, or the key's id; stable, for audit and rate limits
	// Account is the account that the credential belongs to. It is zero for operators and platform
	// services until they name one, and for a user whose ExternalAccount is not resolved yet.
	Account account.ID
	// ExternalAccount is the account_id claim of a token, as it was signed: an account id of ours or
	// the operator's own name for the account.
	ExternalAccount string
	Scopes          []Scope
	KeyID           KeyID     // zero unless an API key was used
	Ceilings        Ceilings  // what the key may move; zero means no ceiling of its own
	Expiry          time.Time // zero means never
}

// Can reports whether the principal holds a scope. The operator scope of a person implies the
// others, since support acts for any account; that of nothing else does.
func (p Principal) Can(s Scope) bool {
	if slices.Contains(p.Scopes, s) {
		return true
	}
	return p.Kind == OperatorUser && slices.Contains(p.Scopes, Operator)
}

// ActsForAny reports whether the principal names the account that it acts for with each request.
func (p Principal) ActsForAny() bool { return p.Kind == OperatorUser || p.Kind == Platform }

// Require returns ErrInsufficientScope, naming the scope, unless the principal holds it.
func (p Principal) Require(s Scope) error {
	if p.Can(s) {
		return nil
	}
	return ErrInsufficientScope.Details("The credential does not carry the scope that this operation needs: %s.", s).With("required_scope", string(s))
}

// Errors of the concept. Every way in which a credential is not acceptable has the same code. Whoever has shown to hold a real
// one, by its signature or its digest, is told in words what is wrong with it; to all others every way looks the same, and
// the cause is for the log.
var (
	ErrNoCredential      = errs.New(errs.Unauthenticated, "authentication_required", "Send a token or an API key as \"Authorization: Bearer …\".")
	ErrInvalidToken      = errs.New(errs.Unauthenticated, "invalid_token", "The token or API key is malformed, unknown, expired or revoked. Send another one.")
	ErrWrongMode         = errs.New(errs.Unauthenticated, "wrong_mode", "The API key belongs to the other mode: test keys work on test deployments only, live keys on live ones.")
	ErrInsufficientScope = errs.New(errs.Forbidden, "insufficient_scope", "The credential does not carry the scope that this operation needs.")
	ErrNoAccount         = errs.New(errs.Forbidden, "no_account", "The token does not name an account: its issuer has to, in the claim account_id.")
	ErrUnknownAccount    = errs.New(errs.Forbidden, "account_unknown", "The account that the token names is not known here.")
)
