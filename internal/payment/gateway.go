package payment

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A Gateway is a payment provider: it keeps the cards and moves the money.
//
// Every call leaves the process, so none may be made inside a transaction. The caller writes down
// what it is about to do, calls, and writes down what came of it. References (…Ref) are the
// provider's own identifiers and mean nothing to another gateway.
//
// # Exactly once
//
// A request that changes something carries a Key, which the caller makes from its own permanent
// record and never uses for anything else. Repeating a request with the same Key and the same
// contents has one effect and one answer for KeyRetention. The same Key with other contents has no
// effect, and is ErrUnknown: something was done under that Key before, and must be looked up. After
// KeyRetention a request must not be repeated; its outcome is looked up.
//
// # What an error says
//
// A declined card is a result, not an error. Besides the errors that a method names, every method
// may return:
//
//   - ErrUnknown: the call may or may not have had its effect (time-out, broken connection, 5xx).
//     Nothing may be concluded from it; look the outcome up, or repeat with the same Key.
//   - ErrRetry: the provider did nothing; repeat later with the same Key.
//   - ErrRejected: the provider did nothing and never will; a fault of ours. Park it and alert.
//
// Implementations are safe for concurrent use, heed ctx, never follow redirects, bound what they
// read, and never log a request, an answer or a secret.
type Gateway interface {
	// Name returns the gateway's name, which is stored beside every reference ("sandbox", "stripe").
	Name() string

	// Mode returns whether the gateway moves real money.
	Mode() Mode

	// Limits returns what one charge may amount to. It returns ErrAmount for a currency that the
	// gateway does not take. It makes no call.
	Limits(c money.Currency) (Limits, error)

	// CreateSetup begins to save a card: the customer's browser gives the card to the provider,
	// which ties it to the setup. Where CustomerRef is empty a customer is made.
	CreateSetup(ctx context.Context, r SetupRequest) (Setup, error)

	// LookupSetup returns the setup as it is now, without its client secret.
	// It returns ErrMissing if there is none.
	LookupSetup(ctx context.Context, ref string) (Setup, error)

	// Attach saves a card for a customer, from a finished setup or from a token, and has the
	// provider check it. Only OutcomeSucceeded means that the card can be charged. It returns
	// ErrForeignToken, ErrSetupIncomplete or ErrSetupExpired where the card cannot be taken at all.
	// A setup that is attached already gives the same method again.
	Attach(ctx context.Context, r AttachRequest) (AttachResult, error)

	// ConfirmSetup completes an attachment after the customer has been through the action that it
	// required, and returns how it stands. It returns ErrMissing if there is no such setup.
	ConfirmSetup(ctx context.Context, r ConfirmSetupRequest) (AttachResult, error)

	// UpdateBilling changes the address or the expiry of a saved card and returns the card as it is
	// afterwards. It returns ErrMissing or ErrForeignToken if the customer has no such card.
	UpdateBilling(ctx context.Context, r UpdateRequest) (MethodResult, error)

	// Detach makes a saved card unusable. A card that is gone already is no error.
	Detach(ctx context.Context, r DetachRequest) error

	// Charge takes money from a saved card. It returns ErrAmount for an amount outside Limits, and
	// ErrMissing or ErrForeignToken if the customer has no such card. What the provider reports may
	// differ from what was asked: see ChargeResult.Agrees.
	Charge(ctx context.Context, r ChargeRequest) (ChargeResult, error)

	// ConfirmCharge returns how a charge stands after the customer has been through the action that
	// it required. It returns ErrMissing if there is no such charge.
	ConfirmCharge(ctx context.Context, r ConfirmRequest) (ChargeResult, error)

	// LookupCharge returns the charge as it is now, by its reference or by the payment that it was
	// made for. ErrMissing means that the provider never made it: no money was moved. A provider that
	// cannot be sure of that without CustomerRef and Since answers ErrUnknown.
	LookupCharge(ctx context.Context, l ChargeLookup) (ChargeResult, error)

	// CancelCharge gives up a charge that has not succeeded and returns what came of it. Where the
	// charge was quicker, the result says OutcomeSucceeded and the money has moved.
	CancelCharge(ctx context.Context, r CancelRequest) (ChargeResult, error)

	// Refund gives back a part or all of a charge. It returns ErrRefundTooLarge if the charge has
	// less left, and ErrMissing if there is no such charge.
	Refund(ctx context.Context, r RefundRequest) (RefundResult, error)

	// LookupRefund returns the refund as it is now, by its reference, or by the charge and our own
	// identifier. ErrMissing means that the provider never made it.
	LookupRefund(ctx context.Context, l RefundLookup) (RefundResult, error)

	// Refunds returns the refunds of a charge as they are now, the oldest first, whoever made them.
	Refunds(ctx context.Context, chargeRef string) ([]RefundResult, error)

	// ListCharges yields the charges that were made in [from, to), in no particular order, as they
	// are now, for reconciliation. It stops at the first error.
	ListCharges(ctx context.Context, from, to time.Time) iter.Seq2[ChargeResult, error]

	// VerifyEvent checks who sent a webhook: over the raw bytes, before anything in them is read, in
	// constant time, within SignatureTolerance of now and against every current secret. It returns
	// ErrSignature and nothing else. It makes no call. The header is an http.Header.
	VerifyEvent(header map[string][]string, body []byte, now time.Time) (Event, error)

	// Fetch returns the present state of what an event is about. An event says that something
	// changed, never what it is now: events come late, twice and in any order.
	// It returns ErrMissing if there is no such object.
	Fetch(ctx context.Context, o ObjectKind, ref string) (Object, error)
}

// Bounds that every gateway keeps.
const (
	// KeyRetention is how long a Key may be repeated. The providers remember one for 24 hours;
	// the hour between is for clocks and queues.
	KeyRetention = 23 * time.Hour

	// SignatureTolerance is how far the time in a webhook's signature may be from ours.
	SignatureTolerance = 5 * time.Minute

	// SetupLifetime bounds how long a client secret may be of use.
	SetupLifetime = 30 * time.Minute
)

// Mode says whether money is real.
type Mode string

// The modes of a deployment and of a gateway; the two must agree.
const (
	ModeTest Mode = "test"
	ModeLive Mode = "live"
)

// Errors of a gateway, each with the provider's own words as its cause, for the log.
var (
	ErrUnknown         = errs.New(errs.Unavailable, "gateway_outcome_unknown", "The payment provider did not answer; the outcome is being looked up.")
	ErrRetry           = errs.New(errs.Unavailable, "gateway_busy", "The payment provider is busy. Nothing was done; try again.")
	ErrRejected        = errs.New(errs.Internal, "gateway_rejected", "The payment provider refused the request.")
	ErrMissing         = errs.New(errs.NotFound, "gateway_object_not_found", "The payment provider has no such record.")
	ErrForeignToken    = errs.New(errs.Invalid, "payment_token_not_usable", "The card token is unknown, used, of another customer or of another mode. Set the card up again.")
	ErrSetupIncomplete = errs.New(errs.Conflict, "setup_incomplete", "No card has been given for this setup yet. Finish the card form first.")
	ErrSetupExpired    = errs.New(errs.Conflict, "setup_expired", "The setup has expired. Begin a new one.")
	ErrAmount          = errs.New(errs.Invalid, "amount_not_chargeable", "The payment provider cannot charge this amount in this currency.")
	ErrRefundTooLarge  = errs.New(errs.Conflict, "refund_too_large", "The payment has less left than is to be refunded.")
	ErrMismatch        = errs.New(errs.Internal, "gateway_mismatch", "The payment provider reports another payment than was asked for.")
	ErrSignature       = errs.New(errs.Malformed, "webhook_signature_invalid", "The signature of the event is missing, wrong or too old.")
)

// Outcome says how a call, or what it made, stands at the provider.
type Outcome string

// The outcomes. Only Succeeded, Declined and Canceled are final.
const (
	OutcomeSucceeded      Outcome = "succeeded"
	OutcomeRequiresAction Outcome = "requires_action" // the customer must act: see NextAction
	OutcomeProcessing     Outcome = "processing"      // the provider will know later
	OutcomeDeclined       Outcome = "declined"        // see Decline
	OutcomeCanceled       Outcome = "canceled"        // given up by us; nothing was charged
)

// Final reports whether the outcome can no longer change.
func (o Outcome) Final() bool {
	return o == OutcomeSucceeded || o == OutcomeDeclined || o == OutcomeCanceled
}

// NextAction is what the customer must do before an outcome can be known.
type NextAction struct {
	Type         string // ActionRedirect, or ActionProviderScript
	URL          string // for ActionRedirect
	ClientSecret Secret // for ActionProviderScript; sent once, never stored
}

// The types of action.
const (
	ActionRedirect       = "redirect_to_url"     // send the browser to URL; it comes back to the ReturnURL
	ActionProviderScript = "use_provider_script" // hand ClientSecret to the provider's own script
)

// Secret is a text that may be sent to the customer once and shows nowhere else: not in a log, not in
// JSON, not in an error.
type Secret string

// Reveal returns the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }

const redacted = "[redacted]"

// String hides the secret.
func (Secret) String() string { return redacted }

// Format hides the secret under every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON hides the secret.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Card is what we may know of a card. The number never reaches us.
type Card struct {
	Brand       string // "visa", "mastercard", "amex", …
	Last4       string
	ExpMonth    int    // 1 to 12
	ExpYear     int    // four digits
	Country     string // of the issuer, ISO 3166-1 alpha-2; may be empty
	Fingerprint string // the same for the same number at the same provider
	Funding     string // "credit", "debit", "prepaid", "unknown"
}

// Expired reports whether the card's last month has passed, in UTC.
func (c Card) Expired(now time.Time) bool {
	firstInvalid := time.Date(c.ExpYear, time.Month(c.ExpMonth)+1, 1, 0, 0, 0, 0, time.UTC)
	return !now.Before(firstInvalid)
}

// Billing is whom and where the card is billed to.
type Billing struct {
	Name    string
	Email   string
	Address Address
}

// Address is a postal address. Country is ISO 3166-1 alpha-2.
type Address struct {
	Line1      string
	Line2      string
	City       string
	State      string
	PostalCode string
	Country    string
}

// Limits bound one charge in one currency.
type Limits struct {
	Minimum money.Amount
	Maximum money.Amount
	Step    int64 // an amount is a multiple of this many minor units; 1 almost everywhere
}

// Check returns ErrAmount, with the limits as parameters, for an amount outside of them.
func (l Limits) Check(a money.Amount) error {
	switch {
	case a.Currency != l.Minimum.Currency, a.Minor < l.Minimum.Minor, a.Minor > l.Maximum.Minor:
	case l.Step > 1 && a.Minor%l.Step != 0:
	default:
		return nil
	}
	return ErrAmount.With("minimum", l.Minimum).With("maximum", l.Maximum).With("step", l.Step)
}

// SetupRequest begins to save a card.
type SetupRequest struct {
	Key         string
	AccountRef  string // our account
	CustomerRef string // the provider's customer for the account; empty the first time
	ReturnURL   string // where the provider's own page sends the browser afterwards
}

// Setup is a card being saved.
type Setup struct {
	Ref            string
	AccountRef     string // our account, as the provider was told
	CustomerRef    string
	Outcome        Outcome // OutcomeProcessing until the customer has given a card
	MethodRef      string  // once a card was given
	ClientSecret   Secret  // from CreateSetup only; for the provider's script in the browser
	PublishableKey string  // for the provider's script; no secret
	URL            string  // the provider's own card page, where it has one
	ExpiresAt      time.Time
	NextAction     *NextAction
	Decline        *Decline
}

// AttachRequest saves a card. Either Setup or Token is set.
type AttachRequest struct {
	Key         string
	AccountRef  string
	CustomerRef string // empty where the account has none yet
	Setup       string
	Token       string // what the provider's script made of the card
	Billing     Billing
	ReturnURL   string // where the browser comes back to after 3-D Secure
}

// ConfirmSetupRequest takes an attachment further after the customer has acted.
type ConfirmSetupRequest struct {
	Key     string
	Ref     string  // AttachResult.SetupRef
	Billing Billing // as in the AttachRequest
}

// AttachResult says what came of saving a card.
type AttachResult struct {
	Outcome     Outcome
	SetupRef    string // for ConfirmSetup
	CustomerRef string
	Method      MethodResult // complete when Outcome is OutcomeSucceeded
	NextAction  *NextAction
	Decline     *Decline
}

// MethodResult is a saved card as the provider has it.
type MethodResult struct {
	Ref         string
	CustomerRef string // empty once it is detached
	Card        Card
	Billing     Billing
}

// UpdateRequest changes a saved card. Zero expiry means: leave it.
type UpdateRequest struct {
	Key         string
	CustomerRef string
	MethodRef   string
	Billing     Billing
	ExpMonth    int
	ExpYear     int
}

// DetachRequest makes a saved card unusable.
type DetachRequest struct {
	Key         string
	CustomerRef string
	MethodRef   string
}

// ChargeRequest takes money from a saved card.
type ChargeRequest struct {
	Key         string
	Amount      money.Amount
	CustomerRef string
	MethodRef   string
	OffSession  bool   // the customer is not there: an authentication demand is a decline
	Description string // on the provider's receipts; no personal data
	AccountRef  string // our account
	PaymentRef  string // our payment; what LookupCharge finds the charge by
	ReturnURL   string // where the browser comes back to after 3-D Secure
}

// ChargeResult is a charge as the provider has it.
type ChargeResult struct {
	Ref         string
	Outcome     Outcome
	Amount      money.Amount // what the provider says it took, or would take
	Refunded    money.Amount // how much of it was given back, by us or by anyone
	Disputed    bool         // a dispute was opened at some time
	CustomerRef string
	MethodRef   string
	AccountRef  string // as we gave it
	PaymentRef  string // as we gave it
	CreatedAt   time.Time
	NextAction  *NextAction
	Decline     *Decline
}

// Kept reports whether money was taken of which some was not given back.
func (c ChargeResult) Kept() bool { return c.Outcome == OutcomeSucceeded && c.Refunded != c.Amount }

// Agrees returns ErrMismatch unless the provider reports the very payment that was asked for. A charge
// that does not agree must not be booked: it is parked for a person.
func (c ChargeResult) Agrees(r ChargeRequest) error {
	if c.Amount != r.Amount || c.CustomerRef != r.CustomerRef || c.PaymentRef != r.PaymentRef {
		return ErrMismatch.Because(fmt.Errorf("asked for %s of customer %s for %s, provider has %s of %s for %s as %s",
			r.Amount, r.CustomerRef, r.PaymentRef, c.Amount, c.CustomerRef, c.PaymentRef, c.Ref))
	}
	return nil
}

// ConfirmRequest takes a charge further after the customer has acted.
type ConfirmRequest struct {
	Key       string
	Ref       string
	ReturnURL string
}

// ChargeLookup finds a charge by Ref or, where that is empty, by PaymentRef. CustomerRef and Since
// (not after the charge was asked for) let a provider answer from its lists, which are current, and
// not from its search index, which may lag by a minute.
type ChargeLookup struct {
	Ref         string
	PaymentRef  string
	CustomerRef string
	Since       time.Time
}

// CancelRequest gives up a charge.
type CancelRequest struct {
	Key string
	Ref string
}

// RefundRequest gives money back.
type RefundRequest struct {
	Key       string
	ChargeRef string
	Amount    money.Amount
	RefundID  string // our refund; what LookupRefund finds it by
}

// RefundLookup finds a refund by Ref or, where that is empty, by ChargeRef and RefundID.
type RefundLookup struct {
	Ref       string
	ChargeRef string
	RefundID  string
}

// RefundResult is a refund as the provider has it. A refund that failed is OutcomeDeclined: the
// charge has that amount left again.
type RefundResult struct {
	Ref        string
	ChargeRef  string
	PaymentRef string // our payment, where the provider repeats it
	RefundID   string // as we gave it; empty for a refund that someone made at the provider
	Outcome    Outcome
	Amount     money.Amount
	Failure    string // the provider's reason, for the log and the operator
	CreatedAt  time.Time
}

// DisputeStatus says who has a disputed amount.
type DisputeStatus string

// The statuses of a dispute.
const (
	DisputeOpen DisputeStatus = "open" // taken back, and arguable
	DisputeWon  DisputeStatus = "won"  // given to us again
	DisputeLost DisputeStatus = "lost" // gone
)

// DisputeResult is a chargeback as the provider has it.
type DisputeResult struct {
	Ref        string
	ChargeRef  string
	PaymentRef string
	Status     DisputeStatus
	Withdrawn  bool // the amount is off our balance now; false for a mere inquiry, which stays open when it is over
	Amount     money.Amount
	Reason     string
	CreatedAt  time.Time
}

// ObjectKind is what an event is about.
type ObjectKind string

// The kinds of object. Other events are acknowledged and ignored: their kind is ObjectOther.
const (
	ObjectCharge  ObjectKind = "charge"
	ObjectRefund  ObjectKind = "refund"
	ObjectDispute ObjectKind = "dispute"
	ObjectMethod  ObjectKind = "method"
	ObjectSetup   ObjectKind = "setup"
	ObjectOther   ObjectKind = "other"
)

// Event is a webhook whose sender is known. What it says about the object's state is not believed.
type Event struct {
	ID        string // the provider's; unique per gateway
	Type      string // the provider's word, for the log
	Object    ObjectKind
	Ref       string // the object's
	Succeeded bool   // it says no more than that a charge has succeeded, which may be known already
	CreatedAt time.Time
}

// Object is what Fetch returns: the one field that the kind names is set.
type Object struct {
	Charge  *ChargeResult
	Refund  *RefundResult
	Dispute *DisputeResult
	Method  *MethodResult
	Setup   *Setup
}
