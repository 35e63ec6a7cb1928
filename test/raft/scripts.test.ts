/** Every script in `scripts/` gives the transcript that stands in it. RAFT_SCRIPTS=write writes them anew. */
import { expect, test } from "bun:test";
import { Glob } from "bun";
import { casesOf, transcribe } from "./script.ts";

const FOLDER = `${import.meta.dir}/scripts`;

for (const name of [...new Glob("*.txt").scanSync(FOLDER)].sort()) {
  const path = `${FOLDER}/${name}`;
  const cases = casesOf(await Bun.file(path).text());
  if (process.env.RAFT_SCRIPTS === "write") await Bun.write(path, `${cases.map(transcribe).join("\n\n")}\n`);
  for (const text of cases) {
    const title = text.match(/^# (.*)$/m)?.[1] ?? name;
    test(`${name.replace(/\.txt$/, "")}: ${title}`, () => expect(transcribe(text)).toBe(text));
  }
}
