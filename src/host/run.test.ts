import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { missingProgram } from "./host-error.ts";
import { run, runChecked, searchPath } from "./run.ts";

/** Not a zombie either: who reaps an orphan, and when, is its reaper's affair. */
const alive = (pid: number) => {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
};
async function gone(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 200 && alive(pid); tries++) await Bun.sleep(10);
  return !alive(pid);
}

describe("run", () => {
  test("arguments reach the program as they are: no shell reads them", async () => {
    const result = await run(["printf", "%s|", "$HOME", "a b", "; false", "*"]);
    expect(result).toEqual({ ok: true, value: { stdout: "$HOME|a b|; false|*|", stderr: "", code: 0 } });
  });

  test("stdin is written and closed, and the environment is extended", async () => {
    expect(await run(["cat"], { stdin: "two\nlines" })).toMatchObject({ ok: true, value: { stdout: "two\nlines" } });
    const env = await run(["env"], { env: { HIVE_TEST: "x y" } });
    expect(env.ok && env.value.stdout).toContain("HIVE_TEST=x y\n");
    expect(env.ok && env.value.stdout).toContain("LC_ALL=C\n");
  });

  test("a non-zero exit is an answer for run and a failure for runChecked", async () => {
    expect(await run(["ls", "/no/such/file"])).toMatchObject({ ok: true, value: { code: 2 } });
    const checked = await runChecked(["ls", "/no/such/file"]);
    expect(checked).toMatchObject({ ok: false, error: { kind: "command-failed", program: "ls", code: 2 } });
    expect(!checked.ok && checked.error.message).toContain("No such file or directory");
  });

  test("a missing program is named with the package that carries it", async () => {
    expect(await run(["hive-no-such-program"])).toMatchObject({
      ok: false,
      error: { kind: "missing-program", program: "hive-no-such-program" },
    });
    expect(missingProgram("qemu-img").message).toBe(
      "qemu-img is not installed: install the package qemu-utils (apt-get install qemu-utils)",
    );
  });

  test("a missing working directory is not mistaken for a missing program", async () => {
    expect(await run(["ls"], { cwd: "/no/such/directory" })).toMatchObject({ ok: false, error: { kind: "not-found" } });
  });

  test("a program past its time limit is killed, with the processes it started", async () => {
    const script = "sleep 600 & echo $! > pid; echo started; wait";
    const cwd = await temporaryDirectory();
    const result = await run(["sh", "-c", script], { cwd, timeoutMs: 400 });
    expect(result).toMatchObject({ ok: false, error: { kind: "timeout", program: "sh" } });
    const pid = Number(await Bun.file(`${cwd}/pid`).text());
    expect(pid).toBeGreaterThan(1);
    expect(await gone(pid)).toBe(true);
    await runChecked(["rm", "-r", cwd]);
  });

  test("a signal ends it, and a signal already given starts nothing", async () => {
    const abort = new AbortController();
    const running = run(["sleep", "600"], { signal: abort.signal });
    abort.abort();
    expect(await running).toMatchObject({ ok: false, error: { kind: "aborted" } });
    expect(await run(["sleep", "600"], { signal: abort.signal })).toMatchObject({
      ok: false,
      error: { kind: "aborted" },
    });
  });

  test("endless output is cut by ending the program", async () => {
    const result = await run(["cat", "/dev/zero"], { maxOutputBytes: 100_000 });
    expect(result).toMatchObject({ ok: false, error: { kind: "output-too-large" } });
  });

  test("a program that leaves a child holding its pipes does not keep the caller waiting", async () => {
    const result = await run(["sh", "-c", "sleep 600 & echo $!"]);
    expect(result.ok).toBe(true);
    const pid = result.ok ? Number(result.value.stdout) : 0;
    expect(alive(pid)).toBe(true);
    process.kill(pid, "SIGKILL");
  });

  test("a full disk is told apart from other failures", async () => {
    const result = await runChecked(["dd", "if=/dev/zero", "of=/dev/full", "count=1"]);
    expect(result).toMatchObject({ ok: false, error: { kind: "no-space" } });
  });

  test("system directories are searched even when PATH lacks them", () => {
    expect(searchPath("/usr/bin:/bin")).toBe("/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
  });
});

async function temporaryDirectory(): Promise<string> {
  const made = await runChecked(["mktemp", "-d"]);
  if (!made.ok) throw new Error(made.error.message);
  return made.value.stdout.trim();
}
