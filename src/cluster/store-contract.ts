import { describe, expect, test } from "bun:test";
import { fail, ok } from "../lib/result.ts";
import {
  type AnyTable,
  changesOf,
  defineTable,
  type LeaseId,
  put,
  remove,
  type Store,
  type WatchEvent,
} from "../model/store.ts";

type Address = { readonly address: string; readonly subnet: string; readonly owner: string; readonly tags: string[] };
const addresses = defineTable({
  name: "addresses",
  version: 1,
  key: (record: Address) => record.address,
  indexes: { bySubnet: (record) => record.subnet, byTag: (record) => record.tags },
});
type Counter = { readonly id: string; readonly value: number };
// Its name begins like the other's, and its rows come right after: ranges must not run over.
const counters = defineTable({ name: "addresses-used", version: 1, key: (record: Counter) => record.id });

type Page = { readonly id: string; readonly text: string };
/** Keeps what its records were. */
const pages = defineTable({ name: "pages", version: 1, key: (record: Page) => record.id, pastMax: 3 });

/** The tables that the contract needs. */
export const CONTRACT_TABLES: readonly AnyTable[] = [addresses, counters, pages];

export type ContractStore = {
  readonly store: Store;
  /** Lets `ms` go by for leases: moves a clock of the test, or waits. */
  readonly passTime: (ms: number) => Promise<void>;
  readonly dispose: () => Promise<void>;
};

const address = (n: number, subnet = "subnet-a", tags: string[] = []): Address => ({
  address: `10.0.${n >> 8}.${String(n & 255).padStart(3, "0")}`,
  subnet,
  owner: `eni-${n}`,
  tags,
});

const write = async (
  store: Store,
  ...writes: Parameters<typeof ok<{ writes: ReturnType<typeof put>[] }>>[0]["writes"]
) => {
  const done = await store.transact(() => ok({ writes, value: undefined }));
  if (!done.ok) throw new Error(JSON.stringify(done.error));
};

/** Takes events until `count` have come. */
async function take(events: AsyncIterable<WatchEvent>, count: number): Promise<WatchEvent[]> {
  const taken: WatchEvent[] = [];
  if (count === 0) return taken;
  for await (const event of events) if (taken.push(event) >= count) break;
  return taken;
}

/** Until `met`, letting the store's own work go on in between. */
async function until(met: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!met()) {
    if (Date.now() > deadline) throw new Error("the condition was not met in 5 s");
    await Bun.sleep(1);
  }
}

/** What every implementation of the store owes its users. `makeStore` gives an empty one with CONTRACT_TABLES. */
export function storeContract(name: string, makeStore: () => Promise<ContractStore>): void {
  const check = (claim: string, body: (store: Store, contract: ContractStore) => Promise<void>) =>
    test(claim, async () => {
      const contract = await makeStore();
      try {
        await body(contract.store, contract);
      } finally {
        await contract.dispose();
      }
    });

  describe(`store contract: ${name}`, () => {
    check("a writer sees its own writes, in every index and no other table", async (store) => {
      await write(store, put(addresses, address(2, "subnet-a", ["x", "y"])), put(addresses, address(1)));
      await write(store, put(counters, { id: "c", value: 1 }), put(addresses, address(3, "subnet-b", ["x"])));
      const state = store.read();
      expect(state.get(addresses, address(1).address)).toEqual(address(1));
      expect(state.get(addresses, "nowhere")).toBeUndefined();
      expect(state.all(addresses).map((record) => record.owner)).toEqual(["eni-1", "eni-2", "eni-3"]);
      expect(state.lookup(addresses, "bySubnet", "subnet-a").map((record) => record.owner)).toEqual(["eni-1", "eni-2"]);
      expect(state.lookup(addresses, "byTag", "x").map((record) => record.owner)).toEqual(["eni-2", "eni-3"]);
      expect(state.lookup(addresses, "bySubnet", "subnet")).toEqual([]);
      expect(state.count(addresses)).toBe(3);
      expect(state.countOf(addresses, "byTag", "y")).toBe(1);
      expect(state.count(counters)).toBe(1);
    });

    check("a record's stamp tells when it was made, and last written", async (store) => {
      const stamp = () => store.read().stamp(addresses, address(1).address);
      expect(stamp()).toBeUndefined();
      await write(store, put(addresses, address(1)));
      const made = stamp()!;
      expect(made.createRevision).toBe(made.modRevision);
      await write(store, put(addresses, address(2)));
      expect(stamp()).toMatchObject({ createRevision: made.createRevision, modRevision: made.modRevision });
      await write(store, put(addresses, address(1, "subnet-b")));
      expect(stamp()!.createRevision).toBe(made.createRevision);
      expect(stamp()!.modRevision).toBeGreaterThan(made.modRevision);
      await write(store, remove(addresses, address(1).address));
      expect(stamp()).toBeUndefined();
      await write(store, put(addresses, address(1)));
      expect(stamp()!.createRevision).toBeGreaterThan(made.createRevision);
    });

    check("indexes follow a record that changes and one that is removed", async (store) => {
      await write(store, put(addresses, address(1, "subnet-a", ["x", "x"])), put(addresses, address(2)));
      await write(store, put(addresses, address(1, "subnet-b", ["y"])), remove(addresses, address(2).address));
      const state = store.read();
      expect(state.lookup(addresses, "bySubnet", "subnet-a")).toEqual([]);
      expect(state.lookup(addresses, "byTag", "x")).toEqual([]);
      expect(state.lookup(addresses, "byTag", "y")).toEqual([address(1, "subnet-b", ["y"])]);
      expect(state.countOf(addresses, "bySubnet", "subnet-b")).toBe(1);
    });

    check("index values may hold anything, also what ends them inside", async (store) => {
      const odd = ["a", "a\0", "a\0b", "a\u0001", "a\u0001a", "", "ä𐍈"];
      await write(store, ...odd.map((tag, i) => put(addresses, address(i, "s", [tag]))));
      odd.forEach((tag, i) => {
        expect(
          store
            .read()
            .lookup(addresses, "byTag", tag)
            .map((record) => record.owner),
        ).toEqual([`eni-${i}`]);
      });
    });

    check("ranges honour their bounds, prefix, cursor and limit", async (store) => {
      await write(store, ...[1, 2, 3, 4, 300].map((n) => put(addresses, address(n))));
      const owners = (range: Parameters<ReturnType<Store["read"]>["range"]>[1]) =>
        store
          .read()
          .range(addresses, range)
          .map((record) => record.owner.slice(4))
          .join();
      expect(owners({})).toBe("1,2,3,4,300");
      expect(owners({ from: address(2).address, to: address(4).address })).toBe("2,3");
      expect(owners({ after: address(2).address, limit: 2 })).toBe("3,4");
      expect(owners({ prefix: "10.0.1." })).toBe("300");
      expect(owners({ prefix: "10.0.0.", from: address(4).address })).toBe("4");
      expect(owners({ limit: 0 })).toBe("");
      expect(owners({ from: "9", to: "1" })).toBe("");
    });

    check("a reader keeps showing its revision, and a record is one object until it changes", async (store) => {
      await write(store, put(addresses, address(1)), put(addresses, address(2)));
      const before = store.read();
      const kept = before.get(addresses, address(1).address);
      await write(store, put(addresses, { ...address(2), owner: "other" }), put(addresses, address(3)));
      expect(before.all(addresses)).toEqual([address(1), address(2)]);
      expect(before.lookup(addresses, "bySubnet", "subnet-a")).toHaveLength(2);
      expect(store.read().revision).toBe(before.revision + 1);
      expect(store.read().get(addresses, address(1).address)).toBe(kept);
      expect(store.read().lookup(addresses, "bySubnet", "subnet-a")[0]).toBe(kept);
      expect(store.read()).toBe(store.read());
    });

    check("records are frozen through and through, and shared with no writer", async (store) => {
      const mine = { ...address(1), tags: ["t"] };
      await write(store, put(addresses, mine));
      mine.tags.push("later");
      const record = store.read().get(addresses, mine.address);
      expect(record?.tags).toEqual(["t"]);
      expect(Object.isFrozen(record) && Object.isFrozen(record?.tags)).toBe(true);
    });

    check("a refused decision writes nothing, and its reason comes back", async (store) => {
      const refused = await store.transact(() => fail({ code: "Nope" }));
      expect(refused).toEqual({ ok: false, error: { code: "Nope" } });
      expect(store.read().revision).toBe(0);
    });

    check("a transaction without writes answers and makes no revision", async (store) => {
      await write(store, put(addresses, address(1)));
      const counted = await store.transact((state) => ok({ writes: [], value: state.count(addresses) }));
      expect(counted).toEqual({ ok: true, value: 1 });
      await write(store, remove(addresses, "never there"));
      expect(store.read().revision).toBe(1);
    });

    check("the last write of a key in one transaction wins", async (store) => {
      const one = address(1);
      await write(store, put(addresses, one), remove(addresses, one.address));
      expect(store.read().count(addresses)).toBe(0);
      await write(
        store,
        remove(addresses, one.address),
        put(addresses, one),
        put(addresses, { ...one, owner: "last" }),
      );
      expect(store.read().get(addresses, one.address)?.owner).toBe("last");
    });

    check("64 callers at once each get an address of their own", async (store) => {
      const allocate = (owner: string) =>
        store.transact((state) => {
          const used = new Set(state.lookup(addresses, "bySubnet", "subnet-a").map((record) => record.address));
          for (let n = 1; n < 256; n++) {
            const free = { ...address(n), owner };
            if (!used.has(free.address)) return ok({ writes: [put(addresses, free)], value: free.address });
          }
          return fail("no free address" as const);
        });
      const given = await Promise.all(Array.from({ length: 64 }, (_, i) => allocate(`eni-${i}`)));
      expect(given.every((result) => result.ok)).toBe(true);
      expect(new Set(given.map((result) => result.ok && result.value)).size).toBe(64);
      expect(store.read().count(addresses)).toBe(64);
    });

    check("a decision on what isn't there holds: no two fill the same gap (phantoms)", async (store) => {
      // Each may add one only while there are fewer than five; by index, by range, by count.
      const ways = [
        (state: ReturnType<Store["read"]>) => state.lookup(addresses, "bySubnet", "subnet-a").length,
        (state: ReturnType<Store["read"]>) => state.range(addresses, { prefix: "10." }).length,
        (state: ReturnType<Store["read"]>) => state.count(addresses),
        (state: ReturnType<Store["read"]>) => state.countOf(addresses, "bySubnet", "subnet-a"),
      ];
      const results = await Promise.all(
        Array.from({ length: 40 }, (_, i) =>
          store.transact((state) =>
            ways[i % ways.length]!(state) < 5
              ? ok({ writes: [put(addresses, address(i))], value: undefined })
              : fail("full" as const),
          ),
        ),
      );
      expect(results.filter((result) => result.ok)).toHaveLength(5);
      expect(store.read().count(addresses)).toBe(5);
    });

    check("counters that many raise lose no increment", async (store) => {
      await write(store, put(counters, { id: "c", value: 0 }));
      const raise = () =>
        store.transact((state) => {
          const value = state.get(counters, "c")!.value + 1;
          return ok({ writes: [put(counters, { id: "c", value })], value });
        });
      const seen = await Promise.all(Array.from({ length: 50 }, raise));
      expect(new Set(seen.map((result) => result.ok && result.value)).size).toBe(50);
      expect(store.read().get(counters, "c")?.value).toBe(50);
    });

    check("a watch from a revision is ordered, whole, without doubles, and of its tables only", async (store) => {
      await write(store, put(addresses, address(1)));
      const from = store.read().revision;
      const live = take(store.watch([addresses], { fromRevision: from }), 3);
      await write(store, put(addresses, { ...address(1), owner: "b" }), put(addresses, address(2)));
      await write(store, put(counters, { id: "c", value: 1 }));
      await write(store, remove(addresses, address(1).address));
      await Promise.all([write(store, put(addresses, address(7))), write(store, put(counters, { id: "d", value: 1 }))]);
      const expected = await live;
      expect(expected.map((event) => event.kind)).toEqual(["changes", "changes", "changes"]);
      const [first, second] = expected;
      if (first?.kind !== "changes" || second?.kind !== "changes") throw new Error("unreachable");
      expect(first.revision).toBe(from + 1);
      expect(changesOf(first.changes, addresses)).toMatchObject([
        { key: address(1).address, before: address(1), after: { ...address(1), owner: "b" } },
        { key: address(2).address, after: address(2) },
      ]);
      expect(first.changes[1]).not.toHaveProperty("before");
      expect(second.revision).toBe(from + 3);
      expect(second.changes).toMatchObject([{ key: address(1).address, before: { owner: "b" } }]);
      expect(second.changes[0]).not.toHaveProperty("after");
      // A later reader of the same past sees the same.
      expect(await take(store.watch([addresses], { fromRevision: from }), 3)).toEqual(expected);
    });

    check("a watch that replays the changes from nothing arrives at the state", async (store) => {
      const replica = new Map<string, Address>();
      for (let i = 0; i < 60; i++) {
        await write(store, i % 3 === 2 ? remove(addresses, address(i - 1).address) : put(addresses, address(i)));
      }
      for (const event of await take(store.watch([addresses], { fromRevision: 0 }), 60)) {
        if (event.kind !== "changes") throw new Error("compacted");
        for (const { key, before, after } of changesOf(event.changes, addresses)) {
          expect(replica.get(key)).toEqual(before);
          if (after) replica.set(key, after);
          else replica.delete(key);
        }
      }
      expect([...replica.values()]).toEqual([...store.read().all(addresses)]);
    });

    check("a watch is told of what concerns it, whole, and of nothing else", async (store) => {
      const asked: string[] = [];
      const concerns = (key: string, after: object | undefined) => {
        asked.push(key);
        return after === undefined || (after as Address).owner === "wanted";
      };
      const told = take(store.watch([addresses], { fromRevision: 0, concerns }), 2);
      await write(store, put(addresses, address(1)), put(addresses, address(2)));
      await write(store, put(counters, { id: "c", value: 1 }));
      await write(store, put(addresses, address(3)), put(addresses, { ...address(4), owner: "wanted" }));
      await write(store, put(addresses, address(1, "subnet-b")));
      await write(store, remove(addresses, address(2).address));
      const keys = (await told).map((event) => (event.kind === "changes" ? event.changes.map(({ key }) => key) : []));
      expect(keys).toEqual([[address(3).address, address(4).address], [address(2).address]]);
      expect(new Set(asked)).toEqual(new Set([1, 2, 3, 4].map((n) => address(n).address)));
    });

    check("a watch ends when its signal is aborted and when the store closes", async (store) => {
      const controller = new AbortController();
      const drained = async (signal?: AbortSignal) => {
        let count = 0;
        for await (const _ of store.watch([addresses], signal ? { signal } : {})) count++;
        return count;
      };
      const aborted = drained(controller.signal);
      const closed = drained();
      await write(store, put(addresses, address(1)));
      await until(() => store.status().watchers === 2);
      controller.abort();
      expect(await aborted).toBe(1);
      await store.close();
      expect(await closed).toBe(1);
      expect(await store.transact(() => ok({ writes: [], value: 1 }))).toMatchObject({ error: { reason: "closed" } });
    });

    check("records vanish with their lease, when it ends and when it is revoked", async (store, { passTime }) => {
      const lease = await granted(store, 1000);
      const other = await granted(store, 1000);
      const on = (id: LeaseId, n: number) => put(addresses, address(n), { lease: id });
      await write(store, on(lease, 1), on(lease, 2), on(other, 3), on(lease, 4), put(addresses, address(5)));
      // Written again without the lease: it stays.
      await write(store, put(addresses, { ...address(4), owner: "free" }));
      await passTime(600);
      expect(await store.keepAlive(lease)).toMatchObject({ ok: true });
      await passTime(600);
      await until(() => store.read().count(addresses) === 4);
      expect(store.read().get(addresses, address(3).address)).toBeUndefined();
      expect(await store.keepAlive(other)).toMatchObject({ error: { reason: "no-lease" } });
      const events = take(store.watch([addresses]), 1);
      expect(await store.revokeLease(lease)).toMatchObject({ ok: true });
      expect((await events)[0]).toMatchObject({ changes: [{ key: address(1).address }, { key: address(2).address }] });
      expect(
        store
          .read()
          .all(addresses)
          .map((record) => record.owner),
      ).toEqual(["free", "eni-5"]);
      expect(await store.revokeLease(lease)).toMatchObject({ error: { reason: "no-lease" } });
      const late = await store.transact(() => ok({ writes: [on(lease, 9)], value: 1 }));
      expect(late).toMatchObject({ error: { reason: "no-lease" } });
    });

    check(
      "a table that keeps its records' past keeps so many, newest first, until the record is removed",
      async (store) => {
        const revisions: number[] = [];
        const past = (id: string) =>
          store
            .read()
            .past(pages, id)
            .map(({ record, modRevision }) => [record.text, revisions.indexOf(modRevision)]);
        for (const text of ["0", "1", "2", "3", "4"]) {
          await write(store, put(pages, { id: "a", text }), put(addresses, address(1)));
          revisions.push(store.read().revision);
          // Keys that begin with the key of another have nothing of its past.
          if (text === "2") await write(store, put(pages, { id: "a/1", text: "other" }));
          if (text === "2")
            expect(past("a")).toEqual([
              ["1", 1],
              ["0", 0],
            ]);
        }
        const before = store.read();
        expect(past("a")).toEqual([
          ["3", 3],
          ["2", 2],
          ["1", 1],
        ]);
        expect(past("a/1")).toEqual([]);
        expect(past("nowhere")).toEqual([]);
        expect(store.read().past(addresses, address(1).address)).toEqual([]);
        expect(Object.isFrozen(store.read().past(pages, "a")[0]?.record)).toBe(true);
        await write(store, remove(pages, "a"));
        expect(past("a")).toEqual([]);
        await write(store, put(pages, { id: "a", text: "anew" }));
        expect(past("a")).toEqual([]);
        expect(before.past(pages, "a").map(({ record }) => record.text)).toEqual(["3", "2", "1"]);
      },
    );

    check("decisions that wait together each see, and leave, the past of those before them", async (store) => {
      const append = (text: string) =>
        store.transact((state) => {
          const seen = state.past(pages, "a").map(({ record }) => record.text);
          return ok({ writes: [put(pages, { id: "a", text })], value: seen });
        });
      const texts = Array.from({ length: 12 }, (_, i) => `${i}`);
      const done = await Promise.all(texts.map(append));
      const order = done.map((result, i) => ({ text: texts[i]!, seen: result.ok ? result.value : ["failed"] }));
      expect(order.map(({ seen }) => seen.length).sort()).toEqual([0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3]);
      const { text } = store.read().get(pages, "a")!;
      const past = store.read().past(pages, "a");
      expect(past).toHaveLength(3);
      expect(new Set([text, ...past.map(({ record }) => record.text)]).size).toBe(4);
      // What the last one saw is what is there now, but for the two writes since.
      const last = order.find((one) => one.text === text)!;
      expect(past.slice(1).map(({ record }) => record.text)).toEqual(last.seen.slice(0, 2));
    });

    check("a record on a lease leaves no past, and what was before it stays", async (store) => {
      const lease = await granted(store, 60_000);
      const texts = () =>
        store
          .read()
          .past(pages, "a")
          .map(({ record }) => record.text);
      await write(store, put(pages, { id: "a", text: "1" }));
      await write(store, put(pages, { id: "a", text: "2" }));
      await write(store, put(pages, { id: "a", text: "passing" }, { lease }));
      expect(texts()).toEqual(["2", "1"]);
      await write(store, put(pages, { id: "a", text: "passing, too" }, { lease }));
      expect(texts()).toEqual(["2", "1"]);
      await write(store, put(pages, { id: "a", text: "3" }));
      expect(texts()).toEqual(["2", "1"]);
      await write(store, put(pages, { id: "a", text: "4" }));
      expect(texts()).toEqual(["3", "2", "1"]);
      // Without a successor, all of it goes with the lease.
      await write(store, put(pages, { id: "a", text: "passing" }, { lease }));
      expect(await store.revokeLease(lease)).toMatchObject({ ok: true });
      expect(store.read().get(pages, "a")).toBeUndefined();
      expect(texts()).toEqual([]);
    });

    for (const how of ["ends", "is revoked"] as const) {
      check(
        `a successor takes its record's place when the lease ${how}, and the past is kept`,
        async (store, contract) => {
          const lease = await granted(store, 1000);
          const page = (id: string, text: string) => ({ id, text });
          const passing = (id: string, text: string) =>
            put(pages, page(id, "passing"), { lease, successor: page(id, text) });
          await write(store, put(pages, page("a", "1")), put(pages, page("c", "1")));
          await write(store, put(pages, page("a", "2")));
          await write(store, passing("a", "next"), passing("b", "next"), passing("c", "next"));
          // The last write is what counts: this one hangs on no lease any more, and this one has no successor.
          await write(store, put(pages, page("c", "stays")), put(pages, page("d", "goes"), { lease }));
          const { createRevision } = store.read().stamp(pages, "a")!;
          const events = take(store.watch([pages]), 2);
          await write(store, passing("b", "newer"));
          if (how === "ends") await contract.passTime(1100);
          else expect(await store.revokeLease(lease)).toMatchObject({ ok: true });
          const [, event] = await events;
          if (event?.kind !== "changes") throw new Error("no changes");
          const changes = changesOf(event.changes, pages).map(({ key, before, after }) => [key, before, after]);
          expect(changes).toEqual([
            ["a", page("a", "passing"), page("a", "next")],
            ["b", page("b", "passing"), page("b", "newer")],
            ["d", page("d", "goes"), undefined],
          ]);
          await until(() => store.status().leases === 0);
          const state = store.read();
          expect(state.all(pages)).toEqual([page("a", "next"), page("b", "newer"), page("c", "stays")]);
          const texts = (id: string) => state.past(pages, id).map(({ record }) => record.text);
          expect(["a", "b", "c"].map(texts)).toEqual([["2", "1"], [], ["1"]]);
          expect(state.stamp(pages, "a")).toMatchObject({ createRevision, modRevision: event.revision });
          // It hangs on no lease, and is kept as any other record is.
          await write(store, put(pages, page("a", "last")));
          expect(
            store
              .read()
              .past(pages, "a")
              .map(({ record }) => record.text),
          ).toEqual(["next", "2", "1"]);
        },
      );
    }

    check("a past, a record and its successor may all be as large as a record may be", async (store) => {
      const large = (n: number) => ({ id: "a", text: `${n}`.repeat(900 * 1024) });
      const whole = { id: "a", text: "w".repeat(1024 * 1024 - 100) };
      for (let n = 1; n <= 5; n++) await write(store, put(pages, large(n)));
      const lease = await granted(store, 60_000);
      await write(store, put(pages, whole, { lease, successor: whole }));
      const state = store.read();
      expect(state.past(pages, "a").map(({ record }) => record.text[0])).toEqual(["5", "4", "3"]);
      for (const { record } of state.past(pages, "a")) expect(record.text).toHaveLength(900 * 1024);
      expect(await store.revokeLease(lease)).toMatchObject({ ok: true });
      expect(store.read().get(pages, "a")?.text === whole.text).toBe(true);
      expect(store.read().past(pages, "a")).toEqual([...state.past(pages, "a")]);
    });

    check("after a barrier, what succeeded anywhere is shown here", async (store) => {
      await write(store, put(addresses, address(1)));
      expect(await store.barrier()).toMatchObject({ ok: true });
      expect(store.read().count(addresses)).toBe(1);
    });

    check("records and transactions above their limits are refused, and change nothing", async (store) => {
      const big = { ...address(1), owner: "x".repeat(1024 * 1024) };
      const refused = await store.transact(() => ok({ writes: [put(addresses, big)], value: 1 }));
      expect(refused).toMatchObject({ error: { kind: "store", reason: "too-large" } });
      const large = Array.from({ length: 9 }, (_, i) => put(addresses, { ...address(i), owner: "x".repeat(1000_000) }));
      const all = await store.transact(() => ok({ writes: large, value: 1 }));
      expect(all).toMatchObject({ error: { reason: "too-large" } });
      const key = put(addresses, { ...address(1), address: "k".repeat(3000) });
      expect(await store.transact(() => ok({ writes: [key], value: 1 }))).toMatchObject({
        error: { reason: "too-large" },
      });
      expect(store.read().revision).toBe(0);
    });

    check("a record that JSON would not give back is a defect of the caller, found at once", async (store) => {
      for (const value of [new Date(), Number.NaN, 1n, () => 1, new Map(), [undefined]]) {
        const record = { ...address(1), owner: value as unknown as string };
        const attempt = store.transact(() => ok({ writes: [put(addresses, record)], value: 1 }));
        await expect(attempt).rejects.toThrow();
      }
      await write(store, put(addresses, address(1)));
      expect(store.read().revision).toBe(1);
    });

    check("status tells revision, records and health", async (store) => {
      await write(store, put(addresses, address(1)));
      expect(store.status()).toMatchObject({ revision: 1, records: 1, health: "ok", pending: 0, watchers: 0 });
    });
  });
}

async function granted(store: Store, ttlMs: number): Promise<LeaseId> {
  const lease = await store.grantLease(ttlMs);
  if (!lease.ok) throw new Error(lease.error.message);
  return lease.value;
}
