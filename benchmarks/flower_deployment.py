"""Real processes on 127.0.0.1: a SuperLink, 4 SuperNodes; two nodes are killed in a round, then the server.

    python benchmarks/flower_deployment.py --json runs/flower.json            # needs the extra `federated`
    python benchmarks/flower_deployment.py --tls                              # encrypted, nodes authenticated

With --tls the nodes' keys are registered, and nodes that come with a key of their own making, with none, or
without encryption have to be turned away first.

The app is examples/flower. Only processes started here are ended, each by its id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import _common as common
from regraft import checkpoint, files
from regraft.federated import state as states

APP = Path(__file__).parent.parent / "examples" / "flower"
BIN = Path(sys.executable).parent
NODES = 4


class Deployment:
    """A SuperLink and SuperNodes in a folder of their own."""

    def __init__(self, folder: Path, tls: bool, nodes: int = NODES) -> None:
        self.folder, self.state, self.port, self.tls = folder, folder / "state", free_port(), tls
        self.nodes = nodes
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "FLWR_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        (folder / "home").mkdir(parents=True)
        secure = f'root-certificates = "{folder}/ca.crt"' if tls else "insecure = true"
        (folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n'
            f'[superlink.here]\naddress = "127.0.0.1:{self.port}"\n{secure}\n'
        )
        if tls:
            certificates(folder, nodes)

    def launch(self, name: str, *command: str) -> None:
        """Start a process in a session of its own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]], stdout=log, stderr=log, env=self.environment,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def superlink(self) -> None:
        """Start the server; its database outlives it."""
        where = self.folder
        secure = (
            ["--ssl-ca-certfile", f"{where}/ca.crt", "--ssl-certfile", f"{where}/server.crt",
             "--ssl-keyfile", f"{where}/server.key", "--enable-supernode-auth"]
            if self.tls else ["--insecure"]
        )  # fmt: skip
        self.launch(
            "superlink", "flower-superlink", *secure, "--disable-runtime-dependency-installation",
            "--database", f"{where}/superlink.db", "--host", "127.0.0.1", "--port", str(self.port),
        )  # fmt: skip
        wait_for_port(self.port)

    def supernode(self, number: int) -> None:
        """Start a node."""
        secure = ["--insecure"]
        if self.tls:
            key, root = f"{self.folder}/node{number}", f"{self.folder}/ca.crt"
            secure = ["--root-certificates", root, "--auth-supernode-private-key", key]
        self.launch(
            f"node{number}", "flower-supernode", *secure, "--superlink", f"127.0.0.1:{self.port}",
            "--host", "127.0.0.1", "--port", str(free_port()),
            "--node-config", f"partition-id={number} num-partitions={self.nodes}",
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """End a process and those that it started, at once."""
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def flwr(self, *command: str) -> str:
        """What ``flwr`` prints."""
        done = subprocess.run(
            [str(BIN / "flwr"), *command], capture_output=True, text=True, env=self.environment, check=False,
            cwd=self.folder, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"flwr {' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def register(self, number: int) -> None:
        """Have the server know a node's key."""
        self.flwr("supernode", "register", f"{self.folder}/node{number}.pub", "here")

    def turned_away(self, name: str, *secure: str, seconds: float = 60.0) -> str:
        """Start a node that must not be let in. Returns what it says."""
        self.launch(
            name, "flower-supernode", *secure, "--superlink", f"127.0.0.1:{self.port}", "--host", "127.0.0.1",
            "--port", str(free_port()), "--max-wait-time", "5",
        )  # fmt: skip
        try:
            self.running[name].wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise SystemExit(f"{name} still runs after {seconds} s: see {self.folder}/{name}.log") from error
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        if any("SuperNode ID" in line for line in lines):
            raise SystemExit(f"{name} was let in: see {self.folder}/{name}.log")
        self.kill(name)
        return next((line for line in lines if line.startswith("[code")), "no connection")

    def run(self, rounds: int, timeout: float) -> None:
        """Submit the app; the server's state goes to a folder that outlives it."""
        config = f'nodes={self.nodes} rounds={rounds} wait=60.0 timeout={timeout} folder="{self.state}"'
        self.flwr("run", str(APP), "here", "--run-config", config)

    def wait_for_round(self, number: int, seconds: float) -> None:
        """Until the state after so many rounds is on disk."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if (self.state / f"round-{number:06d}.safetensors").exists():
                return
            time.sleep(0.1)
        raise SystemExit(f"round {number} did not end within {seconds} s: see {self.folder}/*.log")

    def history(self) -> list[dict[str, Any]]:
        """What happened in each round."""
        newest = states.find(self.state)
        assert newest is not None
        rows: list[dict[str, Any]] = files.read_network(newest)[1].provenance["federation"]["history"]
        return rows


@contextlib.contextmanager
def deployment(folder: Path, tls: bool, nodes: int = NODES) -> Iterator[Deployment]:
    """All that is still running is ended at the end."""
    here = Deployment(folder, tls, nodes)
    try:
        yield here
    finally:
        for name in list(here.running):
            here.kill(name)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for_port(port: int, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port} after {seconds} s")


def certificates(folder: Path, nodes: int) -> None:
    """A certificate authority, the server's certificate and a key for each node and for one more."""
    extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    for command in (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.crt",
        "openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        f"openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out server.crt"
        f" -extfile {folder}/san.ext",
        *(f"ssh-keygen -q -t ecdsa -b 384 -N , -f node{i}" for i in range(nodes + 1)),
    ):
        (folder / "san.ext").write_text(extensions)
        words: Sequence[str] = ["" if word == "," else word for word in command.split()]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)


def strangers(here: Deployment) -> dict[str, str]:
    """Nodes that must not be let in, and what each says."""
    root = ("--root-certificates", f"{here.folder}/ca.crt")
    key = ("--auth-supernode-private-key", f"{here.folder}/node{here.nodes}")
    return {
        "a key that is not registered": here.turned_away("stranger", *root, *key),
        "no key": here.turned_away("nameless", *root),
        "no encryption": here.turned_away("plain", "--insecure"),
    }


def measure(folder: Path, rounds: int, timeout: float, tls: bool) -> dict[str, Any]:
    """Start, kill, resume. Returns what happened."""
    times: dict[str, float] = {}
    begun = time.monotonic()

    def note(what: str) -> None:
        times[what] = round(time.monotonic() - begun, 1)
        print(f"{times[what]:7.1f} s  {what}", file=sys.stderr)

    with deployment(folder, tls) as here:
        here.superlink()
        turned_away = {}
        if tls:
            for number in range(NODES):
                here.register(number)
            turned_away = strangers(here)
            note("three strangers turned away")
        for number in range(NODES):
            here.supernode(number)
        note("superlink and nodes started")
        here.run(rounds, timeout)
        here.wait_for_round(1, 600)
        note("round 1 done")
        time.sleep(1.5)  # a node's training has just begun: its process takes longer than this to start
        here.kill("node2")
        here.kill("node3")
        note("two nodes killed in round 2")
        here.wait_for_round(2, timeout + 300)
        note("round 2 done")
        here.kill("superlink")
        note("server killed in round 3")
        here.superlink()
        here.run(rounds, timeout)
        note("server started again, the run submitted again")
        here.wait_for_round(rounds, 600 + rounds * timeout)
        note(f"round {rounds} done")
        rows = here.history()
        final = states.find(here.state)
        assert final is not None
        checkpoint.load(final)
    keys = (
        "round",
        "clients",
        "accepted",
        "lost",
        "rejected",
        "upload_bytes",
        "download_bytes",
        "test_accuracy",
    )
    return {
        "tls": tls,
        "turned_away": turned_away,
        "times": times,
        "rounds": [{k: row[k] for k in keys} for row in rows],
    }


def main() -> None:
    parser = common.options(__doc__, threads=False)
    parser.add_argument("--rounds", type=int, default=4, help="of the run (default 4)")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds of a round (default 180)")
    parser.add_argument("--tls", action="store_true", help="encrypted, nodes authenticated")
    parser.add_argument(
        "--folder", type=Path, default=None, help="for logs and state (default: a temporary one)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "flower"
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(folder.resolve(), options.rounds, options.timeout, options.tls)
    common.write_figures(options.json or "-", figures)


if __name__ == "__main__":
    main()
