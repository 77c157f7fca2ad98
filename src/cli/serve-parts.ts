/** What a server and its worker processes make of the command line alike. */
import { digestOf } from "../config/api-keys.ts"
import { emptyConfig, parseConfig, readConfig, type ServerConfig } from "../config/file.ts"
import { checkTenants } from "../config/tenants.ts"
import type { PolicyOptions } from "../core/options.ts"
import { UserError } from "../errors.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import { countTogether } from "../serve/shared-rates.ts"
import { type TenantOptions, Tenants } from "../serve/tenants.ts"
import type { Siblings } from "../siblings/siblings.ts"
import type { Reporter } from "./reporter.ts"
import type { ReadyEngine } from "./serve-engine.ts"
import type { ServeOptions } from "./serve-options.ts"
import type { WarmUpOptions } from "./warm-up-replica.ts"
import { warmed } from "./warmed.ts"

/** V8 would let garbage grow to several times what lives, then stop for all of it at once
 * (bench/results/heap-growth.json). */
export const HEAP_GROWTH = "--heap-growing-percent=50"

export function configOf({ config, configText }: Pick<ServeOptions, "config" | "configText">): ServerConfig {
  if (config === undefined) return emptyConfig()
  return configText === undefined ? readConfig(config) : parseConfig(configText, config)
}

/** Classes that a config may gain while its server runs: what is learnt of each has its room from the start. */
const MORE_CLASSES = 16

/** Of the server, for as long as it runs: without a file there are no others. */
export function mostApps({ config: path }: Pick<ServeOptions, "config">, { classes }: ServerConfig): number {
  return classes.all.length + (path === undefined ? 0 : MORE_CLASSES)
}

type Tenancy = Pick<
  ServeOptions,
  "tenant" | "requireKey" | "trustFairnessId" | "sharePrefixes" | "objectives"
>

/** `siblings`: processes that serve the same keys. */
export function tenantsOf(options: Tenancy, config: ServerConfig, siblings: Siblings | null = null): Tenants {
  const together = siblings === null ? {} : { countRates: countTogether(siblings) }
  return new Tenants({ ...tenancyOf(options, config), ...together })
}

/** Tenants of the config, then those of the command line. Throws UserError where they do not go together. */
export function tenancyOf(options: Tenancy, { tenants: named, keys }: ServerConfig): TenantOptions {
  const { requireKey, trustFairnessId, sharePrefixes, objectives } = options
  const tenants = [...named, ...(options.tenant ?? [])]
  checkTenants(tenants)
  const owners = new Map(keys.map(({ digest, name }) => [digest, name]))
  for (const { name, keys: own } of options.tenant ?? [])
    for (const key of own) {
      const other = owners.get(digestOf(key))
      if (other !== undefined)
        throw new UserError(`tenant ${name} has the same key as keys.${other} of the config`)
    }
  if (!requireKey && keys.length === 0 && tenants.every((tenant) => tenant.keys.length === 0))
    throw new UserError("--no-require-key: no tenant has a key; give keys with --tenant or in the config")
  return {
    ...{ tenants, keys, requireKey, objectives },
    ...(trustFairnessId !== undefined && { trustHeader: trustFairnessId }),
    ...(sharePrefixes !== undefined && { sharePrefixes }),
  }
}

/** Only what was given: the rest follows from the profile. */
function policyOptions(options: ServeOptions): Partial<PolicyOptions> {
  const { margin, maxBatchMs, bestEffortMs, tokenBudget, admission, speculate, maxSpeculation } = options
  return {
    ...(speculate !== "off" && { speculation: "on", maxSpeculation }),
    ...(margin !== undefined && { margin }),
    ...(maxBatchMs !== undefined && { maxBatchUs: maxBatchMs * 1000 }),
    ...(bestEffortMs !== undefined && { bestEffortBatchUs: bestEffortMs * 1000 }),
    ...(tokenBudget !== undefined && { tokenBudget }),
    ...(admission !== undefined && { admission }),
  }
}

/** Beside what a start waits for anyway. */
export async function warmedUp(
  warmUp: (options: WarmUpOptions, forMs: number) => Promise<number>,
  options: ServeOptions,
  { classes }: Pick<ServerConfig, "classes">,
  reporter: Reporter,
): Promise<void> {
  // Made for trying things out, and for tests: those wait for its start more often than for its answers.
  if (options.engine === "fake") return
  const warm = { classes, policy: options.policy, policyOptions: policyOptions(options) }
  await warmed((forMs) => warmUp(warm, forMs), reporter)
}

export function openDriver(
  options: ServeOptions,
  { engine, cost, apps, tenants }: ReadyEngine & { apps: number; tenants: Tenants },
  reporter: Reporter,
): ReplicaDriver {
  return new ReplicaDriver({
    engine,
    config: {
      limits: engine.limits,
      cost,
      policy: options.policy,
      apps,
      tenantWeights: tenants.weights,
      maxQueue: options.maxQueue,
      options: policyOptions(options),
    },
    log: (message, level) => reporter.log[level](message),
    watch: { leastUs: options.stepTimeout === 0 ? Number.POSITIVE_INFINITY : options.stepTimeout * 1e6 },
  })
}
