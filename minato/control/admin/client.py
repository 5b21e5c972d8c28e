"""The admin API's client, for the command line: one request to the running instance, and what it answered."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping

from minato.config.model import ListenAddress
from minato.errors import BootError

# Longer than minato waits for its workers.
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1_048_576
_REACHED_BY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def post(address: ListenAddress, path: str, content: Mapping[str, object]) -> tuple[int, dict[str, object]]:
    """Post JSON; return status and answer.

    Raises:
        BootError: nobody answers there, or something that is not minato.
    """
    host = _REACHED_BY.get(address.host, address.host)
    connection = http.client.HTTPConnection(host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read(MAX_ANSWER_BYTES))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BootError(f"cannot reach the admin API on {address}: {reason}; is minato running?") from error
    except (http.client.HTTPException, ValueError) as error:
        raise BootError(f"what listens on {address} is not minato's admin API") from error
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise BootError(f"what listens on {address} is not minato's admin API")
    return response.status, answer
