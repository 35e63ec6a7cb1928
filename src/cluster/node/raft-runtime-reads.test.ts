import { expect, test } from "bun:test";
import { READ_MS_MAX, Reads } from "./raft-runtime-reads.ts";

function reads() {
  const asked: number[] = [];
  const time = { now: 0 };
  const made = new Reads({ now: () => time.now, ask: (id) => asked.push(id), attemptMs: 500, firstId: 1 });
  const at = (now: number) => {
    time.now = now;
    made.timeOut(now);
    return asked.splice(0);
  };
  return { reads: made, asked, at };
}

test("callers of one turn share a question, those of the next have their own", async () => {
  const { reads: r, asked } = reads();
  const first = [r.readIndex(), r.readIndex()];
  await Promise.resolve();
  const second = r.readIndex();
  await Promise.resolve();
  expect(asked).toEqual([1, 2]);
  r.answered(2, 8);
  r.answered(1, 7);
  expect(await Promise.all(first)).toEqual([7, 7].map((value) => ({ ok: true, value })));
  expect(await second).toEqual({ ok: true, value: 8 });
  expect(r.waiting).toBe(0);
});

test("a question that failed, or that nobody answered, is asked again, at once when a leader turns up", async () => {
  const { reads: r, asked, at } = reads();
  const read = r.readIndex();
  await Promise.resolve();
  expect(asked.splice(0)).toEqual([1]);
  expect(at(400)).toEqual([]);
  expect(at(500)).toEqual([2]);
  r.answered(2, undefined);
  expect(at(550)).toEqual([]);
  expect(at(650)).toEqual([3]);
  r.answered(3, undefined);
  r.leaderAppeared();
  expect(asked.splice(0)).toEqual([4]);
  r.answered(1, 5);
  r.answered(4, 6);
  expect(await read).toEqual({ ok: true, value: 6 });
});

test("a read without a leader ends when its time is over", async () => {
  const { reads: r, at } = reads();
  const read = r.readIndex();
  await Promise.resolve();
  let questions = 0;
  for (let now = 50; now <= READ_MS_MAX; now += 50)
    for (const id of at(now)) if (++questions) r.answered(id, undefined);
  for (let now = READ_MS_MAX; now <= READ_MS_MAX + 1000; now += 50) at(now);
  expect(await read).toMatchObject({ ok: false, error: { reason: "unavailable" } });
  expect(questions).toBeLessThanOrEqual(READ_MS_MAX / 100);
});
