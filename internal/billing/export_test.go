package billing

// Move is what Run does about one account, for tests of a run that died between two.
var Move = Migrator.move

// LookUpAtOnce has sweeps look up so many records at a time, so that few fill a page.
func (c *Core) LookUpAtOnce(n int) { c.page = n }

// ReadFew has no more than so many events of a total read with their account held.
func (c *Core) ReadFew(n int) { c.few = n }

// Chargeable is what a card is asked for an invoice.
var Chargeable = chargeable
