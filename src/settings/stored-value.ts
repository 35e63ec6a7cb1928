/** A setting's value between its bytes and what a record can hold. */
import { isUtf8 } from "node:buffer";
import { fail, ok, type Result } from "../lib/result.ts";
import { KIB } from "../lib/units.ts";
import { type StoredValue, VALUE_STORED_BYTES_MAX } from "../model/settings.ts";

const BEYOND_ASCII = /[\u0080-\u00ff]/;
/** JSON writes a code unit in at most six bytes (`\u0000`). */
const JSON_BYTES_A_UNIT = 6;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The value with these bytes, given as a byte string: text where they are UTF-8. Fails with a sentence when it is too large. */
export function valueOfBytes(bytes: string): Result<StoredValue, string> {
  if (!BEYOND_ASCII.test(bytes)) return fitting(bytes);
  const buffer = Buffer.from(bytes, "latin1");
  return isUtf8(buffer) ? fitting(buffer.toString("utf8")) : fittingBase64(buffer.toString("base64"));
}

/** The value with this text. Fails with a sentence when it is too large, or no text (a half of a surrogate pair). */
export function valueOfText(text: string): Result<StoredValue, string> {
  return text.isWellFormed() ? fitting(text) : fail("The value is no text: a half of a surrogate pair stands alone.");
}

/** The value with the bytes that this is the base64 of; text where they are UTF-8. Fails with a sentence. */
export function valueOfBase64(base64: string): Result<StoredValue, string> {
  if (!BASE64.test(base64)) return fail("The value is not base64.");
  return valueOfBytes(Buffer.from(base64, "base64").toString("latin1"));
}

function fitting(text: string): Result<StoredValue, string> {
  if (text.length * JSON_BYTES_A_UNIT <= VALUE_STORED_BYTES_MAX) return ok({ value: text });
  if (text.length <= VALUE_STORED_BYTES_MAX) {
    const asText = Buffer.byteLength(JSON.stringify(text));
    if (asText <= VALUE_STORED_BYTES_MAX) return ok({ value: text });
  }
  return fittingBase64(Buffer.from(text).toString("base64"));
}

const fittingBase64 = (base64: string): Result<StoredValue, string> =>
  base64.length <= VALUE_STORED_BYTES_MAX ? ok({ value: base64, base64: true }) : fail(TOO_LARGE);

export const TOO_LARGE =
  `The value is too large: text may take ${VALUE_STORED_BYTES_MAX / KIB} KiB as JSON, ` +
  `other bytes ${Math.floor((VALUE_STORED_BYTES_MAX * 3) / 4 / KIB)} KiB.`;

/** What a client is sent: text, or bytes. */
export const contentOf = ({ value, base64 }: StoredValue): string | Uint8Array =>
  base64 ? Buffer.from(value, "base64") : value;

/** As text, for what reads numbers and words in a value; bytes that are none have no text. */
export function textOf({ value, base64 }: StoredValue): string | undefined {
  if (!base64) return value;
  const bytes = Buffer.from(value, "base64");
  return isUtf8(bytes) ? bytes.toString("utf8") : undefined;
}
