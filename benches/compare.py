#!/usr/bin/env python3
"""Runs the comparisons in benches/README.md side by side and prints tables.

    benches/compare.py plan 10000,100000,1000000      plan beside a bare loop, Python, and Terraform
    benches/compare.py apply 200000                   apply beside wrk, Node, aiohttp, requests
    benches/compare.py shared 50000                   one and three appliers on PostgreSQL
    benches/compare.py rate                           what leaves in any ten seconds, and at once
    benches/compare.py sent 10000,1000000             everything in the ledger already; resuming after a kill
    benches/compare.py allocations                    for each row of a plan, for each send
    benches/compare.py latency                        help, validate
"""

import bisect
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"
SENDFORM, BARE, SINK = TARGET / "sendform", TARGET / "examples/bare", TARGET / "examples/sink"
POSTS, COUNTED = TARGET / "examples/posts", TARGET / "examples/counted"
PYTHON = HERE / ".venv/bin/python"
ENVIRONMENT = {"PATH": os.environ["PATH"], "KALEYRA_SID": "HXBENCH", "KALEYRA_API_KEY": "k", "HOME": os.environ.get("HOME", "/")}


def run(command, cwd=None, env=None, codes=(0,)):
    """Runs a command. Returns wall and CPU seconds, peak memory in MB, and its output."""
    started = time.monotonic()
    out = tempfile.TemporaryFile()
    child = subprocess.Popen([str(part) for part in command], cwd=cwd, env=env or ENVIRONMENT, stdout=out, stderr=out)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    out.seek(0)
    text = out.read().decode(errors="replace")
    if child.returncode not in codes:
        raise SystemExit(f"{command}: exit {child.returncode}\n{text[-3000:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


CAMPAIGN = """\
apiVersion: sendform/v1
kind: Campaign
name: bench
gateway:
  kaleyra:
    base_url: {base_url}
    sid: {{ env: KALEYRA_SID }}
    api_key: {{ env: KALEYRA_API_KEY }}
    from: "+919900112233"
templates:
  en:
    name: diwali_gold
    language: en
    header: {{ image: {{ url: "https://cdn.example.com/offer.png" }} }}
    offer: {{ text: Diwali offer!, has_expiration: true }}
    body:
      text: "Hi {{{{1}}}}, 25% off in {{{{2}}}}."
      params: ["{{{{ recipient.first_name | default('there') }}}}", "{{{{ recipient.city }}}}"]
    url_button: {{ label: Shop now, url: "https://shop.example.com/offer" }}
audience:
  sources: [{{ csv: people.csv }}]
  phone: mobile
  default_region: IN
  suppress: [{{ csv: suppressed.csv }}]
coupons: {{ pool: {{ csv: codes.csv }} }}
expiry: {{ at: "2099-12-31T23:59:59", timezone: Asia/Kolkata }}
delivery: {{ rate: {rate}, concurrency: {concurrency} }}
"""


def project(people, directory, base_url="http://127.0.0.1:9", rate="1000000/s", concurrency=50, duplicates=True):
    """A campaign with this many rows: 1 % suppressed, 1 % duplicates, a unique pool."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "campaign.yaml").write_text(CAMPAIGN.format(base_url=base_url, rate=rate, concurrency=concurrency))
    if (directory / "people.csv").exists():
        return directory
    names = ["Asha", "Ravi", "Meera", "Vikram", "Lakshmi", "Arjun", "Priya", "Kiran"]
    cities = ["Mumbai", "Delhi", "Chennai", "Pune", "Jaipur"]
    draw = random.Random(7)
    with open(directory / "people.csv", "w") as rows, open(directory / "suppressed.csv", "w") as suppressed:
        rows.write("id,mobile,first_name,city\n")
        suppressed.write("mobile\n")
        for row in range(people):
            number = 9_000_000_000 + (row - 1 if duplicates and row % 100 == 50 else row) * 7
            rows.write(f"{row},{number},{names[draw.randrange(8)]},{cities[draw.randrange(5)]}\n")
            if duplicates and row % 100 == 99:
                suppressed.write(f"{number}\n")
    with open(directory / "codes.csv", "w") as codes:
        codes.write("code\n")
        codes.writelines(f"GOLD{row:08}\n" for row in range(people))
    return directory


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def plan(sizes, work):
    print("\n## plan\n")
    row("recipients", "what", "wall s", "CPU s", "MB", "wall beside the bare loop", "CPU beside it")
    row("---:", "---", "---:", "---:", "---:", "---:", "---:")
    for size in sizes:
        directory = project(size, work / f"plan-{size}")
        times = 5 if size <= 1_000_000 else 1
        found = {"bare loop": [], "sendform plan": []}
        if size <= 100_000 and PYTHON.exists():
            found["Python script"] = []
        for _ in range(times):
            found["bare loop"].append(run([BARE, "people.csv", "suppressed.csv"], directory)[:3])
            found["sendform plan"].append(run([SENDFORM, "plan", "campaign.yaml", "--format", "json"], directory)[:3])
            if "Python script" in found and len(found["Python script"]) < 2:
                found["Python script"].append(
                    run([PYTHON, HERE / "peers/plan.py", "people.csv", "suppressed.csv", "codes.csv", "out.json"], directory)[:3]
                )
        base = [median([figures[at] for figures in found["bare loop"]]) for at in range(3)]
        for name, figures in found.items():
            wall, cpu, memory = (median([figure[at] for figure in figures]) for at in range(3))
            row(f"{size:,}", name, f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}", f"{wall / base[0]:.2f}", f"{cpu / base[1]:.2f}")


def terraform(sizes, work):
    """Terraform with one resource per recipient, if it is installed."""
    if not shutil.which("terraform"):
        print("\nTerraform is not installed: its comparison is left out", file=sys.stderr)
        return
    print("\n## plan beside Terraform\n")
    row("recipients", "what", "CPU s", "MB")
    row("---:", "---", "---:", "---:")
    for size in sizes:
        directory = project(size, work / f"terraform-{size}", duplicates=False)
        shutil.copy(HERE / "peers/terraform/main.tf", directory)
        run(["terraform", "init", "-input=false"], directory)
        _, cpu, memory, _ = run(["terraform", "plan", "-input=false", "-out=plan.bin"], directory)
        row(f"{size:,}", "terraform plan", f"{cpu:.2f}", f"{memory:.0f}")
        _, cpu, memory, _ = run([SENDFORM, "plan", "campaign.yaml"], directory)
        row(f"{size:,}", "sendform plan", f"{cpu:.2f}", f"{memory:.0f}")


class Server:
    """A provider on loopback for this block."""

    def __init__(self, command):
        self.child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.first_line = self.child.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def get(self, path):
        return json.load(urllib.request.urlopen(self.url + path))


class Sink(Server):
    """The least that a provider can do."""

    def __init__(self, latency=0):
        port = free_port()
        super().__init__([SINK, port, latency])
        self.url = f"http://127.0.0.1:{port}"


class Sandbox(Server):
    """The sandbox, which checks and stores each message."""

    def __init__(self, latency=0):
        super().__init__([SENDFORM, "sandbox", "--listen", "127.0.0.1:0", "--sid", "HXBENCH", "--api-key", "k", "--latency", f"{latency}ms"])
        self.url = self.first_line.split()[-1].rstrip("/")


class Postgres:
    """A database server for this block."""

    def __init__(self, work):
        self.work = work

    def __enter__(self):
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs:
            raise SystemExit("no PostgreSQL server is installed; tests/run installs it")
        self.binary, data = programs[-1], self.work / "postgres"
        drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        data.mkdir(exist_ok=True)
        if drop:
            shutil.chown(data, "postgres")
            self.work.chmod(0o755)
        self.port = free_port()
        if not (data / "db").exists():
            run([*drop, self.binary / "initdb", "-D", data / "db", "-U", "sendform", "--auth=trust", "-E", "UTF8"])
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command = [*drop, str(self.binary / "postgres"), "-D", str(data / "db"), "-p", str(self.port), *options]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready = [self.binary / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait()

    def database(self):
        """The URL of an empty database."""
        name = f"bench_{os.urandom(4).hex()}"
        run([self.binary / "psql", "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "sendform", "-d", "postgres", "-c", f"CREATE DATABASE {name}"])
        return f"postgres://sendform@127.0.0.1:{self.port}/{name}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(directory, url, rate="1000000/s", concurrency=50, ledger=None):
    """A campaign for that server with a new, empty ledger."""
    project(0, directory, url, rate, concurrency)
    shutil.rmtree(directory / ".sendform", ignore_errors=True)
    create = [str(SENDFORM), "ledger", "create"]
    subprocess.run(create, cwd=directory, env=environment_of(ledger), check=True, stderr=subprocess.DEVNULL)


def environment_of(ledger):
    if ledger is None:
        return dict(ENVIRONMENT)
    return ENVIRONMENT | {"SENDFORM_LEDGER": ledger, "SENDFORM_KEY": "5a" * 32}


def start_apply(directory, ledger=None):
    environment = environment_of(ledger)
    command = [str(SENDFORM), "apply", "campaign.yaml", "--auto-approve"]
    return subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def apply_once(directory, server, rate="1000000/s", concurrency=50, ledger=None, appliers=1):
    """Runs appliers at once. Returns accepted sends, seconds of sending, and total wall and CPU seconds."""
    prepare(directory, server.url, rate, concurrency, ledger)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    children = [start_apply(directory, ledger) for _ in range(appliers)]
    watched = watch(server, children) if appliers > 1 and isinstance(server, Sink) else None
    told = [child.communicate()[1] for child in children]
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    accepted, seconds = 0, 0.0
    for child, text in zip(children, told):
        if child.returncode != 0:
            raise SystemExit(f"apply: exit {child.returncode}\n{text}")
        # "Run 1 complete: 50,000 of 50,000 messages accepted in 2.1 s, 24325/s"
        line = next(line for line in text.splitlines() if "accepted in" in line)
        own, per_second = int(line.split(": ")[1].split(" of ")[0].replace(",", "")), int(line.split(", ")[-1].split("/s")[0])
        accepted += own
        seconds = max(seconds, own / max(per_second, 1))
    if watched:
        # Appliers do not start at the same moment: measure from the first arrival to the last.
        seconds = watched[1] - watched[0]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return accepted, seconds, wall, cpu


def watch(server, children):
    """When the first message arrived at a sink, and when the last."""
    known, first, last = server.get("/count"), None, None
    while any(child.poll() is None for child in children):
        count = server.get("/count")
        if count > known:
            first, last, known = first or time.monotonic(), time.monotonic(), count
        time.sleep(0.02)
    return first, last


def wrk(sink, connections, seconds=8):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "peers/post.lua", sink.url + "/v1/HXBENCH/messages"]
    text = run(command)[3]
    if "Non-2xx" in text:
        raise SystemExit(f"the server refuses what wrk posts:\n{text}")
    return float(next(line for line in text.splitlines() if "Requests/sec" in line).split(":")[1])


def sends(total, work, latencies=(0, 50, 200)):
    print("\n## apply\n")
    row("latency", "connections", "what", "requests/s", "least to most", "beside wrk", "CPU µs a send")
    row("---", "---:", "---", "---:", "---:", "---:", "---:")
    with Postgres(work) as database:
        for latency in latencies:
            connections = 50 if latency == 0 else 100
            many = min(total, {0: total, 50: 40_000}.get(latency, 10_000))
            directory = project(many, work / f"apply-{many}", duplicates=False)
            some = min(many, 20_000)
            few = project(some, work / f"apply-{some}", duplicates=False)
            servers = [("sink", Sink), ("sandbox", Sandbox)] if latency == 0 else [("sink", Sink)]
            for name, server in servers:
                label = f"{latency} ms, {name}"
                base, alone, ours = [], [], []
                # The sandbox stores every message, so each contestant gets its own.
                for _ in range(5 if latency == 0 else 3):
                    with server(latency) as place:
                        base.append((wrk(place, connections), 0))
                    with server(latency) as place:
                        posted = 200_000 if latency == 0 else many
                        _, cpu, _, text = run([POSTS, place.url + "/v1/HXBENCH/messages", connections, posted])
                        alone.append((float(text), cpu / posted * 1e6))
                    with server(latency) as place:
                        accepted, seconds, _, cpu = apply_once(directory, place, concurrency=connections)
                    ours.append((accepted / seconds, cpu / accepted * 1e6))
                best = figures(label, connections, "wrk", base)
                figures(label, connections, "the HTTP client alone", alone, best)
                figures(label, connections, "sendform apply, SQLite", ours, best)
                if name == "sandbox":
                    continue
                with server(latency) as place:
                    theirs = [apply_once(few, place, concurrency=connections, ledger=database.database()) for _ in range(2)]
                    figures(label, connections, "sendform apply, PostgreSQL", [(sent / seconds, cpu / sent * 1e6) for sent, seconds, _, cpu in theirs], best)
                    for name, command in peers(place.url + "/v1/HXBENCH/messages", connections):
                        with tempfile.TemporaryDirectory(dir=work) as scratch:
                            command = [f"{scratch}/sent.db" if part == "LEDGER" else part for part in command]
                            wall, cpu, _, _ = run(command, few)
                        figures(label, connections, name, [(some / wall, cpu / some * 1e6)], best)


def peers(url, connections):
    """Other programs that send, as somebody would write them."""
    yield "Node, no record", ["node", HERE / "peers/send_node.mjs", "people.csv", url, connections]
    for name, script in (("aiohttp", "send_aiohttp.py"), ("requests, threads", "send_requests.py")):
        for every in (100, 1):
            words = "a commit for each send" if every == 1 else "a commit for 100 sends"
            yield f"{name}, {words}", [PYTHON, HERE / "peers" / script, "people.csv", url, connections, every, "LEDGER"]


def figures(label, connections, name, found, best=None):
    """One row: the median of the rates, their spread, and the rate that `best` is."""
    rates = [rate for rate, _ in found]
    rate, cpu = median(rates), median([cpu for _, cpu in found])
    spread = f"{min(rates):,.0f} to {max(rates):,.0f}" if len(rates) > 1 else ""
    row(label, connections, name, f"{rate:,.0f}", spread, f"{rate / (best or rate):.2f}", f"{cpu:.0f}" if cpu else "")
    return rate


def shared(total, work):
    """PostgreSQL: one and three appliers, on a server of its own."""
    print("\n## apply on PostgreSQL\n")
    row("latency", "connections", "what", "requests/s", "least to most", "beside wrk", "CPU µs a send")
    row("---", "---:", "---", "---:", "---:", "---:", "---:")
    directory = project(total, work / f"apply-{total}", duplicates=False)
    with Postgres(work) as database, Sink() as sink:
        best = figures("0 ms, sink", 50, "wrk", [(wrk(sink, 50), 0)])
        for appliers in (1, 3):
            found = [apply_once(directory, sink, ledger=database.database(), appliers=appliers) for _ in range(3)]
            found = [(accepted / seconds, cpu / accepted * 1e6) for accepted, seconds, _, cpu in found]
            figures("0 ms, sink", f"{appliers} x 50", f"{appliers} appliers in sum", found, best)


def paced(work):
    """Arrivals at the sandbox, relative to the configured rate."""
    print("\n## rate\n")
    row("rate", "latency", "ledger", "appliers", "any ten seconds beside the rate", "most at once, in ms of the rate")
    row("---:", "---:", "---", "---:", "---:", "---:")
    cases = [(80, 0, 0), (80, 200, 0), (1_000, 0, 0), (1_000, 50, 0), (1_000, 200, 0), (80, 50, 1), (1_000, 200, 1), (80, 50, 3), (1_000, 200, 3)]
    with Postgres(work) as database:
        for rate, latency, shared_by in cases:
            directory = project(rate * 13, work / f"apply-{rate * 13}", duplicates=False)
            ledger = database.database() if shared_by else None
            concurrency = max(20, rate * latency // 400 + 10)
            with Sandbox(latency) as sandbox:
                apply_once(directory, sandbox, rate=f"{rate}/s", concurrency=concurrency, ledger=ledger, appliers=max(1, shared_by))
                messages = sandbox.get("/sandbox/messages")
            times = sorted(datetime.fromisoformat(message["received_at"].replace("Z", "+00:00")).timestamp() for message in messages)
            # The first message leaves alone, and the last group may be small.
            times = times[2:]
            within = [bisect.bisect_left(times, at + 10) - place for place, at in enumerate(times) if at + 10 < times[-1] - 0.1]
            ahead, lowest = 0.0, 0.0
            for place, at in enumerate(times):
                due = rate * (at - times[0])
                lowest = min(lowest, place - due)
                ahead = max(ahead, place + 1 - due - lowest)
            least, most = min(within) / rate / 10, max(within) / rate / 10
            row(f"{rate}/s", f"{latency} ms", "PostgreSQL" if shared_by else "SQLite", max(1, shared_by), f"{least:.4f} to {most:.4f}", f"{ahead / rate * 1000:.0f}")


def sent(sizes, work):
    """A plan with everything already sent, and resuming after a kill."""
    print("\n## with everything in the ledger\n")
    row("sends", "what", "wall s", "CPU s", "MB", "wall beside the bare loop")
    row("---:", "---", "---:", "---:", "---:", "---:")
    for size in sizes:
        more = max(20_000, size // 50)
        directory = project(size + more, work / f"apply-{size + more}", duplicates=False)
        resumed = killed_and_resumed(size, directory)
        found = []
        for name, command in (
            ("bare loop", [BARE, "people.csv", "suppressed.csv"]),
            ("plan, all sent", [SENDFORM, "plan", "campaign.yaml", "--format", "json"]),
            ("apply, nothing left", [SENDFORM, "apply", "campaign.yaml", "--auto-approve"]),
            ("status", [SENDFORM, "status", "campaign.yaml"]),
            ("ledger check", [SENDFORM, "ledger", "check"]),
        ):
            times = [run(command, directory, codes=(0, 7))[:3] for _ in range(3 if size <= 1_000_000 else 1)]
            found.append((name, [median([figure[at] for figure in times]) for at in range(3)]))
        base = found[0][1][0]
        for name, (wall, cpu, memory) in found:
            row(f"{size + more:,}", name, f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}", f"{wall / base:.1f}")
        row(f"{size + more:,}", "apply, resumed: until its first request", f"{resumed:.2f}", "", "", f"{resumed / base:.1f}")
        shutil.rmtree(directory)


def killed_and_resumed(size, directory):
    """Kills a run after this many sends and resumes it. Returns the seconds until the first request."""
    with Sink() as sink:
        prepare(directory, sink.url, concurrency=200)
        child = start_apply(directory)
        while sink.get("/count") < size and child.poll() is None:
            time.sleep(0.01)
        child.kill()
        child.wait()
        # Requests that are still in the sink's sockets do not belong to the resumed run.
        known = None
        while known != (known := sink.get("/count")):
            time.sleep(0.2)
        started = time.monotonic()
        child = start_apply(directory)
        while sink.get("/count") <= known and child.poll() is None:
            time.sleep(0.005)
        seconds = time.monotonic() - started
        told = child.communicate()[1]
        # Unknown sends stay unknown: exit code 7.
        if child.returncode not in (0, 7) or sink.get("/count") == known:
            raise SystemExit(f"resume: exit {child.returncode}, {known} sent before\n{told}")
        return seconds


def allocations(work):
    """Counts allocations at two sizes, so that the costs that are independent of the rows cancel out."""
    print("\n## allocations\n")
    row("what", "allocations", "bytes")
    row("---", "---:", "---:")

    def counted(directory, *command):
        text = run([COUNTED, *command], directory)[3]
        words = next(line for line in text.splitlines() if line.startswith("allocations ")).split()
        return int(words[1]), int(words[3])

    few, many = 5_000, 25_000
    small, large = (project(size, work / f"apply-{size}", duplicates=False) for size in (few, many))
    found = [counted(directory, "plan", "campaign.yaml", "--format", "json") for directory in (small, large)]
    with Sink() as sink:
        for directory in (small, large):
            prepare(directory, sink.url)
            found.append(counted(directory, "apply", "campaign.yaml", "--auto-approve"))
    for name, (one, other) in (("a row of a plan", found[:2]), ("a send, its two passes over the audience included", found[2:])):
        row(name, *(f"{(other[at] - one[at]) / (many - few):.1f}" for at in range(2)))


def latency(work):
    print("\n## latency, cold, median of 20\n")
    row("what", "ms")
    row("---", "---:")
    one = project(10, work / "one")
    help_text = [run([SENDFORM, "--help"])[0] for _ in range(20)]
    files = []
    for number in range(20):
        text = (one / "campaign.yaml").read_text().replace("name: bench", f"name: bench-{number}")
        files.append(one / f"campaign-{number}.yaml")
        files[-1].write_text(text)
    validate = [run([SENDFORM, "validate", *files], one)[0] for _ in range(20)]
    row("`--help`", f"{median(help_text) * 1000:.1f}")
    row("`validate`, 20 manifests", f"{median(validate) * 1000:.1f}")


def sizes(text):
    return [int(size) for size in (text or "10000,100000,1000000,10000000").split(",")]


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    rest = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="sendform-bench-") as work:
        work = Path(work)
        if what in ("plan", "all"):
            plan(sizes(rest), work)
            if not rest:
                terraform([500, 1_000, 2_000], work)
        if what in ("apply", "all"):
            sends(int(rest or 200_000), work)
        if what in ("shared", "all"):
            shared(int(rest or 50_000), work)
        if what in ("rate", "all"):
            paced(work)
        if what in ("sent", "all"):
            sent(sizes(rest), work)
        if what in ("allocations", "all"):
            allocations(work)
        if what in ("latency", "all"):
            latency(work)


main()
