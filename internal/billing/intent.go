//go:build !nointent

package billing

import "context"

// commitIntent commits the first transaction of a money operation: what is about to be asked of a
// provider is in the database before the provider hears of it, so that whatever dies afterwards can be
// looked up. asked is called when the provider has been asked, or will not be.
//
// The build with the tag nointent has this law removed, to show that the crash harness sees it missing.
func (c *Core) commitIntent(ctx context.Context, fn func(tx Tx) error) (asked func(), err error) {
	return func() {}, c.DB.InTx(ctx, fn)
}

// commitIntentOf is commitIntent for what locks the account first and stays within it.
func (c *Core) commitIntentOf(ctx context.Context, start Start, fn func(tx Tx) error) (asked func(), err error) {
	return func() {}, c.DB.InTxOf(ctx, start, fn)
}
