'use strict';
// What users of node-eventstore-client (npm, TCP) rely on: appends with exact, any, no-stream and stream-exists
// versions and their idempotent repeats; reads of streams and of all events, both ways; live and catch-up
// subscriptions; transactions; stream metadata; large events; access; soft and hard deletes.
//
//   node node-eventstore-client.js MODULES HOST TCP_PORT HTTP_PORT
//   GOSSIP_SEEDS=host:httpport,...   connect through gossip instead
//   TLS=1                            the ports are those with TLS; NODE_EXTRA_CA_CERTS names the authority
//   NO_PERSISTENT=1                  leave persistent subscriptions out
const path = require('path');
const assert = require('assert');
const { randomUUID } = require('crypto');
const { run, until, sleep } = require('./steps.js');
const [modules, host, tcp, http] = process.argv.slice(2);
const es = require('module').createRequire(path.join(path.resolve(modules), 'package.json'))('node-eventstore-client');
const seeds = (process.env.GOSSIP_SEEDS || '')
  .split(',')
  .filter(Boolean)
  .map((s) => new es.GossipSeed({ host: s.split(':')[0], port: Number(s.split(':')[1]) }));
const secure = process.env.TLS ? { useSslConnection: true, validateServer: true } : {};
const admin = new es.UserCredentials(process.env.ES_USER || 'admin', process.env.ES_PASS || 'changeit');
const EV = es.expectedVersion;
const stream = 'compat-node-' + randomUUID();
const ev = (n, extra) => es.createJsonEventData(randomUUID(), Object.assign({ n }, extra), { meta: n }, 'compat-event');
const json = (b) => JSON.parse(b.toString());
const open = (settings, target) =>
  new Promise((ok, no) => {
    const c = es.createConnection(Object.assign({ log: new es.NoopLogger() }, secure, settings), target);
    c.once('connected', (at) => ok([c, at]));
    c.once('closed', (why) => no(new Error('closed: ' + why)));
    c.on('error', () => {});
    c.connect().catch(no);
  });
let conn,
  all = [];
const rejects = (p, name) =>
  assert.rejects(p, (e) => {
    assert.strictEqual(e.name, name, `${e.name}: ${e.message}`);
    return true;
  });

run(
  'node-eventstore-client' + (process.env.TLS ? ' with TLS' : ''),
  [
    [
      'connect over ' + (seeds.length ? 'gossip' : 'tcp'),
      async () => {
        let at;
        [conn, at] = await open({}, seeds.length ? seeds : { host, port: Number(tcp) });
        console.log(`# connected to ${at.host}:${at.port}`);
      },
    ],
    [
      'connect with an address of the form discover://',
      seeds.length
        ? async () => {
            const s = seeds[0].endPoint;
            const [c] = await open({}, `discover://${s.host}:${s.port}`);
            c.close();
          }
        : null,
    ],
    [
      'append 1,000 events, each batch at its exact expected version',
      async () => {
        for (let i = 0; i < 1000; i += 100) {
          const batch = Array.from({ length: 100 }, (_, k) => ev(i + k));
          const r = await conn.appendToStream(stream, i === 0 ? EV.noStream : i - 1, batch);
          assert.strictEqual(r.nextExpectedVersion.toNumber(), i + 99);
          assert(r.logPosition.commitPosition.toNumber() >= 0);
          all.push(...batch);
        }
      },
    ],
    [
      'read forward in pages',
      async () => {
        let from = 0,
          seen = 0,
          slice;
        do {
          slice = await conn.readStreamEventsForward(stream, from, 150);
          assert.strictEqual(slice.status, 'success');
          for (const e of slice.events) {
            assert.strictEqual(e.event.eventNumber.toNumber(), seen);
            assert.strictEqual(e.event.eventId, all[seen].eventId);
            assert.strictEqual(json(e.event.data).n, seen);
            assert.strictEqual(json(e.event.metadata).meta, seen);
            assert.strictEqual(e.event.isJson, true);
            assert(Math.abs(e.event.createdEpoch - Date.now()) < 600000, 'created ' + e.event.createdEpoch);
            seen++;
          }
          assert.strictEqual(slice.lastEventNumber.toNumber(), 999);
          from = slice.nextEventNumber;
        } while (!slice.isEndOfStream);
        assert.strictEqual(seen, 1000);
        assert.strictEqual(from.toNumber(), 1000);
      },
    ],
    [
      'read backward in pages',
      async () => {
        let from = es.streamPosition.end,
          want = 999,
          slice;
        do {
          slice = await conn.readStreamEventsBackward(stream, from, 150);
          for (const e of slice.events) assert.strictEqual(e.event.eventNumber.toNumber(), want--);
          from = slice.nextEventNumber;
        } while (!slice.isEndOfStream);
        assert.strictEqual(want, -1);
        assert.strictEqual(from.toNumber(), -1);
      },
    ],
    [
      'read single events',
      async () => {
        const r = await conn.readEvent(stream, 500);
        assert.strictEqual(r.status, 'success');
        assert.strictEqual(json(r.event.event.data).n, 500);
        assert.strictEqual(
          (await conn.readEvent(stream, es.streamPosition.end)).event.event.eventNumber.toNumber(),
          999,
        );
        assert.strictEqual((await conn.readEvent(stream, 1000)).status, 'notFound');
        assert.strictEqual((await conn.readEvent(stream + '-no', 0)).status, 'noStream');
      },
    ],
    [
      'read all backward, then forward from there: the 1,000 in order',
      async () => {
        let pos = es.positions.end,
          found = 0,
          slice;
        for (let page = 0; page < 60 && found < 1000; page++) {
          slice = await conn.readAllEventsBackward(pos, 500, false, admin);
          found += slice.events.filter((e) => e.originalStreamId === stream).length;
          pos = slice.nextPosition;
          if (slice.isEndOfStream) break;
        }
        assert.strictEqual(found, 1000);
        const order = [];
        for (let page = 0; page < 60 && order.length < 1000; page++) {
          slice = await conn.readAllEventsForward(pos, 500, false, admin);
          for (const e of slice.events) if (e.originalStreamId === stream) order.push(e.event.eventNumber.toNumber());
          pos = slice.nextPosition;
          if (slice.isEndOfStream) break;
        }
        assert.deepStrictEqual(
          order,
          Array.from({ length: 1000 }, (_, i) => i),
        );
      },
    ],
    [
      'wrong expected version is refused',
      async () => {
        await rejects(conn.appendToStream(stream, 500, ev(-1)), 'WrongExpectedVersionError');
        await rejects(conn.appendToStream(stream, 5000, ev(-1)), 'WrongExpectedVersionError');
        await rejects(conn.appendToStream(stream, EV.noStream, ev(-1)), 'WrongExpectedVersionError');
        await rejects(conn.appendToStream(stream + '-no', EV.streamExists, ev(-1)), 'WrongExpectedVersionError');
      },
    ],
    [
      'idempotent retries add nothing',
      async () => {
        const r = await conn.appendToStream(stream, 899, all.slice(900));
        assert.strictEqual(r.nextExpectedVersion.toNumber(), 999);
        const any = await conn.appendToStream(stream, EV.any, all.slice(990));
        assert.strictEqual(any.nextExpectedVersion.toNumber(), 999);
        const first = await conn.appendToStream(stream, EV.noStream, all.slice(0, 100));
        assert.strictEqual(first.nextExpectedVersion.toNumber(), 99);
        await rejects(conn.appendToStream(stream, 899, [all[900], ev(-1)]), 'WrongExpectedVersionError');
        assert.strictEqual(
          (await conn.readEvent(stream, es.streamPosition.end)).event.event.eventNumber.toNumber(),
          999,
        );
      },
    ],
    [
      'live subscription',
      async () => {
        const got = [];
        let dropped = null;
        const s = stream + '-live';
        await conn.appendToStream(s, EV.any, [ev(0), ev(1)]);
        const sub = await conn.subscribeToStream(
          s,
          false,
          (_, e) => {
            got.push(e.event.eventNumber.toNumber());
          },
          (_, why) => {
            dropped = why;
          },
        );
        assert.strictEqual(sub.lastEventNumber.toNumber(), 1);
        for (let i = 2; i < 22; i++) await conn.appendToStream(s, i - 1, ev(i));
        await until('20 live events', () => got.length >= 20);
        assert.deepStrictEqual(
          got,
          Array.from({ length: 20 }, (_, i) => i + 2),
        );
        sub.unsubscribe();
        await until('dropped', () => dropped !== null);
        await conn.appendToStream(s, EV.any, ev(22));
        await sleep(200);
        assert.strictEqual(got.length, 20);
      },
    ],
    [
      'live subscription to $all',
      async () => {
        const s = stream + '-liveall';
        const got = [];
        const sub = await conn.subscribeToAll(
          false,
          (_, e) => {
            if (e.originalStreamId === s) got.push(e);
          },
          undefined,
          admin,
        );
        await conn.appendToStream(s, EV.noStream, [ev(0), ev(1), ev(2)]);
        await until('3 events', () => got.length === 3);
        assert(got[0].originalPosition.compareTo(got[1].originalPosition) < 0);
        sub.unsubscribe();
      },
    ],
    [
      'catch-up subscription from the start goes over to live',
      async () => {
        const s = stream + '-catch';
        await conn.appendToStream(
          s,
          EV.noStream,
          Array.from({ length: 700 }, (_, i) => ev(i)),
        );
        const got = [];
        let live = false;
        const sub = conn.subscribeToStreamFrom(
          s,
          null,
          false,
          (_, e) => {
            got.push(e.event.eventNumber.toNumber());
          },
          () => {
            live = true;
          },
          undefined,
          undefined,
          100,
        );
        for (let i = 700; i < 750; i++) await conn.appendToStream(s, EV.any, ev(i));
        await until('750 events', () => got.length >= 750 && live);
        assert.deepStrictEqual(
          got,
          Array.from({ length: 750 }, (_, i) => i),
        );
        sub.stop();
      },
    ],
    [
      'catch-up subscription from a position',
      async () => {
        const got = [];
        const sub = conn.subscribeToStreamFrom(stream, 989, false, (_, e) => {
          got.push(e.event.eventNumber.toNumber());
        });
        await until('10 events', () => got.length >= 10);
        assert.deepStrictEqual(got, [990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
        sub.stop();
      },
    ],
    [
      'persistent subscription: create, update, consume with acknowledgement, nak and retry, delete',
      process.env.NO_PERSISTENT
        ? null
        : async () => {
            const s = stream + '-persist',
              g = 'group-1';
            await conn.appendToStream(
              s,
              EV.any,
              Array.from({ length: 20 }, (_, i) => ev(i)),
            );
            const settings = es.PersistentSubscriptionSettings.create();
            settings.startFrom = 0;
            assert.strictEqual((await conn.createPersistentSubscription(s, g, settings, admin)).status, 'success');
            assert.strictEqual((await conn.updatePersistentSubscription(s, g, settings, admin)).status, 'success');
            const seen = new Map();
            const sub = await conn.connectToPersistentSubscription(
              s,
              g,
              (me, e) => {
                const n = e.originalEventNumber.toNumber();
                seen.set(n, (seen.get(n) || 0) + 1);
                if (n === 7 && seen.get(n) === 1) me.fail([e], 2, 'try again');
                else me.acknowledge([e]);
              },
              undefined,
              admin,
              10,
              false,
            );
            await until('20 events, number 7 twice', () => seen.size === 20 && seen.get(7) === 2);
            await sub.stop();
            await conn.deletePersistentSubscription(s, g, admin);
            await assert.rejects(Promise.resolve(conn.deletePersistentSubscription(s, g, admin)));
          },
    ],
    [
      'transaction',
      async () => {
        const s = stream + '-tx';
        const tx = await conn.startTransaction(s, EV.noStream);
        await tx.write([ev(0), ev(1)]);
        await tx.write(ev(2));
        assert.strictEqual((await conn.readStreamEventsForward(s, 0, 10)).status, 'streamNotFound');
        assert.strictEqual((await tx.commit()).nextExpectedVersion.toNumber(), 2);
        assert.strictEqual((await conn.readStreamEventsForward(s, 0, 10)).events.length, 3);
      },
    ],
    [
      'stream metadata, $maxCount',
      async () => {
        const s = stream + '-meta';
        await conn.appendToStream(
          s,
          EV.noStream,
          Array.from({ length: 30 }, (_, i) => ev(i)),
        );
        const set = await conn.setStreamMetadataRaw(s, EV.noStream, { $maxCount: 5, mine: 'x' });
        assert.strictEqual(set.nextExpectedVersion.toNumber(), 0);
        const m = await conn.getStreamMetadataRaw(s);
        assert.strictEqual(m.metastreamVersion.toNumber(), 0);
        assert.strictEqual(m.streamMetadata.$maxCount, 5);
        const r = await conn.readStreamEventsForward(s, 0, 100);
        assert.deepStrictEqual(
          r.events.map((e) => e.event.eventNumber.toNumber()),
          [25, 26, 27, 28, 29],
        );
      },
    ],
    [
      'event of 1 MiB',
      async () => {
        const s = stream + '-large',
          big = 'x'.repeat(1 << 20);
        await conn.appendToStream(s, EV.noStream, ev(0, { big }));
        assert.strictEqual(json((await conn.readEvent(s, 0)).event.event.data).big.length, 1 << 20);
      },
    ],
    [
      '50 appends at once on one connection',
      async () => {
        const s = stream + '-many';
        const rs = await Promise.all(Array.from({ length: 50 }, (_, i) => conn.appendToStream(s, EV.any, ev(i))));
        const nums = rs.map((r) => r.nextExpectedVersion.toNumber()).sort((a, b) => a - b);
        assert.deepStrictEqual(
          nums,
          Array.from({ length: 50 }, (_, i) => i),
        );
      },
    ],
    [
      'access: $all without rights, and a wrong password',
      async () => {
        await rejects(conn.readAllEventsForward(es.positions.start, 10), 'AccessDeniedError');
        await assert.rejects(
          conn.readAllEventsForward(es.positions.start, 10, false, new es.UserCredentials('admin', 'wrong')),
          /[Aa]uthent/,
        );
      },
    ],
    [
      'soft delete, then append again',
      async () => {
        await conn.deleteStream(stream, 999, false);
        assert.strictEqual((await conn.readStreamEventsForward(stream, 0, 10)).status, 'streamNotFound');
        const r = await conn.appendToStream(stream, EV.any, ev(1000));
        assert.strictEqual(r.nextExpectedVersion.toNumber(), 1000);
        // The server takes the deletion back just after the write: for a moment the stream may still seem gone.
        // A page that lies wholly before the truncation point is empty, and says where to go on.
        let s,
          nums = [];
        for (let tries = 0; tries < 100 && !nums.length; tries++) {
          nums = [];
          for (let page = 0, from = 0; page < 200; page++, from = s.nextEventNumber) {
            s = await conn.readStreamEventsForward(stream, from, 10);
            if (page === 0 && s.status === 'success')
              console.log(
                `# page from 0: ${s.events.length} events, next ${s.nextEventNumber}, end ${s.isEndOfStream}, tries ${tries + 1}`,
              );
            nums.push(...s.events.map((e) => e.event.eventNumber.toNumber()));
            if (s.isEndOfStream) break;
          }
          if (!nums.length) await sleep(50);
        }
        assert.deepStrictEqual(nums, [1000]);
        assert.strictEqual(s.lastEventNumber.toNumber(), 1000);
      },
    ],
    [
      'hard delete: nothing more can be read or written',
      async () => {
        await conn.deleteStream(stream, 1000, true);
        assert.strictEqual((await conn.readStreamEventsForward(stream, 0, 10)).status, 'streamDeleted');
        assert.strictEqual((await conn.readEvent(stream, 0)).status, 'streamDeleted');
        await rejects(conn.appendToStream(stream, EV.any, ev(-1)), 'StreamDeletedError');
        await rejects(conn.deleteStream(stream, EV.any, true), 'StreamDeletedError');
      },
    ],
  ],
  () => conn && conn.close(),
);
