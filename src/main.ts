/** The process: `hive server` or a command. Arguments in, exit code out. */
import { runProgram, type ServerFlags } from "./cli/program.ts";
import { VERSION } from "./lib/version.ts";

/** `hive` as it was started: the compiled binary alone, or Bun with this file. */
const self =
  process.argv[1] === Bun.main && !Bun.main.startsWith("/$bunfs/") ? [process.execPath, Bun.main] : [process.execPath];

// Parts are loaded when they are needed: a command answers in milliseconds, and the daemon does not load the builders.
void runProgram(process.argv.slice(2), {
  version: VERSION,
  self,
  serve: async (flags: ServerFlags) => (await import("./serve.ts")).serve(flags),
  examine: async (dataDir) => (await import("./host/doctor.ts")).examineHost({ dataDir }),
  builders: {
    tiny: async (options) => (await import("./host/image-build/tiny.ts")).buildTiny(options),
    "debian-12": async (options) => (await import("./host/image-build/debian.ts")).buildDebian12(options),
  },
}).then((code) => process.exit(code));
