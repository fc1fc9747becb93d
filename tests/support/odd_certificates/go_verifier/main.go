// Command go_verifier prints what Go's certificate verifier says of the chains on standard input.
//
// Each line is a JSON object with a name, trust anchors and a chain (DER, base64), an optional host name and time. Each line
// of the answer has the verdicts of a server, of a client, and of a SPIFFE peer; "" means accepted.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"time"
)

const maxRSABits = 8192 // what crypto/tls accepts from a peer

type request struct {
	Name    string     `json:"name"`
	Anchors [][]byte   `json:"anchors"`
	Chain   [][]byte   `json:"chain"`
	Host    string     `json:"host"`
	Time    *time.Time `json:"time"`
}

type answer struct {
	Name   string `json:"name"`
	Server string `json:"server"`
	Client string `json:"client"`
	Spiffe string `json:"spiffe"`
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 64<<20)
	output := json.NewEncoder(os.Stdout)
	for input.Scan() {
		var asked request
		if err := json.Unmarshal(input.Bytes(), &asked); err != nil {
			panic(err)
		}
		if err := output.Encode(judge(asked)); err != nil {
			panic(err)
		}
	}
}

func judge(asked request) answer {
	return answer{
		Name:   asked.Name,
		Server: text(verify(asked, x509.ExtKeyUsageClientAuth, "", nil)),
		Client: text(verify(asked, x509.ExtKeyUsageServerAuth, asked.Host, nil)),
		Spiffe: text(verify(asked, x509.ExtKeyUsageAny, "", checkSVID)),
	}
}

func verify(asked request, purpose x509.ExtKeyUsage, host string, check func(*x509.Certificate) error) error {
	certificates, err := parseChain(asked.Chain)
	if err != nil {
		return err
	}
	leaf := certificates[0]
	if check != nil {
		if err := check(leaf); err != nil {
			return err
		}
	}
	options := x509.VerifyOptions{
		Roots:         pool(asked.Anchors),
		Intermediates: x509.NewCertPool(),
		DNSName:       host,
		KeyUsages:     []x509.ExtKeyUsage{purpose},
	}
	if asked.Time != nil {
		options.CurrentTime = *asked.Time
	}
	for _, certificate := range certificates[1:] {
		options.Intermediates.AddCert(certificate)
	}
	if _, err := leaf.Verify(options); err != nil {
		return err
	}
	switch leaf.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	}
	return errors.New("unsupported type of public key")
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for _, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if key, isRSA := certificate.PublicKey.(*rsa.PublicKey); isRSA && key.N.BitLen() > maxRSABits {
			return nil, errors.New("RSA key is too large")
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

// pool leaves out what cannot be parsed, as a pool made from PEM does.
func pool(anchors [][]byte) *x509.CertPool {
	made := x509.NewCertPool()
	for _, der := range anchors {
		if certificate, err := x509.ParseCertificate(der); err == nil {
			made.AddCert(certificate)
		}
	}
	return made
}

// checkSVID has the rules for a leaf that the SPIFFE library for Go has besides those of Verify.
func checkSVID(leaf *x509.Certificate) error {
	switch {
	case len(leaf.URIs) != 1:
		return errors.New("not exactly one URI")
	case leaf.URIs[0].Scheme != "spiffe" || leaf.URIs[0].Host == "":
		return errors.New("not a SPIFFE ID")
	case leaf.IsCA:
		return errors.New("leaf certificate with CA flag set to true")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("leaf certificate with the key usage of an authority")
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
