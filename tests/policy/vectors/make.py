"""Makes the certificates of the vectors: one file in DER each, in the directory that is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

P256 = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("-newkey", "rsa:2048")
SAN = "subjectAltName="
EVERY = "DNS:a.example,DNS:*.b.example,IP:10.0.0.1,IP:2001:db8::1,IP:::ffff:1.2.3.4,email:x@y.example,"
NAMED = {
    "rsa": (*RSA, "-subj", "/C=CH/ST=Bern/L=Thun/street=Gasse 1/postalCode=3600/O=Org/OU=a/OU=b/CN=client/serialNumber=77"),
    "p256": (*P256, "-subj", "/CN=client"),
    "p384": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384", "-subj", "/CN=client"),
    "p521": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512", "-subj", "/CN=client"),
    "p224": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-224", "-subj", "/CN=client"),
    "ed25519": ("-newkey", "ed25519", "-subj", "/CN=client"),
    "ed448": ("-newkey", "ed448", "-subj", "/CN=client"),
    "secp256k1": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-subj", "/CN=client"),
    "pss-32": (*RSA, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-subj", "/CN=pss"),
    "pss-20": (*RSA, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20", "-subj", "/CN=pss"),
    "pss-512": (*RSA, "-sha512", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:64", "-subj", "/CN=pss"),
    "sha1": (*RSA, "-sha1", "-subj", "/CN=old"),
    "two-common-names": (*P256, "-subj", "/CN=first/CN=last"),
    "several-in-one-set": (*P256, "-multivalue-rdn", "-subj", "/CN=one+OU=two/O=three"),
    "utf8": (*P256, "-utf8", "-subj", "/CN=Zoë 😀/O=<&>"),
    "domain-components": (*P256, "-subj", "/DC=example/DC=org/UID=u/emailAddress=a@b.example/CN=x"),
    "no-subject": (*P256, "-subj", "/", "-addext", f"{SAN}URI:spiffe://a.test/ns/x/sa/y"),
    "names": (*P256, "-subj", "/CN=n", "-addext", f"{SAN}{EVERY}URI:spiffe://a.test/w"),
    "other-names": (*P256, "-subj", "/CN=n", "-addext", f"{SAN}critical,otherName:1.2.3.4;UTF8:hello,RID:1.2.3"),
    "usages": (
        *P256,
        *("-subj", "/CN=u", "-addext", "keyUsage=critical,digitalSignature,keyAgreement,decipherOnly"),
        *("-addext", "extendedKeyUsage=serverAuth,clientAuth,codeSigning,emailProtection,timeStamping,OCSPSigning,1.2.3.4"),
    ),
    "usages-2": (
        *("-addext", "extendedKeyUsage=anyExtendedKeyUsage,ipsecEndSystem,ipsecTunnel,ipsecUser,msSGC,nsSGC,msCodeCom"),
        *(*P256, "-subj", "/CN=u", "-addext", "keyUsage=cRLSign,keyCertSign,encipherOnly,nonRepudiation"),
    ),
    "path-0": (*P256, "-subj", "/CN=u", "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
    "path-3": (*P256, "-subj", "/CN=u", "-addext", "basicConstraints=CA:TRUE,pathlen:3"),
    "places": (
        *(*P256, "-subj", "/CN=u", "-addext", "crlDistributionPoints=URI:http://crl.example/a,URI:http://crl.example/b"),
        *("-addext", "authorityInfoAccess=OCSP;URI:http://ocsp.example,caIssuers;URI:http://ca.example/ca.crt"),
        *("-addext", "certificatePolicies=1.2.3.4,2.23.140.1.2.1"),
    ),
    "unknown-critical": (*P256, "-subj", "/CN=u", "-addext", "1.2.3.4=critical,ASN1:UTF8String:hello"),
    "long-life": (*P256, "-subj", "/CN=u", "-days", "12000"),
    "large-serial": (*P256, "-subj", "/CN=u", "-set_serial", "0xfffffffffffffffffffffffffffffffffffffff"),
    "serial-1": (*P256, "-subj", "/CN=u", "-set_serial", "1"),
}
URIS = (
    "spiffe://a.test",
    "spiffe://a.test/",
    "SPIFFE://A.test/W",
    "spiffe://a.test/w?q=1&r=2#frag",
    "spiffe://a.test/w?",
    "spiffe://a.test/w#",
    "spiffe://a.test/%41%2Fb",
    "spiffe://a.test/a*b(c)!'",
    "spiffe://a.test/a b",
    "spiffe://a.test/%zz",
    "spiffe://a.test/%C3%A9%FF",
    "spiffe://user:pass@a.test:8443/w",
    "spiffe://user@a.test/w",
    "spiffe://a..test/w",
    "spiffe://a.test./w",
    "spiffe://a%41.test/w",
    "spiffe://a.test:x/w",
    "spiffe://[2001:db8::1]:80/w",
    "spiffe://[x]/w",
    "spiffe://a_b.test/w",
    "spiffe:opaque?x=y",
    "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "mailto:a@b.example#f",
    "spiffe:/only/path",
    "spiffe:///path",
    "/relative",
    "relative/x",
    "rel:ative",
    "1rel:ative/x",
    "//host/path",
    "///path",
    "*",
    "?q",
    ":x",
    "http://a.test/?a?b#c%41*[",
    "http://a.test/[x]",
)


def main(target: Path) -> None:
    """Write them all."""
    target.mkdir(exist_ok=True)
    for name, options in NAMED.items():
        make(target, name, options)
    for number, uri in enumerate(URIS):
        config = target / "uri.cnf"  # on the command line a comma would end the name
        config.write_text(f"[req]\ndistinguished_name=dn\nx509_extensions=x\n[dn]\n[x]\n{SAN}@s\n[s]\nURI.1={escaped(uri)}\n")
        make(target, f"uri-{number:02d}", (*P256, "-subj", "/CN=u", "-config", str(config)))


def escaped(text: str) -> str:
    """For a configuration of OpenSSL."""
    return "".join("\\" + sign if sign in "\\$#\"'" else sign for sign in text)


def make(target: Path, name: str, options: tuple[str, ...]) -> None:
    """One certificate."""
    days = () if "-days" in options else ("-days", "365")
    command = ["openssl", "req", "-x509", "-nodes", "-keyout", "/dev/null", "-outform", "DER", *days]
    subprocess.run([*command, "-out", str(target / f"{name}.der"), *options], check=True, capture_output=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
