package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/accrue-billing/accrue/internal/auth"
)

// IssuerOption is one identity provider, as it is written in the configuration:
// issuer=URL,audience=NAME,jwks=URL or keys=FILE, and optionally type=TYP and scopes=A B.
type IssuerOption struct {
	Issuer   string
	Audience string
	JWKSURL  string
	KeysFile string
	Type     string
	Scopes   []string
}

// UnmarshalText reads the form above.
func (o *IssuerOption) UnmarshalText(b []byte) error {
	*o = IssuerOption{}
	for part := range strings.SplitSeq(string(b), ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || value == "" {
			return fmt.Errorf("%q is not of the form name=value", part)
		}
		switch name {
		case "issuer":
			o.Issuer = value
		case "audience":
			o.Audience = value
		case "jwks":
			o.JWKSURL = value
		case "keys":
			o.KeysFile = value
		case "type":
			o.Type = value
		case "scopes":
			o.Scopes = strings.Fields(value)
			for _, scope := range o.Scopes {
				if !slices.Contains(auth.All(), auth.Scope(scope)) {
					return fmt.Errorf("unknown scope %q", scope)
				}
			}
		default:
			return fmt.Errorf("unknown part %q", name)
		}
	}
	switch {
	case o.Issuer == "" || o.Audience == "":
		return errors.New("issuer and audience are both needed")
	case (o.JWKSURL == "") == (o.KeysFile == ""):
		return errors.New("give either jwks or keys")
	}
	return nil
}

// String writes the form that UnmarshalText reads.
func (o IssuerOption) String() string {
	parts := []string{"issuer=" + o.Issuer, "audience=" + o.Audience}
	for _, p := range [][2]string{{"jwks", o.JWKSURL}, {"keys", o.KeysFile}, {"type", o.Type}, {"scopes", strings.Join(o.Scopes, " ")}} {
		if p[1] != "" {
			parts = append(parts, p[0]+"="+p[1])
		}
	}
	return strings.Join(parts, ",")
}
