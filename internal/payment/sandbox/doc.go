// Package sandbox is a payment provider for development and tests, and the gateway to it.
//
// It owns: a provider (Server) with an HTTP API, a card page and a 3-D Secure page on an origin of
// their own, signed webhooks, and fault plans; its journal, which is outside of the service's database
// as a real provider's is; and the adapter (Client) that speaks to it as package stripe speaks to Stripe.
//
// It does not own: anything the service knows. The server imports no concept but the port's words, and
// the two halves share nothing but the wire, so that the service can be killed at any point and the
// provider still knows what it has charged.
//
// Always true: a charge is in the journal before it is answered; a key gives one effect and one answer
// for 24 hours; a charge is never forgotten; no card number is received, in any mode. The package
// refuses to work in live mode.
package sandbox
