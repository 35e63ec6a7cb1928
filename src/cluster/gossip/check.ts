/** What names, addresses and facts may look like. Everything here may come from anywhere. */
import { fail, ok, type Result } from "../../lib/result.ts";
import { FACT_VALUE_BYTES_MAX, FACTS_BYTES_MAX, FACTS_MAX, STALL_FACT } from "./types.ts";

/** Ids and names of facts: NAME_BYTES_MAX at most, and nothing that an object might take for its own. */
export const isName = (text: string): boolean => /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text);

/** `ip:port`, as far as letters go: whoever sends there finds out whether it is one. */
export const isAddress = (text: string): boolean =>
  /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]{2,45}\]):[1-9]\d{0,4}$/.test(text);

/** Whether a node may say this of itself: names, sizes, FACTS_MAX less the one that the core adds. Fails with a sentence. */
export function checkFacts(values: { readonly [name: string]: string }): Result<void, string> {
  const names = Object.keys(values);
  if (names.length > FACTS_MAX - 1) return fail(`${names.length} facts are more than ${FACTS_MAX - 1}`);
  let bytes = 0;
  for (const name of names) {
    const length = utf8Length(values[name]!);
    if (!isName(name)) return fail(`"${name}" can't be the name of a fact`);
    if (name === STALL_FACT) return fail(`the fact "${name}" is measured, not set`);
    if (length > FACT_VALUE_BYTES_MAX)
      return fail(`the fact "${name}" has ${length} bytes, over ${FACT_VALUE_BYTES_MAX}`);
    bytes += name.length + length;
  }
  return bytes > FACTS_BYTES_MAX ? fail(`${bytes} bytes of facts are more than ${FACTS_BYTES_MAX}`) : ok(undefined);
}

/** Length of the text in UTF-8. */
export function utf8Length(text: string): number {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return Buffer.byteLength(text);
  return text.length;
}
