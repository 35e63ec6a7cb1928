/** Fills the tests' image cache before they run: their nodes' networks reach no package sources. Done already, it takes a moment. */
import { buildTiny } from "../../src/host/image-build/tiny.ts";
import { IMAGE_CACHE } from "./hive.ts";

const built = await buildTiny({
  cacheDirectory: IMAGE_CACHE,
  workDirectory: IMAGE_CACHE,
  onProgress: (message) => console.log(`the image tiny: ${message}`),
});
if (!built.ok) console.error(`the image tiny cannot be built: ${built.error.message}`);
process.exit(built.ok ? 0 : 1);
