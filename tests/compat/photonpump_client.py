"""What users of photonpump (PyPI, TCP) rely on: ping, appends with exact and any versions and their idempotent repeats,
pages and iterators both ways, single events, all events, live and catch-up subscriptions, access. It never identifies
itself, so it is served as protocol level 1.

  photonpump_client.py HOST TCP_PORT HTTP_PORT
  GOSSIP_SEEDS=host:httpport,...   connect through gossip (the first seed) to the leader instead
  NO_PERSISTENT=1                  leave persistent subscriptions out
"""

import asyncio
import os
import sys
import uuid

import photonpump
from photonpump import exceptions, messages, messages_pb2
from photonpump.discovery import prefer_master

HOST, TCP, HTTP = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SEEDS = [s for s in os.environ.get("GOSSIP_SEEDS", "").split(",") if s]
CRED = dict(username=os.environ.get("ES_USER", "admin"), password=os.environ.get("ES_PASS", "changeit"))
stream = "compat-python-" + str(uuid.uuid4())
ids = [uuid.uuid4() for _ in range(1000)]


def connect(**kw):
    if SEEDS:
        host, port = SEEDS[0].rsplit(":", 1)
        return photonpump.connect(
            discovery_host=host, discovery_port=int(port), selector=prefer_master, **{**CRED, **kw}
        )
    return photonpump.connect(host=HOST, port=TCP, **{**CRED, **kw})


def event(n, id=None):
    return messages.NewEvent("compat-event", id=id or uuid.uuid4(), data={"n": n}, metadata={"meta": n})


async def take(source, count):
    out = []
    async for e in source:
        out.append(e)
        if len(out) == count:
            break
    return out


async def ping(c):
    await c.ping()


async def append(c):
    for i in range(0, 1000, 100):
        r = await c.publish(stream, [event(n, ids[n]) for n in range(i, i + 100)], expected_version=i - 1)
        assert (r.first_event_number, r.last_event_number) == (i, i + 99), r


async def forward(c):
    seen = 0
    while seen < 1000:
        page = await c.get(stream, from_event=seen, max_count=150)
        assert page, "an empty page at %d" % seen
        for e in page:
            assert e.event_number == seen and e.event.id == ids[seen] and e.event.json() == {"n": seen}, e
            seen += 1


async def backward(c):
    page = await c.get(stream, direction=messages.StreamDirection.Backward, from_event=-1, max_count=100)
    assert [e.event_number for e in page] == list(range(999, 899, -1))


async def iterate(c):
    got = [e.event_number async for e in c.iter(stream, batch_size=90)]
    assert got == list(range(1000)), got[:5]
    got = await take(c.iter(stream, direction=messages.StreamDirection.Backward, from_event=-1, batch_size=90), 1000)
    assert [e.event_number for e in got] == list(range(999, -1, -1)), got[:5]


async def single(c):
    e = await c.get_event(stream, 500)
    assert e.event.json() == {"n": 500}
    for missing in ((stream + "-no", 0, exceptions.StreamNotFound), (stream, 5000, exceptions.EventNotFound)):
        try:
            await c.get_event(missing[0], missing[1])
        except missing[2]:
            continue
        raise AssertionError("%s was read" % (missing,))


async def read_all(c):
    got = await c.get_all(max_count=500, direction=messages.StreamDirection.Backward, from_position=messages.End)
    mine = [e.event_number for e in got if e.received_event.stream == stream]
    assert mine and mine == sorted(mine, reverse=True) and len(got) == 500, (len(got), mine[:3])
    seen = 0
    # Its own connection: an iterator that is left before its end holds its connection up in this client.
    async with connect(name="compat-all") as other:
        async for _ in other.iter_all(batch_size=400):
            seen += 1
            if seen == 1200:
                break
    assert seen >= 1000, seen


async def wrong_version(c):
    # The client has no error for this: it hands back the server's answer as it stands.
    r = await c.publish_event(stream, "compat-event", body={}, expected_version=17)
    assert r.result == messages_pb2.WrongExpectedVersion, r


async def idempotent(c):
    r = await c.publish(stream, [event(n, ids[n]) for n in range(900, 1000)], expected_version=899)
    assert r.result == 0 and (r.first_event_number, r.last_event_number) == (900, 999), r
    r = await c.publish(stream, [event(999, ids[999])])
    assert r.result == 0 and r.last_event_number == 999, r
    last = await c.get(stream, direction=messages.StreamDirection.Backward, from_event=-1, max_count=1)
    assert last[0].event_number == 999


async def live(c):
    s = stream + "-live"
    await c.publish(s, [event(0), event(1)])
    sub = await c.subscribe_to(s, start_from=-1)
    for n in range(2, 22):
        await c.publish(s, [event(n)])
    got = await asyncio.wait_for(take(sub.events, 20), 10)
    assert [e.event_number for e in got] == list(range(2, 22)), got


async def catch_up(c):
    s = stream + "-catch"
    await c.publish(s, [event(n) for n in range(500)])
    sub = await c.subscribe_to(s, start_from=0, batch_size=50)
    for n in range(500, 530):
        await c.publish(s, [event(n)])
    got = await asyncio.wait_for(take(sub.events, 530), 20)
    assert [e.event_number for e in got] == list(range(530)), [e.event_number for e in got][:5]


async def persistent(c):
    s = stream + "-persist"
    await c.publish(s, [event(n) for n in range(10)])
    await c.create_subscription("group-1", s, start_from=0)
    sub = await c.connect_subscription("group-1", s)

    async def consume():
        got = []
        async for e in sub.events:
            got.append(e.event_number)
            await sub.ack(e)
            if len(got) == 10:
                return got

    got = await asyncio.wait_for(consume(), 10)
    assert sorted(got) == list(range(10)), got


async def denied(c):
    async with photonpump.connect(host=HOST, port=TCP) as anonymous:
        try:
            await asyncio.wait_for(anonymous.get_all(max_count=1), 10)
        except exceptions.AccessDenied:
            return
        raise AssertionError("$all was read without rights")


async def many(c):
    s = stream + "-many"
    rs = await asyncio.gather(*[c.publish_event(s, "compat-event", body={"n": n}) for n in range(50)])
    assert sorted(r.first_event_number for r in rs) == list(range(50))


STEPS = [
    ("ping", ping),
    ("append 1,000 events, each batch at its exact expected version", append),
    ("read forward in pages", forward),
    ("read backward", backward),
    ("iterate forward and backward", iterate),
    ("read single events", single),
    ("read all, backward and forward", read_all),
    ("wrong expected version is refused", wrong_version),
    ("idempotent retries add nothing", idempotent),
    ("live subscription", live),
    ("catch-up subscription goes over to live", catch_up),
    ("persistent subscription with acknowledgement", None if os.environ.get("NO_PERSISTENT") else persistent),
    ("50 appends at once on one connection", many),
    ("access: $all without rights", denied),
]


async def main():
    passed = failed = skipped = 0
    c = connect(name="compat")
    try:
        await asyncio.wait_for(c.connect(), 20)
        print("ok connect over " + ("gossip" if SEEDS else "tcp"))
        passed += 1
    except Exception as e:
        print("not ok connect # %r" % e)
        print("photonpump passed=0 failed=1 skipped=%d" % len(STEPS))
        return 1
    for name, step in STEPS:
        if step is None:
            skipped += 1
            print("skip " + name)
            continue
        try:
            await asyncio.wait_for(step(c), 60)
            passed += 1
            print("ok " + name, flush=True)
        except BaseException as e:
            failed += 1
            print("not ok %s # %s" % (name, " ".join(repr(e).split())[:300]), flush=True)
    try:
        await asyncio.wait_for(c.close(), 10)
    except BaseException as e:
        print("# at the end: %r" % e)
    print("photonpump passed=%d failed=%d skipped=%d" % (passed, failed, skipped), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    os._exit(asyncio.run(main()))
