/**
 * Which accelerator runs guests. A `/dev/kvm` that opens is no proof: there are hosts where KVM makes a machine, runs its
 * firmware, and then hangs or aborts under any Linux, and QEMU's own fallback (`-accel kvm -accel tcg`) does not help, as KVM does
 * initialise. So Hive boots a real kernel under KVM, to a program of its own in user space that writes a marker to the
 * serial port. Anything else (an abort, silence for five seconds) means TCG: slower, and right.
 *
 * The proof needs a kernel: an image's, or the host's own. Where none can be read there is no proof and so no KVM; the next
 * probe, once there is an image, asks again.
 */
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { QEMU_PROGRAM } from "./hypervisor.ts";
import { packCpio } from "./image-build/cpio.ts";
import { run, searchPath } from "./run.ts";

export interface AccelVerdict {
  readonly accel: "kvm" | "tcg" | "none";
  /** One sentence, for a person. */
  readonly reason: string;
}

export interface AccelOptions {
  /** As the operator says; all but `auto` are believed. */
  readonly mode: "auto" | "kvm" | "tcg" | "none";
  readonly dataDir: string;
  /** bzImage files to prove with, besides the host's own: those of images. The first that is there is taken. */
  readonly kernels?: readonly string[];
}

/** A working KVM needs well under one second. */
const PROOF_MS = 5000;
const MARKER = "HIVE:accel-proof";

/** Decides, from the operator's word, from a verdict that still holds, or by the proof (up to five seconds). */
export async function chooseAccel(options: AccelOptions): Promise<AccelVerdict> {
  switch (options.mode) {
    case "none":
      return { accel: "none", reason: "no machines are behind instances, as --accel none asks for" };
    case "tcg":
      return { accel: "tcg", reason: "as --accel tcg asks for" };
    case "kvm":
      return { accel: "kvm", reason: "as --accel kvm asks for, without proof" };
    case "auto": {
      const veto = kvmVeto();
      return veto ? { accel: "tcg", reason: `KVM is not used: ${veto}` } : prove(options);
    }
  }
}

/** Why KVM cannot work here, from what costs nothing to look at; undefined when it might. */
export function kvmVeto(cpuinfo = readFileSync("/proc/cpuinfo", "utf8"), device = "/dev/kvm"): string | undefined {
  if (!existsSync(device)) return `there is no ${device}`;
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
  } catch {
    return `${device} may not be opened by this user`;
  }
  const flags = cpuinfo.match(/^flags\s*:(.*)$/m)?.[1]?.split(" ") ?? [];
  if (flags.includes("vmx") || flags.includes("svm")) return undefined;
  return `${device} is there, but the processor offers neither VMX nor SVM (--accel kvm tries it nevertheless)`;
}

const cacheSchema = z.object({ key: z.string(), accel: z.enum(["kvm", "tcg"]), reason: z.string() });

async function prove({ dataDir, kernels = [] }: AccelOptions): Promise<AccelVerdict> {
  const kernel = [...kernels, ...hostKernels()].find((file) => existsSync(file));
  if (!kernel) return { accel: "tcg", reason: "KVM is not used: there is no kernel yet to prove it with" };
  const cache = join(dataDir, "accel.json");
  const key = await verdictKey();
  const known = readCache(cache);
  if (known?.key === key) return { accel: known.accel, reason: known.reason };
  const failure = await bootProof("kvm", kernel);
  const verdict: AccelVerdict = failure
    ? { accel: "tcg", reason: `KVM is not used: /dev/kvm opens, but a test guest ${failure}` }
    : { accel: "kvm", reason: "KVM ran a test guest" };
  mkdirSync(dataDir, { recursive: true });
  writeFileSync(cache, JSON.stringify({ key, ...verdict }));
  return verdict;
}

/** What the verdict depends on: QEMU, the host's kernel and this boot of it, and the processor. */
async function verdictKey(): Promise<string> {
  const qemu = await run([QEMU_PROGRAM, "--version"]);
  const cpu =
    readFileSync("/proc/cpuinfo", "utf8")
      .match(/^model name\s*:(.*)$/m)?.[1]
      ?.trim() ?? "";
  const [release, boot] = ["osrelease", "random/boot_id"].map((f) =>
    readFileSync(`/proc/sys/kernel/${f}`, "utf8").trim(),
  );
  return [qemu.ok ? qemu.value.stdout.split("\n")[0] : "", release, boot, cpu].join("|");
}

function readCache(file: string) {
  try {
    return cacheSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return undefined;
  }
}

function hostKernels(): readonly string[] {
  try {
    return readdirSync("/boot")
      .filter((name) => name.startsWith("vmlinuz-"))
      .map((name) => join("/boot", name));
  } catch {
    return [];
  }
}

/**
 * Boots `kernel` to user space under the options that instances get.
 * @returns how it failed; undefined when the guest's own program ran
 */
export async function bootProof(accel: "kvm" | "tcg", kernel: string, limitMs = PROOF_MS): Promise<string | undefined> {
  const program = Bun.which(QEMU_PROGRAM, { PATH: searchPath() });
  if (!program) return `could not be started: ${QEMU_PROGRAM} is not installed`;
  const folder = mkdtempSync(join(tmpdir(), "hive-accel-"));
  try {
    const initrd = join(folder, "initrd");
    writeFileSync(initrd, proofInitramfs());
    const machine = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-m", "128M"];
    const processor = accel === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,tb-size=32", "-cpu", "max"];
    const boot = ["-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet", "-no-reboot"];
    const child = Bun.spawn([program, ...machine, ...processor, ...boot, "-serial", "stdio"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const stderr = new Response(child.stderr).text();
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, limitMs);
    try {
      if (await printsMarker(child.stdout)) return undefined;
      if (timedOut) return `did not reach user space within ${limitMs / 1000} s`;
      await child.exited;
      const said = (await stderr).trim().split("\n").at(-1);
      return `ended before it reached user space${said ? ` (${said})` : ""}`;
    } finally {
      clearTimeout(timer);
      child.kill("SIGKILL");
      await child.exited;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function printsMarker(output: ReadableStream<Uint8Array>): Promise<boolean> {
  let text = "";
  for await (const chunk of output) {
    text = (text + Buffer.from(chunk).toString("latin1")).slice(-4096);
    if (text.includes(MARKER)) return true;
  }
  return false;
}

/** An initramfs whose only program writes the marker to the console and waits. */
export function proofInitramfs(): Buffer {
  return packCpio([
    { path: "dev", type: "directory", mode: 0o755 },
    { path: "dev/console", type: "character-device", mode: 0o600, major: 5, minor: 1 },
    { path: "init", type: "file", mode: 0o755, content: proofProgram() },
  ]);
}

/**
 * A static x86-64 ELF of one segment, assembled by hand: `write(1, MARKER, length)`, then `pause()` for ever. Offsets in bytes: 0 ELF header
 * (64), 64 program header (56), 120 code, and the text behind it.
 */
function proofProgram(): Buffer {
  const BASE = 0x400000;
  const CODE_AT = 120;
  const text = Buffer.from(`${MARKER}\n`);
  const code = Buffer.from(
    [
      "b801000000", // mov eax, 1 (write)
      "bf01000000", // mov edi, 1
      "be00000000", // mov esi, text (filled in below)
      "ba00000000", // mov edx, length (filled in below)
      "0f05", // syscall
      "b822000000", // mov eax, 34 (pause)
      "0f05", // syscall
      "ebf7", // jmp to the pause
    ].join(""),
    "hex",
  );
  code.writeUInt32LE(BASE + CODE_AT + code.length, 11);
  code.writeUInt32LE(text.length, 16);
  const size = CODE_AT + code.length + text.length;
  const elf = Buffer.alloc(size);
  elf.write("7f454c46020101", 0, "hex"); // magic, 64-bit, little-endian, version 1
  elf.writeUInt16LE(2, 16); // ET_EXEC
  elf.writeUInt16LE(62, 18); // EM_X86_64
  elf.writeUInt32LE(1, 20);
  elf.writeBigUInt64LE(BigInt(BASE + CODE_AT), 24); // entry
  elf.writeBigUInt64LE(64n, 32); // program headers
  elf.writeUInt16LE(64, 52);
  elf.writeUInt16LE(56, 54);
  elf.writeUInt16LE(1, 56);
  elf.writeUInt32LE(1, 64); // PT_LOAD
  elf.writeUInt32LE(5, 68); // readable, executable
  elf.writeBigUInt64LE(BigInt(BASE), 80); // virtual address
  elf.writeBigUInt64LE(BigInt(BASE), 88);
  elf.writeBigUInt64LE(BigInt(size), 96);
  elf.writeBigUInt64LE(BigInt(size), 104);
  elf.writeBigUInt64LE(0x1000n, 112);
  code.copy(elf, CODE_AT);
  text.copy(elf, CODE_AT + code.length);
  return elf;
}
