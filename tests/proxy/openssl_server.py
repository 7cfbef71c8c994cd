"""A DoT server on OpenSSL: GROUPS CERTIFICATE KEY, the files in DER. Prints its port; every query is its own
answer."""

import socket
import sys

from OpenSSL import SSL, crypto

groups, certificate, key = sys.argv[1:]
context = SSL.Context(SSL.TLS_SERVER_METHOD)
read = lambda path: open(path, "rb").read()
context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, read(certificate)))
context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_ASN1, read(key)))
context.set_alpn_select_callback(lambda _, offered: b"dot")
context.set_session_id(b"interop")
if groups == "p256":
    context.set_tmp_ecdh(crypto.get_elliptic_curve("prime256v1"))
if groups == "tls12":
    context.set_max_proto_version(SSL.TLS1_2_VERSION)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection = SSL.Connection(context, listener.accept()[0])
    connection.set_accept_state()
    received = b""
    try:
        while True:
            received += connection.recv(4096)
            while len(received) > 2 and len(received) >= 2 + int.from_bytes(received[:2], "big"):
                end = 2 + int.from_bytes(received[:2], "big")
                message, received = received[:end], received[end:]
                connection.sendall(message[:4] + b"\x81\x80" + message[6:])
    except SSL.Error:
        connection.close()
