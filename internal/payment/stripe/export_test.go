package stripe

// The requests behind the check of who owns a card, for a provider that does not remember it.
var (
	UpdateUnchecked = (*Gateway).updateMethod
	DetachUnchecked = (*Gateway).detachMethod
)
