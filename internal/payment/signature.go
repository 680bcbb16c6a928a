package payment

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxSignatures bounds the work that a forged header can cause.
const maxSignatures = 8

// Sign returns a signature header for body in the form that both gateways use:
// "t=<unix seconds>,v1=<hex HMAC-SHA-256 of "t.body">".
func Sign(secret Secret, body []byte, at time.Time) string {
	t := strconv.FormatInt(at.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(signature(secret, t, body))
}

// VerifySignature returns ErrSignature unless header holds, for the raw bytes of body, a signature by
// one of the secrets whose time is at most SignatureTolerance from now. Nothing of body is parsed,
// and every secret is tried whatever the outcome of the others.
func VerifySignature(header string, body []byte, secrets []Secret, now time.Time) error {
	var stamp string
	var given [][]byte
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			if stamp != "" {
				return ErrSignature.Because(errors.New("two times in the header"))
			}
			stamp = value
		case "v1":
			if sig, err := hex.DecodeString(value); err == nil && len(given) < maxSignatures {
				given = append(given, sig)
			}
		}
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || len(given) == 0 {
		return ErrSignature.Because(errors.New("no time or no signature in the header"))
	}
	good := false
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		want := signature(secret, stamp, body)
		for _, sig := range given {
			good = hmac.Equal(want, sig) || good
		}
	}
	if !good {
		return ErrSignature.Because(errors.New("no signature matches"))
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > SignatureTolerance || age < -SignatureTolerance {
		return ErrSignature.Because(fmt.Errorf("signed %s from now", age))
	}
	return nil
}

func signature(secret Secret, stamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	mac.Write([]byte(stamp))
	mac.Write([]byte("."))
	mac.Write(body)
	return mac.Sum(nil)
}
