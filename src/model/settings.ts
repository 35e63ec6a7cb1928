/**
 * The configuration store's records. A *setting* is a key with a value, which operators and their programs write through
 * `hive config`, HTTP or the Redis protocol. The record of a key is its newest version, with which the store keeps those before
 * (`pastMax`), so that a write is one record whatever the key's past. A key that was removed has its removal as its record,
 * until it is forgotten.
 *
 * Versions count a key's writes from 1, its removal included, and go on when the key is made anew for as long as its past is
 * remembered: who compares versions is not fooled by a key that went and came back. Values that are meant to expire (locks,
 * heartbeats) leave no past, nor does their end where the key had none before; whoever compares those has the store's
 * revision, which never repeats.
 */
import { KIB, MIB } from "../lib/units.ts";
import type { LeaseId } from "./store.ts";

/** How many versions of a key are remembered: the newest, and its past. */
export const VERSIONS_KEPT = 10;

/** Keys are ASCII: they order alike everywhere and survive shells and URLs; longer ones are most likely values. */
export const SETTING_KEY_CHARS_MAX = 512;
const SETTING_KEY = /^[!-~]{1,512}$/;
/** 1 to SETTING_KEY_CHARS_MAX printable ASCII characters, no space. */
export const isSettingKey = (text: string): boolean => SETTING_KEY.test(text);
export const SETTING_KEY_RULE = `A key has 1 to ${SETTING_KEY_CHARS_MAX} printable ASCII characters and no space.`;

/**
 * A value as it is stored, in bytes of JSON: a record's limit, less what stands beside the value. Bytes that are no UTF-8 are
 * stored as base64, and so is text that JSON would make longer than that (control characters).
 */
export const VALUE_STORED_BYTES_MAX = MIB - 4 * KIB;

/** Keys in the whole store: every node holds all of them in memory. */
export const SETTINGS_MAX = 1_000_000;
/** Keys that are gone, whose past is still remembered; the longest gone are forgotten first. */
export const ABSENT_KEYS_MAX = 10_000;

/** A value: text, or with `base64` the bytes that the text is the base64 of. */
export interface StoredValue {
  readonly value: string;
  readonly base64?: true;
}

export interface SettingRecord extends StoredValue {
  readonly key: string;
  readonly version: number;
  /** When it was written, in milliseconds since the epoch, and with which access key. */
  readonly at: number;
  readonly by: string;
  /** The lease that ends it, and when that is due: a lease starts anew when the daemon does, so it may live longer. */
  readonly expires?: { readonly at: number; readonly lease: LeaseId };
}

/** The end of a key, which is one of its versions. */
export interface SettingRemoval {
  readonly key: string;
  readonly version: number;
  readonly at: number;
  readonly by: string;
  readonly removed: "deleted" | "expired";
}

/** What a key was at one version. */
export type SettingVersion = SettingRecord | SettingRemoval;

export const isRemoval = (version: SettingVersion): version is SettingRemoval => "removed" in version;
