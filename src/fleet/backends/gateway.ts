/** A front whose replicas are all backends: they join and leave a fleet while it serves. */
import type { HostInfo, ReplicaHost } from "../../replica/host.ts"
import type { Front } from "../../serve/front.ts"
import type { Tenants } from "../../serve/tenants.ts"
import { FleetFront, type JobTaker } from "../fleet-front.ts"
import { BackendSet, type BackendSetOptions } from "./backend-set.ts"

/** Decides which backend has which job. */
export interface BackendFleet extends JobTaker {
  /** To leave again it is drained. */
  join(host: ReplicaHost): void
}

export interface GatewayOptions extends BackendSetOptions {
  fleet: BackendFleet
  maxQueue: number
  tenants: Tenants
  /** The model's name in the API. Default: what the first backend calls it, or its operator does. */
  servedName?: string
  /** What is being waited for, each time that it changes. */
  waiting: (detail: string) => void
}

export interface Gateway {
  front: Front
  close(): Promise<void>
}

/** Resolves once a backend is ready. Throws UserError for options that cannot be meant. */
export async function openGateway(options: GatewayOptions): Promise<Gateway> {
  const { fleet, maxQueue, tenants, servedName, waiting } = options
  let front: FleetFront | null = null
  const there = new Set<ReplicaHost>()
  let found: (info: HostInfo) => void
  const first = new Promise<HostInfo>((resolve) => {
    found = resolve
  })
  const look = (host: ReplicaHost) => {
    if (host.state === "ready" && host.info !== null) found(host.info)
    else if (front === null) waiting(`no backend is there yet (${[...there].map(told).join("; ")})`)
  }
  const sink = {
    joined(host: ReplicaHost) {
      there.add(host)
      fleet.join(host)
      front?.join(host)
      host.onState(() => look(host))
      look(host)
    },
    leaves(host: ReplicaHost) {
      there.delete(host)
      front?.leave(host)
    },
  }
  const set = await BackendSet.open(options, sink).catch(async (error: unknown) => {
    await fleet.close()
    throw error
  })
  if (set.hosts.length === 0) waiting("there are no backends yet")
  const info = await first
  const named = servedName === undefined ? info : { ...info, model: { ...info.model, name: servedName } }
  front = new FleetFront({
    ...{ fleet, hosts: [...there], info: named, maxQueue, tenants },
    ...{ bodies: true, refusesDown: true },
  })
  return { front, close: () => set.close() }
}

function told({ name, detail }: ReplicaHost): string {
  return `${name}: ${detail}`
}
