/** What a server and its worker processes make of the command line alike. */
import { defaultSloClasses, readConfig, type ServerConfig, type SloClasses } from "../config/slo-classes.ts"
import { checkTenants } from "../config/tenants.ts"
import type { PolicyOptions } from "../core/options.ts"
import { UserError } from "../errors.ts"
import { ReplicaDriver } from "../replica/driver.ts"
import { Tenants } from "../serve/tenants.ts"
import type { Reporter } from "./reporter.ts"
import type { ReadyEngine } from "./serve-engine.ts"
import type { ServeOptions } from "./serve-options.ts"

/** V8 would let garbage grow to several times what lives, then stop for all of it at once
 * (bench/results/heap-growth.json). */
export const HEAP_GROWTH = "--heap-growing-percent=50"

export function configOf({ config }: Pick<ServeOptions, "config">): ServerConfig {
  return config === undefined
    ? { classes: defaultSloClasses(), tenants: [], backends: [] }
    : readConfig(config)
}

/** Those of the config, then those of the command line. */
export function tenantsOf(
  options: Pick<ServeOptions, "tenant" | "requireKey" | "trustFairnessId" | "sharePrefixes">,
  named: ServerConfig["tenants"],
): Tenants {
  const { requireKey, trustFairnessId, sharePrefixes } = options
  const tenants = [...named, ...(options.tenant ?? [])]
  checkTenants(tenants)
  if (!requireKey && tenants.every(({ keys }) => keys.length === 0))
    throw new UserError("--no-require-key: no tenant has a key; give keys with --tenant or in the config")
  return new Tenants({
    ...{ tenants, requireKey },
    ...(trustFairnessId !== undefined && { trustHeader: trustFairnessId }),
    ...(sharePrefixes !== undefined && { sharePrefixes }),
  })
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

export function openDriver(
  options: ServeOptions,
  { engine, cost, classes, tenants }: ReadyEngine & { classes: SloClasses; tenants: Tenants },
  reporter: Reporter,
): ReplicaDriver {
  return new ReplicaDriver({
    engine,
    config: {
      limits: engine.limits,
      cost,
      policy: options.policy,
      apps: classes.all.length,
      tenantWeights: tenants.weights,
      maxQueue: options.maxQueue,
      options: policyOptions(options),
    },
    log: (message, level) => reporter.log[level](message),
    watch: { leastUs: options.stepTimeout === 0 ? Number.POSITIVE_INFINITY : options.stepTimeout * 1e6 },
  })
}
