import { fail, ok, type Result } from "../../lib/result.ts";
import { KIB, MIB } from "../../lib/units.ts";
import type { EtcdClient, EtcdError } from "./etcd-client.ts";
import { afterPrefix, bytes, type EtcdKeyValue } from "./gateway-json.ts";

/** Of a page as JSON. Its entries are counted from what the page before weighed. */
const PAGE_BYTES = 4 * MIB;
/** Of the first page: each entry may have a record's greatest size. */
const FIRST_PAGE = 32;
const PAGE_MAX = 4096;
const ENTRY_BYTES_MIN = KIB;
/** More than a cloud of Hive's can have, and less than fills a node's memory. */
const ENTRIES_MAX = 10_000_000;

/** Everything under the prefix, as it was at one revision. Keys are without the prefix. */
export type Everything = { readonly revision: number; readonly entries: readonly EtcdKeyValue[] };

/** Reads it in pages, none of which blocks etcd or this process for long. Fails with `compacted` when it takes too long. */
export async function readAll(etcd: EtcdClient, prefix: string): Promise<Result<Everything, EtcdError>> {
  const entries: EtcdKeyValue[] = [];
  let revision = 0;
  let from = prefix;
  let limit = FIRST_PAGE;
  for (;;) {
    const page = await etcd.range({
      key: bytes(from),
      range_end: bytes(afterPrefix(prefix)),
      limit,
      ...(revision > 0 && { revision }),
    });
    if (!page.ok) {
      if (page.error.kind !== "too-large" || limit === 1) return page;
      limit = Math.max(1, limit >> 2);
      continue;
    }
    revision ||= page.value.revision;
    for (const entry of page.value.entries) {
      if (!entry.key.startsWith(prefix)) return fail(outside(entry.key));
      entries.push({ ...entry, key: entry.key.slice(prefix.length) });
    }
    const last = page.value.entries.at(-1);
    if (!page.value.more || !last) return ok({ revision, entries });
    if (Buffer.compare(Buffer.from(last.key), Buffer.from(from)) < 0) return fail(outside(last.key));
    if (entries.length > ENTRIES_MAX) return fail(tooMany);
    from = `${last.key}\0`;
    const weight = Math.max(ENTRY_BYTES_MIN, page.value.bytes / page.value.entries.length);
    limit = Math.min(PAGE_MAX, Math.ceil(PAGE_BYTES / weight));
  }
}

const outside = (key: string): EtcdError => ({
  kind: "unreachable",
  message: `Etcd answered with a key that was not asked for (${JSON.stringify(key.slice(0, 80))}).`,
});
const tooMany: EtcdError = { kind: "refused", message: `Etcd holds more than ${ENTRIES_MAX} keys under the prefix.` };
