/** The program of the Worker that holds consensus. The compiled binary has it as an entry point of its own. */
import { realDisk } from "../kv/real-disk.ts";
import { hostConsensus, workerPort } from "./consensus-host.ts";

hostConsensus(workerPort, realDisk);
