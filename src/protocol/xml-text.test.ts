import { expect, test } from "bun:test";
import fc from "fast-check";
import { escapeXml } from "./xml-text.ts";

const table: [claim: string, text: string, xml: string][] = [
  ["ordinary text is untouched", "web-1 (blue) é 漢 😀\t\n", "web-1 (blue) é 漢 😀\t\n"],
  ["markup is escaped", `<a href="x">'&'</a>`, "&lt;a href=&quot;x&quot;&gt;&apos;&amp;&apos;&lt;/a&gt;"],
  ["what looks escaped is escaped again", "&amp;", "&amp;amp;"],
  ["a carriage return survives the parser", "a\r\nb", "a&#xD;\nb"],
  ["a control becomes the replacement character", "a\u0000b\u0008c\u001bd", "a\ufffdb\ufffdc\ufffdd"],
  ["so does what Unicode reserves", "\ufffe\uffff", "\ufffd\ufffd"],
  ["so does half a surrogate pair", "a\ud83db\ude00c", "a\ufffdb\ufffdc"],
  ["a whole pair beside a half one stays", "😀\ud83d", "😀\ufffd"],
];
test.each(table)("%s", (_, text, xml) => expect(escapeXml(text)).toBe(xml));

test("no text breaks a document", () => {
  const forbidden = (character: string) =>
    "<>\"'\r\ufffe\uffff".includes(character) || (character < " " && character !== "\t" && character !== "\n");
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const xml = escapeXml(text);
      expect([...xml].filter(forbidden)).toEqual([]);
      expect(xml).not.toMatch(/&(?!(amp|lt|gt|quot|apos|#x[0-9A-F]+);)/);
      expect(xml.isWellFormed()).toBe(true);
    }),
  );
});
