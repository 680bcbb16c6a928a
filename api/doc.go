// Package api serves billing over HTTP.
//
// It owns: the server's order of middleware, the table of routes, and the pages around the API
// (health, metrics, problem types, documentation). It does not own: what a resource looks like
// (api/v1) or what it does (internal).
package api
