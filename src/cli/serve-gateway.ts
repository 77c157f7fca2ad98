/** `serve` before other servers that compute: no engine is loaded here. */
import { type BackendConfig, checkBackends } from "../config/backends.ts"
import type { SloClasses } from "../config/slo-classes.ts"
import { openGateway } from "../fleet/backends/gateway.ts"
import { Fleet } from "../fleet/fleet.ts"
import type { Front } from "../serve/front.ts"
import type { ServiceHost } from "../serve/service.ts"
import type { Tenants } from "../serve/tenants.ts"
import type { Reporter } from "./reporter.ts"
import type { ServeOptions } from "./serve-options.ts"
import { warmed } from "./serve-parts.ts"
import { warmUpGateway } from "./warm-up.ts"

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
  return { backends, file }
}

/** Beside what a gateway's start waits for: its engines may take minutes, or be there already. */
export function warmedGateway(classes: SloClasses, reporter: Reporter): Promise<void> {
  return warmed((forMs) => warmUpGateway({ classes }, forMs), reporter)
}

/** Resolves once a backend is ready, and `warm` is over. */
export async function openBackends(
  { backends, file }: GatewayParts,
  options: Pick<ServeOptions, "maxQueue" | "servedName" | "backendTimeout">,
  { host, tenants, apps, warm }: { host: ServiceHost; tenants: Tenants; apps: number; warm: Promise<void> },
  reporter: Reporter,
): Promise<Front> {
  const { maxQueue, servedName, backendTimeout } = options
  const firstByteMs = backendTimeout * 1000
  const log = (message: string, level: "warn" | "info" | "error") => reporter.log[level](message)
  const { front } = await openGateway({
    ...{ backends, apps, maxQueue, tenants, log },
    ...(file !== undefined && { file }),
    ...(servedName !== undefined && { servedName }),
    timeouts: { firstByteMs, silenceMs: SILENCE_SHARE * firstByteMs },
    fleet: new Fleet({ texts: true, log }),
    waiting: (detail) => {
      host.detail = detail
    },
  })
  host.detail = "it is warming up"
  await warm
  return front
}
