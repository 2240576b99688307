"""Writes root.pem, cert.pem and key.pem for localhost into the folder that is named: the root is what a server is told to trust."""

import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, issuer, extensions, issuer_key):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
authority = [(x509.BasicConstraints(ca=True, path_length=None), True)]
own = [(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)]
folder.joinpath("root.pem").write_bytes(certificate("acceptance root", root_key, "acceptance root", authority, root_key))
folder.joinpath("cert.pem").write_bytes(certificate("localhost", key, "acceptance root", own, root_key))
encoded = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
folder.joinpath("key.pem").write_bytes(encoded)
