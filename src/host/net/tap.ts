/**
 * TAP devices: persistent, so that they outlive the process that made them, and owned by the user that QEMU runs as, so
 * that QEMU needs no privilege to open one. The name tells which network interface it serves (`model/network-names.ts`).
 */
import { fail, ok, type Result } from "../../lib/result.ts";
import { commandFailed, type HostError, unsupported } from "../host-error.ts";
import { type RunOptions, type RunOutput, run } from "../run.ts";

/** Starts a host program. A test gives one that runs it in another network namespace. */
export type RunCommand = (argv: readonly string[], options?: RunOptions) => Promise<Result<RunOutput, HostError>>;

/** What a guest's interface carries in one packet, without the Ethernet header. */
export const GUEST_MTU = 1500;

export type TapOptions = {
  /** At most 15 characters: see `tapName`. */
  readonly name: string;
  /** The user who may open it; the daemon's own when absent. */
  readonly uid?: number;
  readonly mtu?: number;
};

/**
 * Makes the device if it isn't there, and sets its MTU and brings it up in any case. Repeating it changes nothing. A device of this
 * name that is there already is kept, whoever has it open; one that is no TAP is refused (`unsupported`).
 */
export async function ensureTap(options: TapOptions, exec: RunCommand = run): Promise<Result<void, HostError>> {
  const { name, uid, mtu = GUEST_MTU } = options;
  const owner = uid === undefined ? [] : ["user", String(uid)];
  const added = await exec(["ip", "tuntap", "add", "dev", name, "mode", "tap", ...owner]);
  if (!added.ok) return added;
  if (added.value.code !== 0) {
    // "Device or resource busy", also when the device is of another kind: look at what is there.
    const shown = await exec(["ip", "-d", "-j", "link", "show", "dev", name]);
    if (!shown.ok) return shown;
    if (shown.value.code !== 0) return fail(commandFailed("ip tuntap add", added.value.code, added.value.stderr));
    const kind = linkKind(shown.value.stdout);
    if (kind !== "tun") return fail(unsupported(`${name} is there already, as a ${kind} and not as a TAP: remove it`));
  }
  const up = await exec(["ip", "link", "set", "dev", name, "mtu", String(mtu), "up"]);
  if (!up.ok) return up;
  return up.value.code === 0 ? ok(undefined) : fail(commandFailed("ip link set", up.value.code, up.value.stderr));
}

/** Removes the device; one that is not there is no failure. Whoever has it open reads an error from then on. */
export async function removeTap(name: string, exec: RunCommand = run): Promise<Result<void, HostError>> {
  const done = await exec(["ip", "link", "del", "dev", name]);
  if (!done.ok) return done;
  if (done.value.code === 0 || /Cannot find device/.test(done.value.stderr)) return ok(undefined);
  return fail(commandFailed("ip link del", done.value.code, done.value.stderr));
}

function linkKind(json: string): string {
  try {
    const links: readonly { linkinfo?: { info_kind?: string } }[] = JSON.parse(json);
    return links[0]?.linkinfo?.info_kind ?? "device";
  } catch {
    return "device";
  }
}
