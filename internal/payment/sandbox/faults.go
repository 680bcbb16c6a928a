package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is one entry of the fault plan: what goes wrong with the next call that it fits.
type Fault struct {
	Op      string `json:"op"`                // setup, attach, update, detach, charge, cancel, refund, lookup, webhook; "*" is any call
	Kind    string `json:"fault"`             // one of the Fault… constants
	Account string `json:"account,omitempty"` // only calls for this account; empty: any
	Effect  *bool  `json:"effect,omitempty"`  // whether the call is carried out all the same
	Status  int    `json:"status,omitempty"`  // for status: 500 unless said
	Code    string `json:"code,omitempty"`    // for decline: the reason
	DelayMS int64  `json:"delay_ms,omitempty"`
	Times   int    `json:"times,omitempty"` // how many calls; 1 unless said
}

// The kinds of fault. The first group is about the answer, the second about what is done, the third
// about webhooks.
const (
	FaultHang      = "hang"       // no answer until the caller gives up; carried out unless effect is false
	FaultReset     = "reset"      // the connection breaks; carried out unless effect is false
	FaultGarbage   = "garbage"    // half an answer; carried out unless effect is false
	FaultSlow      = "slow"       // the answer comes after delay_ms
	FaultStatus    = "status"     // an HTTP status; carried out only if effect is true
	FaultRateLimit = "rate_limit" // 429, not carried out
	FaultKeyInUse  = "key_in_use" // 409, not carried out

	FaultDecline        = "decline"         // with code
	FaultRequiresAction = "requires_action" // 3-D Secure
	FaultProcessing     = "processing"      // known later
	FaultWrongAmount    = "wrong_amount"    // one minor unit too much
	FaultWrongCurrency  = "wrong_currency"  // the right number of another currency

	FaultWebhookFirst = "webhook_first" // the webhook is sent before the answer
	FaultWebhookTwice = "twice"         // for op webhook
	FaultWebhookLate  = "late"          // for op webhook: after delay_ms
	FaultWebhookLost  = "lost"          // for op webhook: only on demand
)

var faultOps = []string{"*", "setup", "attach", "update", "detach", "charge", "cancel", "refund", "lookup", "webhook"}

var faultKinds = []string{
	FaultHang, FaultReset, FaultGarbage, FaultSlow, FaultStatus, FaultRateLimit, FaultKeyInUse, FaultDecline,
	FaultRequiresAction, FaultProcessing, FaultWrongAmount, FaultWrongCurrency, FaultWebhookFirst,
	FaultWebhookTwice, FaultWebhookLate, FaultWebhookLost,
}

var (
	webhookKinds = []string{FaultWebhookTwice, FaultWebhookLate, FaultWebhookLost}
	effectKinds  = []string{FaultHang, FaultReset, FaultGarbage, FaultStatus} // that may be carried out or not
)

func (f Fault) check() error {
	switch {
	case !slices.Contains(faultOps, f.Op):
		return badRequest("op is one of %s", strings.Join(faultOps, ", "))
	case !slices.Contains(faultKinds, f.Kind):
		return badRequest("fault is one of %s", strings.Join(faultKinds, ", "))
	case slices.Contains(webhookKinds, f.Kind) != (f.Op == "webhook"):
		return badRequest("%s are for op webhook, and no others are", strings.Join(webhookKinds, ", "))
	case f.Effect != nil && !slices.Contains(effectKinds, f.Kind):
		return badRequest("effect goes with %s only", strings.Join(effectKinds, ", "))
	case f.Times < 0, f.DelayMS < 0, f.DelayMS > time.Hour.Milliseconds():
		return badRequest("times and delay_ms are not negative, and delay_ms is at most an hour")
	case f.Status != 0 && (f.Status < 300 || f.Status > 599):
		return badRequest("status is 300 to 599")
	}
	return nil
}

func (f Fault) is(kind string) bool { return f.Kind == kind }

func (f Fault) delay() time.Duration { return time.Duration(f.DelayMS) * time.Millisecond }

// carriedOut reports whether the call has its effect in spite of the fault.
func (f Fault) carriedOut() bool {
	switch f.Kind {
	case FaultRateLimit, FaultKeyInUse:
		return false
	case FaultStatus:
		return f.Effect != nil && *f.Effect
	default:
		return f.Effect == nil || *f.Effect
	}
}

// takeFault returns the first fault of the plan that fits and puts the plan without it into c.
func takeFault(st *state, c *change, op string, account func(*state) string) Fault {
	plan := st.faults
	if c.Faults != nil { // this change has taken one already
		plan = *c.Faults
	}
	for i, f := range plan {
		if f.Op != op && (f.Op != "*" || op == "webhook") || f.Account != "" && f.Account != account(st) {
			continue
		}
		rest := slices.Clone(plan)
		if f.Times > 1 {
			rest[i].Times--
		} else {
			rest = slices.Delete(rest, i, i+1)
		}
		c.Faults = &rest
		return f
	}
	return Fault{}
}

// apiError is an answer that says no. Nothing was done.
type apiError struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

// The codes that the gateway tells apart.
const (
	codeBadRequest      = "invalid_request"
	codeUnauthorized    = "unauthorized"
	codeNotFound        = "not_found"
	codeForeignToken    = "token_not_usable"
	codeSetupIncomplete = "setup_incomplete"
	codeSetupExpired    = "setup_expired"
	codeAmount          = "amount_not_chargeable"
	codeRefundTooLarge  = "refund_too_large"
	codeKeyInUse        = "key_in_use"
	codeKeyReused       = "key_reused"
	codeRateLimited     = "rate_limited"
	codeInternal        = "internal"
)

func badRequest(format string, args ...any) error {
	return &apiError{400, codeBadRequest, fmt.Sprintf(format, args...)}
}

func notFound(what string) error { return &apiError{404, codeNotFound, "no such " + what} }

func foreignToken(why string) error { return &apiError{422, codeForeignToken, why} }
