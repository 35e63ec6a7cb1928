/**
 * Starts the host's programs: argument arrays only, never a shell. Output, time and environment are bounded, and every
 * failure is a `HostError` that names what to do.
 */
import { statSync } from "node:fs";
import { fail, ok, type Result } from "../lib/result.ts";
import { MIB, MINUTE_MS } from "../lib/units.ts";
import {
  commandAborted,
  commandFailed,
  commandTimedOut,
  errnoOf,
  type HostError,
  ioFailed,
  missingProgram,
  outputTooLarge,
} from "./host-error.ts";

export type RunOptions = {
  readonly stdin?: string | Uint8Array;
  /** Added to the daemon's own environment. `LC_ALL=C` is set, so that messages can be read. */
  readonly env?: { readonly [name: string]: string };
  readonly cwd?: string;
  /** Default one minute. Past it the program and what it started in its process group are killed. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Default 16 MiB, stdout and stderr counted apart. */
  readonly maxOutputBytes?: number;
};

export type RunOutput = { readonly stdout: string; readonly stderr: string; readonly code: number };

/** A program that left a daemon behind (`--detach`) has handed it our pipes: its exit, not end-of-file, ends the wait. */
const PIPE_GRACE_MS = 500;

/**
 * Runs one program to its end. A non-zero exit is an answer, not a failure: see {@link runChecked}.
 * @param argv the program and its arguments; the program is looked up in PATH, then in /usr/sbin and /sbin, which an
 *   ordinary user's PATH on Debian lacks
 * @returns what it wrote, decoded as UTF-8, and its exit code (128 + N when signal N ended it)
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Result<RunOutput, HostError>> {
  const program = argv[0] ?? "";
  const path = searchPath(options.env?.PATH);
  const executable = Bun.which(program, { PATH: path });
  if (!executable) return fail(missingProgram(program));
  if (options.signal?.aborted) return fail(commandAborted(program));
  if (options.cwd !== undefined && !isDirectory(options.cwd)) {
    return fail({
      kind: "not-found",
      message: `cannot start ${program} in ${options.cwd}: no such directory`,
      program,
    });
  }
  const timeoutMs = options.timeoutMs ?? MINUTE_MS;
  const maxOutputBytes = options.maxOutputBytes ?? 16 * MIB;

  let child: ReturnType<typeof start>;
  try {
    child = start([executable, ...argv.slice(1)], { ...options, path });
  } catch (cause) {
    return fail(errnoOf(cause) === "ENOENT" ? missingProgram(program) : ioFailed(`start ${program}`, cause));
  }

  let ended: HostError | undefined;
  const end = (error: HostError) => {
    ended ??= error;
    killGroup(child.pid);
  };
  const timer = setTimeout(() => end(commandTimedOut(program, timeoutMs)), timeoutMs);
  const onAbort = () => end(commandAborted(program));
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const tooLarge = () => end(outputTooLarge(program, maxOutputBytes));
  const stdout = collect(child.stdout, maxOutputBytes, tooLarge);
  const stderr = collect(child.stderr, maxOutputBytes, tooLarge);
  try {
    const code = await child.exited;
    await Promise.race([Promise.all([stdout.closed, stderr.closed]), Bun.sleep(PIPE_GRACE_MS)]);
    if (ended) return fail(ended);
    return ok({ stdout: stdout.text(), stderr: stderr.text(), code });
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
    stdout.cancel();
    stderr.cancel();
  }
}

/** {@link run}, where any exit code but 0 is a failure (`command-failed`, or `no-space` when that is what it said). */
export async function runChecked(
  argv: readonly string[],
  options: RunOptions = {},
): Promise<Result<RunOutput, HostError>> {
  const result = await run(argv, options);
  if (!result.ok || result.value.code === 0) return result;
  return fail(commandFailed(argv[0] ?? "", result.value.code, result.value.stderr || result.value.stdout));
}

/** Where programs are looked up: the environment's PATH, then the directories of system programs. */
export function searchPath(path: string | undefined = process.env.PATH): string {
  const directories = (path ?? "").split(":").filter((directory) => directory !== "");
  for (const directory of ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]) {
    if (!directories.includes(directory)) directories.push(directory);
  }
  return directories.join(":");
}

/** Its own session, so that the whole group can be ended by the pid of its leader. */
function start(argv: string[], options: RunOptions & { path: string }) {
  return Bun.spawn(argv, {
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
    env: { ...process.env, LC_ALL: "C", ...options.env, PATH: options.path },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
}

/** SIGKILL, as the programs run here are tools that hold nothing worth a farewell; their output goes to temporary names. */
function killGroup(pid: number): void {
  for (const target of [-pid, pid]) {
    try {
      process.kill(target, "SIGKILL");
    } catch (cause) {
      if (errnoOf(cause) !== "ESRCH") throw cause;
    }
  }
}

function collect(stream: ReadableStream<Uint8Array>, maxBytes: number, tooLarge: () => void) {
  const chunks: Uint8Array[] = [];
  let total = 0;
  const reader = stream.getReader();
  const closed = (async () => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      total += value.byteLength;
      if (total > maxBytes) return tooLarge();
      chunks.push(value);
    }
  })().catch(() => undefined);
  return {
    closed,
    text: () => Buffer.concat(chunks).toString("utf8"),
    cancel: () => void reader.cancel().catch(() => undefined),
  };
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
