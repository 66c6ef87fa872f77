"""What the measurements of clusters share: hosts of the lab, what their Engines say, and who runs on them."""
import collections
import contextlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from urllib.parse import quote

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LABEL = "bench.task"
Event = collections.namedtuple("Event", "time host action container task")


def say(text):
    print(text, file=sys.stderr, flush=True)


def load():
    return f"load {os.getloadavg()[0]:.1f}"


AHEAD = None


def ahead(pid="self"):
    """What else runs on the machine takes less from this process and those it starts."""
    with contextlib.suppress(OSError):
        if AHEAD is not None:
            pathlib.Path(f"/proc/{pid}/autogroup").write_text(str(AHEAD))


def put_ahead(nice):
    """Puts this script, what it starts and what it measures before all else on the machine."""
    global AHEAD
    AHEAD = nice
    if nice is not None:
        with contextlib.suppress(PermissionError):
            os.setsid()
        ahead()


def processes(word, name):
    """Processes of this program that have this word in their command line."""
    for one in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = one.read_bytes().decode(errors="replace").split("\0")
            if pathlib.Path(words[0]).name == name and any(word in w for w in words):
                yield int(one.parent.name)


def run(command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}{done.stdout}")
    return done.stdout.strip()


def load_program(tmp):
    """Serves and connects, needs nothing else, and is static."""
    path = pathlib.Path(tmp) / "net_load"
    source = ROOT / "crates/host/examples/net_load.rs"
    run(["rustc", "--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o", path, source])
    return path


class Host:
    """A host of the lab, and its Engine."""

    def __init__(self, lab, words):
        self.lab = lab
        self.name, self.address, self.url = words
        self.path = self.url.removeprefix("unix://")

    def command(self, *command):
        return [self.lab.program, "exec", "--lab", self.lab.name, self.name, "--", *command]

    def ahead(self):
        for pid in processes(self.path.removesuffix("docker.sock"), "dockerd"):
            ahead(pid)

    def docker(self, *args, **options):
        return run(["docker", "-H", self.url, *args], **options)

    def open(self, method, url, body=None):
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        data = None if body is None else json.dumps(body)
        connection.request(method, "/v1.41" + url, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status >= 400:
            raise RuntimeError(f"{method} {url}: {response.status} {response.read().decode()}")
        return connection, response

    def call(self, method, url, body=None):
        connection, response = self.open(method, url, body)
        with contextlib.closing(connection):
            text = response.read()
        return json.loads(text) if text else None


class Lab:
    """Hosts that all have the same image, and what their Engines say of containers."""

    def __init__(self, program, kind, count, client=None):
        self.program = program
        made = run([program, "up", count, "--engine", kind, *(["--client", client] if client else [])]).splitlines()
        self.name = made[0].split()[0]
        machines = [line.split() for line in made[1:]]
        self.hosts = [Host(self, words) for words in machines if len(words) == 3]
        first, *others = self.hosts
        image = subprocess.run(["docker", "-H", first.url, "save", "busybox"], check=True, capture_output=True).stdout
        for host in others:
            subprocess.run(["docker", "-H", host.url, "load", "-q"], input=image, check=True, capture_output=True)
        self.image = first.call("GET", "/images/busybox/json")["Id"]
        self.version = first.call("GET", "/version")["Version"]
        self.changed = threading.Condition()
        # What runs and what there is by host and id; the value is the task.
        self.running, self.there = {}, {}
        self.last, self.events = 0.0, []
        for host in self.hosts:
            self.watch(host)

    def give(self, image, load_program):
        """Puts an image of this program alone on all hosts, the same on each."""
        packed = subprocess.run(["tar", "-C", load_program.parent, "-c", load_program.name], check=True, capture_output=True).stdout
        first, *others = self.hosts
        subprocess.run(["docker", "-H", first.url, "import", "-", f"{image}:latest"], input=packed, check=True, capture_output=True)
        saved = subprocess.run(["docker", "-H", first.url, "save", image], check=True, capture_output=True).stdout
        for host in others:
            subprocess.run(["docker", "-H", host.url, "load", "-q"], input=saved, check=True, capture_output=True)

    def down(self):
        subprocess.run([self.program, "down", "--lab", self.name], capture_output=True)

    def do(self, *args):
        run([self.program, args[0], "--lab", self.name, *args[1:]])

    def watch(self, host):
        """Follows the containers of an Engine until it is gone."""
        query = http_query({"type": ["container"]})
        connection, response = host.open("GET", f"/events?filters={query}")
        with self.changed:
            for old in [k for k in self.there if k[0] == host.name]:
                self.there.pop(old)
                self.running.pop(old, None)
            for found in host.call("GET", "/containers/json?all=1"):
                key = (host.name, found["Id"])
                self.there[key] = task(found["Labels"])
                if found["State"] == "running":
                    self.running[key] = self.there[key]

        def follow():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(connection):
                while line := response.readline():
                    self.note(host.name, json.loads(line))

        threading.Thread(target=follow, daemon=True).start()

    def note(self, host, event):
        key = (host, event["Actor"]["ID"])
        name = task(event["Actor"]["Attributes"])
        with self.changed:
            match event["Action"]:
                case "create":
                    self.there[key] = name
                case "start":
                    self.there[key] = self.running[key] = name
                case "die":
                    self.running.pop(key, None)
                case "destroy":
                    self.running.pop(key, None)
                    self.there.pop(key, None)
                case _:
                    return
            self.last = event["timeNano"] / 1e9
            self.events.append(Event(self.last, host, event["Action"], event["Actor"]["ID"], name))
            self.changed.notify_all()

    def when(self, true, patience=180):
        """The time of the event that makes it true."""
        deadline = time.monotonic() + patience
        with self.changed:
            while not true():
                if not self.changed.wait(deadline - time.monotonic()) and time.monotonic() > deadline:
                    places = collections.Counter(host for host, _ in self.running)
                    raise RuntimeError(f"it does not come about: running {dict(places)}, there {len(self.there)}")
            return self.last

    def tasks(self, *hosts):
        """Tasks that run on these hosts."""
        return {t for (host, _), t in self.running.items() if host in hosts}

    def names(self, but=None):
        return [h.name for h in self.hosts if h.name != but]

    def once(self, count):
        """Waits until so many tasks run once each, and for a while nothing changes that."""
        names = self.names()

        def so():
            # Swarm keeps what has ended.
            return len(self.running) == count and len(self.tasks(*names)) == count

        while True:
            self.when(so)
            time.sleep(2)
            with self.changed:
                if so():
                    return


def http_query(filters):
    return quote(json.dumps(filters))


def task(labels):
    """The task of a container, whoever made it."""
    if swarm := labels.get("com.docker.swarm.task.name"):
        return "-".join(swarm.split(".")[:2])
    return labels.get(LABEL) or f'{labels.get("com.docker.compose.service")}-{labels.get("com.docker.compose.container-number")}'


class Agents:
    """An agent on each host; one cluster."""

    def __init__(self, lab, program, tmp, level, hosts=None):
        self.lab, self.program, self.tmp, self.level = lab, program, pathlib.Path(tmp), level
        self.hosts = hosts or lab.hosts
        # More of an agent's settings.
        self.settings = []
        self.agents = {}
        self.joined = False
        self.directory = self.tmp / "bench"
        self.directory.mkdir()

    def home(self, host):
        return self.tmp / host.name

    def on(self, host, *args):
        home = self.home(host)
        # `exec` sets DOCKER_HOST, which would be that Engine alone.
        env = ["env", "-u", "DOCKER_HOST", f"WHARFIE_SOCKET={home}/w.sock", f"WHARFIE_STATE_DIR={home}/state"]
        return host.command(*env, self.program, *args)

    def cli(self, *args, host=None):
        return run(self.on(host or self.lab.hosts[0], *args), cwd=self.directory)

    def start(self, host):
        home = self.home(host)
        home.mkdir(exist_ok=True)
        (home / "w.sock").unlink(missing_ok=True)
        command = self.on(host, "agent", "--log-level", self.level, "--node-name", host.name, "--engine", host.url, *self.settings)
        with open(home / "log", "a") as log:
            self.agents[host.name] = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until((home / "w.sock").exists)

    def whole(self):
        """Waits until all nodes are up for all."""
        count = len(self.hosts)
        until(lambda: all(self.cli("node", "ls", host=h).count(" up ") == count for h in self.hosts))

    @contextlib.contextmanager
    def turn(self):
        try:
            for host in self.hosts:
                self.start(host)
            if not self.joined:
                first, *others = self.hosts
                for other in others:
                    self.cli("join", self.cli("token", host=first), host=other)
                self.joined = True
            self.whole()
            yield
        finally:
            for agent in self.agents.values():
                agent.terminate()
            for agent in self.agents.values():
                agent.wait()


def until(true, patience=60):
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError("it does not come about")
        time.sleep(0.02)


class Swarms:
    """All hosts managers, or of two the first."""

    def __init__(self, lab):
        self.lab = lab

    @contextlib.contextmanager
    def turn(self):
        first, *others = hosts = self.lab.hosts
        kind = "manager" if len(hosts) > 2 else "worker"
        try:
            first.docker("swarm", "init", "--advertise-addr", first.address)
            token = first.docker("swarm", "join-token", "-q", kind)
            for host in others:
                host.docker("swarm", "join", "--advertise-addr", host.address, "--token", token, f"{first.address}:2377")
            self.healed()
            yield
        finally:
            for host in reversed(hosts):
                subprocess.run(["docker", "-H", host.url, "swarm", "leave", "--force"], capture_output=True)

    def nodes(self):
        for host in self.lab.hosts:
            with contextlib.suppress(RuntimeError):
                listed = host.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
                return [line.split() for line in listed.splitlines()]
        return []

    def healed(self):
        until(lambda: [n[1] for n in self.nodes()] == ["Ready"] * len(self.lab.hosts))


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def spread(values):
    if not values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
