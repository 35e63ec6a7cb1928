/**
 * The servers that guests of this node talk to: metadata and DHCP, both at 169.254.169.254 on the bridge's own port. The
 * address comes with the bridge, so they are tried whenever the network is said to be well, until both listen. A socket that
 * is bound to an address outlives the device that carries it.
 */
import { type DhcpServer, startDhcpServer } from "../host/dhcp-server.ts";
import { loadIdentityKeys, loadTokenKey } from "../host/metadata-keys.ts";
import { type MetadataServer, startMetadataServer } from "../host/metadata-server.ts";
import { hostNameServers } from "../host/name-servers.ts";
import { GUEST_MTU } from "../host/net/tap.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { type Config, zonesOf } from "../model/config.ts";
import { METADATA_ADDRESS, type PortDirectory } from "../model/network-names.ts";
import type { Store } from "../model/store.ts";
import { dhcpService } from "../vpc/dhcp-service.ts";
import { type IdentitySigner, identitySigner, newIdentityKeys } from "../vpc/metadata/identity.ts";
import { metadataService } from "../vpc/metadata/service.ts";

export interface GuestServersOptions {
  readonly config: Config;
  readonly dataDir: string;
  readonly store: Store;
  readonly directory: PortDirectory;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

const METADATA_PORT = 80;
const DHCP_PORT = 67;

export class GuestServers {
  readonly #options: GuestServersOptions;
  #metadata: MetadataServer | undefined;
  #dhcp: DhcpServer | undefined;
  #signer: IdentitySigner | undefined;
  #nameServers: readonly string[] = [];
  #listening: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: GuestServersOptions) {
    this.#options = options;
  }

  /** Listens where it does not yet. Attempts run one after another; one that fails is logged, and the next may succeed. */
  listen(): void {
    this.#listening = this.#listening.then(() => this.#attempt());
  }

  /** PEM of the certificate that instance identity documents verify with; undefined until it is there. */
  identityCertificate(): string | undefined {
    return this.#signer?.certificatePem;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#listening;
    this.#metadata?.stop();
    this.#dhcp?.stop();
  }

  async #attempt(): Promise<void> {
    const { config, store, directory, log } = this.#options;
    if (this.#stopped) return;
    if (!this.#dhcp) {
      this.#nameServers = config.network.dnsServers ?? (await hostNameServers());
      const service = dhcpService({
        read: () => store.read(),
        directory,
        settings: () => ({ nameServers: this.#nameServers, mtu: GUEST_MTU }),
        log,
      });
      const started = await startDhcpServer({ hostname: METADATA_ADDRESS, port: DHCP_PORT, service, log });
      if (started.ok) this.#dhcp = started.value;
      else log.warn("dhcp.not-listening", { reason: started.error.message });
    }
    if (!this.#metadata) await this.#startMetadata();
  }

  async #startMetadata(): Promise<void> {
    const { config, dataDir, store, directory, clock, random, log } = this.#options;
    const tokenKey = await loadTokenKey(dataDir, random);
    if (!tokenKey.ok) return log.error("metadata.no-token-key", { reason: tokenKey.error.message });
    void this.#loadSigner();
    const service = metadataService({
      read: () => store.read(),
      directory,
      clock,
      random,
      tokenKey: tokenKey.value,
      signer: () => this.#signer,
      zones: zonesOf(config),
    });
    const started = startMetadataServer({ hostname: METADATA_ADDRESS, port: METADATA_PORT, service, log });
    if (started.ok) this.#metadata = started.value;
    else log.warn("metadata.not-listening", { reason: started.error.message });
  }

  /** The signer takes a while to make, at the first start only; until then documents are there and signatures are not. */
  async #loadSigner(): Promise<void> {
    const { config, dataDir, clock, random, log } = this.#options;
    if (this.#signer) return;
    const keys = await loadIdentityKeys(dataDir, () => newIdentityKeys(config.region, clock.now(), random));
    if (!keys.ok) return log.error("metadata.no-identity-key", { reason: keys.error.message });
    try {
      this.#signer = identitySigner(keys.value);
    } catch (cause) {
      log.error("metadata.bad-identity-key", { cause });
    }
  }
}
