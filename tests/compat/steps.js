'use strict';
// Steps of a program: each prints one line, and the program ends with a count and 0 (all passed) or 1.
const one = (s) => String(s).replace(/\s+/g, ' ').slice(0, 300);
exports.sleep = (ms) => new Promise((r) => setTimeout(r, ms));
exports.until = async (what, cond, ms = 10000) => {
  for (const end = Date.now() + ms; Date.now() < end; await exports.sleep(20)) if (cond()) return;
  throw new Error('not within ' + ms + ' ms: ' + what);
};
exports.within = (ms, p, what) => {
  let t;
  return Promise.race([
    p,
    new Promise((_, no) => {
      t = setTimeout(() => no(new Error(`no answer in ${ms} ms: ${what}`)), ms);
    }),
  ]).finally(() => clearTimeout(t));
};
exports.run = async (name, steps, after) => {
  let passed = 0,
    failed = 0,
    skipped = 0;
  const end = () => {
    console.log(`${name} passed=${passed} failed=${failed} skipped=${skipped}`);
    process.exit(failed ? 1 : 0);
  };
  process.on('SIGTERM', () => {
    failed++;
    console.log('not ok the whole program # no end within the time limit');
    end();
  });
  for (const [what, f] of steps) {
    if (!f) {
      skipped++;
      console.log(`skip ${what}`);
      continue;
    }
    if (failed && !passed) {
      failed++;
      console.log(`not ok ${what} # the first step failed`);
      continue;
    }
    try {
      await exports.within(60000, Promise.resolve().then(f), what);
      passed++;
      console.log(`ok ${what}`);
    } catch (e) {
      failed++;
      console.log(`not ok ${what} # ${one((e && e.message) || e)}`);
    }
  }
  if (after)
    try {
      await after();
    } catch (e) {
      console.log('# at the end: ' + one(e));
    }
  end();
};
process.on('unhandledRejection', (e) => console.log('# unhandled rejection: ' + one((e && e.message) || e)));
