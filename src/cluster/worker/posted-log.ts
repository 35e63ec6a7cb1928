import type { Fields, Level, Log } from "../../lib/log.ts";
import type { ToStore } from "./messages.ts";

/** A log whose events the other thread writes into its own. */
export function postedLog(post: (message: ToStore & { type: "log" }) => void, base: Fields = {}): Log {
  const at = (level: Level) => (event: string, fields?: Fields) =>
    post({ type: "log", level, event, fields: sendable({ ...base, ...fields }) });
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => postedLog(post, { ...base, ...fields }),
  };
}

/** An event is not lost for a field that can't be sent: errors become their text, and what has methods its JSON. */
function sendable(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, plain(value)]));
}

function plain(value: unknown): unknown {
  if (value instanceof Error) return { message: value.message, stack: value.stack };
  if (typeof value === "function" || typeof value === "symbol") return String(value);
  return typeof value === "object" && value !== null ? JSON.parse(JSON.stringify(value)) : value;
}
