"""One request to a lab's API server as its administrator: a program of its own, for the server is in reach only from hosts of the lab."""

import json
import ssl
import sys
import urllib.error
import urllib.request


def main():
    asked = json.load(sys.stdin)
    request = urllib.request.Request(asked["url"], asked["body"].encode() if asked["body"] else None, method=asked["verb"], headers={
        "Authorization": "Bearer admin-of-the-lab", "Content-Type": asked["type"], "Accept": "application/json"})
    context = ssl.create_default_context(cafile=asked["ca"])
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            told = {"status": answer.status, "text": answer.read().decode()}
    except urllib.error.HTTPError as error:
        told = {"status": error.code, "text": error.read().decode()}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
