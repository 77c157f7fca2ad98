/** A planner at a socket of its own, with the server's pages where a test asks for them; closed after each test. */
import { mkdtempSync } from "node:fs"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { buildServer } from "../http/server.ts"
import { Service, ServiceHost } from "../serve/service.ts"
import type { EngineMessage } from "../wire/planner/messages.ts"
import { listenAt } from "./listen.ts"
import type { PlannerOptions } from "./planner-options.ts"
import { PlannerProcess } from "./planner-process.ts"
import { PlannerTenants } from "./planner-tenants.ts"
import { StepTimes } from "./step-times.ts"
import { PlayedEngine } from "./testing.ts"

const folder = mkdtempSync(join(tmpdir(), "planner-"))
const closers: (() => Promise<void> | void)[] = []
let paths = 0

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

/** What is learnt is not kept for the next test. */
const unkept: PlannerOptions["stepTimesOf"] = (engine) =>
  new StepTimes(engine, { cacheDir: null, log: () => {} })

export const freshPath = () => join(folder, `${++paths}.sock`)

export async function openPlanner(changes: Partial<PlannerOptions> = {}, path = freshPath()) {
  const said: string[] = []
  const planner = new PlannerProcess({
    ...{ classes: defaultSloClasses(), tenants: new PlannerTenants({}), policy: "slos-serve" },
    ...{ policyOptions: {}, stepTimesOf: unkept, maxLagUs: 5000, version: "0", recording: null },
    log: (message) => said.push(message),
    ...changes,
  })
  const socket = await listenAt(path, (connection) => planner.connect(connection))
  let over = false
  const close = async () => {
    if (over) return
    over = true
    await planner.goodbye("over")
    await socket.close()
  }
  closers.push(close)
  return { planner, path, said, close }
}

export async function openEngine(path: string, engine: Partial<EngineMessage> = {}): Promise<PlayedEngine> {
  const played = new PlayedEngine(engine)
  await played.connect(path)
  closers.push(() => played.disconnect())
  return played
}

/** Its HTTP port, as the command opens it. */
export async function openPages(planner: PlannerProcess): Promise<string> {
  const { tenants, classes, policy } = planner.options
  const host = new ServiceHost(tenants.all)
  const app = buildServer({ host })
  const service = new Service({ front: planner.front, classes, policy, tenants: tenants.all })
  planner.figures.register(service.metrics.registry, () => planner.sessions)
  host.ready(service)
  await app.listen({ host: "127.0.0.1", port: 0 })
  closers.push(async () => {
    await app.close()
    await service.close()
  })
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
}
