"""Makes the certificates of the tests anew: a CA that only tests know, and two of its certificates
for gateway.test. They are good from 2020 to 2119, so that no test depends on the day.

Needs the package `cryptography`. The key of the CA is not kept.
"""

import datetime
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = pathlib.Path(__file__).parent


def named(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def builder(subject, issuer, key):
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2119, 1, 1))
    )


def write(name, certificate):
    (HERE / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


ca_key = ec.generate_private_key(ec.SECP256R1())
ca_name = named("Sallyport test CA")
identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
usage = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
     "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
ca = builder(ca_name, ca_name, ca_key)
ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
ca = ca.add_extension(x509.KeyUsage(**(usage | {"key_cert_sign": True})), critical=True)
ca = ca.add_extension(identifier, critical=False)
write("ca.pem", ca.sign(ca_key, hashes.SHA256()))
for file in ("first", "second"):
    key = ec.generate_private_key(ec.SECP256R1())
    host = builder(named(f"gateway.test ({file})"), ca_name, key)
    names = x509.SubjectAlternativeName([x509.DNSName("gateway.test"), x509.DNSName("localhost")])
    host = host.add_extension(names, critical=False)
    host = host.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    host = host.add_extension(issuer, critical=False)
    write(f"{file}.pem", host.sign(ca_key, hashes.SHA256()))
    (HERE / f"{file}.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
