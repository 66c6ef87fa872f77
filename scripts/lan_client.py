#!/usr/bin/env python3
"""What a client on the LAN sees of a service: run by `bench-director` on the lab's client machine.

  lan_client.py NAME ADDRESS PORT EVERY SERVER...

Asks each server for the name's address again and again, and connects to the address and port (`-` for the
address: the one that a server says), until its input ends. Prints `ready`, and at the end one line of JSON:

  {"named": {SERVER: [[answered at, address or what else], ...]},   changes only
   "met": [[begun at, ended at, what the task says or null, why not], ...]}

Times are seconds of the wall clock, as in events of the Engine.
"""
import errno
import json
import selectors
import socket
import struct
import sys
import time

# A network gets 200 like answers a second of a node.
ASK = 0.006
# A connection that takes longer leads nowhere.
PATIENCE = 0.9


def question(name, number):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def answered(packet):
    """The first address of an answer, or its code."""
    _, flags, _, count, _, _ = struct.unpack_from("!6H", packet)
    if flags & 15:
        return f"code {flags & 15}"
    if flags & 0x200:
        return "cut off"
    if not count:
        return "nothing"
    at = 12
    while packet[at]:
        at += packet[at] + 1
    at += 5
    # The name is a pointer to the question's.
    kind, _, _, length = struct.unpack_from("!HHIH", packet, at + 2)
    if packet[at] & 0xc0 != 0xc0 or (kind, length) != (1, 4):
        return "something else"
    return socket.inet_ntoa(packet[at + 12:at + 16])


class Client:
    def __init__(self, name, address, port, every, servers):
        self.name, self.port, self.every = name, port, every
        self.address = None if address == "-" else address
        self.named, self.met, self.number = {s: [] for s in servers}, [], 0
        self.selector = selectors.DefaultSelector()
        self.askers, self.trying = {}, {}
        for server in servers:
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            asker.connect((server, 53))
            self.askers[server] = asker
            self.selector.register(asker, selectors.EVENT_READ, lambda s, server=server: self.hear(s, server))
        self.ended = False
        self.selector.register(sys.stdin, selectors.EVENT_READ, lambda _: setattr(self, "ended", True))

    def ask(self):
        self.number = (self.number + 1) % 65536
        for asker in self.askers.values():
            try:
                asker.send(question(self.name, self.number))
            except OSError:
                pass  # a host that is away; or it has nobody at the port

    def hear(self, asker, server):
        try:
            said = answered(asker.recv(4096))
        except OSError:
            return
        seen = self.named[server]
        if said != "cut off" and (not seen or seen[-1][1] != said):
            seen.append([time.time(), said])
        if "." in said and self.address is None:
            self.address = said

    def connect(self):
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.trying[stream] = time.time()
        code = stream.connect_ex((self.address, self.port))
        if code not in (0, errno.EINPROGRESS):
            self.end(stream, None, errno.errorcode[code])
        else:
            self.selector.register(stream, selectors.EVENT_READ, self.hear_task)

    def hear_task(self, stream):
        said, why = None, "ended"
        try:
            # The task says who it is, and ends.
            said = stream.recv(128).decode().strip() or None
        except OSError as e:
            why = errno.errorcode[e.errno]
        self.selector.unregister(stream)
        self.end(stream, said, why)

    def end(self, stream, said, why):
        self.met.append([self.trying.pop(stream), time.time(), said, None if said else why])
        stream.close()

    def run(self):
        print("ready", flush=True)
        ask = connect = time.monotonic()
        while not self.ended:
            now = time.monotonic()
            if now >= ask:
                self.ask()
                ask = max(ask + ASK, now)
            if now >= connect:
                if self.address:
                    self.connect()
                connect = max(connect + self.every, now)
                late = time.time() - PATIENCE
                for stream in [s for s, begun in self.trying.items() if begun < late]:
                    self.selector.unregister(stream)
                    self.end(stream, None, "late")
            for key, _ in self.selector.select(max(0, min(ask, connect) - time.monotonic())):
                key.data(key.fileobj)
        print(json.dumps({"named": self.named, "met": self.met}), flush=True)


if __name__ == "__main__":
    name, address, port, every, *servers = sys.argv[1:]
    Client(name, address, int(port), float(every), servers).run()
