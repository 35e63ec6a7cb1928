import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  lookUp,
  NO_SESSIONS,
  record,
  register,
  SESSION_WINDOW,
  SESSIONS_MAX,
  type Sessions,
  sessionRows,
  sessionsOf,
} from "./sessions.ts";

test("what was carried out is remembered from the client's low mark on, in whatever order it came", () => {
  const uses = fc.array(fc.record({ number: fc.integer({ min: 1, max: 60 }), lag: fc.nat(30) }), { maxLength: 80 });
  fc.assert(
    fc.property(uses, (wanted) => {
      let sessions = register(NO_SESSIONS);
      const done = new Set<number>();
      let low = 1;
      for (const { number, lag } of wanted) {
        const tag = { session: 1, number, low: Math.max(1, number - lag) };
        const expected = number < low ? "stale" : done.has(number) ? "done" : "new";
        expect(lookUp(sessions, tag)).toBe(expected);
        if (expected !== "new") continue;
        sessions = record(sessions, tag);
        done.add(number);
        low = Math.max(low, tag.low);
      }
      const { byId } = sessions;
      const [row] = sessionRows(sessions);
      // Ranges are apart from each other, and begin at the low mark.
      const ranges = row![3];
      for (let i = 1; i < ranges.length; i++) expect(ranges[i]! - ranges[i - 1]!).toBeGreaterThan(i % 2 === 0 ? 1 : -1);
      const again = sessionsOf(sessions.nextId, sessions.uses, sessionRows(sessions));
      expect(again).toEqual({ ...sessions, byId });
    }),
    { numRuns: 500 },
  );
});

test("transactions that come in order are one range, however many", () => {
  let sessions = register(NO_SESSIONS);
  for (let number = 1; number <= 5000; number++) sessions = record(sessions, { session: 1, number, low: 1 });
  expect(sessionRows(sessions)).toEqual([[1, 1, 5001, [1, 5000]]]);
  sessions = record(sessions, { session: 1, number: 5001, low: 4000 });
  expect(sessionRows(sessions)).toEqual([[1, 4000, 5002, [4000, 5001]]]);
});

test("the session that was used longest ago expires first, and its id is never given again", () => {
  let sessions: Sessions = NO_SESSIONS;
  for (let i = 0; i < SESSIONS_MAX; i++) sessions = register(sessions);
  sessions = record(sessions, { session: 1, number: 1, low: 1 });
  sessions = register(sessions);
  expect(lookUp(sessions, { session: 2, number: 1, low: 1 })).toBe("expired");
  expect(lookUp(sessions, { session: 1, number: 1, low: 1 })).toBe("done");
  expect(sessions.nextId).toBe(SESSIONS_MAX + 2);
  expect(sessions.byId.count).toBe(SESSIONS_MAX);
  expect(lookUp(sessions, { session: sessions.nextId, number: 1, low: 1 })).toBe("expired");
});

test("a client can't make the state hold more than its window", () => {
  const sessions = register(NO_SESSIONS);
  expect(lookUp(sessions, { session: 1, number: SESSION_WINDOW, low: 1 })).toBe("new");
  expect(lookUp(sessions, { session: 1, number: SESSION_WINDOW + 1, low: 1 })).toBe("beyond");
  expect(lookUp(sessions, { session: 1, number: SESSION_WINDOW + 1, low: 2 })).toBe("new");
});
