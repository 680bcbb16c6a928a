// Package money does exact arithmetic on currency amounts.
//
// Amounts that are booked, charged or shown are whole numbers of a currency's minor unit (Amount).
// Quantities, unit prices and rates are decimals (Decimal). The step from the one to the other is
// Round, and there is no other: half away from zero, as PostgreSQL's numeric does it, once.
package money
