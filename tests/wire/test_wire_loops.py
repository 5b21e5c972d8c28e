"""A minato that is its own upstream: the loop ends by itself, and soon (RFC 9110, 7.6)."""

from __future__ import annotations

from typing import Any, Final

from tests.system.conftest import Instances
from tests.system.harness import fetch, free_port, service, wait_until
from tests.wire.table import LAST, SEEN, Wire, request

# Probes ask for another host than the service's: any answer will do.
ANY_ANSWER: Final[dict[str, Any]] = {"interval": 0.2, "expect": "100-599"}


def test_minato_that_forwards_to_itself_answers_508_once(module_instances: Instances, wire: Wire) -> None:
    port = free_port()
    looping = module_instances.start(
        services=[service(port, [f"http://127.0.0.1:{port}"], retries=0)], health=ANY_ANSWER
    )
    wait_until(lambda: fetch(port).status != 503, "a first answer to its own probe")
    received = Wire(looping, wire.origin).talk([request() + LAST])
    # The last of them answers and closes; the eight before pass that on.
    assert received.count(b"HTTP/1.1 508 Loop Detected\r\n") == 2
    assert received.count(b"via: 1.1 minato\r\n") == 2 * 8
    assert received.endswith(b"the request goes round in circles\n")


def test_chain_of_two_is_none(module_instances: Instances, wire: Wire) -> None:
    outer = module_instances.start(f"http://127.0.0.1:{wire.proxy.port}", health=ANY_ANSWER)
    with wire.origin.recording() as record:
        received = Wire(outer, wire.origin).talk([request() + LAST])
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert record.recorded().startswith(SEEN.partition(b"x-forwarded")[0])
        assert record.recorded().count(b"via: 1.1 minato\r\n") == 2 * 2
