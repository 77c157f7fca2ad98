/** The way of a request, gone before the first one comes. V8 compiles what has run often: until it has, a request takes several times
 * the CPU time, of the cores that its engine computes on. Nothing here is the server's own: requests, model and figures are made up
 * for it (warm-up-replica.ts), and gone when it ends. */
import { duplexPair } from "node:stream"
import { text } from "node:stream/consumers"
import type { FastifyInstance } from "fastify"
import { parseInlineBackend } from "../config/backends.ts"
import type { SloClasses } from "../config/slo-classes.ts"
import { openGateway } from "../fleet/backends/gateway.ts"
import { Fleet } from "../fleet/fleet.ts"
import { FleetFront } from "../fleet/fleet-front.ts"
import { buildServer } from "../http/server.ts"
import type { Front } from "../serve/front.ts"
import { Service, ServiceHost } from "../serve/service.ts"
import { Tenants } from "../serve/tenants.ts"
import { madeUpBackend } from "./warm-up-backend.ts"
import { madeUpReplica, type WarmUpOptions, wiredReplica } from "./warm-up-replica.ts"
import { bodyOf, often } from "./warm-up-requests.ts"

/** A server with one replica in its process. Takes `forMs`, or less; resolves with how many requests it was. */
export function warmUpServer(options: WarmUpOptions, forMs: number): Promise<number> {
  return overHttp(madeUpReplica(options), options, forMs)
}

/** A server with worker processes. */
export async function warmUpParent(options: WarmUpOptions, forMs: number): Promise<number> {
  const hosts = [await wiredReplica(options), await wiredReplica(options)]
  const fleet = new Fleet({ hosts })
  const { info } = hosts[0]!
  return overHttp(new FleetFront({ fleet, hosts, info: info!, maxQueue: 1000 }), options, forMs)
}

/** A gateway before engines of others. */
export async function warmUpGateway(
  { classes }: Pick<WarmUpOptions, "classes">,
  forMs: number,
): Promise<number> {
  const backends = [await madeUpBackend(), await madeUpBackend()]
  try {
    const gateway = await openGateway({
      ...{
        fleet: new Fleet({ texts: true }),
        tenants: new Tenants(),
        maxQueue: 1000,
        apps: classes.all.length,
      },
      backends: backends.map(({ url }) => parseInlineBackend(`vllm=${url}`, "warm-up")),
      ...{ log: () => {}, waiting: () => {} },
    })
    try {
      return await overHttp(gateway.front, { classes, policy: "gateway" }, forMs)
    } finally {
      await gateway.close()
    }
  } finally {
    await Promise.all(backends.map((backend) => backend.close()))
  }
}

async function overHttp(
  front: Front,
  { classes, policy }: { classes: SloClasses; policy: string },
  forMs: number,
): Promise<number> {
  const service = new Service({ front, classes, policy, ownProcess: false })
  const host = new ServiceHost()
  host.ready(service)
  const app = buildServer({ host })
  await app.ready()
  try {
    return await often(forMs, (n) => ask(app, bodyOf(n)))
  } finally {
    await app.close()
    await service.close()
  }
}

/** As a client does, but for the socket. */
async function ask(app: FastifyInstance, { path, body }: ReturnType<typeof bodyOf>): Promise<void> {
  const [near, far] = duplexPair()
  app.server.emit("connection", far)
  const sent = JSON.stringify(body)
  const head = ["host: localhost", "content-type: application/json", `content-length: ${sent.length}`]
  near.write(`POST ${path} HTTP/1.1\r\n${head.join("\r\n")}\r\nconnection: close\r\n\r\n${sent}`)
  const answer = await text(near)
  near.destroy()
  if (!answer.startsWith("HTTP/1.1 200")) throw new Error(answer.slice(0, 300))
}
