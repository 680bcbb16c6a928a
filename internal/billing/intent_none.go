//go:build nointent

package billing

import (
	"context"
	"sync"
)

// commitIntent in this build makes the mistake that the crash harness must find: the intent is committed
// only after the provider has been asked. What dies between the two has charged a card that nobody knows of.
func (c *Core) commitIntent(ctx context.Context, fn func(tx Tx) error) (asked func(), err error) {
	ready, gone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var told, left sync.Once
	go func() {
		ended <- c.DB.InTx(context.WithoutCancel(ctx), func(tx Tx) error {
			if err := fn(tx); err != nil {
				return err
			}
			told.Do(func() { close(ready) })
			<-gone
			return nil
		})
	}()
	select {
	case <-ready:
		return func() { left.Do(func() { close(gone); <-ended }) }, nil
	case err := <-ended:
		return func() {}, err
	}
}

func (c *Core) commitIntentOf(ctx context.Context, _ Start, fn func(tx Tx) error) (asked func(), err error) {
	return c.commitIntent(ctx, fn)
}
