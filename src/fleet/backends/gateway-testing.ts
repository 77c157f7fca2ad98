/** For tests: a whole gateway over HTTP, and a client's library before it. */
import type { AddressInfo } from "node:net"
import OpenAI from "openai"
import { parseInlineBackend } from "../../config/backends.ts"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { buildServer } from "../../http/server.ts"
import { Service, ServiceHost } from "../../serve/service.ts"
import { Tenants } from "../../serve/tenants.ts"
import { Fleet } from "../fleet.ts"
import { openGateway } from "./gateway.ts"

/** Before these backends, each as `--backend` has it. Its model's name is "ours". */
export async function openTestGateway(backends: readonly string[]) {
  const classes = defaultSloClasses()
  const tenants = new Tenants()
  const fleet = new Fleet({ texts: true })
  const said: string[] = []
  const waits: string[] = []
  const opening = openGateway({
    ...{ fleet, tenants, maxQueue: 100, apps: classes.all.length, probeMs: 20, servedName: "ours" },
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
