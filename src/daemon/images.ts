/** Joins image imports to this node: its files, its qemu-img, its store. */
import { decideImportImage } from "../compute/register-image.ts";
import { storeErrorAsAws } from "../gateway/store-errors.ts";
import { convertImage, inspectImage } from "../host/qemu-img.ts";
import type { Clock } from "../lib/clock.ts";
import type { Random } from "../lib/random.ts";
import { ok, type Result } from "../lib/result.ts";
import type { AwsError } from "../model/errors.ts";
import { type AccountId, type ImageId, type NodeId, newId } from "../model/ids.ts";
import { type Store, translateStoreErrors } from "../model/store.ts";
import type { ImportPorts } from "../operator/import-image.ts";
import { type ImageFiles, INITRD_FILE, KERNEL_FILE } from "../storage/image-files.ts";

export function importPorts(parts: {
  readonly files: ImageFiles;
  readonly store: Store;
  readonly nodeId: NodeId;
  readonly accountId: AccountId;
  readonly region: string;
  readonly clock: Clock;
  readonly random: Random;
}): ImportPorts {
  const { files, nodeId, accountId, region, clock, random } = parts;
  const store = translateStoreErrors(parts.store, storeErrorAsAws);
  return {
    newSnapshotId: () => newId("Snapshot", random),
    uploadFile: (uploadId) => files.uploadFile(uploadId),
    inspect: inspectImage,
    toQcow2: (from, to) => convertImage({ from, to: { file: to, format: "qcow2" } }),
    place: (snapshotId, set) => files.place(snapshotId, set),
    remove: (snapshotId) => files.remove(snapshotId),
    forget: (uploadId) => files.forget(uploadId),
    register: (request, file): Promise<Result<ImageId, AwsError>> =>
      store.transact((state) => {
        const decided = decideImportImage(state, {
          accountId,
          region,
          nodeId,
          now: clock.now(),
          random,
          snapshotId: file.snapshotId,
          virtualBytes: file.virtualBytes,
          name: request.name,
          ...(request.description === undefined ? {} : { description: request.description }),
          rootDeviceName: request.rootDeviceName,
          architecture: request.architecture,
          bootMode: request.bootMode,
          ...(file.direct.kernel
            ? {
                directBoot: {
                  kernelFile: KERNEL_FILE,
                  ...(file.direct.initrd ? { initrdFile: INITRD_FILE } : {}),
                  commandLine: request.kernelCommandLine ?? "",
                },
              }
            : {}),
        });
        return decided.ok ? ok({ writes: decided.value.writes, value: decided.value.output.imageId }) : decided;
      }),
  };
}
