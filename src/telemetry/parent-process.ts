/** Of a parent that serves by its processes: what it takes itself, for it is part of what they take together. */
import { collectDefaultMetrics, Registry } from "prom-client"

/** Figures of Node's own (its event loop, its garbage) are of the processes that serve: a mean with an idle parent's says nothing. */
export function parentProcess(): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  for (const { name } of registry.getMetricsAsArray())
    if (!name.startsWith("process_")) registry.removeSingleMetric(name)
  return registry
}
