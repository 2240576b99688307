"""A reverse proxy as in front of a deployment: it says which address a request came from, and writes down what became of it.

`outside.py SERVER ADDRESS LOG`: prints its port; each answer is a line of JSON in the log.
"""

import http.client
import http.server
import json
import sys
import threading
import urllib.parse

server = urllib.parse.urlsplit(sys.argv[1])
address = sys.argv[2]
log = open(sys.argv[3], "a", encoding="utf-8", buffering=1)
writing = threading.Lock()
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        upstream = http.client.HTTPConnection(server.hostname, server.port, timeout=20)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        upstream.request(self.command, self.path, headers=headers | {"X-Forwarded-For": address})
        answer = upstream.getresponse()
        body = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        line = {
            "path": self.path,
            "status": answer.status,
            "blocked": answer.headers.get("x-blocked-reason", ""),
            "type": answer.headers.get("content-type", ""),
            "agent": self.headers.get("user-agent", ""),
        }
        with writing:
            log.write(json.dumps(line) + "\n")

    def log_message(self, *_):
        pass


proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
print(proxy.server_address[1], flush=True)
proxy.serve_forever()
