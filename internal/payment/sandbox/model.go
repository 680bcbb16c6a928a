package sandbox

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// The objects of the provider. Their JSON is both the wire and the journal; the fields that only the
// journal holds are cleared by their wire method.

type cardInfo struct {
	Brand       string `json:"brand"`
	Last4       string `json:"last4"`
	ExpMonth    int    `json:"exp_month"`
	ExpYear     int    `json:"exp_year"`
	Country     string `json:"country"`
	Fingerprint string `json:"fingerprint"`
	Funding     string `json:"funding"`
}

func (c cardInfo) expired(now time.Time) bool {
	return !now.Before(time.Date(c.ExpYear, time.Month(c.ExpMonth)+1, 1, 0, 0, 0, 0, time.UTC))
}

type billingInfo struct {
	Name       string `json:"name,omitempty"`
	Email      string `json:"email,omitempty"`
	Line1      string `json:"line1,omitempty"`
	Line2      string `json:"line2,omitempty"`
	City       string `json:"city,omitempty"`
	State      string `json:"state,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"`
}

type customer struct {
	ID        string    `json:"id"`
	Account   string    `json:"account"`
	CreatedAt time.Time `json:"created_at"`
}

type nextAction struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// The statuses of setups, charges and refunds.
const (
	statusRequiresMethod = "requires_method"
	statusRequiresAction = "requires_action"
	statusProcessing     = "processing"
	statusSucceeded      = "succeeded"
	statusDeclined       = "declined"
	statusCanceled       = "canceled"
	statusFailed         = "failed"
)

type setup struct {
	ID           string      `json:"id"`
	Status       string      `json:"status"`
	Account      string      `json:"account"`
	Customer     string      `json:"customer"`
	Method       string      `json:"method,omitempty"`
	ClientSecret string      `json:"client_secret,omitempty"`
	DeclineCode  string      `json:"decline_code,omitempty"`
	NextAction   *nextAction `json:"next_action,omitempty"`
	URL          string      `json:"url,omitempty"`
	ReturnURL    string      `json:"return_url,omitempty"`
	CreatedAt    time.Time   `json:"created_at"`
	ExpiresAt    time.Time   `json:"expires_at"`

	Token      string      `json:"token,omitempty"`       // journal: the card that was given
	PageTicket string      `json:"page_ticket,omitempty"` // journal: opens the card page
	AuthTicket string      `json:"auth_ticket,omitempty"` // journal: opens the 3-D Secure page
	Billing    billingInfo `json:"billing,omitzero"`      // journal: for the method to come
}

type method struct {
	ID        string      `json:"id"`
	Customer  string      `json:"customer"` // empty once detached
	Card      cardInfo    `json:"card"`
	Billing   billingInfo `json:"billing"`
	CreatedAt time.Time   `json:"created_at"`

	Behaviour string `json:"behaviour,omitempty"` // journal: the token whose row of the table it follows
}

type charge struct {
	ID          string      `json:"id"`
	Status      string      `json:"status"`
	Amount      int64       `json:"amount"` // minor units
	Currency    string      `json:"currency"`
	Refunded    int64       `json:"refunded"`
	Disputed    bool        `json:"disputed"`
	Customer    string      `json:"customer"`
	Method      string      `json:"method"`
	Account     string      `json:"account"`
	Payment     string      `json:"payment"`
	Description string      `json:"description,omitempty"`
	OffSession  bool        `json:"off_session"`
	DeclineCode string      `json:"decline_code,omitempty"`
	NextAction  *nextAction `json:"next_action,omitempty"`
	CreatedAt   time.Time   `json:"created_at"`

	ReturnURL  string `json:"return_url,omitempty"`  // journal
	AuthTicket string `json:"auth_ticket,omitempty"` // journal: opens the 3-D Secure page
}

type refund struct {
	ID        string    `json:"id"`
	Status    string    `json:"status"` // succeeded, processing or failed
	Charge    string    `json:"charge"`
	Payment   string    `json:"payment"`
	Refund    string    `json:"refund"` // the service's own identifier; empty for one made here
	Amount    int64     `json:"amount"`
	Currency  string    `json:"currency"`
	Failure   string    `json:"failure,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

type dispute struct {
	ID        string    `json:"id"`
	Status    string    `json:"status"` // open, won or lost
	Charge    string    `json:"charge"`
	Payment   string    `json:"payment"`
	Amount    int64     `json:"amount"`
	Currency  string    `json:"currency"`
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"created_at"`
}

// event is a webhook to be sent. Seq orders events as they happened.
type event struct {
	ID        string    `json:"id"`
	Seq       int64     `json:"seq"`
	Type      string    `json:"type"`
	Object    string    `json:"object"`
	Ref       string    `json:"ref"`
	CreatedAt time.Time `json:"created_at"`

	Delivered int       `json:"delivered"` // how often it was taken
	Attempts  int       `json:"attempts"`
	Copies    int       `json:"copies,omitempty"` // how often it is sent each time
	Due       time.Time `json:"due,omitzero"`     // zero: only on demand
}

// keyRecord is the answer that a key gives again.
type keyRecord struct {
	Key         string    `json:"key"`
	Fingerprint string    `json:"fingerprint"`
	Status      int       `json:"status"`
	Body        []byte    `json:"body"`
	CreatedAt   time.Time `json:"created_at"`
}

// list is a page of a listing.
type list[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next,omitempty"`
}

func (s setup) wire() setup {
	s.Token, s.PageTicket, s.AuthTicket, s.Billing = "", "", "", billingInfo{}
	return s
}

func (m method) wire() method {
	m.Behaviour = ""
	return m
}

func (c charge) wire() charge {
	c.ReturnURL, c.AuthTicket = "", ""
	return c
}

// newID returns prefix and 96 random bits in letters.
func newID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // it never fails
	return prefix + letters(hex.EncodeToString(b[:]))
}
