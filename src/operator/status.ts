/** What `hive status` shows. */
export interface StatusReport {
  readonly version: string;
  readonly endpoint: string;
  readonly region: string;
  readonly accountId: string;
  readonly uptimeMs: number;
  readonly node: {
    readonly id: string;
    readonly zone: string;
    readonly roles: readonly string[];
    readonly accel: string;
    readonly accelReason: string;
    readonly vcpus: { readonly physical: number; readonly allocatable: number; readonly used: number };
    readonly memoryMib: { readonly physical: number; readonly allocatable: number; readonly used: number };
  };
  readonly network: { readonly mode: string; readonly ok: boolean; readonly reason: string };
  readonly store: { readonly writable: boolean; readonly revision: number; readonly reason?: string };
  /** Instances by the state that AWS shows. */
  readonly instances: Readonly<Record<string, number>>;
  readonly memoryBytes: number;
}
