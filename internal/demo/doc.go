// Package demo fills a deployment with customers that look real, and tells a customer's whole life.
//
// It owns: the generator of usage (from a seed, so that two runs agree), the three accounts that
// `serve --demo` brings up, and the story that `accrue demo` tells on a virtual clock.
// It does not own: any rule. Everything it does goes through the operations or through the API.
package demo
