// Package api serves billing over HTTP.
//
// It owns: the server's order of middleware, the table of routes, and the pages around the API
// (health, metrics, problem types, documentation). It does not own: what a resource looks like
// (api/v1) or what it does (internal).
//
// What follows is read by swag.
//
//	@title			Accrue
//	@version		1.0
//	@description	Self-service billing for companies that sell voice and text APIs: usage, prices, invoices, payments.
//	@license.name	Apache-2.0
//	@license.url	https://www.apache.org/licenses/LICENSE-2.0
package api
