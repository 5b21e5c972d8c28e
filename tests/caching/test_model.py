"""Random requests, responses and steps of the clock: the cache never answers with what a literal RFC 9111 forbids."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minato.caching import CacheRequest, NotStored, Outcome, StoredResponse
from minato.caching.dates import format_http_date
from minato.protocol.fields import make_block
from minato.protocol.message import Fields, Framing, ResponseHead
from tests.caching.helpers import NOW_S, make_cache
from tests.caching.model import Lines, Model, Received, Version, directives

DATES = {"date", "expires", "last-modified"}
SECONDS = st.sampled_from(["0", "1", "5", "30"])
RESPONSE_DIRECTIVES = st.lists(
    st.one_of(
        st.builds("max-age={}".format, SECONDS),
        st.builds("s-maxage={}".format, SECONDS),
        st.builds("stale-while-revalidate={}".format, SECONDS),
        st.sampled_from(["public", "private", "no-store", "no-cache", "must-revalidate", "must-understand", "x"]),
        st.just("max-age=30"),
    ),
    max_size=3,
    unique_by=lambda member: member.partition("=")[0],
).map(", ".join)
REQUEST_DIRECTIVES = st.one_of(
    st.just(""),
    st.sampled_from(["no-cache", "no-store", "max-age=0", "x"]),
    st.builds("{}={}".format, st.sampled_from(["max-age", "min-fresh", "max-stale"]), SECONDS),
)
TARGETS = st.sampled_from(["/a", "/b"])
VARIANTS = st.sampled_from([None, "1", "2"])


@st.composite
def requests(draw: st.DrawFn) -> Lines:
    lines: Lines = {}
    if control := draw(REQUEST_DIRECTIVES):
        lines["cache-control"] = control
    for name in ("x-v", "x-w"):
        if (value := draw(VARIANTS)) is not None:
            lines[name] = value
    if draw(st.integers(0, 7)) == 0:
        lines["authorization"] = "Basic x"
    if draw(st.integers(0, 7)) == 0:
        lines["pragma"] = "no-cache"
    return lines


@st.composite
def responses(draw: st.DrawFn, now_s: int) -> tuple[int, Lines]:
    """A status and fields; the dates among them in seconds."""
    lines: Lines = {"date": str(now_s - draw(st.sampled_from([0, 0, 0, 3, 20])))}
    if control := draw(RESPONSE_DIRECTIVES):
        lines["cache-control"] = control
    if draw(st.integers(0, 4)) == 0 and (control := draw(RESPONSE_DIRECTIVES)):
        lines["cdn-cache-control"] = control
    if draw(st.integers(0, 3)) == 0:
        lines["expires"] = str(now_s + draw(st.sampled_from([-5, 0, 5, 30])))
    if draw(st.booleans()):
        lines["last-modified"] = str(now_s - draw(st.sampled_from([30, 100, 300])))
    if draw(st.booleans()):
        lines["etag"] = draw(st.sampled_from(['"1"', '"2"', 'W/"1"']))
    if draw(st.integers(0, 3)) == 0:
        lines["age"] = draw(SECONDS)
    if vary := draw(st.sampled_from(["", "", "x-v", "x-w", "x-v, x-w", "*"])):
        lines["vary"] = vary
    return draw(st.sampled_from([200, 200, 200, 404, 302, 299])), lines


def on_the_wire(lines: Lines) -> Fields:
    return [
        (name.encode(), format_http_date(int(value)) if name in DATES else value.encode())
        for name, value in lines.items()
    ]


def head_of(status: int, lines: Lines) -> ResponseHead:
    return ResponseHead(status, b"Reason", 11, make_block(on_the_wire(lines)), Framing.CHUNKED, 0, keep_alive=True)


class CacheAgainstModel(RuleBasedStateMachine):
    """A client, an origin and a clock; what the exchange does with the cache is done here."""

    @initialize()
    def begin(self) -> None:
        self.cache = make_cache(capacity=1000)
        self.model = Model()
        self.now_s = int(NOW_S)
        self.count = 0

    @rule(seconds=st.sampled_from([0, 1, 1, 2, 5, 29, 60]))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(data=st.data(), path=TARGETS, lines=requests(), delay_s=st.sampled_from([0, 0, 2]))
    def get(self, data: st.DataObject, path: str, lines: Lines, delay_s: int) -> None:
        request = CacheRequest(b"GET", b"http", b"a", path.encode(), on_the_wire(lines), False, 0)
        found = self.cache.lookup(request, self.now_s)
        plain = self.cache.find_plain_hit(request.key, self.now_s)
        if plain is not None:
            assert not self.model.why_forbidden(plain.body, path, {}, self.now_s)
        if found.outcome is Outcome.HIT:
            assert found.stored is not None
            assert not self.model.why_forbidden(found.stored.body, path, lines, self.now_s)
            age = dict(self.cache.answer(request, found.stored, self.now_s).fields)[b"age"]
            versions = self.model.received[found.stored.body].versions
            assert int(age) in {version.age_s(self.now_s) for version in versions}
            return
        asked_s, self.now_s = self.now_s, self.now_s + delay_s
        if found.outcome is Outcome.STALE and data.draw(st.booleans(), label="not modified"):
            assert found.stored is not None
            self.freshen(data, path, request, lines, found.stored, asked_s)
        else:
            self.forward(data, path, request, lines, asked_s)

    def forward(self, data: st.DataObject, path: str, request: CacheRequest, lines: Lines, asked_s: int) -> None:
        status, answer = data.draw(responses(self.now_s), label="response")
        self.count += 1
        body = b"%d" % self.count
        version = Version(status, lines, answer, int(answer["date"]), self.now_s, self.now_s - asked_s)
        self.model.received[body] = Received(path, [version])
        writer = self.cache.begin_store(
            request, head_of(status, answer), request_time_s=asked_s, response_time_s=self.now_s
        )
        if isinstance(writer, NotStored):
            return
        assert not version.why_not_stored()
        writer.write(body)
        writer.commit(self.now_s)

    def freshen(
        self,
        data: st.DataObject,
        path: str,
        request: CacheRequest,
        lines: Lines,
        stored: StoredResponse,
        asked_s: int,
    ) -> None:
        _, update = data.draw(responses(self.now_s), label="304")
        update = {name: value for name, value in update.items() if name not in ("etag", "last-modified")}
        received = self.model.received[stored.body]
        before, delay_s = received.versions, self.now_s - asked_s
        received.versions = [old.updated(update, int(update["date"]), self.now_s, delay_s) for old in before]
        for version in received.versions:
            version.request = lines
        fresh = self.cache.freshen(
            request, stored, head_of(304, update), request_time_s=asked_s, response_time_s=self.now_s
        )
        assert fresh is not None  # it has no validator: the deviation
        assert fresh.body == stored.body
        if stored.is_live:  # nothing of the 304 may be stored
            received.versions = before
        if fresh.is_live:
            assert "no-store" not in directives(lines)
            assert not self.model.why_forbidden(fresh.body, path, lines, self.now_s, validated=True)

    @rule(data=st.data(), path=TARGETS, lines=requests())
    def head(self, data: st.DataObject, path: str, lines: Lines) -> None:
        request = CacheRequest(b"HEAD", b"http", b"a", path.encode(), on_the_wire(lines), False, 0)
        _, update = data.draw(responses(self.now_s), label="head")
        self.cache.freshen_by_head(request, head_of(200, update), request_time_s=self.now_s, response_time_s=self.now_s)
        for received in self.model.received.values():
            old = received.versions[-1]
            agrees = all(update.get(name, old.lines.get(name)) == old.lines.get(name) for name in VALIDATORS)
            if received.target == path and old.status == 200 and agrees and not old.why_not_selected(lines):
                version = old.updated(update, int(update["date"]), self.now_s, 0)
                version.request = lines
                if not version.why_not_stored():  # the old one stays as it is
                    received.versions.append(version)

    @rule(path=TARGETS, named=st.none() | TARGETS, status=st.sampled_from([200, 204, 303, 404, 500]))
    def change(self, path: str, named: str | None, status: int) -> None:
        request = CacheRequest(b"POST", b"http", b"a", path.encode(), [], True, 0)
        fields = [(b"location", b"http://a" + named.encode())] if named else []
        self.cache.invalidate(request, status, fields, self.now_s)
        if status < 400:
            self.model.invalidate(path)
            if named:
                self.model.invalidate(named)

    @invariant()
    def nothing_stays_reserved(self) -> None:
        assert self.cache.stats().reserved_bytes == 0


VALIDATORS = ("etag", "last-modified")

TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=150, stateful_step_count=30)
