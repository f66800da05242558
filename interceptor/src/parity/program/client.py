# Fetches a page and tells what this end of the connection sees of it.
import errno, json, socket, sys

def show(name):
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: page\r\n\r\n")
        page = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        answer = page.partition("\r\n\r\n")[2]
        seen = {"local": show(connection.getsockname()), "peer": show(connection.getpeername()), "answer": answer}
        print(json.dumps({"page": seen}))
except OSError as error:
    print(json.dumps({"error": errno.errorcode.get(error.errno, type(error).__name__)}))
