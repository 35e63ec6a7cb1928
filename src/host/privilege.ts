/**
 * Under whom guests run. A daemon that is root starts QEMU as a user that owns nothing else: `hive-qemu` where the system
 * has it, else a number that Debian assigns to nobody. A daemon that is not root cannot change users and runs them as itself.
 */
import { chmodSync, chownSync, lstatSync, statSync } from "node:fs";
import { run } from "./run.ts";

export interface GuestUser {
  readonly uid: number;
  readonly gid: number;
  /** Groups besides its own: that of /dev/kvm. */
  readonly groups: readonly number[];
}

export const GUEST_USER_NAME = "hive-qemu";
/** In the range 60000 to 64999 that Debian's policy (9.2.2) keeps for packages that ask; nothing in Debian has this one. */
const FALLBACK_ID = 64_823;

/** Whom guests run as; undefined when the daemon is not root. */
export async function guestUser(accel: "kvm" | "tcg"): Promise<GuestUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const found = await run(["getent", "passwd", GUEST_USER_NAME]);
  const [, , uid, gid] = found.ok ? found.value.stdout.trim().split(":") : [];
  const kvm = accel === "kvm" ? statSync("/dev/kvm", { throwIfNoEntry: false })?.gid : undefined;
  return {
    uid: uid ? Number(uid) : FALLBACK_ID,
    gid: gid ? Number(gid) : FALLBACK_ID,
    groups: kvm === undefined || kvm === 0 ? [] : [kvm],
  };
}

/** `argv`, to be run as the guests' user, who can never gain a privilege again. */
export function asGuestUser(user: GuestUser | undefined, argv: readonly string[]): readonly string[] {
  if (!user) return argv;
  const groups = user.groups.length > 0 ? `--groups=${user.groups.join(",")}` : "--clear-groups";
  const drop = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];
  return ["setpriv", `--reuid=${user.uid}`, `--regid=${user.gid}`, groups, ...drop, "--", ...argv];
}

/** Gives a file or folder to the guests' user. */
export function giveTo(user: GuestUser | undefined, path: string, mode: number): void {
  if (user) chownSync(path, user.uid, user.gid);
  chmodSync(path, mode);
}

/** Lets the guests' user read a file (or, a folder, pass through it) that stays its owner's. Never follows a link. */
export function letRead(user: GuestUser | undefined, path: string): void {
  if (!user) return;
  const stats = lstatSync(path);
  if (stats.isSymbolicLink()) return;
  const wanted = stats.isDirectory() ? 0o010 : 0o040;
  const forAll = stats.isDirectory() ? 0o001 : 0o004;
  if ((stats.mode & forAll) !== 0 || (stats.gid === user.gid && (stats.mode & wanted) !== 0)) return;
  chownSync(path, stats.uid, user.gid);
  chmodSync(path, (stats.mode & 0o7777) | wanted);
}
