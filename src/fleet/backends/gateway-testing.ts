/** For tests: a whole gateway over HTTP, and a client's library before it. */
import type { AddressInfo } from "node:net"
import OpenAI from "openai"
import { parseInlineBackend } from "../../config/backends.ts"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { buildServer } from "../../http/server.ts"
import { Service, ServiceHost } from "../../serve/service.ts"
import { Tenants } from "../../serve/tenants.ts"
import type { Siblings } from "../../siblings/siblings.ts"
import { Fleet } from "../fleet.ts"
import { ToldPlacements } from "../told-placements.ts"
import { openGateway } from "./gateway.ts"

/** Before these backends, each as `--backend` has it. Its model's name is "ours". */
export async function openTestGateway(backends: readonly string[], siblings: Siblings | null = null) {
  const classes = defaultSloClasses()
  const tenants = new Tenants()
  const told = siblings === null ? null : new ToldPlacements(siblings)
  const fleet = new Fleet({ texts: true, ...(told && { placed: told.placed }) })
  told?.hearInto(fleet)
  const said: string[] = []
  const waits: string[] = []
  const opening = openGateway({
    ...{ fleet, tenants, siblings, maxQueue: 100, apps: classes.all.length, servedName: "ours" },
    // What siblings tell is to be seen apart from what engines do.
    probeMs: siblings === null ? 20 : 60_000,
    backends: backends.map((spec) => parseInlineBackend(spec, "--backend")),
    log: (message) => said.push(message),
    waiting: (detail) => waits.push(detail),
  })
  const { front, close } = await opening
  const host = new ServiceHost(tenants)
  const app = buildServer({ host })
  host.ready(new Service({ front, classes, policy: "gateway", tenants }))
  await app.listen({ port: 0 })
  const { port } = app.server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  return {
    url,
    said,
    waits,
    front,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }),
    async close() {
      await app.close()
      await close()
    },
  }
}
