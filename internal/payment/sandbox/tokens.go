package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// The symbolic tokens. Each stands for a card that behaves in one way; each use of one makes a fresh
// payment method, with the same fingerprint every time.
const (
	TokenVisa                = "pm_sandbox_visa"
	TokenMastercard          = "pm_sandbox_mastercard"
	TokenAmex                = "pm_sandbox_amex"
	TokenDeclined            = "pm_sandbox_declined"             // refused when it is saved
	TokenChargeDeclined      = "pm_sandbox_charge_declined"      // can be saved; every charge is refused
	TokenInsufficientFunds   = "pm_sandbox_insufficient_funds"   // can be saved; every charge is refused
	TokenLost                = "pm_sandbox_lost"                 // can be saved; refused, never to be tried again
	TokenFraudulent          = "pm_sandbox_fraudulent"           // can be saved; refused as suspected fraud
	TokenProcessingError     = "pm_sandbox_processing_error"     // can be saved; refused for the moment
	TokenExpired             = "pm_sandbox_expired"              // refused when it is saved
	TokenIncorrectCVC        = "pm_sandbox_incorrect_cvc"        // refused when it is saved
	Token3DSRequired         = "pm_sandbox_3ds_required"         // authentication when saved and at every charge
	Token3DSSetup            = "pm_sandbox_3ds_setup"            // authentication when saved, and then no more
	TokenProcessing          = "pm_sandbox_processing"           // a charge is processing, until it is settled by the control API
	TokenTimeoutThenSuccess  = "pm_sandbox_timeout_then_success" // no answer to the first call; it succeeded
	TokenTimeoutThenDecline  = "pm_sandbox_timeout_then_decline" // no answer to the first call; it was refused
	TokenDispute             = "pm_sandbox_dispute"              // the charge succeeds and is disputed at once
	TokenExpiringThisMonth   = "pm_sandbox_expiring"             // good until the end of the present month
	methodPrefix             = "pm_sbx_"
	symbolicPrefix           = "pm_sandbox_"
	declineAuthentication    = "authentication_required"
	declineAuthenticationBad = "payment_intent_authentication_failure"
	declineExpired           = "expired_card"
)

// behaviour is how a card answers.
type behaviour struct {
	brand, last4, funding string
	save                  string // the decline code of an attempt to save it; empty: none
	charge                string // the decline code of every charge; empty: none
	saveAuth, chargeAuth  bool   // 3-D Secure when saved, at every charge
	timeout               bool   // the first call with a key is not answered
	processing            bool
	dispute               bool
}

// behaviours is the whole table of tokens. An existing method can be given another row's behaviour by
// the control API: a card that was good and is good no more.
var behaviours = map[string]behaviour{
	TokenVisa:               {brand: "visa", last4: "4242", funding: "credit"},
	TokenMastercard:         {brand: "mastercard", last4: "4444", funding: "credit"},
	TokenAmex:               {brand: "amex", last4: "0005", funding: "credit"},
	TokenDeclined:           {brand: "visa", last4: "0002", funding: "credit", save: "generic_decline", charge: "generic_decline"},
	TokenChargeDeclined:     {brand: "visa", last4: "0341", funding: "credit", charge: "generic_decline"},
	TokenInsufficientFunds:  {brand: "visa", last4: "9995", funding: "debit", charge: "insufficient_funds"},
	TokenLost:               {brand: "visa", last4: "9987", funding: "credit", charge: "lost_card"},
	TokenFraudulent:         {brand: "visa", last4: "0019", funding: "credit", charge: "fraudulent"},
	TokenProcessingError:    {brand: "visa", last4: "0119", funding: "credit", charge: "processing_error"},
	TokenExpired:            {brand: "visa", last4: "0069", funding: "credit", save: declineExpired, charge: declineExpired},
	TokenIncorrectCVC:       {brand: "visa", last4: "0127", funding: "credit", save: "incorrect_cvc", charge: "incorrect_cvc"},
	Token3DSRequired:        {brand: "visa", last4: "3184", funding: "credit", saveAuth: true, chargeAuth: true},
	Token3DSSetup:           {brand: "visa", last4: "3155", funding: "credit", saveAuth: true},
	TokenProcessing:         {brand: "visa", last4: "0077", funding: "debit", processing: true},
	TokenTimeoutThenSuccess: {brand: "visa", last4: "0101", funding: "credit", timeout: true},
	TokenTimeoutThenDecline: {brand: "visa", last4: "0102", funding: "credit", timeout: true, charge: "generic_decline"},
	TokenDispute:            {brand: "visa", last4: "0259", funding: "credit", dispute: true},
	TokenExpiringThisMonth:  {brand: "visa", last4: "1881", funding: "prepaid"},
}

// Tokens returns the symbolic tokens in alphabetical order.
func Tokens() []string {
	out := make([]string, 0, len(behaviours))
	for t := range behaviours {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// cardFor returns the card that a token stands for, as of now.
func cardFor(token string, now time.Time) cardInfo {
	b := behaviours[token]
	c := cardInfo{
		Brand: b.brand, Last4: b.last4, ExpMonth: 12, ExpYear: now.Year() + 3, Country: "US",
		Fingerprint: fingerprintOf(token), Funding: b.funding,
	}
	switch token {
	case TokenExpired:
		c.ExpMonth, c.ExpYear = 1, 2020
	case TokenExpiringThisMonth:
		c.ExpMonth, c.ExpYear = int(now.Month()), now.Year()
	}
	return c
}

// fingerprintOf is the same for the same number.
func fingerprintOf(number string) string {
	sum := sha256.Sum256([]byte("sandbox card " + number))
	return "fp_" + letters(hex.EncodeToString(sum[:]))
}

// letters maps hexadecimal digits to letters, so that no identifier of ours can be taken for a card
// number by whoever scans for them.
func letters(hexadecimal string) string {
	out := []byte(hexadecimal[:24])
	for i, c := range out {
		if c >= '0' && c <= '9' {
			out[i] = 'g' + (c - '0')
		}
	}
	return string(out)
}

// testNumber is a published test number. It is written into the card page, where the browser turns
// it into its token; the server has no use for it.
type testNumber struct {
	Number string
	Token  string
}

// testNumbers are the numbers that Stripe publishes for the same behaviours, and no others.
var testNumbers = []testNumber{
	{"4242424242424242", TokenVisa},
	{"5555555555554444", TokenMastercard},
	{"378282246310005", TokenAmex},
	{"4000000000000002", TokenDeclined},
	{"4000000000000341", TokenChargeDeclined},
	{"4000000000009995", TokenInsufficientFunds},
	{"4000000000009987", TokenLost},
	{"4100000000000019", TokenFraudulent},
	{"4000000000000119", TokenProcessingError},
	{"4000000000000069", TokenExpired},
	{"4000000000000127", TokenIncorrectCVC},
	{"4000002760003184", Token3DSRequired},
	{"4000002500003155", Token3DSSetup},
	{"4000000000000077", TokenProcessing},
	{"4000000000000259", TokenDispute},
}
