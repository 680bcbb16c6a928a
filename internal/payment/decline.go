package payment

// Decline is why a card was not taken. It is a result of a call, not an error.
type Decline struct {
	Code    string // the provider's, in the card trade's usual words ("insufficient_funds")
	Class   DeclineClass
	Advice  RetryAdvice
	Message string // for the customer; says nothing that helps a thief
}

// DeclineClass groups decline codes by what they mean for the card.
type DeclineClass string

// The classes of decline.
const (
	DeclineSoft           DeclineClass = "soft"           // may pass later: funds, limits, the issuer's trouble
	DeclineHard           DeclineClass = "hard"           // will never pass with this card
	DeclineAuthentication DeclineClass = "authentication" // the customer must be there and prove it
	DeclineFraud          DeclineClass = "fraud"          // suspected; the customer is told nothing
	DeclineLost           DeclineClass = "lost"           // lost, stolen or to be picked up: never to be tried again; the customer is told nothing
	DeclineBarred         DeclineClass = "barred"         // closed, or its holder has forbidden it: never to be tried again; the customer is told "hard"
	DeclineExpired        DeclineClass = "expired"        // the card is out of date
	DeclineData           DeclineClass = "data"           // a detail of the card is wrong
)

// ForEver reports whether the card networks forbid to ask the card ever again (Visa's category 1, "issuer will never approve",
// for which each further attempt is a fine).
func (c DeclineClass) ForEver() bool { return c == DeclineLost || c == DeclineBarred }

// RetryAdvice says what may be tried after a decline, within the card networks' rules.
type RetryAdvice string

// The advice after a decline.
const (
	RetryLater     RetryAdvice = "later"      // the same card, on the schedule
	RetryOnSession RetryAdvice = "on_session" // the same card, with the customer there
	RetryNewMethod RetryAdvice = "new_method" // another card, or this one with other details
)

// DeclineFor returns what a decline code means. An unknown code is a soft decline, which the schedule
// of dunning and the card's retry budget bound.
func DeclineFor(code string) Decline {
	class, ok := declineClasses[code]
	if !ok {
		class = DeclineSoft
	}
	if code == "" {
		code = "generic_decline"
	}
	d := Decline{Code: code, Class: class}
	switch class {
	case DeclineAuthentication:
		d.Advice, d.Message = RetryOnSession, "Your bank asks you to confirm this payment."
	case DeclineExpired:
		d.Advice, d.Message = RetryNewMethod, "Your card has expired. Use another card."
	case DeclineData:
		d.Advice, d.Message = RetryNewMethod, "A detail of your card is not right. Check the card and enter it again."
	case DeclineHard, DeclineFraud, DeclineLost, DeclineBarred:
		d.Advice, d.Message = RetryNewMethod, "Your card was declined. Use another card, or ask your bank."
	default:
		d.Advice, d.Message = RetryLater, "Your card was declined. Try again later, use another card, or ask your bank."
		if code == "insufficient_funds" {
			d.Message = "Your card has insufficient funds. Use another card, or try again later."
		}
	}
	return d
}

// declineClasses holds the codes that both gateways use. Codes that are left out are soft. Those of
// the card networks' "never try again" lists are lost or barred. What is hard is no good for this payment, of which there is
// no other attempt by itself, and may be for the next: another currency or amount, or the holder has spoken to the bank.
var declineClasses = map[string]DeclineClass{
	"insufficient_funds":              DeclineSoft,
	"generic_decline":                 DeclineSoft,
	"card_declined":                   DeclineSoft,
	"do_not_honor":                    DeclineSoft,
	"call_issuer":                     DeclineSoft,
	"processing_error":                DeclineSoft,
	"issuer_not_available":            DeclineSoft,
	"try_again_later":                 DeclineSoft,
	"reenter_transaction":             DeclineSoft,
	"approve_with_id":                 DeclineSoft,
	"card_velocity_exceeded":          DeclineSoft,
	"withdrawal_count_limit_exceeded": DeclineSoft,
	"duplicate_transaction":           DeclineSoft,
	"no_action_taken":                 DeclineSoft,

	"card_not_supported":                DeclineHard,
	"currency_not_supported":            DeclineHard,
	"invalid_amount":                    DeclineHard,
	"new_account_information_available": DeclineHard,
	"not_permitted":                     DeclineHard,
	"restricted_card":                   DeclineHard,
	"service_not_allowed":               DeclineHard,
	"testmode_decline":                  DeclineHard,
	"live_mode_test_card":               DeclineHard,

	"fraudulent":         DeclineFraud,
	"highest_risk_level": DeclineFraud,
	"merchant_blacklist": DeclineFraud,
	"security_violation": DeclineFraud,

	"invalid_account":                  DeclineBarred,
	"revocation_of_all_authorizations": DeclineBarred,
	"revocation_of_authorization":      DeclineBarred,
	"stop_payment_order":               DeclineBarred,
	"transaction_not_allowed":          DeclineBarred,

	"lost_card":   DeclineLost,
	"pickup_card": DeclineLost,
	"stolen_card": DeclineLost,

	"authentication_required":               DeclineAuthentication,
	"authentication_not_handled":            DeclineAuthentication,
	"mobile_device_authentication_required": DeclineAuthentication,
	"offline_pin_required":                  DeclineAuthentication,
	"online_or_offline_pin_required":        DeclineAuthentication,
	"payment_intent_authentication_failure": DeclineAuthentication,
	"setup_intent_authentication_failure":   DeclineAuthentication,

	"expired_card":         DeclineExpired,
	"invalid_expiry_month": DeclineExpired,
	"invalid_expiry_year":  DeclineExpired,

	"incorrect_address":   DeclineData,
	"incorrect_cvc":       DeclineData,
	"incorrect_number":    DeclineData,
	"incorrect_pin":       DeclineData,
	"incorrect_zip":       DeclineData,
	"invalid_cvc":         DeclineData,
	"invalid_number":      DeclineData,
	"invalid_pin":         DeclineData,
	"postal_code_invalid": DeclineData,
}
