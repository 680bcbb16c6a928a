package billing

// Move is what Run does about one account, for tests of a run that died between two.
var Move = Migrator.move
