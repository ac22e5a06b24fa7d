"""The process that ExaBGP runs for us: writes down what ExaBGP tells, and passes on commands.

usage: exabgp_api.py FOLDER      FOLDER/received.jsonl is written, the FIFO FOLDER/commands is read
"""

import sys
import threading


def pass_on(fifo):
    # opened for writing too, so that it never ends when a writer closes it
    with open(fifo, "r+b", buffering=0) as commands, open(1, "wb", buffering=0, closefd=False) as exabgp:
        while line := commands.readline():
            exabgp.write(line)


def main():
    folder = sys.argv[1]
    threading.Thread(target=pass_on, args=(f"{folder}/commands",), daemon=True).start()
    with open(f"{folder}/received.jsonl", "a", buffering=1) as out:
        for line in sys.stdin:
            out.write(line)


if __name__ == "__main__":
    main()
