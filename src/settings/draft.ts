/**
 * The rules of the configuration store, as a pure decision: a `Draft` is one state of the store with changes on top, which
 * become the writes of one transaction. What is read from it includes what was written to it. Everything that changes a
 * setting goes through here, whichever protocol asked: keys and values are checked, versions counted, the past kept.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import {
  isRemoval,
  isSettingKey,
  SETTING_KEY_RULE,
  SETTINGS_MAX,
  type SettingRecord,
  type SettingRemoval,
  type SettingVersion,
  type StoredValue,
} from "../model/settings.ts";
import { type LeaseId, put, type Reader, remove, type Write } from "../model/store.ts";
import { settings } from "../model/tables.ts";
import { clusterRefusal } from "./cluster-settings.ts";

/** Who writes, and when: milliseconds since the epoch. */
export interface Author {
  readonly by: string;
  readonly now: number;
  /**
   * Whether no more keys are taken. Not told by the draft's state: a count is of all keys, so that elsewhere than on the leader
   * any two who make one would conflict. The bound is not exact.
   */
  isFull?(): boolean;
}

/** When a value ends: never, when it would have ended anyway, or in so many milliseconds. */
export type Expiry = "never" | "as before" | { readonly ttlMs: number };

/** Why a write was refused, in a sentence. `lacks-lease` is for whoever runs drafts: grant one and decide again. */
export type Refusal = {
  readonly kind: "invalid" | "full" | "conflict" | "lacks-lease";
  readonly message: string;
};
export const refusal = (kind: Refusal["kind"], message: string): Refusal => ({ kind, message });

/** Who ends what expires. */
const OWN_NAME = "hive";
const NONE: readonly never[] = [];
const LACKS_LEASE = fail(refusal("lacks-lease", "The write needs a lease."));

export class Draft {
  readonly state: Reader;
  readonly #author: Author;
  /** Granted for this draft, by their time to live; each is hung on one record. */
  readonly #leases: readonly GrantedLease[];
  readonly #writes: Write[] = [];
  // A draft is made for each write, and most need no more than this: the rest is made when it is needed.
  #used: Set<LeaseId> | undefined;
  /** Leases of records that this draft replaces. */
  #released: LeaseId[] | undefined;
  /** Times to live that no lease was there for. */
  #lacking: number[] | undefined;
  /** What this draft made of keys. */
  #changed: Map<string, SettingVersion> | undefined;

  constructor(state: Reader, author: Author, leases: readonly GrantedLease[] = NONE) {
    this.state = state;
    this.#author = author;
    this.#leases = leases;
  }

  get writes(): readonly Write[] {
    return this.#writes;
  }
  get lacking(): readonly number[] {
    return this.#lacking ?? NONE;
  }

  /** Leases that nothing hangs on once the draft is committed. */
  idleLeases(): readonly LeaseId[] {
    if (this.#leases.length === 0) return this.#released ?? NONE;
    const unused = this.#leases.filter(({ lease }) => !this.#used?.has(lease));
    return [...(this.#released ?? NONE), ...unused.map(({ lease }) => lease)];
  }

  get now(): number {
    return this.#author.now;
  }

  get(key: string): SettingRecord | undefined {
    const newest = this.#newest(key);
    return newest && !isRemoval(newest) ? newest : undefined;
  }

  #newest(key: string): SettingVersion | undefined {
    return this.#changed?.get(key) ?? this.state.get(settings, key);
  }

  /** Why `set` would refuse this; undefined when it would not. */
  refusalOf(key: string, value: StoredValue, before = this.get(key)): Refusal | undefined {
    if (!isSettingKey(key)) return refusal("invalid", SETTING_KEY_RULE);
    const unfit = clusterRefusal(key, value);
    if (unfit !== undefined) return refusal("invalid", unfit);
    if (!before && this.#author.isFull?.()) {
      return refusal("full", `There are ${SETTINGS_MAX} settings, and no more are taken.`);
    }
    return undefined;
  }

  /** Writes a value. On a refusal nothing is changed. */
  set(key: string, value: StoredValue, expiry: Expiry = "never"): Result<SettingRecord, Refusal> {
    const newest = this.#newest(key);
    const before = newest && !isRemoval(newest) ? newest : undefined;
    const unfit = this.refusalOf(key, value, before);
    if (unfit) return fail(unfit);
    const expires = expiry === "as before" ? before?.expires : this.#expires(expiry);
    if (expires === "lacking") return LACKS_LEASE;
    const { now: at, by } = this.#author;
    const plain = { key, value: value.value, version: (newest?.version ?? 0) + 1, at, by };
    const record: SettingRecord =
      value.base64 || expires
        ? { ...plain, ...(value.base64 && { base64: true }), ...(expires && { expires }) }
        : plain;
    this.#write(record, before);
    return ok(record);
  }

  /** Removes a setting. @returns what it was; undefined when there was none, and nothing is changed */
  delete(key: string): SettingRecord | undefined {
    const before = this.get(key);
    if (!before) return undefined;
    const { now: at, by } = this.#author;
    const removal: SettingRemoval = { key, version: before.version + 1, at, by, removed: "deleted" };
    this.#release(before);
    this.#changed ??= new Map();
    this.#changed.set(key, removal);
    this.#writes.push(put(settings, removal));
    return before;
  }

  /** Lets a setting end in so many milliseconds, or never. Its version stays. False when there is none, or no change. */
  expire(key: string, expiry: "never" | { readonly ttlMs: number }): Result<boolean, Refusal> {
    const before = this.get(key);
    if (!before || (expiry === "never" && !before.expires)) return ok(false);
    const made = this.#expires(expiry);
    if (made === "lacking") return LACKS_LEASE;
    const { expires: _, ...rest } = before;
    if (made) this.#write({ ...rest, expires: made }, before);
    else this.#write(rest, before, this.#wasLasting(before));
    return ok(true);
  }

  /** Whether this version once had no end: then it is remembered as such, and its like would push another out of the past. */
  #wasLasting({ key, version }: SettingRecord): boolean {
    const newest = this.state.get(settings, key);
    const hasEnd = newest && !isRemoval(newest) && newest.expires;
    const lasting = hasEnd ? this.state.past(settings, key)[0]?.record : newest;
    return lasting?.version === version;
  }

  /** Forgets a key that is gone, with its past. Nothing happens when it was there again since. */
  forget({ key, version }: SettingRemoval): void {
    const newest = this.#newest(key);
    if (newest && isRemoval(newest) && newest.version === version) this.#writes.push(remove(settings, key));
  }

  #write(record: SettingRecord, before: SettingRecord | undefined, restores = false): void {
    const { key, version, expires } = record;
    if (before?.expires && before.expires !== expires) this.#release(before);
    this.#changed ??= new Map();
    this.#changed.set(key, record);
    if (!expires) {
      this.#writes.push(restores ? put(settings, record, { restores }) : put(settings, record));
      return;
    }
    const { at, lease } = expires;
    const removal: SettingRemoval = { key, version: version + 1, at, by: OWN_NAME, removed: "expired" };
    this.#writes.push(put(settings, record, this.#hasPast(key) ? { lease, successor: removal } : { lease }));
  }

  /** Whether something was written to the key that was not meant to expire. */
  #hasPast(key: string): boolean {
    const newest = this.state.get(settings, key);
    if (!newest) return false;
    return isRemoval(newest) || !newest.expires || this.state.past(settings, key).length > 0;
  }

  #release({ expires }: SettingRecord): void {
    if (!expires) return;
    this.#released ??= [];
    this.#released.push(expires.lease);
  }

  #expires(expiry: "never" | { readonly ttlMs: number }): SettingRecord["expires"] | "lacking" {
    if (expiry === "never") return undefined;
    const { ttlMs } = expiry;
    const free = this.#leases.find((granted) => granted.ttlMs === ttlMs && !this.#used?.has(granted.lease));
    if (!free) {
      this.#lacking ??= [];
      this.#lacking.push(ttlMs);
      return "lacking";
    }
    this.#used ??= new Set();
    this.#used.add(free.lease);
    return { at: this.#author.now + ttlMs, lease: free.lease };
  }
}

export type GrantedLease = { readonly lease: LeaseId; readonly ttlMs: number };
