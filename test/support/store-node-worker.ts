/** The Worker of `store-node.ts`: Hive's own, on a disk that has faults. */
import { realDisk } from "../../src/cluster/kv/real-disk.ts";
import { hostConsensus, workerPort } from "../../src/cluster/worker/consensus-host.ts";
import { faultyDisk } from "./store-node-disk.ts";

/** Set by whoever makes the Worker: "1" for a disk that loses what was not synced. */
export const LOSES_UNSYNCED = "HIVE_STORE_NODE_LOSES_UNSYNCED";
/** What is said on it happens in every such Worker of the process. */
export const FAULTS = "store-node-faults";
/** `hang`: the disk finishes nothing from now on. `throw`, `exit`: the Worker ends. */
export type Fault = "hang" | "throw" | "exit";

if (!Bun.isMainThread) {
  const { disk, hang } = faultyDisk(realDisk, process.env[LOSES_UNSYNCED] === "1");
  new BroadcastChannel(FAULTS).onmessage = ({ data }) => {
    const fault = data as Fault;
    if (fault === "hang") hang();
    else if (fault === "exit") process.exit(1);
    else throw new Error("a fault of the test");
  };
  hostConsensus(workerPort, disk);
}
