/**
 * Form bodies and query strings (`application/x-www-form-urlencoded`, WHATWG URL standard, section 5) as the query protocols
 * use them, with bounds. Names and values stay in the order in which they came.
 */

import { fail, ok, type Result } from "../lib/result.ts";
import { type AwsError, awsError } from "../model/errors.ts";

/** Parameters in one request. AWS states no figure; its largest calls (1,000 resources and their tags) stay far below. */
export const PARAMETERS_MAX = 20_000;
/** Characters of one parameter's name. The longest that EC2's model can make is under 200. */
export const PARAMETER_NAME_CHARS_MAX = 512;

/** Decoded parameters: `names[i]` has `values[i]`. */
export interface Form {
  readonly names: readonly string[];
  readonly values: readonly string[];
}

/**
 * Parses a form body or the query part of a URL (without its `?`). Stops at the first parameter past a bound, so the
 * cost does not depend on what follows. Errors: MalformedQueryString (bad escape, too long a name), InvalidRequest (too many).
 */
export function parseForm(text: string): Result<Form, AwsError> {
  const names: string[] = [];
  const values: string[] = [];
  for (let at = 0; at < text.length; ) {
    let end = text.indexOf("&", at);
    if (end < 0) end = text.length;
    if (end > at) {
      if (names.length === PARAMETERS_MAX) return fail(tooManyParameters());
      let equals = text.indexOf("=", at);
      if (equals < 0 || equals > end) equals = end;
      if (equals - at > PARAMETER_NAME_CHARS_MAX) return fail(nameTooLong());
      const name = unescapeForm(text.slice(at, equals));
      const value = unescapeForm(text.slice(equals + 1, end));
      if (name === undefined || value === undefined) return fail(badEscape());
      names.push(name);
      values.push(value);
    }
    at = end + 1;
  }
  return ok({ names, values });
}

/** A form of these parameters, for callers that have them already decoded. */
export function formOf(entries: Iterable<readonly [name: string, value: string]>): Form {
  const names: string[] = [];
  const values: string[] = [];
  for (const [name, value] of entries) {
    names.push(name);
    values.push(value);
  }
  return { names, values };
}

/** The first value of a parameter, such as Action. */
export function formValue(form: Form, name: string): string | undefined {
  const at = form.names.indexOf(name);
  return at < 0 ? undefined : form.values[at];
}

function unescapeForm(text: string): string | undefined {
  const spaced = text.includes("+") ? text.replaceAll("+", " ") : text;
  if (!spaced.includes("%")) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    return undefined;
  }
}

const badEscape = () =>
  awsError("MalformedQueryString", "The request contains an escape that is not percent-encoded UTF-8");
const nameTooLong = () =>
  awsError("MalformedQueryString", `The name of a parameter is longer than ${PARAMETER_NAME_CHARS_MAX} characters`);
const tooManyParameters = () => awsError("InvalidRequest", `The request has more than ${PARAMETERS_MAX} parameters`);
