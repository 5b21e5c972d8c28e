"""Messages between master and worker, on real socket pairs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.config.model import ListenAddress
from minato.control.channel import (
    MAX_LISTENERS_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    Channel,
    ChannelClosedError,
    Message,
    Verb,
)
from minato.net.bound import BoundListener


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    left, right = Channel.pair()
    yield left, right
    left.close()
    right.close()


def make_listener() -> BoundListener:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return BoundListener(ListenAddress("127.0.0.1", sock.getsockname()[1]), sock)


def test_messages_arrive_whole_and_in_order(pair: tuple[Channel, Channel]) -> None:
    sent = [Message(Verb.READY), Message(Verb.DRAIN, seconds=2.5), Message(Verb.GIVE_BACK, slot=7)]
    for message in sent:
        assert pair[0].send(message)
    assert [pair[1].receive() for _ in sent] == sent


def test_purges_arrive_as_they_were_sent(pair: tuple[Channel, Channel]) -> None:
    purges = tuple(PurgeRequest(kind, bytes(range(1, 256)), soft) for kind in PurgeKind for soft in (False, True))
    sent = [Message(Verb.PURGE, serial=2**40, purges=purges), Message(Verb.PURGED, serial=2**40, count=12)]
    for message in sent:
        assert pair[0].send(message)
    assert [pair[1].receive() for _ in sent] == sent


def test_message_that_its_receiver_would_cut_short_is_not_sent(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError, match="cut short"):
        pair[0].send(Message(Verb.PURGE, purges=(PurgeRequest(PurgeKind.URL, b"x" * MAX_MESSAGE_BYTES),)))
    assert pair[1].receive() is None


def test_nothing_sent_is_none(pair: tuple[Channel, Channel]) -> None:
    assert pair[0].receive() is None


def test_socket_travels_and_still_listens(pair: tuple[Channel, Channel]) -> None:
    listener = make_listener()
    pair[0].send(Message(Verb.BORROW, slot=1, listeners=(listener,)))
    listener.sock.close()
    message = pair[1].receive()
    assert message is not None
    (received,) = message.listeners
    assert received.address == listener.address
    with socket.create_connection(received.sock.getsockname()), received.sock:
        received.sock.accept()[0].close()


def test_more_sockets_than_one_message_holds_come_in_several(pair: tuple[Channel, Channel]) -> None:
    listener = make_listener()
    count = MAX_LISTENERS_PER_MESSAGE + 1
    assert pair[0].send(Message(Verb.BORROW, slot=3, listeners=(listener,) * count))
    messages = [pair[1].receive(), pair[1].receive()]
    received = [item for message in messages if message is not None for item in message.listeners]
    assert len(received) == count
    assert all(message is not None and message.slot == 3 for message in messages)
    for item in [listener, *received]:
        item.sock.close()


def test_received_sockets_do_not_survive_an_exec(pair: tuple[Channel, Channel]) -> None:
    listener = make_listener()
    pair[0].send(Message(Verb.BORROW, listeners=(listener,)))
    message = pair[1].receive()
    assert message is not None
    assert not os.get_inheritable(message.listeners[0].sock.fileno())
    for item in [listener, *message.listeners]:
        item.sock.close()


def test_other_side_gone_is_told_from_nothing_sent(pair: tuple[Channel, Channel]) -> None:
    pair[0].close()
    with pytest.raises(ChannelClosedError):
        pair[1].receive()


def test_last_words_are_heard_before_the_end(pair: tuple[Channel, Channel]) -> None:
    pair[0].send(Message(Verb.READY))
    pair[0].close()
    assert pair[1].receive() == Message(Verb.READY)
    with pytest.raises(ChannelClosedError):
        pair[1].receive()


def test_sending_to_one_that_is_gone_or_does_not_read_is_false_and_does_not_block(
    pair: tuple[Channel, Channel],
) -> None:
    while pair[0].send(Message(Verb.STOP)):
        pass
    pair[1].close()
    assert not pair[0].send(Message(Verb.STOP))
