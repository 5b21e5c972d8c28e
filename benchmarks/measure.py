"""Measures one work on one instance: wrk's figures, the CPU time and the memory of all the proxy's processes."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from peers import Instance, OriginError
from works import Work

_SCRIPTS = Path(__file__).resolve().parent / "wrk"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POSTED_BYTES = {"post": 1_024, "upload": 1_048_576}  # by wrk script
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3_600e6}
_WARM_S = (1, 2, 4, 8, 16, 32)
# A cache is warm when the origin sees fewer than this share of a run's requests.
_WARM_SHARE = 0.05
# Beyond this share of requests that reach the origin, a "cache hit" is none, and the report says so.
_MISS_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """One run.

    Attributes:
        requests: answered, right or wrong; for the idle work: connections that stayed open.
        rate: requests per second.
        p50_us, p99_us: latency.
        cpu_us: CPU time of all the proxy's processes per request.
        user_us, system_us: what of it went to their own code, and what to the kernel.
        softirq_us: time of the whole machine's softirqs per request, which some kernels charge to no process.
        pss_kib: proportional set size of all the proxy's processes, right after the run.
        connection_bytes: idle work alone: what the PSS grew by, per connection.
        errors: what went wrong, and how often.
    """

    requests: int
    rate: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us: float | None = None
    user_us: float | None = None
    system_us: float | None = None
    softirq_us: float | None = None
    pss_kib: int | None = None
    connection_bytes: float | None = None
    errors: dict[str, int] = field(default_factory=dict)


def process_tree(pids: Iterable[int]) -> list[int]:
    """The processes and all their descendants."""
    found: list[int] = []
    for pid in pids:
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += process_tree(int(child) for child in children.read_text().split())
            except FileNotFoundError:  # ended meanwhile
                continue
    return found


def cpu_time_s(pids: Iterable[int]) -> tuple[float, float]:
    """User and system time so far, that of children that ended included. Kept in ticks of 10 ms, usually."""
    user = system = 0
    for pid in process_tree(pids):
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        utime, stime, cutime, cstime = map(int, after_name[11:15])
        user += utime + cutime
        system += stime + cstime
    return user / _TICKS_PER_S, system / _TICKS_PER_S


def softirq_time_s() -> float:
    """Time all cores spent in softirqs so far: the receiving half of the network stack, mostly."""
    return int(Path("/proc/stat").read_text().split()[7]) / _TICKS_PER_S


def pss_kib(pids: Iterable[int]) -> int | None:
    """Memory with shared pages divided among those that share them; None where it may not be read."""
    total = 0
    for pid in process_tree(pids):
        try:
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            return None
        total += int(found[1]) if found else 0
    return total


def origin_requests(origin: Instance) -> int:
    """Requests the origin has seen, this one included.

    Raises:
        OriginError: it does not answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=5)
    try:
        connection.request("GET", "/requests")
        return int(connection.getresponse().read().splitlines()[2].split()[2])
    except (OSError, http.client.HTTPException) as error:
        raise OriginError("the origin does not answer any more") from error
    finally:
        connection.close()


def run_wrk(work: Work, port: int, seconds: int, arguments: tuple[str, ...]) -> str:
    """wrk's report; "" if it does not end."""
    command = [shutil.which("wrk") or "wrk", "-t1", f"-c{work.connections}", f"-d{seconds}s", "--latency"]
    if work.script:
        command += ["-s", str(_SCRIPTS / f"{work.script}.lua")]
    command += [f"http://127.0.0.1:{port}{work.path}", "--", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def parse_errors(report: str) -> dict[str, int]:
    """The kinds of error that occurred, with their counts."""
    errors = {}
    for line in re.findall(r"Socket errors: (.*)", report):
        errors = {kind: int(count) for kind, count in re.findall(r"(\w+) (\d+)", line) if int(count)}
    for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", report):
        errors["status"] = int(count)
    return errors


def parse_latency_us(report: str, percentile: int) -> float | None:
    found = re.search(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s|m|h)\s*$", report, re.MULTILINE)
    return float(found[1]) * _UNITS_US[found[2]] if found else None


def check_answer(work: Work, port: int) -> dict[str, int]:
    """Asks once and compares with what the work expects, so that nobody is fast by answering something else."""
    size = _POSTED_BYTES.get(work.script)
    method, body = ("GET", None) if size is None else ("POST", b"x" * size)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Accept-Encoding": "gzip"} if work.chunked else {}
        connection.request(method, work.path, body=body, headers=headers)
        response = connection.getresponse()
        length = len(response.read())
    except (OSError, http.client.HTTPException):
        return {"no answer": 1}
    finally:
        connection.close()
    is_chunked = response.getheader("Transfer-Encoding") == "chunked"
    is_right = response.status == 200 and work.body_bytes in {None, length} and is_chunked == work.chunked
    return {} if is_right else {"another answer than expected": 1}


def warm(instance: Instance, origin: Instance, work: Work) -> None:
    """Fills the cache: runs, ever longer, until hardly a request reaches the origin; a minute at most."""
    for seconds in _WARM_S:
        before = origin_requests(origin)
        report = run_wrk(work, instance.port, seconds, work.warm_arguments or work.arguments)
        asked = _requests(report)
        if origin_requests(origin) - before - 1 <= _WARM_SHARE * asked:
            return


def measure(instance: Instance, origin: Instance, work: Work, seconds: int) -> Sample:
    """One run of wrk between two readings of the CPU time."""
    errors = check_answer(work, instance.port)
    origin_before = origin_requests(origin)
    softirq_before_s, cpu_before_s = softirq_time_s(), cpu_time_s(instance.pids)
    report = run_wrk(work, instance.port, seconds, work.arguments)
    cpu_after_s, softirq_after_s = cpu_time_s(instance.pids), softirq_time_s()
    misses = origin_requests(origin) - origin_before - 1
    requests = _requests(report)
    errors |= parse_errors(report)
    if not requests:
        return Sample(0, errors=errors | {"no answer": 1})
    if work.is_cached and misses > _MISS_SHARE * requests:
        errors["misses"] = misses
    rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
    user_s, system_s = (after - before for before, after in zip(cpu_before_s, cpu_after_s, strict=True))
    return Sample(
        requests,
        rate=float(rate[1]) if rate else 0.0,
        p50_us=parse_latency_us(report, 50),
        p99_us=parse_latency_us(report, 99),
        cpu_us=(user_s + system_s) / requests * 1e6,
        user_us=user_s / requests * 1e6,
        system_us=system_s / requests * 1e6,
        softirq_us=(softirq_after_s - softirq_before_s) / requests * 1e6,
        pss_kib=pss_kib(instance.pids),
        errors=errors,
    )


def _requests(report: str) -> int:
    found = re.search(r"(\d+) requests in", report)
    return int(found[1]) if found else 0
