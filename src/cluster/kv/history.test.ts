import { expect, test } from "bun:test";
import { History } from "./history.ts";

const changed = (count: number) => Array.from({ length: count }, (_, n) => ({ key: `k${n}` }));
/** The revisions that a watcher from the beginning could still be told, by what it is told first. */
async function heldAfter(history: History): Promise<number> {
  const watching = history.watch(0);
  const { value } = await watching.next();
  await watching.return(undefined);
  return value?.kind === "compacted" ? value.revision : 0;
}

test.each<[string, { changes: number; bytes: number }, number]>([
  ["so many changes", { changes: 5, bytes: 1 }, 18],
  ["so many revisions without a change", { changes: 0, bytes: 0 }, 10],
  ["so many bytes", { changes: 1, bytes: 400 }, 18],
  ["the latest revision, of however many changes", { changes: 100, bytes: 1 }, 19],
  ["the latest revision, however large it is", { changes: 1, bytes: 5000 }, 19],
])("a history holds %s", async (_, { changes, bytes }, dropped) => {
  const history = new History(0, 10, 1000);
  for (let revision = 1; revision <= 20; revision++) history.record(revision, changed(changes), bytes);
  expect(await heldAfter(history)).toBe(dropped);
  history.restartAfter(30);
  for (let revision = 31; revision <= 32; revision++) history.record(revision, changed(1), 400);
  const next = await history.watch(30).next();
  expect(next.value).toMatchObject({ kind: "changes", revision: 31 });
});
