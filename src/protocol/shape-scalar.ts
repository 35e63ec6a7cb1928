/** Texts of the wire → strings, numbers, booleans, timestamps and blobs, strictly: what is not wholly a value is refused. */
import { unreachable } from "../lib/assert.ts";
import type { Shape, TimestampFormat } from "./shape.ts";

/** Why a text is not a value of its shape, as a sentence for the caller. */
export class Refusal {
  readonly why: string;
  constructor(why: string) {
    this.why = why;
  }
}

const NOT_INTEGER = new Refusal("Expected an integer.");
const NOT_NUMBER = new Refusal("Expected a number.");
const NOT_BOOLEAN = new Refusal("Expected true or false.");
const NOT_TIMESTAMP = new Refusal("Expected a timestamp such as 2016-11-15T08:30:00Z.");
const NOT_BASE64 = new Refusal("Expected base64.");

/** The most values that a message about an enum lists. */
const LISTED_VALUES_MAX = 12;

/** The value that `text` spells, or a Refusal. Structures, lists and maps are not scalars. */
export function readScalar(shape: Shape, text: string): unknown {
  switch (shape.kind) {
    case "string":
      return shape.values === undefined || shape.values.has(text) ? text : notAmong(shape.values);
    case "integer":
      return readInteger(text);
    case "float":
      return readFloat(text);
    case "boolean":
      return readBoolean(text);
    case "timestamp":
      return readTimestamp(text, shape.format);
    case "blob":
      return readBase64(text);
    case "bigInteger":
      return /^[+-]?\d{1,512}$/.test(text) ? BigInt(text.replace("+", "")) : NOT_INTEGER;
    case "bigDecimal":
      return readFloat(text) instanceof Refusal ? NOT_NUMBER : text;
    case "document":
    case "structure":
    case "union":
    case "error":
    case "list":
    case "map":
      return new Refusal("Expected no value here.");
    default:
      return unreachable(shape);
  }
}

const notAmong = (values: ReadonlySet<string>): Refusal =>
  new Refusal(values.size <= LISTED_VALUES_MAX ? `Valid values: ${[...values].join(", ")}.` : "");

function readInteger(text: string): number | Refusal {
  if (text.length > 20 || !/^[+-]?\d+$/.test(text)) return NOT_INTEGER;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number + 0 : NOT_INTEGER;
}

function readFloat(text: string): number | Refusal {
  if (text.length > 64 || !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$/.test(text)) return NOT_NUMBER;
  const number = Number(text);
  return Number.isFinite(number) ? number : NOT_NUMBER;
}

/** Python's True and False come through older tools; EC2 takes them. */
function readBoolean(text: string): boolean | Refusal {
  switch (text) {
    case "true":
    case "True":
    case "TRUE":
      return true;
    case "false":
    case "False":
    case "FALSE":
      return false;
    default:
      return NOT_BOOLEAN;
  }
}

const DATE_TIME = /^(\d{4})-(\d\d)-(\d\d)T\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)$/;

/** Reads a timestamp; in a query `protocol` means RFC 3339 with any offset. @returns a Date, of milliseconds */
export function readTimestamp(text: string, format: TimestampFormat): Date | Refusal {
  if (text.length > 64) return NOT_TIMESTAMP;
  if (format === "epoch-seconds") {
    const seconds = readFloat(text);
    return seconds instanceof Refusal ? NOT_TIMESTAMP : dateOf(seconds * 1000);
  }
  if (format === "http-date") {
    return /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/.test(text)
      ? dateOf(Date.parse(text))
      : NOT_TIMESTAMP;
  }
  const match = DATE_TIME.exec(text);
  if (!match) return NOT_TIMESTAMP;
  // JavaScript would read the 30th of February as the 1st of March.
  const day = Number(match[3]);
  if (day < 1 || day > daysOfMonth(Number(match[1]), Number(match[2]))) return NOT_TIMESTAMP;
  return dateOf(Date.parse(text.replace(",", ".").replace(/([+-]\d\d)(\d\d)$/, "$1:$2")));
}

const daysOfMonth = (year: number, month: number) => new Date(Date.UTC(year, month, 0)).getUTCDate();

function dateOf(ms: number): Date | Refusal {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? NOT_TIMESTAMP : date;
}

/** Base64 (RFC 4648, section 4) with or without padding. */
function readBase64(text: string): Uint8Array | Refusal {
  if (text.length % 4 === 1 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return NOT_BASE64;
  return new Uint8Array(Buffer.from(text, "base64"));
}
