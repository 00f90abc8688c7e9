#!/usr/bin/env python3
"""Runs the comparisons of benches/README.md, side by side, and prints them as tables.

    benches/compare.py plan 10000,100000,1000000      plan beside a bare loop and Python
    benches/compare.py apply 200000                   apply beside wrk, Node, aiohttp, requests
    benches/compare.py latency                        help, validate, resuming
"""

import csv
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
SENDFORM, BARE, SINK = TARGET / "sendform", TARGET / "examples/bare", TARGET / "examples/sink"
PYTHON = HERE / ".venv/bin/python"
ENVIRONMENT = {"PATH": os.environ["PATH"], "KALEYRA_SID": "HXBENCH", "KALEYRA_API_KEY": "k", "HOME": os.environ.get("HOME", "/")}


def run(command, cwd=None, env=None, codes=(0,)):
    """Runs a command: wall and CPU seconds, peak memory in MB, what it printed."""
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
    """A campaign for so many rows: 1 % suppressed, 1 % duplicates, a unique pool."""
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
    """One resource for each recipient, where Terraform is installed."""
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


class Sink:
    def __init__(self, latency=0):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.child = subprocess.Popen([str(SINK), str(self.port), str(latency)], stdout=subprocess.PIPE)
        self.child.stdout.readline()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def apply_once(directory, sink, rate="1000000/s", concurrency=50, ledger=None, appliers=1):
    """So many appliers at once: wall seconds from the first request to the last, CPU and memory in sum."""
    project(0, directory, sink.url, rate, concurrency)
    shutil.rmtree(directory / ".sendform", ignore_errors=True)
    environment = dict(ENVIRONMENT)
    if ledger:
        environment |= {"SENDFORM_LEDGER": ledger, "SENDFORM_KEY": "5a" * 32}
    command = [str(SENDFORM), "apply", "campaign.yaml", "--auto-approve"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    children = [
        subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(appliers)
    ]
    told = [child.communicate()[1] for child in children]
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for child, text in zip(children, told):
        if child.returncode != 0:
            raise SystemExit(f"apply: exit {child.returncode}\n{text}")
    # What apply says of its sending alone, without making the plan.
    accepted, seconds = 0, 0.0
    for text in told:
        line = next(line for line in text.splitlines() if "accepted in" in line)
        accepted += int(line.split(": ")[1].split(" of ")[0].replace(",", ""))
        seconds = max(seconds, float(line.split("accepted in ")[1].split(" s")[0]))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return accepted, seconds, wall, cpu


def wrk(sink, connections, seconds=8):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "peers/post.lua", sink.url + "/v1/HXBENCH/messages"]
    text = run(command)[3]
    return float(next(line for line in text.splitlines() if "Requests/sec" in line).split(":")[1])


def sends(total, work, latencies=(0, 50, 200)):
    print("\n## apply\n")
    row("latency", "connections", "what", "requests/s", "beside wrk", "CPU µs a send")
    row("---", "---:", "---", "---:", "---:", "---:")
    for latency in latencies:
        connections = 50 if latency == 0 else 100
        many = total if latency == 0 else min(total, 20_000)
        directory = project(many, work / f"apply-{many}", duplicates=False)
        with Sink(latency) as sink:
            base = []
            ours = []
            for _ in range(3 if latency == 0 else 2):
                base.append(wrk(sink, connections))
                accepted, seconds, _, cpu = apply_once(directory, sink, concurrency=connections)
                ours.append((accepted / seconds, cpu / accepted * 1e6))
            rate = median(base)
            row(f"{latency} ms", connections, "wrk", f"{rate:,.0f}", "1.00", "")
            mine = median([figure[0] for figure in ours])
            row(f"{latency} ms", connections, "sendform apply, SQLite", f"{mine:,.0f}", f"{mine / rate:.2f}", f"{median([figure[1] for figure in ours]):.0f}")
            url = sink.url + "/v1/HXBENCH/messages"
            some = project(min(many, 20_000), work / f"apply-{min(many, 20_000)}", duplicates=False)
            count = min(many, 20_000)
            peers = [("Node, no record", ["node", HERE / "peers/send_node.mjs", "people.csv", url, connections])]
            if PYTHON.exists():
                for name, script in (("aiohttp", "send_aiohttp.py"), ("requests, threads", "send_requests.py")):
                    for every in (100, 1):
                        words = "a commit for each send" if every == 1 else "a commit for 100 sends"
                        peers.append((f"{name}, {words}", [PYTHON, HERE / "peers" / script, "people.csv", url, connections, every, "LEDGER"]))
            for name, command in peers:
                with tempfile.TemporaryDirectory(dir=work) as scratch:
                    command = [f"{scratch}/sent.db" if part == "LEDGER" else part for part in command]
                    wall, cpu, _, _ = run(command, some)
                row(f"{latency} ms", connections, name, f"{count / wall:,.0f}", f"{count / wall / rate:.2f}", f"{cpu / count * 1e6:.0f}")


def shared(total, work):
    """PostgreSQL: one and three appliers, on a server of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        print("\nno PostgreSQL server is installed; tests/run installs it", file=sys.stderr)
        return
    binary, data = programs[-1], work / "postgres"
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    data.mkdir()
    if drop:
        shutil.chown(data, "postgres")
        for parent in [work, *work.parents][:1]:
            parent.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run([*drop, binary / "initdb", "-D", data / "db", "-U", "sendform", "--auth=trust", "-E", "UTF8"])
    server = subprocess.Popen(
        [*drop, str(binary / "postgres"), "-D", str(data / "db"), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        while subprocess.run([binary / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
            time.sleep(0.1)
        print("\n## apply on PostgreSQL\n")
        row("appliers", "requests/s in sum", "beside wrk", "CPU µs a send")
        row("---:", "---:", "---:", "---:")
        directory = project(total, work / f"apply-{total}", duplicates=False)
        with Sink() as sink:
            for appliers in (1, 3):
                rate = wrk(sink, 50)
                name = f"bench{appliers}"
                run([binary / "psql", "-q", "-h", "127.0.0.1", "-p", port, "-U", "sendform", "-d", "postgres", "-c", f"CREATE DATABASE {name}"])
                url = f"postgres://sendform@127.0.0.1:{port}/{name}"
                accepted, seconds, _, cpu = apply_once(directory, sink, ledger=url, appliers=appliers)
                row(appliers, f"{accepted / seconds:,.0f}", f"{accepted / seconds / rate:.2f}", f"{cpu / accepted * 1e6:.0f}")
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()


def sent(size, work):
    """A plan with everything sent already, and resuming after a kill."""
    print("\n## with everything in the ledger\n")
    row("sends", "what", "wall s", "CPU s", "MB")
    row("---:", "---", "---:", "---:", "---:")
    directory = project(size, work / f"apply-{size}", duplicates=False)
    with Sink() as sink:
        apply_once(directory, sink, concurrency=200)
        for name, command in (
            ("plan, all sent", ["plan", "campaign.yaml", "--format", "json"]),
            ("status", ["status", "campaign.yaml"]),
            ("ledger check", ["ledger", "check"]),
            ("apply, nothing left", ["apply", "campaign.yaml", "--auto-approve"]),
        ):
            figures = [run([SENDFORM, *command], directory)[:3] for _ in range(3)]
            row(f"{size:,}", name, *(f"{median([figure[at] for figure in figures]):.2f}" for at in range(2)), f"{median([figure[2] for figure in figures]):.0f}")


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


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    rest = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="sendform-bench-") as work:
        work = Path(work)
        if what in ("plan", "all"):
            plan([int(size) for size in (rest or "10000,100000,1000000").split(",")], work)
            if not rest:
                terraform([500, 1_000, 2_000], work)
        if what in ("apply", "all"):
            sends(int(rest or 200_000), work)
        if what in ("shared", "all"):
            shared(int(rest or 50_000), work)
        if what in ("sent", "all"):
            sent(int(rest or 1_000_000), work)
        if what in ("latency", "all"):
            latency(work)


main()
