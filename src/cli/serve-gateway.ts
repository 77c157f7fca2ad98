/** `serve` before other servers that compute: no engine is loaded here. */
import { type BackendConfig, checkBackends } from "../config/backends.ts"
import type { SloClasses } from "../config/slo-classes.ts"
import { UserError } from "../errors.ts"
import { openGateway } from "../fleet/backends/gateway.ts"
import { Fleet } from "../fleet/fleet.ts"
import { ToldPlacements } from "../fleet/told-placements.ts"
import type { Front } from "../serve/front.ts"
import type { ServiceHost } from "../serve/service.ts"
import type { Tenants } from "../serve/tenants.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { Reporter } from "./reporter.ts"
import type { ServeOptions } from "./serve-options.ts"
import { warmUpGateway } from "./warm-up.ts"
import { warmed } from "./warmed.ts"

/** What is shown in a policy's place: each backend has its own. */
export const GATEWAY = "gateway"

/** A backend that stands still amid a stream has lost it after this share of the time that it has to begin one. */
const SILENCE_SHARE = 0.2

export interface GatewayParts {
  backends: readonly BackendConfig[]
  file: string | undefined
}

/** null: the server has an engine of its own. Throws UserError for backends that cannot be meant. */
export function gatewayOf(options: ServeOptions, configured: readonly BackendConfig[]): GatewayParts | null {
  const backends = [...configured, ...(options.backend ?? [])]
  const file = options.backendFile
  if (backends.length === 0 && file === undefined) return null
  checkBackends(backends)
  checkNotItself(backends, options)
  return { backends, file }
}

/** Throws UserError where several processes cannot serve as one. `checkParts`: of what each has its part. */
export function checkSeveral(
  { gateways, maxQueue }: Pick<ServeOptions, "gateways" | "maxQueue">,
  gateway: GatewayParts | null,
): void {
  if (gateway === null)
    throw new UserError(
      `--gateways ${gateways} is of a gateway, and there are no backends: give them (--backend), or leave it out; ` +
        "--replicas has processes that compute",
    )
  checkParts({ gateways, maxQueue })
}

export function checkParts({ gateways, maxQueue }: Pick<ServeOptions, "gateways" | "maxQueue">): void {
  if (maxQueue < gateways)
    throw new UserError(
      `--max-queue ${maxQueue} is less than --gateways ${gateways}: each of them has its part of the queue`,
    )
}

export interface BackendParts {
  host: ServiceHost
  tenants: Tenants
  apps: number
  warm: Promise<void>
  /** Default: there are none. */
  siblings?: Siblings | null
}

/** It would wait for itself for ever: its default port is that of other engines as well. */
function checkNotItself(
  backends: readonly BackendConfig[],
  { host, port }: Pick<ServeOptions, "host" | "port">,
): void {
  const own = addressOf(host)
  const anywhere = own === "0.0.0.0" || own === "::"
  const itself = backends.find(({ url }) => {
    const { hostname, port: its, protocol } = new URL(url)
    const address = addressOf(hostname)
    const isHere = address === own || (anywhere && (address.startsWith("127.") || address === "::1"))
    return isHere && Number(its || (protocol === "https:" ? 443 : 80)) === port
  })
  if (itself === undefined) return
  throw new UserError(
    `the backend ${itself.url} would be this server itself, which listens on port ${port}; give the engine's port, or ` +
      "another --port here",
  )
}

const addressOf = (host: string) => (host === "localhost" ? "127.0.0.1" : host.replace(/^\[|\]$/g, ""))

/** Beside what a gateway's start waits for: its engines may take minutes, or be there already. */
export function warmedGateway(classes: SloClasses, reporter: Reporter): Promise<void> {
  return warmed((forMs) => warmUpGateway({ classes }, forMs), reporter)
}

/** Resolves once a backend is ready, and `warm` is over. */
export async function openBackends(
  { backends, file }: GatewayParts,
  options: Pick<ServeOptions, "maxQueue" | "servedName" | "backendTimeout">,
  { host, tenants, apps, warm, siblings = null }: BackendParts,
  reporter: Reporter,
): Promise<Front> {
  const { servedName, backendTimeout } = options
  const maxQueue = siblings?.partOf(options.maxQueue) ?? options.maxQueue
  const firstByteMs = backendTimeout * 1000
  const log = (message: string, level: "warn" | "info" | "error") => reporter.log[level](message)
  const placements = siblings === null ? null : new ToldPlacements(siblings)
  const fleet = new Fleet({ texts: true, log, ...(placements && { placed: placements.placed }) })
  placements?.hearInto(fleet)
  const { front } = await openGateway({
    ...{ backends, apps, maxQueue, tenants, log, siblings, fleet },
    ...(file !== undefined && { file }),
    ...(servedName !== undefined && { servedName }),
    timeouts: { firstByteMs, silenceMs: SILENCE_SHARE * firstByteMs },
    waiting: (detail) => {
      host.detail = detail
    },
  })
  host.detail = "it is warming up"
  await warm
  return front
}
