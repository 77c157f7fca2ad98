/** A server whose replicas are worker processes: each with its share of threads, KV and sequences, behind one router. */
import { Fleet } from "../fleet/fleet.ts"
import { FleetFront } from "../fleet/fleet-front.ts"
import { WorkerProcess } from "../fleet/worker-process.ts"
import type { Front } from "../serve/front.ts"
import type { Tenants } from "../serve/tenants.ts"
import type { Reporter } from "./reporter.ts"
import type { ServeOptions } from "./serve-options.ts"
import type { WorkerSetup } from "./serve-worker.ts"
import { parseDevices, shareOf, spawnWorker } from "./spawn-worker.ts"

/** Resolves when every worker is ready. Rejects when the operator must put something right first. */
export async function openFleet(
  options: ServeOptions,
  { apps, tenants }: { apps: number; tenants: Tenants },
  reporter: Reporter,
): Promise<Front> {
  const { replicas, maxQueue } = options
  const { trustsHeader: trustHeader, named } = tenants
  const devices = options.device === undefined ? [] : parseDevices(options.device)
  const shares = Array.from({ length: replicas }, (_, i) =>
    shareOf(options, replicas, devices[i % devices.length]),
  )
  const workers: WorkerProcess[] = []
  try {
    // One after the other: the first may fetch the model and measure its step times, which the others would disturb.
    for (const [i, share] of shares.entries()) {
      const device = devices[i % devices.length]
      const setup: WorkerSetup = { name: `w${i}`, options: share, apps, tenants: named, trustHeader }
      const worker = new WorkerProcess({
        ...{ name: setup.name, spawn: () => spawnWorker(device), setup },
        log: (message, level) => (level === "warn" ? reporter.warn(message) : reporter.log[level](message)),
      })
      workers.push(worker)
      const tell = () => reporter.progress(`replica ${worker.name}: ${worker.detail}`)
      const stop = worker.onState(tell)
      await worker.ready()
      stop()
      reporter.done(`replica ${worker.name} is ready (process ${worker.pid})`)
    }
  } catch (error) {
    await Promise.all(workers.map((worker) => worker.close()))
    throw error
  }
  const fleet = new Fleet({
    hosts: workers,
    log: (message, level) => reporter.log[level](message),
  })
  const { info } = workers[0]!
  return new FleetFront({ fleet, hosts: workers, info: info!, maxQueue, tenants, refusesDown: true })
}
