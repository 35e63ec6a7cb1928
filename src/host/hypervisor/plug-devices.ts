/** Disks and interfaces that come and go while the guest runs. Each needs a free root port, and the guest's consent to leave. */
import type { DesiredDisk, DesiredNic } from "../../compute/desired.ts";
import { fail, ok, type Result } from "../../lib/result.ts";
import { SECOND_MS } from "../../lib/units.ts";
import type { HostError } from "../host-error.ts";
import { removeTap } from "../net/tap.ts";
import {
  blockNodeNames,
  blockNodes,
  diskDevice,
  nicBackend,
  nicBackendId,
  nicDevice,
  type Place,
  portPlace,
  type QemuFacts,
  type QmpArguments,
  SPARE_PORTS,
} from "../qemu/command-line.ts";
import type { Guest } from "./guest.ts";

/** A guest that is busy or still booting may take its time; one that ignores hot-plug never answers. */
const UNPLUG_MS = 15 * SECOND_MS;

/** What plugging needs of the host. */
export interface PlugHost {
  readonly facts: QemuFacts;
  /** Lets the guest's process open the volume's files. */
  allowDisk(disk: DesiredDisk): void;
  makeTaps(nics: readonly DesiredNic[]): Promise<Result<void, HostError>>;
}

export class DevicePlugger {
  readonly #host: PlugHost;
  constructor(host: PlugHost) {
    this.#host = host;
  }

  async plugDisk(guest: Guest, disk: DesiredDisk): Promise<Result<void, HostError>> {
    this.#host.allowDisk(disk);
    for (const node of blockNodes(disk)) {
      const added = await guest.execute("blockdev-add", node);
      if (!added.ok && !/already exists|duplicate/i.test(added.error.message)) return added;
    }
    const plugged = await this.#addDevice(guest, (place) => diskDevice(disk, place));
    if (!plugged.ok) {
      await this.#removeNodes(guest, disk.volumeId);
      return plugged;
    }
    guest.remember({ disks: [...guest.record.disks, disk.volumeId] });
    return ok(undefined);
  }

  async unplugDisk(guest: Guest, volumeId: string): Promise<Result<void, HostError>> {
    const removed = await this.#removeDevice(guest, volumeId);
    if (!removed.ok) return removed;
    await this.#removeNodes(guest, volumeId);
    guest.remember({ disks: guest.record.disks.filter((disk) => disk !== volumeId) });
    return ok(undefined);
  }

  async #removeNodes(guest: Guest, volumeId: string): Promise<void> {
    for (const name of blockNodeNames(volumeId)) await guest.execute("blockdev-del", { "node-name": name });
  }

  async plugNic(guest: Guest, nic: DesiredNic): Promise<Result<void, HostError>> {
    const made = await this.#host.makeTaps([nic]);
    if (!made.ok || this.#host.facts.network === "none") return made;
    const { facts } = this.#host;
    const added = await guest.execute("netdev_add", nicBackend(nic, facts));
    if (!added.ok && !/duplicate/i.test(added.error.message)) return added;
    const plugged = await this.#addDevice(guest, (place) => nicDevice(nic, facts, place));
    if (!plugged.ok) {
      await guest.execute("netdev_del", { id: nicBackendId(nic.eniId) });
      return plugged;
    }
    guest.remember({ nics: [...guest.record.nics, { eniId: nic.eniId, tap: nic.tap }] });
    return ok(undefined);
  }

  async unplugNic(guest: Guest, eniId: string): Promise<Result<void, HostError>> {
    const removed = await this.#removeDevice(guest, eniId);
    if (!removed.ok) return removed;
    await guest.execute("netdev_del", { id: nicBackendId(eniId) });
    const nic = guest.record.nics.find((known) => known.eniId === eniId);
    guest.remember({ nics: guest.record.nics.filter((known) => known.eniId !== eniId) });
    if (!nic || this.#host.facts.network !== "tap") return ok(undefined);
    return removeTap(nic.tap);
  }

  /** Plugs into the first root port that is free: QEMU says which are not. */
  async #addDevice(guest: Guest, device: (place: Place) => QmpArguments): Promise<Result<unknown, HostError>> {
    const ports = guest.record.disks.length + guest.record.nics.length + SPARE_PORTS;
    for (let port = 0; port < ports; port++) {
      const added = await guest.execute("device_add", device(portPlace(port)));
      if (added.ok || /Duplicate (device )?ID/i.test(added.error.message)) return ok(undefined);
      if (/Bus '.*' not found/.test(added.error.message)) break;
      if (!/already (occupied|in use)|not available|in use by/i.test(added.error.message)) return added;
    }
    return fail({ kind: "unsupported", message: `${guest.id} has no free slot for another device` });
  }

  async #removeDevice(guest: Guest, device: string): Promise<Result<void, HostError>> {
    const deleted = guest.deviceDeleted(device, UNPLUG_MS);
    const asked = await guest.execute("device_del", { id: device });
    if (!asked.ok) return /not found/i.test(asked.error.message) ? ok(undefined) : asked;
    if (await deleted) return ok(undefined);
    return fail({ kind: "timeout", message: `the guest did not let go of ${device} within ${UNPLUG_MS / 1000} s` });
  }
}
