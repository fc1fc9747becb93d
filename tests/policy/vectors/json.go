// Prints, by file name, how encoding/json writes the certificates that are given as files in DER.
package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	made := map[string]any{}
	for _, path := range os.Args[1:] {
		name := strings.TrimSuffix(filepath.Base(path), ".der")
		der, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			made[name] = map[string]string{"refused": err.Error(), "Raw": base64.StdEncoding.EncodeToString(der)}
			continue
		}
		made[name] = certificate
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(made); err != nil {
		panic(err)
	}
}
