package v1

import "github.com/accrue-billing/accrue/internal/account"

// Address is a postal address.
type Address struct {
	Line1      string `json:"line1" validate:"required" maxLength:"200" example:"12 St James's Square"`
	Line2      string `json:"line2,omitempty" maxLength:"200"`
	City       string `json:"city" validate:"required" maxLength:"200" example:"London"`
	State      string `json:"state,omitempty" maxLength:"200"`
	PostalCode string `json:"postal_code,omitempty" maxLength:"200" example:"SW1Y 4JH"`
	Country    string `json:"country" validate:"required" minLength:"2" maxLength:"2" pattern:"^[A-Z]{2}$" example:"GB"` // ISO 3166-1 alpha-2
} //@name Address

func toAddress(a account.Address) Address { return Address(a) }
