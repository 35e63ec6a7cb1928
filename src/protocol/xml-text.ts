/**
 * Text in XML 1.0 documents. Characters that XML cannot carry in any spelling (most controls, U+FFFE and U+FFFF, lone
 * surrogates) become U+FFFD: one odd name must not make a whole listing unreadable to strict parsers such as Python's expat.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const SPECIAL = /[&<>"'\r\u0000-\u0008\u000b\u000c\u000e-\u001f\u0085\u2028\ufffe\uffff\ud800-\udfff]/;
const EACH =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: as above
  /[\ud800-\udbff][\udc00-\udfff]|[&<>"'\r\u0000-\u0008\u000b\u000c\u000e-\u001f\u0085\u2028\ufffe\uffff\ud800-\udfff]/g;

/** `text` as the content of an element or of an attribute in double quotes. */
export function escapeXml(text: string): string {
  return SPECIAL.test(text) ? text.replace(EACH, escaped) : text;
}

function escaped(found: string): string {
  switch (found) {
    case "&":
      return "&amp;";
    case "<":
      return "&lt;";
    case ">":
      return "&gt;";
    case '"':
      return "&quot;";
    case "'":
      return "&apos;";
    // A parser reads a bare carriage return (and, in XML 1.1, these two) as a line feed.
    case "\r":
      return "&#xD;";
    case "\u0085":
      return "&#x85;";
    case "\u2028":
      return "&#x2028;";
    default:
      return found.length === 2 ? found : "\ufffd";
  }
}
