/**
 * RunInstances: decides everything about the new instances in one transaction (records of instances, volumes, network
 * interfaces and tags), and starts nothing. The nodes' agents make it true.
 */
import { fail, ok, type Result } from "../lib/result.ts";
import type { TagsRecord } from "../model/common-records.ts";
import type { AwsError } from "../model/errors.ts";
import { type NodeId, newId, type ReservationId } from "../model/ids.ts";
import type { SnapshotRecord, VolumeRecord } from "../model/image.ts";
import type { InstanceRecord } from "../model/instance.ts";
import { formatIpv4 } from "../model/ipv4.ts";
import type { NetworkInterfaceRecord } from "../model/network.ts";
import type { Call, Decision, Mutation } from "../model/operation.ts";
import { put, type Write } from "../model/store.ts";
import { instances, networkInterfaces, snapshots, tags as tagsTable, volumes } from "../model/tables.ts";
import type { Tags } from "../model/tags.ts";
import type { Reservation, RunInstancesRequest } from "../schema/ec2/types.ts";
import { Addresses, insufficientFreeAddresses } from "./addresses.ts";
import { groupsOf, type InstanceItem, viewRecords } from "./instance-view.ts";
import { type NetworkPlan, type PlannedInterface, planNetwork } from "./launch-network.ts";
import { type LaunchRequest, readLaunchRequest } from "./launch-request.ts";
import { type PlannedVolume, planVolumes } from "./launch-volumes.ts";
import { noCapacity, placeInstances } from "./place-instances.ts";

interface Launch {
  readonly request: LaunchRequest;
  readonly volumes: readonly PlannedVolume[];
  readonly network: NetworkPlan;
  readonly reservationId: ReservationId;
}

export function decideRunInstances(input: RunInstancesRequest, call: Call): Result<Decision<Reservation>, AwsError> {
  const request = readLaunchRequest(input, call);
  if (!request.ok) return request;
  const { image, type, zone, minCount, maxCount, options } = request.value;
  const network = planNetwork(input, zone, type, maxCount, call);
  if (!network.ok) return network;
  const ownOrImages = (snapshot: SnapshotRecord) =>
    snapshot.ownerId === call.accountId && snapshot.region === call.region;
  const planned = planVolumes(call.state, image, input.BlockDeviceMappings, ownOrImages);
  if (!planned.ok) return planned;

  const addresses = new Addresses(call);
  const roomy = addressRoom(network.value, addresses, minCount, maxCount);
  if (!roomy.ok) return roomy;
  const load = { vcpus: options.cpuOptions.coreCount * options.cpuOptions.threadsPerCore, memoryMib: type.memoryMib };
  const placed = placeInstances(
    call.state,
    call.config,
    call.region,
    network.value.zone,
    load,
    roomy.value,
    holdsSnapshots(planned.value, call),
  );
  if (placed.length < minCount) return fail(noCapacity(type.name, network.value.zone));

  const launch: Launch = {
    request: request.value,
    volumes: planned.value,
    network: network.value,
    reservationId: newId("Reservation", call.random),
  };
  // Named addresses first, so that none of them is chosen for another interface.
  for (const one of network.value.interfaces)
    if (one.kind === "new") for (const address of one.addresses) addresses.take(one.subnet, address);
  const writes: Write[] = [];
  const items: InstanceItem[] = [];
  for (const [launchIndex, nodeId] of placed.entries()) {
    const made = makeInstance(launch, launchIndex, nodeId, addresses, call, writes);
    if (!made.ok) return made;
    items.push(made.value);
  }
  return ok({
    writes,
    output: {
      ReservationId: launch.reservationId,
      OwnerId: call.accountId,
      Groups: [],
      Instances: items,
    },
  });
}

export const runInstances: Mutation<RunInstancesRequest, Reservation> = {
  kind: "mutation",
  decide: decideRunInstances,
};

/** Until snapshots are chunks in the object store, a volume starts on the node that holds its snapshot's file. */
function holdsSnapshots(planned: readonly PlannedVolume[], call: Call): (node: NodeId) => boolean {
  const needed = planned
    .flatMap((volume) => volume.snapshotId ?? [])
    .map((id) => call.state.get(snapshots, id)?.nodeId);
  return (node) => needed.every((holder) => holder === node);
}

/** How many instances the subnets have addresses for, up to `maxCount`. Errors: InsufficientFreeAddressesInSubnet. */
function addressRoom(
  network: NetworkPlan,
  addresses: Addresses,
  minCount: number,
  maxCount: number,
): Result<number, AwsError> {
  const needs = new Map<string, { subnet: PlannedInterface["subnet"]; count: number }>();
  for (const one of network.interfaces) {
    if (one.kind === "existing") continue;
    const need = needs.get(one.subnet.id) ?? { subnet: one.subnet, count: 0 };
    need.count += Math.max(1, one.addresses.length) + one.secondaryCount;
    needs.set(one.subnet.id, need);
  }
  let room = maxCount;
  for (const { subnet, count } of needs.values()) {
    room = Math.min(room, Math.floor(addresses.freeIn(subnet, maxCount * count) / count));
    if (room < minCount) return fail(insufficientFreeAddresses(subnet.id));
  }
  return ok(room);
}

/** One instance with all that is its own. Its records are added to `writes`. */
function makeInstance(
  launch: Launch,
  launchIndex: number,
  nodeId: NodeId,
  addresses: Addresses,
  call: Call,
  writes: Write[],
): Result<InstanceItem, AwsError> {
  const { request, network } = launch;
  const { accountId, region, now, random, state } = call;
  const id = newId("Instance", random);

  const made = launch.volumes.map((planned): VolumeRecord => {
    const { deviceName, deleteOnTermination, snapshotId, ...shape } = planned;
    return {
      ...shape,
      id: newId("Volume", random),
      accountId,
      region,
      zone: network.zone,
      nodeId,
      encrypted: false,
      ...(snapshotId && { snapshotId }),
      createdAt: now,
      attachment: { instanceId: id, deviceName, deleteOnTermination, attachTime: now },
    };
  });
  const interfaces: NetworkInterfaceRecord[] = [];
  for (const planned of network.interfaces) {
    const eni = makeInterface(planned, id, addresses, call);
    if (!eni.ok) return eni;
    interfaces.push(eni.value);
  }
  const instance: InstanceRecord = {
    ...request.options,
    id,
    accountId,
    region,
    zone: network.zone,
    nodeId,
    reservationId: launch.reservationId,
    launchIndex,
    launchedBy: call.principal.arn,
    launchTime: now,
    createdAt: now,
    imageId: request.image.id,
    instanceType: request.type.name,
    power: "on",
    forced: false,
    bootGeneration: 1,
    rebootGeneration: 0,
    interruptGeneration: 0,
    powerChangedAt: now,
    rootDeviceName: request.image.rootDeviceName,
    blockDevices: made.map(({ id: volumeId, attachment }) => ({
      deviceName: attachment!.deviceName,
      volumeId,
      deleteOnTermination: attachment!.deleteOnTermination,
      attachTime: now,
    })),
  };

  const tagged = (resourceId: string, resourceType: string, tags: Tags): TagsRecord | undefined =>
    Object.keys(tags).length > 0 ? { resourceId, resourceType, accountId, region, tags } : undefined;
  const own = tagged(id, "instance", request.tags.instance);
  // An interface that was there before keeps the tags that it has.
  const ofInterfaces = interfaces.map((eni, i) =>
    network.interfaces[i]!.kind === "new"
      ? tagged(eni.id, "network-interface", request.tags.networkInterface)
      : state.get(tagsTable, eni.id),
  );
  const ofVolumes = made.map((volume) => tagged(volume.id, "volume", request.tags.volume));
  writes.push(
    put(instances, instance),
    ...made.map((volume) => put(volumes, volume)),
    ...interfaces.map((eni) => put(networkInterfaces, eni)),
    ...[own, ...ofInterfaces, ...ofVolumes].flatMap((record) => (record ? [put(tagsTable, record)] : [])),
  );
  return ok(
    viewRecords(
      {
        instance,
        observed: undefined,
        tags: own,
        interfaces,
        groups: groupsOf(state, interfaces),
        interfaceTags: ofInterfaces,
        image: request.image,
        dnsHostnames: network.vpc.enableDnsHostnames,
      },
      call.config,
    ),
  );
}

function makeInterface(
  planned: PlannedInterface,
  instanceId: InstanceRecord["id"],
  addresses: Addresses,
  call: Call,
): Result<NetworkInterfaceRecord, AwsError> {
  const { accountId, region, now, random } = call;
  const attachment = {
    id: newId("NetworkInterfaceAttachment", random),
    instanceId,
    instanceOwnerId: accountId,
    deviceIndex: planned.deviceIndex,
    networkCardIndex: 0,
    deleteOnTermination: planned.deleteOnTermination,
    attachTime: now,
  };
  if (planned.kind === "existing") return ok({ ...planned.eni, attachment });

  const { subnet } = planned;
  const given: number[] = [...planned.addresses];
  const wanted = Math.max(1, given.length) + planned.secondaryCount;
  while (given.length < wanted) {
    const address = addresses.privateAddress(subnet);
    if (!address.ok) return address;
    given.push(address.value);
  }
  let publicIp: string | undefined;
  if (planned.associatePublicIp && call.config.network.mode !== "user") {
    const address = addresses.publicAddress();
    if (!address.ok) return address;
    publicIp = address.value;
  }
  return ok({
    id: newId("NetworkInterface", random),
    accountId,
    region,
    createdAt: now,
    vpcId: subnet.vpcId,
    subnetId: subnet.id,
    zone: subnet.zone,
    description: planned.description,
    macAddress: addresses.mac(subnet.vpcId),
    privateIpAddresses: given.map((address, i) => ({ address: formatIpv4(address), primary: i === 0 })),
    ipv6Addresses: [],
    groupIds: planned.groupIds,
    sourceDestCheck: true,
    interfaceType: "interface",
    requesterManaged: false,
    attachment,
    associatePublicIp: planned.associatePublicIp,
    ...(publicIp !== undefined && { publicIp }),
  });
}
