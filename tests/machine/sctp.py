"""Says a word over SCTP to whoever asks, or asks: sctp.py serve | sctp.py ask ADDRESS PORT"""
import socket
import sys

SCTP = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)
if sys.argv[1] == "serve":
    SCTP.bind(("0.0.0.0", 7777))
    SCTP.listen()
    print("listens", flush=True)
    while True:
        connection, _ = SCTP.accept()
        connection.send(b"hello")
        connection.close()
SCTP.settimeout(60)
SCTP.connect((sys.argv[2], int(sys.argv[3])))
print(SCTP.recv(5).decode())
