/** A worker process of `slos-serve serve --replicas`: one replica, its engine, driver and text side, behind a pipe to the
 * server that started it. Not a command for people. */
import { Socket } from "node:net"
import { setFlagsFromString } from "node:v8"
import { pino } from "pino"
import { emptyConfig } from "../config/file.ts"
import { UserError } from "../errors.ts"
import { type FromWorker, isToWorker, type ToWorker, WIRE_FD } from "../fleet/worker-messages.ts"
import { InProcessHost } from "../serve/in-process.ts"
import { LocalFront } from "../serve/local-front.ts"
import { Tenants } from "../serve/tenants.ts"
import { WireServer } from "../wire/server.ts"
import type { Reporter } from "./reporter.ts"
import { prepareEngine } from "./serve-engine.ts"
import type { ServeOptions } from "./serve-options.ts"
import { HEAP_GROWTH, openDriver, warmedUp } from "./serve-parts.ts"
import { warmUpWorker } from "./warm-up-replica.ts"

/** All that a worker is: it reads no config, which may be half written, or another one by now, when it is started again. */
export interface WorkerSetup {
  name: string
  options: ServeOptions
  /** Most classes that there can be. */
  apps: number
  tenants: ToWorker["tenants"]
  trustHeader: boolean
}

/** Everything is told to the parent: it knows how people are to be told. */
class ParentReporter implements Reporter {
  readonly log = pino(
    { level: "debug", base: null },
    {
      write: (line: string) => {
        const { level, msg } = JSON.parse(line) as { level: number; msg: string }
        tell({ type: "log", level: pino.levels.labels[level] as "info", message: String(msg) })
      },
    },
  )
  begin(what: string): void {
    tell({ type: "doing", what })
  }
  progress(what: string): void {
    tell({ type: "doing", what })
  }
  done(what: string): void {
    tell({ type: "doing", what })
  }
  warn(what: string): void {
    tell({ type: "log", level: "warn", message: what })
  }
  say(): void {}
}

function tell(message: FromWorker): void {
  process.send?.(message, undefined, {}, () => {})
}

/** Told before its driver was there: it holds then. */
let renewed: ToWorker | null = null
let renew = (told: ToWorker): void => {
  renewed = told
}

async function work({ name, options, apps, tenants: first, trustHeader }: WorkerSetup): Promise<void> {
  setFlagsFromString(HEAP_GROWTH)
  const reporter = new ParentReporter()
  const { sharePrefixes = false } = options
  // Keys are the parent's: what comes here has its tenant's name.
  const tenancy = (named: ToWorker["tenants"]) => ({
    tenants: named.map((tenant) => ({ ...tenant, keys: [] })),
    ...{ trustHeader, sharePrefixes },
  })
  const tenants = new Tenants(tenancy(first))
  const warm = warmedUp(warmUpWorker, options, emptyConfig(), reporter)
  const { engine, cost } = await prepareEngine(options, reporter, warm)
  const driver = openDriver(options, { engine, cost, apps, tenants }, reporter)
  const { defaultMaxTokens, parseSpecial } = options
  const front = new LocalFront(engine, driver, { defaultMaxTokens, parseSpecial, tenants })
  await front.intake.warmUp()
  renew = ({ maxQueue, tenants: told }) => {
    tenants.renew(tenancy(told))
    driver.renew(maxQueue, tenants.weights)
  }
  if (renewed !== null) renew(renewed)
  const host = new InProcessHost(front.intake, name)
  const socket = new Socket({ fd: WIRE_FD, readable: true, writable: true })
  new WireServer(socket, host, { owned: true, onEnd: () => process.exit(0) })
  tell({ type: "ready" })
}

process.on("message", (message) => {
  if (isToWorker(message)) renew(message)
})
process.once("message", (setup) => {
  work(setup as WorkerSetup).catch((error: Error) => {
    const message = error instanceof UserError ? error.message : (error.stack ?? error.message)
    process.send?.({ type: "failed", message, user: error instanceof UserError }, () => process.exit(1))
  })
})
// The parent drains it when it is told to stop; a terminal's Ctrl+C comes to both.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"] as const) process.on(signal, () => {})
// Without its parent it is of no use.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"))
