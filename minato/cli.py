"""The command line: reads the arguments, puts the parts together, and says how it went by the exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from minato import __version__
from minato.config import Config, load_config
from minato.control.admin.client import post
from minato.control.boards import Boards
from minato.control.health import HealthChecker
from minato.control.master import Master
from minato.control.system import say
from minato.control.takeover import Predecessor
from minato.demo.run import find_shipped_config, run_demo
from minato.errors import BootError, ConfigError
from minato.net.server import Server
from minato.telemetry.log import LEVELS, setup_logging

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2

MAX_WORKERS = 512
DEFAULT_CONFIG = "config.yaml"

_DESCRIPTION = """\
minato, an HTTP reverse proxy, load balancer and cache.

commands:
  run      serve in the foreground (the default)
  check    validate the config: 0, or 2 with one line for each problem
  demo     the shipped config with two origins of its own behind it
  purge    have the running instance forget what it has stored: URLs, --prefix, --tag or --all; --soft
  drain    have the running instance send no new requests to upstreams, by URL; --undo ends that
"""

_EPILOG = """\
signals to the master: HUP reload, TERM graceful stop, INT or QUIT fast stop, TTIN or TTOU one worker more or fewer,
USR1 reopen the logs, USR2 binary upgrade. exit status: 0 after a stop that was asked for, 2 usage or config,
1 anything else.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status; argparse itself exits with 2 for wrong usage."""
    _hold_standard_descriptors()
    options = _parse(sys.argv[1:] if argv is None else argv)
    setup_logging(options.log_level)
    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        for problem in error.problems:
            say(problem.render(error.file))
        return EXIT_USAGE
    except BootError as error:
        say(f"minato: {error}")
        return EXIT_FAILURE
    except KeyboardInterrupt:  # before the master took over the signals
        return EXIT_FAILURE


def _run(options: argparse.Namespace) -> int:
    path = options.config or DEFAULT_CONFIG
    return _serve(load_config(path), path, options)


def _check(options: argparse.Namespace) -> int:
    path = options.config or DEFAULT_CONFIG
    config = load_config(path)
    upstreams = sum(len(service.upstreams) for service in config.services)
    print(f"{path}: ok, {len(config.services)} services, {upstreams} upstreams")
    return EXIT_OK


def _demo(options: argparse.Namespace) -> int:
    path = options.config or find_shipped_config()
    config = load_config(path)
    return run_demo(config, lambda on_ready: _serve(config, path, options, on_ready))


def _purge(options: argparse.Namespace) -> int:
    path = options.config or DEFAULT_CONFIG
    address = load_config(path).admin.listen
    if address is None:
        say(f"{path}: admin.listen: is off; purge asks the running instance through the admin API")
        return EXIT_USAGE
    asked = {"url": options.url, "prefix": options.prefix, "tag": options.tag, "all": options.all, "soft": options.soft}
    status, answer = post(address, "/purge", {key: value for key, value in asked.items() if value})
    if "error" in answer:
        say(f"minato: {answer['error']}")
    if "purged" in answer:
        missing = f", {answer['missing']} missing" if "missing" in answer else ""
        print(f"{answer['purged']} stored responses in {answer['workers']} workers{missing}")
    return EXIT_OK if status == 200 else EXIT_FAILURE


def _drain(options: argparse.Namespace) -> int:
    path = options.config or DEFAULT_CONFIG
    address = load_config(path).admin.listen
    if address is None:
        say(f"{path}: admin.listen: is off; drain asks the running instance through the admin API")
        return EXIT_USAGE
    status, answer = post(address, "/undrain" if options.undo else "/drain", {"upstream": options.url})
    if "error" in answer:
        say(f"minato: {answer['error']}")
        return EXIT_FAILURE
    open_by_service = answer.get("open")
    if isinstance(open_by_service, dict):
        for service, count in open_by_service.items():
            print(f"{service}: {count} upstreams get new requests")
    return EXIT_OK if status == 200 else EXIT_FAILURE


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "check": _check,
    "demo": _demo,
    "purge": _purge,
    "drain": _drain,
}


def _serve(config: Config, path: str, options: argparse.Namespace, on_ready: Callable[[], None] | None = None) -> int:
    def make_checker(boards: Boards) -> HealthChecker:
        return HealthChecker(config.health, {}, {}, publish=boards.publish, outcomes=boards.outcomes)

    master = Master(
        config,
        load=lambda: load_config(path),
        server_factory=Server,
        checker_factory=make_checker,
        workers=options.workers,
        pid_file=options.pid_file,
        on_ready=on_ready,
        predecessor=Predecessor.from_environment(os.environ),
    )
    return master.run()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="minato",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "command", nargs="?", default="run", choices=tuple(_COMMANDS), metavar="run | check | demo | purge | drain"
    )
    parser.add_argument("url", nargs="*", metavar="URL", help="purge: of what is stored; drain: of an upstream")
    parser.add_argument("--config", metavar="FILE", help="the config (default: ./config.yaml; demo: the shipped one)")
    parser.add_argument("--workers", type=_worker_count, metavar="N", help="default: of the config, then the CPU count")
    parser.add_argument("--pid-file", metavar="FILE", help="holds the master's pid while it runs")
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="what goes to stderr (default: info)")
    parser.add_argument("--prefix", action="append", metavar="URL", help="purge: all URLs that begin so")
    parser.add_argument("--tag", action="append", help="purge: all with this Cache-Tag")
    parser.add_argument("--all", action="store_true", help="purge: everything")
    parser.add_argument("--soft", action="store_true", help="purge: make it stale instead, to be validated")
    parser.add_argument("--undo", action="store_true", help="drain: the upstreams get new requests again")
    parser.add_argument("--version", action="version", version=f"minato {__version__}")
    options = parser.parse_intermixed_args(argv)
    chosen = options.prefix or options.tag or options.all
    named = options.url or chosen
    if options.command in ("check", "purge", "drain") and (options.workers or options.pid_file):
        parser.error(f"{options.command} takes neither --workers nor --pid-file")
    if options.command == "purge" and not named:
        parser.error("purge needs a URL, --prefix, --tag or --all")
    if options.command == "drain":
        if not options.url or chosen or options.soft:
            parser.error("drain takes URLs of upstreams, and --undo")
    elif options.undo:
        parser.error(f"{options.command} takes no --undo; drain does")
    elif options.command != "purge" and (named or options.soft):
        parser.error(f"{options.command} takes no URL, --prefix, --tag, --all or --soft; purge does")
    return options


def _worker_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_WORKERS}, not {text!r}")
    return int(text)


def _hold_standard_descriptors() -> None:
    """Open /dev/null where a standard descriptor is closed: else a socket becomes stderr, and is sent log lines."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    sys.exit(main())
